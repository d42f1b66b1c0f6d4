"""What a sysroot's policy asks of a deployment: with "certified", a trusted signature, and every byte as it was signed.

A signature is one of a commit, whatever ref leads to it. For which refs a commit was made it says itself, in what is
signed (OSTree's ref bindings, `fsview commit` writes them): in the name of another ref it is refused, or who can move
refs could make of an `upgrade` what he likes among all that was ever signed, debug images and old products.

What was proven when it was written is reused without a second proof; what was not, is written anew (deploy.py). A
rollback is not asked: its deployment passed when it was made, and the way back must not depend on keys. It is told
of where it goes to a tree that nobody certified.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from store.detached import bounded_detached
from store.errors import FormatError, UntrustedError
from store.gvariant import Variant
from store.objects import COLLECTION_BINDING, REF_BINDING, Commit
from store.repository import Repository
from tools.render import printable
from tools.sysroot.layout import Sysroot
from tools.sysroot.settings import IGNORE, SETTINGS_FILE, Policy
from tools.sysroot.target import Target
from tools.trust_files import check_writers

_SHOWN_DIGITS: Final = 12
_SHOWN_REFS: Final = 5


def check_policy(sysroot: Sysroot, repository: Repository, target: Target) -> list[str]:
    """Return by whom a commit is certified, if the policy asks for that.

    Raises:
        UntrustedError: by nobody who is trusted, or for other refs than the one that was named.
        AccessError: somebody else could have written the policy, or a file of keys.
    """
    _check_settings(sysroot.path / SETTINGS_FILE)
    policy = sysroot.policy
    if not policy.is_certified:
        return []
    try:
        certified = _signers(policy, repository, target)
        _check_bindings(policy, target)
    except UntrustedError as error:
        raise UntrustedError(f"{error}; the [policy] of {sysroot.path / SETTINGS_FILE} forbids it") from error
    return certified


def _check_settings(path: Path) -> None:
    """Refuse a policy that another user could have written, or switched off."""
    check_writers(str(path), os.stat(path), str(path))


def _signers(policy: Policy, repository: Repository, target: Target) -> list[str]:
    from tools.signing import TrustedKeys, require_certified  # seldom needed

    trusted = TrustedKeys.load(policy.trusted)
    with repository.database.reading() as reading:
        try:
            detached = bounded_detached(reading, target.number)
        except FormatError as error:
            raise UntrustedError(f"{_named(target)} is not certified: {error}") from error
    verdicts = require_certified(target.checksum, target.raw, detached, trusted)
    return [verdict.name or verdict.key for verdict in verdicts if verdict.is_valid and verdict.is_trusted]


def _check_bindings(policy: Policy, target: Target) -> None:
    metadata = dict(target.commit.metadata)
    if policy.collection and metadata.get(COLLECTION_BINDING) != Variant("s", policy.collection):
        raise UntrustedError(
            f"{_named(target)} is not bound to the collection {policy.collection!r}; commit it with "
            f"--add-metadata-string {COLLECTION_BINDING}={policy.collection}"
        )
    if not target.named or policy.ref_bindings == IGNORE or REF_BINDING not in metadata:
        return
    refs = _bound_refs(target.commit)
    local = target.named.rpartition(":")[2]  # of a remote's ref what it is called there, as OSTree binds it
    if target.named in refs or local in refs:
        return
    made_for = ", ".join(sorted(refs)[:_SHOWN_REFS]) + (", …" if len(refs) > _SHOWN_REFS else "")
    raise UntrustedError(
        f"{_named(target)} was made for {printable(made_for) or 'no ref'} (its ref bindings), not for {target.named}; "
        f"'fsview commit --bind-ref {local}' binds a commit to that ref, too, and where refs are moved to promote what "
        f'is signed, ref-bindings = "{IGNORE}" lets them'
    )


def _bound_refs(commit: Commit) -> set[str]:
    value = dict(commit.metadata)[REF_BINDING]
    return set(value.value) if value.signature == "as" else set()  # what isn't understood binds to nothing


def _named(target: Target) -> str:
    return f"the commit {target.checksum[:_SHOWN_DIGITS]}"
