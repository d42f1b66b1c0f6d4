"""The handlers without a kernel: what they raise, and the number that they write into a reply."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pyfuse3
import pytest

from fsview import nodeid, operations
from fsview.attributes import Attributes, Row
from fsview.counters import Counters
from fsview.nodeid import Ino
from fsview.operations import Operations, find_ino_offset
from fsview.rank import Rank
from fsview.view import View
from store.errors import ConflictError, CorruptionError, FormatError, NotFoundError
from store.schema import CommitNumber

NODE = nodeid.directory_node(CommitNumber(1024), Rank(3))
NOBODY = cast(pyfuse3.RequestContext, None)  # no handler of these asks who it is
FOUND = Attributes(NODE, Ino(1 << 62 | 77), stat.S_IFDIR | 0o2755, 10, 20, 1025, -1_500_000_000)


class OneNode:
    """A view with one directory in it."""

    def find(self, node: int, name: bytes) -> Attributes | None:
        return FOUND if name == b"there" else None

    def attributes(self, node: int) -> Attributes:
        return FOUND


class Full(OneNode):
    """A view with one directory, which has so many rows."""

    def __init__(self, count: int) -> None:
        self._count = count

    def generation(self) -> int:
        return 0

    def row_count(self, node: int) -> int:
        return self._count

    def rows(self, node: int, after: int, before: int) -> list[Row]:
        return [Row(b"%d" % index, FOUND, index + 1) for index in range(after, min(before, self._count))]


class Broken:
    """A view that raises whatever it is asked."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def describe(self, node: int) -> str:
        return "that node"

    def __getattr__(self, name: str) -> Callable[..., object]:
        def fail(*_: object) -> object:
            raise self._error

        return fail


def at_work(view: OneNode | Broken, ino_offset: int | None) -> Operations:
    """Return operations that answer from *view*."""
    ops = Operations(ino_offset)
    ops.begin_work(cast(View, view), Counters(1).row(0), lambda: None)
    return ops


REQUESTS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "lookup": lambda ops: ops.lookup(1, b"x", NOBODY),
    "getattr": lambda ops: ops.getattr(1, None),
    "readlink": lambda ops: ops.readlink(1, None),
    "readdir": lambda ops: ops.readdir(1, 0, None),
    "readdir in a commit": lambda ops: ops.readdir(NODE, 0, None),
    "getxattr": lambda ops: ops.getxattr(1, b"user.x", None),
    "listxattr": lambda ops: ops.listxattr(1, None),
    "statfs": lambda ops: ops.statfs(None),
}
ERRORS: list[tuple[Exception, int, bool]] = [
    (NotFoundError("gone"), errno.ENOENT, False),
    (nodeid.StaleNodeError(5), errno.ESTALE, False),
    (ConflictError("later"), errno.EAGAIN, False),
    (CorruptionError("a block", "here", "this", "that"), errno.EIO, True),
    (FormatError("no commit"), errno.EIO, True),
    (OSError(errno.EMFILE, "too many"), errno.EIO, True),
    (AssertionError("our own bug"), errno.EIO, True),
    (ZeroDivisionError(), errno.EIO, True),
]


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize(("error", "number", "is_logged"), ERRORS, ids=lambda value: type(value).__name__)
async def test_no_error_ends_the_server(
    caplog: pytest.LogCaptureFixture, what: str, error: Exception, number: int, is_logged: bool
) -> None:
    ops = at_work(Broken(error), find_ino_offset())
    with caplog.at_level(logging.DEBUG), pytest.raises(pyfuse3.FUSEError) as caught:
        await REQUESTS[what](ops)
    assert caught.value.errno == number
    assert ("that node" in caplog.text and str(error) in caplog.text) == is_logged
    assert ("Traceback" in caplog.text) == isinstance(error, (AssertionError, ZeroDivisionError))


@pytest.mark.parametrize(("error", "number", "is_logged"), ERRORS, ids=lambda value: type(value).__name__)
def test_nor_does_one_of_a_read(
    caplog: pytest.LogCaptureFixture, error: Exception, number: int, is_logged: bool
) -> None:
    row = Counters(1).row(0)
    ops = Operations(None)
    ops.begin_work(cast(View, Broken(error)), row, lambda: None)
    assert ops.answer_read(1024, 4096, 10) == (number, b"")
    assert ("read of 10 bytes at 4096" in caplog.text and str(error) in caplog.text) == is_logged
    assert (row.busy_since_ns, row.is_proven) == (0, True)


def _ino_in_attributes(entry: pyfuse3.EntryAttributes) -> int:
    offset = find_ino_offset()
    assert offset is not None
    return ctypes.c_uint64.from_address(id(entry) + offset).value


async def test_a_reply_has_both_numbers() -> None:
    ops = at_work(OneNode(), find_ino_offset())
    entry = await ops.lookup(1, b"there", NOBODY)
    assert (entry.st_ino, _ino_in_attributes(entry)) == (NODE, FOUND.ino)
    assert entry.attr_timeout > 10**9 and entry.entry_timeout > 10**9
    entry = await ops.getattr(NODE, NOBODY)
    assert (entry.st_ino, _ino_in_attributes(entry)) == (FOUND.ino, FOUND.ino)


async def test_where_it_cant_have_both_it_expires_at_once() -> None:
    ops = at_work(OneNode(), None)
    entry = await ops.lookup(1, b"there", NOBODY)
    assert (entry.st_ino, _ino_in_attributes(entry), entry.attr_timeout) == (NODE, NODE, 0)
    entry = await ops.getattr(NODE, NOBODY)
    assert entry.st_ino == FOUND.ino and entry.attr_timeout > 10**9


async def test_attributes_of_a_reply() -> None:
    entry = await at_work(OneNode(), None).getattr(NODE, NOBODY)
    assert (entry.st_mode, entry.st_uid, entry.st_gid, entry.st_nlink) == (stat.S_IFDIR | 0o2755, 10, 20, 1)
    assert (entry.st_size, entry.st_blocks, entry.generation) == (1025, 3, 0)
    assert entry.st_mtime_ns == entry.st_ctime_ns == entry.st_atime_ns == -1_500_000_000


async def test_what_is_not_there_is_remembered_only_where_nothing_comes() -> None:
    ops = at_work(OneNode(), None)
    entry = await ops.lookup(NODE, b"not there", NOBODY)
    assert entry.st_ino == 0 and entry.entry_timeout > 10**9
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await ops.lookup(nodeid.REFS, b"not there", NOBODY)
    assert caught.value.errno == errno.ENOENT


async def test_requests_that_the_kernel_is_told_never_to_make_again() -> None:
    ops = at_work(OneNode(), None)
    for request in (ops.flush(1), ops.access(1, os.R_OK, NOBODY)):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await request
        assert caught.value.errno == errno.ENOSYS


def test_the_offset_is_found_and_is_refused_where_the_layout_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_ino_offset() == 40  # CPython 3.11 to 3.13 on 64 bits
    for size in (24, 40):  # one of the words, or neither, is beyond the end
        monkeypatch.setattr(operations, "getsizeof", lambda _, size=size: size)
        assert find_ino_offset() is None
    monkeypatch.undo()
    monkeypatch.setattr(operations, "implementation", type("other", (), {"name": "pypy"}))
    assert find_ino_offset() is None


@pytest.mark.parametrize("count", [2, 127, 128, 129, 256, 300])
@pytest.mark.parametrize("fit", [1, 50, 128, 1000])
async def test_a_directory_is_read_to_its_end_and_no_further(
    count: int, fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = at_work(Full(count), find_ino_offset())
    seen: list[tuple[bytes, int]] = []

    def reply(reply_to: list[int], name: bytes, _: object, cookie: int) -> bool:
        if len(reply_to) == fit:
            return False
        reply_to.append(cookie)
        seen.append((name, cookie))
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    while not seen or not ops.is_at_end(NODE, seen[-1][1]):
        before = len(seen)
        await ops.readdir(NODE, seen[-1][1] if seen else 0, cast(pyfuse3.ReaddirToken, []))
        assert len(seen) > before
    assert [name for name, _ in seen] == [b"%d" % index for index in range(count)]
    assert not any(ops.is_at_end(NODE, cookie) for _, cookie in seen[:-1])
    assert not ops.is_at_end(nodeid.REFS, seen[-1][1])  # there, a row may come
    assert len({cookie for _, cookie in seen}) == count
