"""Kernel requests, answered: request -> view -> attributes or errno. Thin.

Handlers await nothing: one request at a time is answered from start to end (server.py runs a single task). No
exception gets out of one but FUSEError: the server must outlive whatever it finds, so damage, and our own bugs too,
are EIO and a line in the log.

A reply to lookup and readdir has a node number and, in its attributes, st_ino; pyfuse3 sets both to one value. For
directories of commits they differ (fsview/nodeid.py), so the second is written over in memory, at an offset that was
found and tried at start-up. Where it can't be found, such a reply has the node number in both places and expires at
once; the kernel then asks with getattr, whose reply has st_ino alone.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from ctypes import c_uint64
from errno import EIO, ENAMETOOLONG, ENODATA, ENOENT, ENOSYS, EROFS
from functools import wraps
from itertools import islice
from sys import getsizeof, implementation
from typing import Final, NoReturn

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    StatvfsData,
    XAttrNameT,
)

from fsview.attributes import FOREVER_S, Attributes
from fsview.cache import BoundedCache
from fsview.counters import KINDS, Row
from fsview.nodeid import is_in_commit
from fsview.view import View, block_count
from store.errors import CorruptionError, FsviewError

_log = logging.getLogger(__name__)

_LISTED_ENTRIES_MAX: Final = 1 << 17  # about 40 MB
_PAGE_ROWS: Final = 128
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_CREAT
_PROBE: Final = 0x6673_7669_6577_0001
_NAME_BYTES_MAX: Final = 255
_READ, _READDIR = KINDS.index("read"), KINDS.index("readdir")
_AT_END: Final = 1 << 30  # in the cookie of a directory's last row, whose index is less than that

Reply = tuple[FileNameT, EntryAttributes, int]


def find_ino_offset() -> int | None:
    """Return where in an EntryAttributes the st_ino of its attributes is, in bytes; None if that can't be told."""
    if implementation.name != "cpython":
        return None
    probe = EntryAttributes()
    probe.st_ino, probe.generation, probe.st_mode, probe.st_size = InodeT(_PROBE), 3, ModeT(stat.S_IFDIR), 5
    words = (c_uint64 * (getsizeof(probe) // 8)).from_address(id(probe))
    places = [index for index, word in enumerate(words) if word == _PROBE]
    if len(places) != 2:
        return None
    before = list(words)
    words[places[1]] = _PROBE + 1
    seen = (probe.st_ino, probe.generation, probe.st_mode, probe.st_size)
    changed = [index for index, word in enumerate(words) if word != before[index]]
    as_expected = seen == (_PROBE, 3, stat.S_IFDIR, 5) and changed == places[1:]
    return places[1] * 8 if as_expected else None


class Operations(pyfuse3.Operations):
    """The request handlers."""

    enable_writeback_cache = False

    _view: View
    _row: Row
    _let_answer: Callable[[], None]

    def __init__(self, ino_offset: int | None, *, gives_handles: bool = True, heeds_acls: bool = False) -> None:
        """*ino_offset* is what `find_ino_offset` found; *gives_handles*: a file can be opened by handle, as NFS does.

        *heeds_acls*: the kernel heeds POSIX ACLs, and modes and owners whether "default_permissions" is set or not.
        No request but INIT can be answered before `begin_work`.
        """
        self._ino_offset = ino_offset
        self.supports_dot_lookup = gives_handles
        self.enable_acl = heeds_acls
        self._pages: BoundedCache[tuple[int, int], list[Reply]] = BoundedCache(_LISTED_ENTRIES_MAX)
        self._generation = 0
        self.on_init: Callable[[], None] = _do_nothing

    def init(self) -> None:
        """Tell whoever waits for the kernel's first request."""
        self.on_init()

    def begin_work(self, view: View, row: Row, let_answer: Callable[[], None]) -> None:
        """Answer from *view* from now on, count in *row*, and call *let_answer* before each answer that counts."""
        self._view, self._row, self._let_answer = view, row, let_answer
        view.on_progress = row.begin  # the supervisor ends who is too long at one request

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        """Answer with what is called *name*."""
        if len(name) > _NAME_BYTES_MAX:
            raise FUSEError(ENAMETOOLONG)
        try:
            found = self._view.find(parent_inode, name)
            if found is not None:
                return self._reply(found)
            if is_in_commit(parent_inode):
                return _nothing_forever()
        except Exception as error:
            raise self._refusal("lookup", parent_inode, error) from None
        raise FUSEError(ENOENT)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Answer with the attributes of a node."""
        try:
            found = self._view.attributes(inode)
            return _entry(found, found.ino)
        except Exception as error:
            raise self._refusal("getattr", inode, error) from None

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """Answer with the target of a symlink."""
        try:
            return self._view.readlink(inode)
        except Exception as error:
            raise self._refusal("readlink", inode, error) from None

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """Tell the kernel never to ask again, unless something has to be checked (fsview/door.py)."""
        if flags & _WRITING:
            raise FUSEError(EROFS)
        if not self._view.checks_at_open:
            raise FUSEError(ENOSYS)
        try:
            self._view.open(inode)
        except Exception as error:
            raise self._refusal("open", inode, error) from None
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    def answer_read(self, node: int, offset: int, size: int) -> tuple[int, bytes]:
        """Answer with all bytes of a file that were asked for, up to its size; or with an errno (fsview/door.py)."""
        row = self._row
        row.begin()
        try:
            data = self._view.read(node, offset, size)
            row.sent(len(data))
            return 0, data
        except Exception as error:
            refusal = self._refusal(f"read of {size} bytes at {offset}", node, error)
            row.refused(refusal.errno)
            return refusal.errno, b""
        finally:
            row.end(_READ)

    def is_at_end(self, node: int, start: int) -> bool:
        """Whether it is known without a look that a directory has no rows behind *start* (fsview/door.py)."""
        is_known = bool(start & _AT_END) and is_in_commit(node)
        if is_known:
            self._row.begin()
            self._row.end(_READDIR)
        return is_known

    async def release(self, fh: FileHandleT) -> None:
        """Nothing was kept."""

    async def flush(self, fh: FileHandleT) -> None:
        """Tell the kernel never to ask again."""
        raise FUSEError(ENOSYS)

    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        """Tell the kernel never to ask again: it has the modes."""
        raise FUSEError(ENOSYS)

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Tell the kernel never to ask again, and that it may keep what it reads of directories."""
        raise FUSEError(ENOSYS)

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Answer with as many entries behind *start_id* as fit, and all of their attributes."""
        try:
            if is_in_commit(fh):
                for name, entry, cookie in self._replies(fh, start_id):
                    if not pyfuse3.readdir_reply(token, name, entry, cookie):
                        return
            else:
                for row in self._view.rows(fh, start_id):
                    if not pyfuse3.readdir_reply(token, row.name, self._reply(row.attributes), row.cookie):
                        return
        except Exception as error:
            raise self._refusal("readdir", fh, error) from None

    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """Answer with the value of an extended attribute."""
        try:
            value = self._view.xattr(inode, name)
        except Exception as error:
            raise self._refusal("getxattr", inode, error) from None
        if value is None:
            raise FUSEError(ENODATA)
        return value

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """Answer with the names of the extended attributes."""
        try:
            return [XAttrNameT(name) for name, _ in self._view.xattrs(inode)]
        except Exception as error:
            raise self._refusal("listxattr", inode, error) from None

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Answer with what is used of the file system that the repository is on; nothing is free."""
        try:
            space = self._view.space()
        except Exception as error:
            raise self._refusal("statfs", pyfuse3.ROOT_INODE, error) from None
        data = StatvfsData()
        data.f_bsize = data.f_frsize = space.block_bytes
        data.f_blocks, data.f_files, data.f_namemax = space.blocks, space.entries, _NAME_BYTES_MAX
        return data

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Nothing was kept."""

    def _replies(self, node: int, start: int) -> Iterator[Reply]:
        """Yield the replies for the rows of a directory of a commit from the index *start* on.

        They are made by the page, as another worker may be asked for the next ones, and kept until a prune.
        """
        generation = self._view.generation()
        if generation != self._generation:
            self._pages.clear()
            self._generation = generation
        rows = self._view.row_count(node)
        for page in range(start // _PAGE_ROWS, -(-rows // _PAGE_ROWS)):
            yield from islice(self._page(node, page, rows), max(start - page * _PAGE_ROWS, 0), None)

    def _page(self, node: int, page: int, count: int) -> list[Reply]:
        replies = self._pages.get((node, page))
        if replies is None:
            rows = self._view.rows(node, page * _PAGE_ROWS, (page + 1) * _PAGE_ROWS)
            replies = [
                (name, self._reply(attributes), cookie | _AT_END if cookie == count else cookie)
                for name, attributes, cookie in rows
            ]
            self._pages.put((node, page), replies, len(replies))
        return replies

    def _reply(self, found: Attributes) -> EntryAttributes:
        """Return the reply to lookup and readdir."""
        entry = _entry(found, found.node)
        if int(found.ino) != found.node:
            if self._ino_offset is None:
                entry.attr_timeout = 0
            else:
                c_uint64.from_address(id(entry) + self._ino_offset).value = found.ino
        return entry

    def _refusal(self, request: str, node: int, error: Exception) -> FUSEError:
        """Return what to answer instead; log what somebody should look at."""
        errno = error.errno if isinstance(error, FsviewError) else EIO
        if isinstance(error, CorruptionError):
            self._row.damaged()
        if errno == EIO:
            unforeseen = None if isinstance(error, (FsviewError, OSError)) else error
            _log.error("%s: %s: %s", request, self._view.describe(node), error, exc_info=unforeseen)
        return FUSEError(errno)


async def _refuse_to_write(*_: object) -> NoReturn:
    raise FUSEError(EROFS)


# Mounted "ro" the kernel refuses all of these itself; a remount could change that.
for _name in (
    "setattr", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "create", "write", "setxattr",
    "removexattr",
):  # fmt: skip
    setattr(Operations, _name, _refuse_to_write)


def _counted(kind: int, handler: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """Return *handler*, counted as KINDS[*kind*]."""

    @wraps(handler)
    async def counted(self: Operations, *arguments: object) -> object:
        row = self._row
        row.begin()
        self._let_answer()
        try:
            return await handler(self, *arguments)
        except FUSEError as refusal:
            row.refused(refusal.errno)
            raise
        finally:
            row.end(kind)

    return counted


for _kind, _name in enumerate(KINDS):
    if _name in vars(Operations):
        setattr(Operations, _name, _counted(_kind, vars(Operations)[_name]))


def _do_nothing() -> None:
    pass


def _nothing_forever() -> EntryAttributes:
    """Return the reply that lets the kernel remember that a name is not there."""
    entry = EntryAttributes()
    entry.entry_timeout = FOREVER_S
    return entry


def _entry(found: Attributes, number: int) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = InodeT(number)
    entry.entry_timeout, entry.attr_timeout = found.name_s, found.attributes_s
    entry.st_mode, entry.st_uid, entry.st_gid = ModeT(found.mode), found.uid, found.gid
    entry.st_size, entry.st_blocks = found.size, block_count(found)
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = found.mtime_ns
    return entry
