"""`fsview certify` and `fsview verify`: what they say, what they refuse, and that only detached metadata change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from store.content import file_record
from store.database import Writing
from store.listing import pack_listing
from store.objects import ObjectType
from store.repository import Repository
from store.revisions import find_place
from store.schema import FileId, TreeId, id_key, key_id
from store.tree import load_listing
from tests.checking import assert_sound
from tests.cli.conftest import Fsview, Releases
from tests.running import RunFsview, clean_environment
from tools.signing.ed25519 import SecretKey

SHORT_S = 60


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return a key of ssh-keygen's; the public one is beside it."""
    return _keygen(tmp_path / "release")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Return another."""
    return _keygen(tmp_path / "other")


def _keygen(path: Path, *, passphrase: str = "", kind: str = "ed25519") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", f"{path.name} key", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def _pub(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def test_certify_and_verify(fsview: Fsview, own_releases: Releases, key: Path) -> None:
    (line,) = fsview("certify", "rel", "--key", key).lines
    assert line.startswith(f"commit {own_releases.new}: signed by SHA256:")
    fingerprint = line.rpartition(" ")[2]
    assert fsview("verify", "rel", "--trusted", _pub(key), "--tree").lines == [
        f"commit {own_releases.new}",
        f"  good Ed25519 signature by release key ({fingerprint})",
        "  every object that it reaches has its sha256",
    ]
    assert fsview("rev-parse", "rel").lines == [own_releases.new]
    assert "    ostree.sign.ed25519: 1 signature; 'fsview verify' says by whom" in fsview("show", "rel").lines


def test_again_with_the_same_key_adds_nothing(fsview: Fsview, own_releases: Releases, key: Path, other: Path) -> None:
    fsview("certify", "rel", "--key", key, "--key", key)
    assert "was already signed by" in fsview("certify", "rel", "--key", key).lines[0]
    assert not json.loads(fsview("certify", "--json", "rel", "--key", key).stdout)["changed"]
    assert json.loads(fsview("certify", "--json", "rel", "--key", other).stdout)["changed"]
    found = json.loads(fsview("verify", "--json", "rel", "--trusted", _pub(other)).stdout)
    assert found["commit"] == own_releases.new and found["certified"] is True
    assert [(one["valid"], one["trusted"], one["name"]) for one in found["signatures"]] == [
        (True, False, ""), (True, True, "other key"),
    ]  # fmt: skip


def test_delete(fsview: Fsview, own_releases: Releases, key: Path, other: Path) -> None:
    before = fsview("show", "--json", "rel").stdout
    fsview("certify", "rel", "--key", key, "--key", other)
    fsview("certify", "rel", "--delete", "--key", _pub(key))
    fsview("verify", "rel", "--trusted", _pub(key), status=1)
    fsview("verify", "rel", "--trusted", _pub(other))
    assert "there was no signature by" in fsview("certify", "rel", "--delete", "--key", _pub(key), status=1).lines[0]
    fsview("certify", "rel", "--delete", "--key", other)
    assert fsview("show", "--json", "rel").stdout == before


def test_who_is_not_certified(fsview: Fsview, own_releases: Releases, key: Path, other: Path) -> None:
    assert "it has no signature" in fsview("verify", "rel", "--trusted", _pub(key), status=1).lines[1]
    fsview("certify", "rel", "--key", key)
    assert "a key that is not trusted" in fsview("verify", "rel", "--trusted", _pub(other), status=1).lines[1]
    assert "--trusted" in fsview("verify", "rel", status=1).lines[2]
    assert json.loads(fsview("verify", "rel", "--json", status=1).stdout)["certified"] is False


def test_the_environment_names_keys(
    fsview: Fsview, own_releases: Releases, key: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsview("certify", "rel", "--key", key)
    monkeypatch.setenv("FSVIEW_TRUSTED", f"{_pub(other)}:{_pub(key)}")
    fsview("verify", "rel")
    fsview("verify", "rel", "--trusted", _pub(other), status=1)


def test_a_key_of_ostrees(fsview: Fsview, own_releases: Releases, tmp_path: Path) -> None:
    secret = SecretKey.from_seed(b"s" * 32)
    private, public = tmp_path / "secret", tmp_path / "public"
    private.write_bytes(b64encode(secret.seed + secret.public.raw) + b"\n")
    private.chmod(0o600)
    public.write_bytes(b64encode(secret.public.raw) + b"\n")
    fsview("certify", "rel", "--key", private)
    assert secret.public.fingerprint in fsview("verify", "rel", "--trusted", public).lines[1]
    private.write_bytes(b64encode(secret.seed + b"x" * 32))
    assert "is damaged" in fsview("certify", "rel", "--key", private, status=10).stderr
    assert "is a public key" in fsview("certify", "rel", "--key", public, status=10).stderr


def test_keys_that_are_none(fsview: Fsview, own_releases: Releases, key: Path, tmp_path: Path) -> None:
    rsa, junk = _keygen(tmp_path / "rsa", kind="rsa"), tmp_path / "junk"
    junk.write_text("hello\n")
    junk.chmod(0o600)
    assert "no Ed25519 key" in fsview("certify", "rel", "--key", rsa, status=10).stderr
    assert "no secret Ed25519 key" in fsview("certify", "rel", "--key", junk, status=10).stderr
    cut = tmp_path / "cut"
    cut.write_text("\n".join([*key.read_text().splitlines()[:3], "-----END OPENSSH PRIVATE KEY-----", ""]))
    cut.chmod(0o600)
    assert "that fsview can read" in fsview("certify", "rel", "--key", cut, status=10).stderr
    assert "nowhere: No such file" in fsview("certify", "rel", "--key", "nowhere", status=1).stderr
    key.chmod(0o640)
    assert "chmod 600" in fsview("certify", "rel", "--key", key, status=1).stderr
    assert "is a secret key; name the public one" in fsview("verify", "rel", "--trusted", key, status=10).stderr
    assert "it has no signature" in fsview("verify", "rel", status=1).lines[1]


def test_what_can_not_be_signed(fsview: Fsview, own_releases: Releases, key: Path) -> None:
    assert "leave out the path" in fsview("certify", "rel:/etc", "--key", key, status=2).stderr
    assert "nosuch" in fsview("certify", "nosuch", "--key", key, status=1).stderr
    assert "--key" in fsview("certify", "rel", status=2).stderr


def test_an_encrypted_key_without_a_terminal(run_fsview: RunFsview, own_releases: Releases, tmp_path: Path) -> None:
    key = _keygen(tmp_path / "closed", passphrase="open sesame")
    command = ["setsid", "--wait", sys.executable, "-P", "-m", "tools", "certify", "rel", "--key", str(key)]
    environment = clean_environment(tmp_path) | {"FSVIEW_REPO": str(own_releases.repo)}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=SHORT_S)
    assert done.returncode == 1 and b"ssh-keygen -p" in done.stderr


@pytest.mark.parametrize(("typed", "status"), [(b"open sesame\n", 0), (b"wrong\n", 1)])
def test_an_encrypted_key_asks_the_terminal(
    fsview: Fsview, own_releases: Releases, tmp_path: Path, typed: bytes, status: int
) -> None:
    key = _keygen(tmp_path / "closed", passphrase="open sesame")
    command = ["setsid", "--ctty", "--wait", sys.executable, "-P", "-m", "tools", "certify", "rel", "--key", str(key)]
    environment = clean_environment(tmp_path) | {"FSVIEW_REPO": str(own_releases.repo)}
    ours, its = os.openpty()
    try:
        with subprocess.Popen(command, env=environment, stdin=its, stdout=its, stderr=its) as process:
            shown = b""
            while b"Passphrase of " not in shown or not shown.endswith(b": "):
                shown += os.read(ours, 4096)
            os.write(ours, typed)
            assert process.wait(SHORT_S) == status
    finally:
        os.close(its)
    shown += _rest(ours)
    assert typed.strip() not in shown
    assert (b"signed by" if status == 0 else b"passphrase is not that of") in shown
    fsview("verify", "rel", "--trusted", _pub(key), status=status)


def _rest(terminal: int) -> bytes:
    """Return what was written to a terminal that nobody has open any more; the kernel brings it piece by piece."""
    text = b""
    with open(terminal, "rb", buffering=0) as stream, suppress(OSError):
        while data := stream.read(4096):
            text += data
    return text


@pytest.mark.unchecked
def test_a_tree_that_is_not_as_it_was_signed(fsview: Fsview, own_releases: Releases, key: Path) -> None:
    fsview("certify", "rel", "--key", key)
    (damaged, *_) = [
        path for path in (own_releases.repo / "objects").rglob("*") if path.is_file() and b"LINE" in path.read_bytes()
    ]
    damaged.chmod(0o644)
    data = bytearray(damaged.read_bytes())
    data[100_000] ^= 1
    damaged.write_bytes(data)
    fsview("verify", "rel", "--trusted", _pub(key))
    assert str(damaged) in fsview("verify", "rel", "--tree", "--trusted", _pub(key), status=12).stderr
    found = json.loads(fsview("verify", "--json", "rel", "--tree", "--trusted", _pub(key), status=12).stdout)
    assert not found["certified"] and len(found["damage"]) == 1
    fsview("certify", "rel^", "--key", key)
    fsview("verify", "rel^", "--tree", "--trusted", _pub(key))  # what it does not reach is not its concern


@pytest.mark.unchecked
@pytest.mark.parametrize("how", ["listing", "dirtree", "dirmeta", "object", "content"])
def test_records_that_were_forged(fsview: Fsview, own_releases: Releases, key: Path, how: str) -> None:
    """Forged with a right guard, as one could who may write to the repository: only sha256 can tell."""
    fsview("certify", "rel", "--key", key)
    with Repository.open(own_releases.repo) as repository:
        _forge(repository, how)
    assert "error: " in fsview("verify", "rel", "--tree", "--trusted", _pub(key), status=12).stderr


@pytest.mark.unchecked
def test_a_name_that_leads_to_another_file_wherever_it_is_recorded(
    fsview: Fsview, own_releases: Releases, key: Path
) -> None:
    fsview("certify", "rel", "--key", key)
    with Repository.open(own_releases.repo) as repository:
        with repository.database.reading() as reading:
            tree_id = find_place(reading, "rel:/etc", now_s=0).entry.id
            entries = list(load_listing(reading, TreeId(tree_id)))
            motd, passwd = (next(one for one in entries if one.name == name) for name in (b"motd", b"passwd"))
            checksum = file_record(reading, FileId(motd.id)).checksum
        rows = [replace(passwd, name=b"motd") if one == motd else one for one in entries]
        listing = pack_listing(
            (one.name, one.id, 0, one.mode, one.uid, one.gid, one.size, one.mtime_ns, 0, 0) for one in rows
        )

        def body(writing: Writing) -> None:
            writing.put(b"object", bytes((ObjectType.FILE,)) + checksum, id_key(passwd.id))
            writing.put(b"listing", id_key(tree_id), listing)

        repository.database.write(body)
    assert fsview("cat", "rel:/etc/motd").stdout == fsview("cat", "rel:/etc/passwd").stdout
    told = fsview("verify", "rel", "--tree", "--trusted", _pub(key), status=12).stderr
    assert f"file object {checksum.hex()} is not here" in told


def _forge(repository: Repository, how: str) -> None:
    """Change a record that the newest commit reaches."""
    with repository.database.reading() as reading:
        if how == "object":  # two file objects change names
            files = [(key, value) for key, value in reading.items(b"object") if key[0] == ObjectType.FILE]
            (one, first), (two, second) = sorted(files, key=lambda pair: key_id(pair[1]))[-2:]
            changes = [(b"object", one, second), (b"object", two, first)]
        else:
            *_, (key, value) = reading.items(how.encode())
            changes = [(how.encode(), key, value[:-1] + bytes([value[-1] ^ 1]))]

    def body(writing: Writing) -> None:
        for change in changes:
            writing.put(*change)

    repository.database.write(body)


def test_many_certify_at_once_beside_prunes_and_commits(
    fsview: Fsview, run_fsview: RunFsview, own_releases: Releases, tmp_path: Path
) -> None:
    keys = [_keygen(tmp_path / f"key{number}") for number in range(4)]
    jobs: list[tuple[str | Path, ...]] = [("certify", "rel", "--key", key) for key in keys]
    jobs += [("prune", "--refs-only", "--depth=0"), ("commit", "-b", "more", "-s", "x", own_releases.trees["old"])]
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: run_fsview(*job, repo=own_releases.repo), jobs))
    trusted = [part for key in keys for part in ("--trusted", _pub(key))]
    found = json.loads(fsview("verify", "--json", "rel", "--tree", *trusted).stdout)
    assert sorted(one["name"] for one in found["signatures"]) == [f"key{number} key" for number in range(4)]


_KILLED = """
import os, signal, sys
from store.database import Writing
from tools.cli import run

put = Writing.put
def put_and_die(*arguments, **options):
    put(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

Writing.put = put_and_die
run(sys.argv[1:])
"""


def test_killed_before_the_atomic_step_nothing_changed(
    fsview: Fsview, own_releases: Releases, tmp_path: Path, key: Path, other: Path
) -> None:
    fsview("certify", "rel", "--key", key)
    before = fsview("show", "--json", "rel").stdout
    command = [sys.executable, "-P", "-c", _KILLED, "certify", "rel", "--key", str(other)]
    environment = clean_environment(tmp_path) | {"FSVIEW_REPO": str(own_releases.repo)}
    assert subprocess.run(command, env=environment, timeout=SHORT_S).returncode == -signal.SIGKILL
    assert fsview("show", "--json", "rel").stdout == before
    fsview("certify", "rel", "--key", other)
    assert len(json.loads(fsview("verify", "--json", "rel", status=1).stdout)["signatures"]) == 2


def test_a_pruned_commit_takes_its_signatures_along(fsview: Fsview, own_releases: Releases, key: Path) -> None:
    fsview("certify", "rel^", "--key", key)
    fsview("prune", "--refs-only", "--depth=0")
    assert_sound(own_releases.repo)
    assert fsview("debug", "record", "detached").lines == []
