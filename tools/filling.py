"""The files and symlinks of one directory, from a commit's listing to disk: the inner half of tools/materialise.py.

Every name is taken relative to the open directory. A directory gets its owner, mode and mtime when it is complete; a
file its owner before its mode, as chown drops setuid.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Final

from store.content import chunks, file_header, file_record
from store.database import Reading
from store.errors import CorruptionError, FsviewError
from store.listing import Entry, Listing
from store.objects import Xattrs
from store.repository import Repository
from store.schema import FileId, FileRecord, MetaId
from store.tree import load_dirmeta
from tools.linking import Attributes, LinkCounts, Linker
from tools.neighbours import Neighbour, NeighbourDirectory, opened
from tools.render import quote_path

_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_SET_ID_BITS: Final = 0o6000
_MTIME_NS_MAX: Final = ((1 << 63) // 10**9 - 1) * 10**9  # as in the view: a commit may be of any time
_NOBODY: Final = 2**32 - 1  # chown takes it for "leave it"


@dataclass(slots=True)
class Written:
    """How much was written; bytes are those of regular files."""

    files: int = 0
    symlinks: int = 0
    directories: int = 0
    bytes: int = 0

    def add(self, other: Written) -> None:
        """Count what another process wrote, too."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class Filler:
    """Writes into directories, one at a time."""

    def __init__(
        self, repository: Repository, linker: Linker, user_mode: bool, shown: Path, neighbours: Sequence[Neighbour] = ()
    ) -> None:
        """*user_mode* leaves out owners, xattrs, setuid and setgid; *shown* is how errors call the destination."""
        self._repository, self._linker, self._user_mode = repository, linker, user_mode
        self._shown, self._neighbours = shown, neighbours
        self._zero_mtime = repository.settings.mtime == "zero"  # the root's would be the commit's time
        self._beside: list[NeighbourDirectory] = []  # of the directory that is open
        self.top = b""  # which path of the commit the destination is
        self.done = Written()

    @property
    def counts(self) -> LinkCounts:
        """How contents came."""
        return self._linker.counts

    def over(self, repository: Repository) -> Filler:
        """Return the like for another process, which has opened the repository for itself; it counts for itself."""
        like = copy(self)
        like._repository, like._linker, like.done = repository, self._linker.over(repository), Written()
        return like

    def fill(self, reading: Reading, here: int, path: bytes, directory: Entry, listing: Listing) -> None:
        """Write the files and symlinks of *directory*, which is at *path* in the commit, and open as *here*."""
        with opened(self._neighbours, reading, path, directory.id) as self._beside:
            for entry in listing:
                if not entry.is_directory:
                    below = path + b"/" + entry.name
                    try:
                        self._write(reading, here, entry.name, below, entry)
                    except OSError as error:
                        raise self._placed(error, below) from error

    def single(self, reading: Reading, directory: int, name: bytes, path: bytes, entry: Entry) -> None:
        """Write a file or a symlink called *name* into *directory*."""
        with self.told(path):
            self._write(reading, directory, name, path, entry)

    def dress(self, reading: Reading, here: int, path: bytes, directory: Entry) -> None:
        """Give a directory, open as *here*, in which all is written, its attributes."""
        meta = load_dirmeta(reading, MetaId(directory.meta_id))
        with self.told(path):
            self._dress(here, self._attributes(directory, meta.xattrs))
        self.done.directories += 1

    @contextmanager
    def told(self, path: bytes) -> Iterator[None]:
        """Give an OSError the path in the destination: the system knows only the last name, or none."""
        try:
            yield
        except OSError as error:
            raise self._placed(error, path) from error

    def shown(self, path: bytes) -> bytes:
        """Return how errors call what is at *path* in the commit."""
        return os.fsencode(self._shown) + path[len(self.top) :]

    def _placed(self, error: OSError, path: bytes) -> OSError:
        shown = str(self._shown) if error.errno in _FULL else os.fsdecode(self.shown(path))
        return OSError(error.errno, error.strerror, shown)

    def _write(self, reading: Reading, here: int, name: bytes, path: bytes, entry: Entry) -> None:
        record = file_record(reading, FileId(entry.id))
        if stat.S_ISLNK(entry.mode):
            self._symlink(here, name, path, entry, record)
        elif stat.S_ISREG(entry.mode):
            xattrs = file_header(record).xattrs if record.has_xattrs else ()
            self._file(reading, here, name, path, entry, record, self._attributes(entry, xattrs))
            self.done.files += 1
            self.done.bytes += record.size
        else:
            raise CorruptionError("a listing", quote_path(path), "a file, directory or symlink", f"{entry.mode:#o}")

    def _file(
        self, reading: Reading, here: int, name: bytes, path: bytes, entry: Entry, record: FileRecord,
        attributes: Attributes,
    ) -> None:  # fmt: skip
        if self._linker.hardlink(record, path, attributes, name, here):
            return
        same = partial(self._is_same, reading, FileId(entry.id))
        if self._linker.link_beside(self._beside, entry, record.storage, path, attributes, here, same):
            return
        target = os.open(name, _NEW_FILE, 0o600, dir_fd=here)
        try:
            if not self._linker.reflink(record, target):
                self._copy(reading, FileId(entry.id), target)
                self._linker.counts.copied += 1
            self._dress(target, attributes)
        finally:
            os.close(target)

    def _is_same(self, reading: Reading, file_id: FileId, other: int) -> bool:
        """Whether another file has the contents of a file object; whoever may have changed them can set the mtime."""
        offset = 0
        for data in chunks(self._repository, reading, file_id):
            if os.pread(other, len(data), offset) != data:
                return False
            offset += len(data)
        return True

    def _copy(self, reading: Reading, file_id: FileId, target: int) -> None:
        for data in chunks(self._repository, reading, file_id):
            view = memoryview(data)
            while view:
                view = view[os.write(target, view) :]

    def _symlink(self, here: int, name: bytes, path: bytes, entry: Entry, record: FileRecord) -> None:
        header = file_header(record)
        attributes = self._attributes(entry, header.xattrs)
        self.done.symlinks += 1
        target = header.symlink_target

        def same(other: int) -> bool:
            return os.readlink(b"", dir_fd=other) == target

        if self._linker.link_beside(self._beside, entry, record.storage, path, attributes, here, same):
            return
        os.symlink(target, name, dir_fd=here)
        if attributes.owner is not None:
            os.chown(name, *attributes.owner, dir_fd=here, follow_symlinks=False)
        for key, value in attributes.xattrs:
            _set_xattr(f"/proc/self/fd/{here}/".encode() + name, key, value, follow=False)
        os.utime(name, ns=(attributes.mtime_ns, attributes.mtime_ns), dir_fd=here, follow_symlinks=False)

    def _attributes(self, entry: Entry, xattrs: Xattrs) -> Attributes:
        mode, mtime_ns = stat.S_IMODE(entry.mode), 0 if self._zero_mtime else min(entry.mtime_ns, _MTIME_NS_MAX)
        if self._user_mode:
            return Attributes(None, mode & ~_SET_ID_BITS, mtime_ns, ())
        if _NOBODY in (entry.uid, entry.gid):
            raise FsviewError(f"no file can have the owner {_NOBODY}; check out with --user-mode to leave owners out")
        return Attributes((entry.uid, entry.gid), mode, mtime_ns, xattrs)

    @staticmethod
    def _dress(file: int, attributes: Attributes) -> None:
        """Set what was committed: the owner first, since that drops setuid and capabilities; the times last."""
        if attributes.owner is not None:
            os.fchown(file, *attributes.owner)
        for key, value in attributes.xattrs:
            _set_xattr(file, key, value)
        os.fchmod(file, attributes.mode)
        os.utime(file, ns=(attributes.mtime_ns, attributes.mtime_ns))


def _set_xattr(file: int | bytes, key: bytes, value: bytes, *, follow: bool = True) -> None:
    try:
        os.setxattr(file, key, value, follow_symlinks=follow)
    except OSError as error:  # ENOSPC, too, is about the xattr: too large for this file system
        text = f"the xattr {quote_path(key)} can't be set: {error.strerror}; --user-mode leaves xattrs out"
        raise OSError(errno.EOPNOTSUPP, text) from error
