"""From a commit's listings to files on disk: the tree below one destination.

One directory is open at a time, and every name is taken relative to it, so depth and hostile names don't matter. A
directory gets its owner, mode and mtime when it is complete; a file its owner before its mode, as chown drops setuid.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store import object_rules
from store.content import CHUNK_BYTES, file_header, file_record, open_content
from store.database import Reading
from store.errors import CorruptionError, FsviewError, InvalidNameError
from store.listing import Entry
from store.objects import DirMeta, Xattrs
from store.repository import Repository
from store.schema import FileId, FileRecord, MetaId, TreeId
from store.tree import load_listing, meta_record
from tools.linking import Attributes, Linker
from tools.neighbours import Neighbour, NeighbourDirectory, opened
from tools.render import quote_path

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_SET_ID_BITS: Final = 0o6000
_MTIME_NS_MAX: Final = ((1 << 63) // 10**9 - 1) * 10**9  # as in the view: a commit may be of any time
_NOBODY: Final = 2**32 - 1  # chown takes it for "leave it"
_DEPTH_MAX: Final = 10_000
_ACLS: Final = ("system.posix_acl_default", "system.posix_acl_access")


@dataclass(slots=True)
class Written:
    """How much was written; bytes are those of regular files."""

    files: int = 0
    symlinks: int = 0
    directories: int = 0
    bytes: int = 0


class TreeWriter:
    """Writes below one destination."""

    def __init__(
        self, repository: Repository, linker: Linker, user_mode: bool, shown: Path, advance: Callable[[int], object],
        *, hollow: Container[bytes] = (), neighbours: Sequence[Neighbour] = (),
    ) -> None:  # fmt: skip
        """*user_mode* leaves out owners, xattrs, setuid and setgid; *shown* is how errors call the destination.

        *hollow* are the paths of directories that are left empty; *neighbours* are trees in which the same file may be.
        """
        self._hollow, self._neighbours = hollow, neighbours
        self._repository, self._linker, self._user_mode = repository, linker, user_mode
        self._shown, self._advance = shown, advance
        self._zero_mtime = repository.settings.mtime == "zero"  # the root's would be the commit's time
        self._top = b""
        self._beside: list[NeighbourDirectory] = []  # of the directory that is open
        self.done = Written()

    def directory(self, top: int, path: bytes, root: Entry) -> None:
        """Write what is in the directory *root* into the empty directory *top*, and give that its attributes."""
        self._top = path
        here = os.dup(top)
        try:
            stack = [(path, root, self._fill(here, path, root))]
            while stack:
                path, directory, waiting = stack[-1]
                child = next(waiting, None)
                if child is not None:
                    here = self._enter(here, path, child, len(stack))
                    below = path + b"/" + child.name
                    stack.append((below, child, self._fill(here, below, child)))
                    continue
                stack.pop()
                here = self._leave(here, path, directory, is_top=not stack)
        finally:
            os.close(here)

    def single(self, directory: int, name: bytes, path: bytes, entry: Entry) -> None:
        """Write a file or a symlink called *name* into *directory*."""
        self._top = path
        with self._repository.database.reading() as reading, self._told(path):
            self._write(reading, directory, name, path, entry)

    def _fill(self, here: int, path: bytes, directory: Entry) -> Iterator[Entry]:
        """Write the files of a directory; return its sub-directories."""
        if path in self._hollow:
            return iter(())
        with (
            self._repository.database.reading() as reading,
            opened(self._neighbours, reading, path, directory.id) as self._beside,
        ):
            listing = load_listing(reading, TreeId(directory.id))
            _check_names(listing.names, path)
            directories = []
            for entry in listing:
                if entry.is_directory:
                    directories.append(entry)
                    continue
                below = path + b"/" + entry.name
                with self._told(below):
                    self._write(reading, here, entry.name, below, entry)
        self._advance(len(listing))
        return iter(directories)

    def _enter(self, here: int, path: bytes, child: Entry, depth: int) -> int:
        """Make a sub-directory and go into it: what was open is closed."""
        if depth > _DEPTH_MAX:
            raise CorruptionError("a dirtree", quote_path(path), f"at most {_DEPTH_MAX} levels", "more")
        with self._told(path + b"/" + child.name):
            os.mkdir(child.name, 0o700, dir_fd=here)
            below = os.open(child.name, DIRECTORY, dir_fd=here)
        os.close(here)
        return below

    def _leave(self, here: int, path: bytes, directory: Entry, *, is_top: bool) -> int:
        """Give the open directory its attributes, and go up. Nobody else can have moved it: the top is ours alone."""
        with self._repository.database.reading() as reading, self._told(path):
            meta = DirMeta.from_bytes(meta_record(reading, MetaId(directory.meta_id)).raw)
            above = here if is_top else os.open("..", DIRECTORY, dir_fd=here)
            self._dress(here, self._attributes(directory, meta.xattrs))
        self.done.directories += 1
        if not is_top:
            os.close(here)
        return above

    def _write(self, reading: Reading, here: int, name: bytes, path: bytes, entry: Entry) -> None:
        record = file_record(reading, FileId(entry.id))
        if stat.S_ISLNK(entry.mode):
            self._symlink(here, name, entry, record)
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
        if self._linker.link_beside(self._beside, entry, record.storage, path, attributes, here):
            return
        if self._linker.hardlink(record, path, attributes, name, here):
            return
        target = os.open(name, _NEW_FILE, 0o600, dir_fd=here)
        try:
            if not self._linker.reflink(record, target):
                self._copy(reading, FileId(entry.id), target)
                self._linker.counts.copied += 1
            self._dress(target, attributes)
        finally:
            os.close(target)

    def _copy(self, reading: Reading, file_id: FileId, target: int) -> None:
        content = open_content(self._repository, reading, file_id)
        try:
            offset = 0
            while data := content.read(offset, CHUNK_BYTES):
                offset += len(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(target, view) :]
        finally:
            content.close()

    def _symlink(self, here: int, name: bytes, entry: Entry, record: FileRecord) -> None:
        header = file_header(record)
        os.symlink(header.symlink_target, name, dir_fd=here)
        attributes = self._attributes(entry, header.xattrs)
        if attributes.owner is not None:
            os.chown(name, *attributes.owner, dir_fd=here, follow_symlinks=False)
        for key, value in attributes.xattrs:
            _set_xattr(f"/proc/self/fd/{here}/".encode() + name, key, value, follow=False)
        os.utime(name, ns=(attributes.mtime_ns, attributes.mtime_ns), dir_fd=here, follow_symlinks=False)
        self.done.symlinks += 1

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

    @contextmanager
    def _told(self, path: bytes) -> Iterator[None]:
        """Give an OSError the path in the destination: the system knows only the last name, or none."""
        try:
            yield
        except OSError as error:
            where = os.fsencode(self._shown) + path[len(self._top) :]
            shown = str(self._shown) if error.errno in _FULL else os.fsdecode(where)
            raise OSError(error.errno, error.strerror, shown) from error


def forget_acls(directory: int) -> None:
    """Take from a new directory what its parent wants for new files: it is not what was committed."""
    for acl in _ACLS:
        with suppress(OSError):
            os.removexattr(directory, acl)


def _check_names(names: list[bytes], path: bytes) -> None:
    """Check again what was checked when it was committed: a listing could have been written by somebody else."""
    try:
        object_rules.check_names(names)
    except InvalidNameError as error:
        raise CorruptionError("a listing", quote_path(path or b"/"), "names of files", str(error)) from error


def _set_xattr(file: int | bytes, key: bytes, value: bytes, *, follow: bool = True) -> None:
    try:
        os.setxattr(file, key, value, follow_symlinks=follow)
    except OSError as error:  # ENOSPC, too, is about the xattr: too large for this file system
        text = f"the xattr {quote_path(key)} can't be set: {error.strerror}; --user-mode leaves xattrs out"
        raise OSError(errno.EOPNOTSUPP, text) from error
