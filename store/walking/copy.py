"""Copy a tree with all that it has, as `cp -a --reflink=auto` does, but through no symlink that appears meanwhile.

Others may write in the source while it is copied: what vanishes is left out, what is replaced is copied as it is then,
a file that grows ends where it did when it was opened. What is mounted in it is not entered: the copy fails there. The
target is made 0700 and gets its own mode at the end; in between nobody else can get in.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from store.errors import ConflictError, FsviewError
from store.libc import FICLONE
from store.walking.beneath import DIRECTORY, FILE, open_same, xattr_path
from store.walking.private import forget_acls
from store.walking.walk import Walk

_PIECE_BYTES: Final = 1 << 20
_TRIES: Final = 5
_GONE: Final = (errno.ENOENT, errno.ENOTDIR)
_REPLACED: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO)  # ENXIO: by a socket
_NOT_MINE: Final = (errno.EPERM, errno.EACCES)  # what a user may not set
_NO_XATTRS: Final = (errno.ENOTSUP, errno.ENOSYS)
_SHADOWS: Final = b"trusted.SGI_ACL_"  # XFS shows each ACL a second time by this name
_SET_ID_BITS: Final = 0o6000
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Level(NamedTuple):
    """A directory under way: what it had when it was entered, and the names that are left."""

    status: os.stat_result
    names: Iterator[bytes]


def copy_tree(source: Path, target: Path, *, keeps_links: bool = True) -> None:
    """Copy the directory *source*; *target* is made. Without *keeps_links* each name gets a file of its own.

    Raises:
        FsviewError: something is mounted in it.
        ConflictError: it doesn't hold still, or was moved.
        OSError: it can't be read, or the copy not be written; half a copy stays.
    """
    top = os.open(source, DIRECTORY)
    try:
        os.mkdir(target, 0o700)
        copy = os.open(target, DIRECTORY)
        try:
            copy_directory(top, copy, os.fsencode(source), os.fsencode(target), keeps_links=keeps_links)
        finally:
            os.close(copy)
    finally:
        os.close(top)


def copy_directory(top: int, target: int, source: bytes, shown: bytes, *, keeps_links: bool = True) -> None:
    """Copy what is in the open directory *top* into the open and empty directory *target*, and its attributes.

    *source* and *shown* are what errors call the two.

    Raises:
        As `copy_tree`.
    """
    with Walk(top, source, one_mount=True) as reading, Walk(target, shown, one_mount=True) as writing:
        _Copy(reading, writing, target, keeps_links).all()


class _Copy:
    """One copy: two walks that go the same way."""

    def __init__(self, reading: Walk, writing: Walk, target: int, keeps_links: bool) -> None:
        self._reading, self._writing, self._target = reading, writing, target
        self._keeps_links, self._is_root = keeps_links, os.geteuid() == 0
        self._linked: dict[
            tuple[int, int], bytes
        ] = {}  # device and inode of files with more names -> path in the target
        self._levels: list[_Level] = []

    def all(self) -> None:
        os.fchmod(self._writing.here, 0o700)
        forget_acls(self._writing.here)
        self._look()
        while self._levels:
            name = next(self._levels[-1].names, None)
            if name is None:
                self._finish_directory()
            else:
                self._one(name)

    def _one(self, name: bytes) -> None:
        """Copy what has this name now; if it is replaced meanwhile, what has it then."""
        for _ in range(_TRIES):
            try:
                status = os.stat(name, dir_fd=self._reading.here, follow_symlinks=False)
            except OSError as error:
                if error.errno in _GONE:
                    return
                raise self._placed(error, self._reading, name) from error
            if self._is_copied(name, status):
                return
        raise ConflictError(f"{_text(self._reading.shown(name))} is replaced all the time; try again when it is quiet")

    def _is_copied(self, name: bytes, status: os.stat_result) -> bool:
        try:
            if stat.S_ISDIR(status.st_mode):
                self._enter(name, status)
            elif stat.S_ISREG(status.st_mode):
                self._file(name, status)
            else:
                self._other(name, status)
        except OSError as error:
            if error.errno in _REPLACED:
                return False
            raise self._placed(error, self._reading, name) from error
        return True

    def _enter(self, name: bytes, status: os.stat_result) -> None:
        self._reading.enter(name, status)
        os.mkdir(name, 0o700, dir_fd=self._writing.here)
        self._writing.enter(name)
        self._look()

    def _look(self) -> None:
        here = self._reading.here
        self._levels.append(_Level(os.fstat(here), iter([os.fsencode(name) for name in os.listdir(here)])))

    def _finish_directory(self) -> None:
        status, _ = self._levels.pop()
        source, target = self._reading.here, self._writing.here
        try:
            self._dress(source, target, status)
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        except OSError as error:
            raise self._placed(error, self._writing) from error
        if self._levels:
            self._reading.leave()
            self._writing.leave()

    def _file(self, name: bytes, status: os.stat_result) -> None:
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and self._is_linked(key, name):
            return
        source = open_same(self._reading.here, name, FILE, status, one_mount=True)
        try:
            target = os.open(name, _NEW, 0o600, dir_fd=self._writing.here)
            try:
                copy_contents(source, target, os.fstat(source).st_size)
                self._dress(source, target, status)
                os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)
        if status.st_nlink > 1 and self._keeps_links:
            self._linked[key] = b"/".join([*self._writing.names, name])

    def _is_linked(self, key: tuple[int, int], name: bytes) -> bool:
        """Make a hard link of what was copied under another name; not if that is too long a path for the kernel."""
        first = self._linked.get(key)
        if first is None:
            return False
        try:
            os.link(first, name, src_dir_fd=self._target, dst_dir_fd=self._writing.here, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.EMLINK):
                raise
            return False
        return True

    def _other(self, name: bytes, status: os.stat_result) -> None:
        """Copy a symlink, a FIFO, a socket or a device."""
        here = self._writing.here
        if stat.S_ISLNK(status.st_mode):
            os.symlink(self._target_of(name), name, dir_fd=here)
        else:
            os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=here)
        self._owner(name, status, here)
        self._xattrs(xattr_path(self._reading.here, name), xattr_path(here, name))
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=here)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=here, follow_symlinks=False)

    def _target_of(self, name: bytes) -> bytes:
        try:
            return os.readlink(name, dir_fd=self._reading.here)
        except OSError as error:
            if error.errno == errno.EINVAL:  # it is no symlink any more
                error.errno = errno.ESTALE
            raise

    def _dress(self, source: int, target: int, status: os.stat_result) -> None:
        """Give an open file or directory its owner, then its xattrs and its mode: chown drops set-ID bits."""
        is_owned = self._owner(target, status)
        self._xattrs(source, target)
        mode = stat.S_IMODE(status.st_mode)
        os.fchmod(target, mode if is_owned else mode & ~_SET_ID_BITS)

    def _owner(self, target: int | bytes, status: os.stat_result, directory: int | None = None) -> bool:
        """Give it its owner; whether that could be: a user keeps what he copies."""
        try:
            if isinstance(target, int):
                os.fchown(target, status.st_uid, status.st_gid)
            else:
                os.chown(target, status.st_uid, status.st_gid, dir_fd=directory, follow_symlinks=False)
        except PermissionError:
            if self._is_root:
                raise
            return False
        return True

    def _xattrs(self, source: int | bytes, target: int | bytes) -> None:
        follow = isinstance(source, int)
        try:
            names = [os.fsencode(name) for name in os.listxattr(source, follow_symlinks=follow)]
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return
            raise
        for name in names:
            if not name.startswith(_SHADOWS):
                self._xattr(source, target, name, follow)

    def _xattr(self, source: int | bytes, target: int | bytes, name: bytes, follow: bool) -> None:
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)
        except OSError as error:
            is_lost = error.errno in (errno.ENODATA, errno.ENOTSUP)  # gone meanwhile; or this disk can't hold it
            if not is_lost and (self._is_root or error.errno not in _NOT_MINE):
                raise

    def _placed(self, error: OSError, walk: Walk, name: bytes = b"") -> Exception:
        """Return an error with the whole path: the system knows only the last name."""
        shown = walk.shown(name)
        if error.errno == errno.EXDEV:
            return FsviewError(f"{_text(shown)} can't be copied: something is mounted there; unmount it first")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shown = self._writing.shown(name)
        return OSError(error.errno, error.strerror, os.fsdecode(shown))


def copy_contents(source: int, target: int, size: int) -> None:
    """Share the first *size* bytes of an open file with a new one, or copy them; holes stay holes."""
    with suppress(OSError):  # this file system can't, or these two files can't
        fcntl.ioctl(target, FICLONE, source)
        os.ftruncate(target, size)  # it may have grown
        return
    for start, end in _extents(source, size):
        while start < end:
            piece = os.pread(source, min(_PIECE_BYTES, end - start), start)
            if not piece:
                break
            written = 0
            while written < len(piece):
                written += os.pwrite(target, piece[written:], start + written)
            start += len(piece)
    os.ftruncate(target, size)


def _extents(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where there are data."""
    position = 0
    while position < size:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            yield position, size  # this file system doesn't tell
            return
        position = min(os.lseek(file, start, os.SEEK_HOLE), size)
        yield start, position


def _text(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
