"""`fsview certify` and `fsview verify`: sign a commit, and say who did."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from store.bounds import read_small
from store.check_commit import check_commit
from store.database import Reading
from store.detached import bounded_detached, change_detached
from store.errors import AccessError, CorruptionError, FormatError, FsviewError, NotFoundError
from store.findings import Finding
from store.objects import Checksum, Metadata, checksum_of
from store.repository import Repository
from store.revisions import resolve, split_path
from store.schema import CommitNumber
from store.tree import commit_number, commit_record
from tools.parameters import REVISION, repository_option
from tools.render import count_text, one_line, print_json, progress, say
from tools.signing.ed25519 import PublicKey, SecretKey
from tools.signing.judging import Verdict, judge
from tools.signing.key_lists import parse_public_keys
from tools.signing.secrets import load_secret_key
from tools.signing.stored import with_signature, without_signatures
from tools.signing.trusted import TrustedKeys

TRUSTED_VARIABLE: Final = "FSVIEW_TRUSTED"
_FINDINGS_SHOWN: Final = 20


def certify(repository: Repository, checksum: Checksum, keys: Sequence[SecretKey]) -> bool:
    """Sign a commit with each of *keys*; whether that changed anything, for a key signs once.

    Raises:
        CorruptionError: the commit is not what its checksum says.
        NotFoundError: it is gone.
    """

    def sign(raw: bytes, metadata: Metadata) -> Metadata:
        _check_raw(repository, checksum, raw)
        for key in keys:
            metadata = with_signature(metadata, key, checksum, raw)
        return metadata

    return change_detached(repository, checksum, sign)


def withdraw(repository: Repository, checksum: Checksum, keys: Sequence[PublicKey]) -> bool:
    """Delete the signatures of a commit by any of *keys*; whether there were some."""

    def remove(raw: bytes, metadata: Metadata) -> Metadata:
        for key in keys:
            metadata = without_signatures(metadata, key, raw)
        return metadata

    return change_detached(repository, checksum, remove)


def verify(repository: Repository, checksum: Checksum, trusted: TrustedKeys) -> list[Verdict]:
    """Return what is to be said of the signatures of a commit."""
    with repository.database.reading() as reading:
        number = _number(reading, checksum)
        raw = commit_record(reading, number).raw
        detached = bounded_detached(reading, number)
    _check_raw(repository, checksum, raw)
    return judge(raw, detached, trusted)


def check_tree(repository: Repository, checksum: Checksum) -> list[Finding]:
    """Return what is wrong with a commit and all that it reaches."""
    with repository.database.reading() as reading:
        total = commit_record(reading, _number(reading, checksum)).entries
    with repository.lock(), progress("Checking", total) as advance:
        return list(check_commit(repository, checksum, advance))


def _number(reading: Reading, checksum: Checksum) -> CommitNumber:
    number = commit_number(reading, checksum)
    if number is None:
        raise NotFoundError(f"the commit {checksum.hex()} is gone; a prune deleted it meanwhile")
    return number


def _check_raw(repository: Repository, checksum: Checksum, raw: bytes) -> None:
    found = checksum_of(raw)
    if found != checksum:
        raise CorruptionError("a commit", str(repository.path / "index"), f"sha256 {checksum.hex()}", found.hex())


def _ask_passphrase(path: Path) -> str:
    """Ask on the terminal, as ssh does, whatever the standard streams are."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise AccessError(
            f"the key {path} is encrypted, and there is no terminal to ask for the passphrase; run this on a "
            f"terminal, or take the passphrase off a copy of the key with: ssh-keygen -p -f COPY"
        ) from None
    return getpass.getpass(f"Passphrase of {path}: ")


def _public_keys(paths: Iterable[Path]) -> list[PublicKey]:
    """Return the public keys of files of either half: to delete needs no secret."""
    found: list[PublicKey] = []
    for path in paths:
        try:
            keys = list(parse_public_keys(str(path), read_small(path)))
        except FormatError:
            keys = [load_secret_key(path, _ask_passphrase).public]
        if not keys:
            raise FormatError(f"{path} has no Ed25519 key in it")
        found += keys
    return found


def _commit_named(repository: Repository, revision: str) -> Checksum:
    with repository.database.reading() as reading:
        if split_path(reading, revision)[1] is not None:
            raise click.UsageError(f"{revision}: signed are whole commits; leave out the path")
        return commit_record(reading, resolve(reading, revision, now_s=int(time.time()))).checksum


CERTIFY_EXAMPLES = """
\b
Examples:
  ssh-keygen -t ed25519 -f release                 make a key: release, and release.pub to be given away
  fsview certify debian/12 --key release
  fsview certify debian/12 --key release --key second
  fsview certify debian/12 --delete --key release.pub

\b
A key is a file of ssh-keygen's (Ed25519; for an encrypted one the terminal is asked for the passphrase), or one of
OSTree's: base64 of the 64 bytes. What is stored is OSTree's "ostree.sign.ed25519" of the commit's bytes, which name the
sha256 of all that is in the tree. The commit's checksum stays as it is.
"""


@click.command("certify", epilog=CERTIFY_EXAMPLES)
@click.argument("revision", type=REVISION)
@click.option(
    "--key", "keys", metavar="FILE", multiple=True, required=True, type=click.Path(path_type=Path),
    help="Sign with this secret key; may be given several times.",
)  # fmt: skip
@click.option("--delete", is_flag=True, help="Delete the signatures by these keys, of which the public half suffices.")
@click.option("--json", "in_json", is_flag=True, help="A JSON object: commit, keys, changed.")
@repository_option
def certify_command(repository: Repository, revision: str, keys: tuple[Path, ...], delete: bool, in_json: bool) -> None:
    """Sign the commit REVISION, and so its whole tree."""
    checksum = _commit_named(repository, revision)
    if delete:
        public = _public_keys(keys)
        changed = withdraw(repository, checksum, public)
        said = "deleted the signatures by" if changed else "there was no signature by"
    else:
        secret = [load_secret_key(path, _ask_passphrase) for path in keys]
        public = [key.public for key in secret]
        changed = certify(repository, checksum, secret)
        said = "signed by" if changed else "was already signed by"
    fingerprints = [key.fingerprint for key in public]
    if in_json:
        print_json({"commit": checksum.hex(), "keys": fingerprints, "changed": changed})
        return
    print(f"commit {checksum.hex()}: {said} {', '.join(fingerprints)}")
    if delete and not changed:
        click.get_current_context().exit(1)


VERIFY_EXAMPLES = """
\b
Examples:
  fsview verify debian/12 --trusted release.pub
  fsview verify debian/12 --trusted allowed_signers --trusted ostree.pub --tree
  fsview verify debian/12 --trusted /usr/share/keyrings/vendor.gpg
  FSVIEW_TRUSTED=a.pub:b.pub fsview verify --json debian/12 | jq -r '.signatures[] | select(.trusted).name'

\b
Files of trusted keys are: public keys of OpenSSH's, or lists of them (allowed_signers, authorized_keys); OSTree's, in
base64, one a line; GPG keyrings, armoured or not (verified by gpgv). Without --trusted: those of FSVIEW_TRUSTED. A file
that anybody but root and you could have written is refused.
Exit status 0: there is a valid signature by a trusted key, and with --tree every byte is as it was signed. 1: there is
none. 12: something is damaged.
"""


@click.command("verify", epilog=VERIFY_EXAMPLES)
@click.argument("revision", type=REVISION)
@click.option(
    "--trusted", "--key", "paths", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
    help="Trust the keys in this file; may be given several times.",
)  # fmt: skip
@click.option("--tree", is_flag=True, help="Also compare every object that the commit reaches with its sha256.")
@click.option("--json", "in_json", is_flag=True, help="A JSON object: commit, certified, signatures, damage.")
@repository_option
def verify_command(repository: Repository, revision: str, paths: tuple[Path, ...], tree: bool, in_json: bool) -> None:
    """Say who signed the commit REVISION, and whether a trusted key did."""
    checksum = _commit_named(repository, revision)
    trusted = TrustedKeys.load(paths or _default_trust())
    verdicts = verify(repository, checksum, trusted)
    findings = check_tree(repository, checksum) if tree else []
    certified = any(one.is_valid and one.is_trusted for one in verdicts) and not findings
    if in_json:
        signatures = [_verdict_json(verdict) for verdict in verdicts]
        more = {"damage": [str(finding) for finding in findings]} if tree else {}
        print_json({"commit": checksum.hex(), "certified": certified, "signatures": signatures, **more})
    else:
        print(f"commit {checksum.hex()}")
        print("\n".join(f"  {line}" for line in _lines(verdicts, trusted, tree and not findings)))
    if findings:
        raise _damage(checksum, findings)
    if not certified:
        click.get_current_context().exit(1)


def _default_trust() -> list[Path]:
    return [Path(name) for name in os.environ.get(TRUSTED_VARIABLE, "").split(os.pathsep) if name]


def _verdict_json(verdict: Verdict) -> dict[str, object]:
    values = asdict(verdict)
    return {name.removeprefix("is_"): value for name, value in values.items()}


def _lines(verdicts: list[Verdict], trusted: TrustedKeys, is_whole: bool) -> list[str]:
    lines = [one_line(verdict.text) for verdict in verdicts] or ["it has no signature; 'fsview certify' makes one"]
    if not trusted:
        lines.append(f"no key is trusted: name files of keys with --trusted, or in {TRUSTED_VARIABLE}")
    return lines + ["every object that it reaches has its sha256"] * is_whole


def _damage(checksum: Checksum, findings: list[Finding]) -> FsviewError:
    for finding in findings[:_FINDINGS_SHOWN]:
        say(one_line(str(finding)))
    where = f"the tree of {checksum.hex()[:12]}"
    return CorruptionError(where, "the repository", "sha256 as signed", count_text(len(findings), "error"))
