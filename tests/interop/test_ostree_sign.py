"""The real ostree reads what `fsview certify` stores; if it was built with Ed25519 it also verifies it, and signs.

Debian's is not. That both make the same bytes is shown for every machine by tests/golden/ed25519.json.
"""

from __future__ import annotations

import subprocess
from base64 import b64encode
from pathlib import Path

from store.detached import change_detached
from store.objects import checksum_from_hex, unpack_detached
from store.repository import Repository
from store.schema import id_key
from store.tree import commit_number
from tests.interop.conftest import Pair
from tests.trees import build_tree
from tools.signing.ed25519 import SecretKey

SECRET = SecretKey.from_seed(b"s" * 32)


def test_ostree_reads_our_signatures_and_we_read_its(pair: Pair, tmp_path: Path) -> None:
    commit = pair.same("-b", "main", "-s", "s", build_tree(tmp_path / "tree", {"f": b"x\n"}))
    secret, public = tmp_path / "secret", tmp_path / "public"
    secret.write_bytes(b64encode(SECRET.seed + SECRET.public.raw))
    secret.chmod(0o600)
    public.write_bytes(b64encode(SECRET.public.raw))
    assert pair.run_ours("certify", "--repo", pair.ours, "main", "--key", secret)[0] == 0
    beside = pair.theirs / "objects" / commit[:2] / f"{commit[2:]}.commitmeta"
    beside.write_bytes(_detached(pair.ours, commit))

    assert _ostree(pair, "fsck")[0] == 0
    status, shown = _ostree(pair, "show", "--print-detached-metadata-key=ostree.sign.ed25519", commit)
    assert status == 0 and shown.startswith("[[byte 0x")
    if "sign-ed25519" in subprocess.run(["ostree", "--version"], capture_output=True, text=True, check=True).stdout:
        _both_verify(pair, commit, beside, secret, public)


def _both_verify(pair: Pair, commit: str, beside: Path, secret: Path, public: Path) -> None:
    sign = ("sign", "--sign-type=ed25519")
    assert _ostree(pair, *sign, "--verify", commit, public.read_text())[0] == 0
    assert _ostree(pair, *sign, "--verify", commit, b64encode(b"o" * 32).decode())[0] != 0
    beside.unlink()
    assert _ostree(pair, *sign, commit, secret.read_text())[0] == 0
    with Repository.open(pair.ours) as repository:
        made = unpack_detached(beside.read_bytes())
        change_detached(repository, checksum_from_hex(commit), lambda raw, metadata: made)
    assert pair.run_ours("verify", "--repo", pair.ours, "main", "--trusted", public)[0] == 0


def _detached(repo: Path, commit: str) -> bytes:
    with Repository.open(repo) as repository, repository.database.reading() as reading:
        number = commit_number(reading, checksum_from_hex(commit))
        assert number is not None
        return reading.need(b"detached", id_key(number))


def _ostree(pair: Pair, command: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(["ostree", f"--repo={pair.theirs}", command, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout
