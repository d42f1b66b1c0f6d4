"""A damaged store, seen through the mount: EIO and a line in the log, never a wrong byte or a name that vanishes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from store.database import Writing
from store.repository import Repository
from store.schema import id_key
from tests.conftest import MountView, TreeFactory
from tests.fuse.conftest import run
from tests.running import RunFsview

pytestmark = pytest.mark.unchecked

BLOCK = 128 << 10
LARGE = bytes(range(256)) * 2048  # four blocks


@pytest.fixture
def repo(make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory) -> Path:
    """Return a repository with one commit on the ref r."""
    path = make_repo()
    tree = tree_factory({"large": LARGE, "small": b"small\n", "d": {"e": {"f": b"f\n"}}, "other": {"g": b"g\n"}})
    run_fsview("commit", "--repo", path, "-b", "r", "-s", "1", tree)
    return path


def _log(tmp_path: Path) -> str:
    (log,) = (tmp_path / ".local/state/fsview").iterdir()
    return log.read_text()


def _refused(call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == errno.EIO


def _spoil(repo: Path, table: bytes, key: bytes) -> None:
    """Flip a bit of a record, as a bad disk would: its guard stays as it is."""
    with Repository.open(repo) as repository:
        database = repository.database

        def body(writing: Writing) -> None:
            txn, handle = writing._txn, writing._handles[table]
            stored = txn.get(key, db=handle)
            assert stored is not None
            value = bytearray(stored)
            value[4] ^= 1
            txn.put(key, bytes(value), db=handle)

        database.write(body)


def test_a_damaged_block_is_refused_and_the_others_are_read(
    repo: Path, mount_view: MountView, tmp_path: Path, run_fsview: RunFsview
) -> None:
    (loose,) = (path for path in (repo / "objects").rglob("*") if path.is_file())
    data = bytearray(loose.read_bytes())
    data[2 * BLOCK + 5] ^= 1
    loose.chmod(0o600)
    loose.write_bytes(data)
    path = mount_view(repo) / "refs/r/large"
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # read what is asked for, not more
        assert os.pread(file.fileno(), 4096, BLOCK) == LARGE[BLOCK : BLOCK + 4096]
        assert os.pread(file.fileno(), 4096, 3 * BLOCK) == LARGE[3 * BLOCK : 3 * BLOCK + 4096]
        _refused(lambda: os.pread(file.fileno(), 4096, 2 * BLOCK))
    _refused(path.read_bytes)
    assert "cat: " in run("sh", "-c", f"cat {path} 2>&1 >/dev/null; true")
    checksum = loose.parent.name + loose.name
    assert f"file object {checksum}, which shows as r:/large: " in _log(tmp_path) and str(loose) in _log(tmp_path)
    assert os.listdir(repo / "damaged") == [checksum]
    assert "bytes 262144 to 393216" in (repo / "damaged" / checksum).read_text()
    told = run_fsview("doctor", repo, status=1).stdout
    assert f"missing {loose}, bytes 262144 to 393216: " in told and "shows as r:/large" in told


def test_a_loose_file_that_is_gone_or_cut_off_is_refused(repo: Path, mount_view: MountView, tmp_path: Path) -> None:
    (loose,) = (path for path in (repo / "objects").rglob("*") if path.is_file())
    path = mount_view(repo) / "refs/r/large"
    loose.chmod(0o600)
    os.truncate(loose, BLOCK)
    _refused(path.read_bytes)
    loose.unlink()
    _refused(path.read_bytes)
    assert path.stat().st_size == len(LARGE)
    assert "expected a loose file, found none" in _log(tmp_path)


@pytest.mark.parametrize("table", [b"file", b"content", b"listing", b"commit", b"dirmeta", b"dirtree"])
def test_a_damaged_record_is_refused_where_it_is_needed(
    repo: Path, mount_view: MountView, tmp_path: Path, run_fsview: RunFsview, table: bytes
) -> None:
    point = mount_view(repo)
    root = (point / "refs/r").resolve()
    needs: dict[bytes, tuple[int, Callable[[], object]]] = {
        b"file": (root.joinpath("small").stat().st_ino, lambda: os.listxattr(root / "small")),
        b"content": (root.joinpath("small").stat().st_ino, (root / "small").read_bytes),
        b"listing": (1024, lambda: os.listdir(point / "refs/r/d/e")),
        b"commit": (1024, lambda: os.listdir(point / "commits")),
        b"dirmeta": (1024, lambda: os.stat(point / "refs/r/")),
        b"dirtree": (0, lambda: os.stat(point / "refs/r/")),
    }
    number, call = needs[table]
    with Repository.open(repo) as repository, repository.database.reading() as reading:
        number = number or reading.counter("tree") - 1  # the root was compiled last
    _spoil(repo, table, id_key(number))
    run_fsview("umount", point)  # what was cached is forgotten
    run_fsview("mount", repo, point)
    _refused(call)
    assert f"{table.decode()} {id_key(number).hex()}" in _log(tmp_path)
    assert os.getxattr(point, "user.fsview.pid")  # it goes on serving


def test_verify_finds_what_the_guards_vouch_for(repo: Path, mount_view: MountView, run_fsview: RunFsview) -> None:
    """A content that was wrong before it was guarded, or that somebody made so who can compute guards."""
    point = mount_view(repo)
    number = (point / "refs/r/small").stat().st_ino
    run_fsview("umount", point)
    with Repository.open(repo) as repository:
        repository.database.write(lambda writing: writing.put(b"content", id_key(number), b"smell\n"))
    run_fsview("mount", repo, point)
    assert (point / "refs/r/small").read_bytes() == b"smell\n"
    run_fsview("umount", point)
    run_fsview("mount", "--verify=sha256", "--workers=1", repo, point)
    for _ in range(2):
        _refused(lambda: os.open(point / "refs/r/small", os.O_RDONLY))
    assert (point / "refs/r/large").read_bytes() == LARGE and (point / "refs/r/other/g").read_bytes() == b"g\n"
    assert "small" in run_fsview("doctor", repo, status=1).stdout
