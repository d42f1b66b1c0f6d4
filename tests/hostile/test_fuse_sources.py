"""Trees on a file system that another user serves: it lists, and says, what it likes."""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hostile.fake_view import (
    GETATTR,
    GETXATTR,
    INIT,
    INIT_REPLY,
    LISTXATTR,
    LOOKUP,
    READDIR,
    attributes,
    entry_reply,
    serving,
    value_reply,
)  # fmt: skip
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview

pytestmark = [needs_fuse, needs_root]

FILE, ROOT = 2, 1
OPENDIR, OPEN, READ, RELEASE, RELEASEDIR = 27, 14, 15, 18, 29
CONTENTS = b"hello"


@contextmanager
def tree(point: Path, listed: Sequence[bytes], *, there: bytes = b"file", xattrs: int = 0) -> Iterator[Path]:
    """Mount a directory that lists some names, where only the file *there* is, with so many xattrs of 60,000 bytes."""

    def answer(opcode: int, node: int, body: bytes) -> bytes | int:
        if opcode == GETATTR:
            return struct.pack("=QII", 0, 0, 0) + _attributes(node)
        if opcode == LOOKUP:
            return entry_reply(FILE, stat.S_IFREG | 0o644) if body.rstrip(b"\0") == there else errno.ENOENT
        if opcode == READDIR:
            return _listing(listed, *struct.unpack_from("=8xQ", body))
        if opcode == LISTXATTR:
            return value_reply(body, b"".join(b"user.%d\0" % number for number in range(xattrs)))
        if opcode == GETXATTR:
            return value_reply(body, bytes(60_000)) if xattrs else errno.ENODATA
        plain = {INIT: INIT_REPLY, OPEN: bytes(16), OPENDIR: bytes(16), READ: b"", RELEASE: b"", RELEASEDIR: b""}
        return plain.get(opcode, errno.ENOSYS)

    with serving(point, "fuse.his", "his", answer):
        yield point


def _attributes(node: int) -> bytes:
    return attributes(node) if node == ROOT else attributes(node, stat.S_IFREG | 0o644)


def _listing(names: Sequence[bytes], offset: int) -> bytes:
    rows = list(enumerate(names, 1))[offset:]
    return b"".join(
        struct.pack("=QQII", FILE, number, len(name), 8) + name + bytes(-len(name) % 8) for number, name in rows
    )


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """Return a directory to mount on."""
    (tmp_path / "his").mkdir()
    return tmp_path / "his"


def test_what_is_listed_but_not_there_is_told(
    point: Path, make_repo: Callable[..., Path], run_fsview: RunFsview
) -> None:
    """It would be missing in the commit, without a word."""
    repo = make_repo()
    with tree(point, [b"file", b"lost"]):
        said = run_fsview("commit", "-b", "r", point, repo=repo, status=16)
        assert f"vanished while it was read: {point}/lost" in said.stderr
        run_fsview("commit", "-b", "r", "--allow-changed", point, repo=repo)
    assert "/file" in run_fsview("ls", "r", repo=repo).stdout


def test_names_that_no_directory_can_have(point: Path, make_repo: Callable[..., Path], run_fsview: RunFsview) -> None:
    repo = make_repo()
    for name in (b"a/b", b"n" * 1000, b"a\0b"):
        with tree(point, [b"file", name]):
            said = run_fsview("commit", "-b", "r", point, repo=repo, status=None)
            assert said.returncode in (2, 16) and "Traceback" not in said.stderr, name
    with tree(point, [b".", b"..", b"file", b"file"]):
        run_fsview("commit", "-b", "r", point, repo=repo)
    assert run_fsview("ls", "r", repo=repo).stdout.count("/file") == 1


def test_extended_attributes_without_end(point: Path, make_repo: Callable[..., Path], run_fsview: RunFsview) -> None:
    """The kernel lets a file have 64 KiB of names, each with 64 KiB: some hundred MB, held several times."""
    repo = make_repo()
    with tree(point, [b"file"], xattrs=5000):
        said = run_fsview("commit", "-b", "r", point, repo=repo, status=16)
        assert "it has more than 1 MiB of extended attributes" in said.stderr
        run_fsview("commit", "-b", "r", "--no-xattrs", point, repo=repo)
