"""Open something below a directory, through no symlink, and to nowhere else."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from store.libc import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, identity, openat2

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # who put a FIFO there must not make us wait
PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC  # of anything, a symlink too, and to do nothing with it yet

_INSIDE: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_REACH_BYTES_MAX: Final = 4000  # the kernel takes 4095
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(top: int, path: bytes, flags: int, *, one_mount: bool = False) -> int:
    """Open the relative *path*, however long it is, below the directory *top*; b"": the directory itself.

    Flags are those of open(2), see DIRECTORY, FILE and PLACE. With *one_mount* nothing that is mounted is entered.

    Raises:
        OSError: ELOOP or ENOTDIR: there is a symlink on the way, EXDEV: a mount point.
    """
    here = top
    try:
        while len(path) > _REACH_BYTES_MAX:
            cut = path.rindex(b"/", 0, _REACH_BYTES_MAX)
            there = _open(here, path[:cut], _STEP, one_mount)
            if here != top:
                os.close(here)
            here, path = there, path[cut + 1 :].lstrip(b"/")
        return _open(here, path or b".", flags, one_mount)
    finally:
        if here != top:
            os.close(here)


def open_same(top: int, path: bytes, flags: int, expected: os.stat_result, *, one_mount: bool = False) -> int:
    """Open what was seen before, as *expected*, and nothing else, nor what got its inode number when it was deleted.

    Raises:
        OSError: as `open_beneath`; ESTALE: something else is there now.
    """
    descriptor = open_beneath(top, path, flags, one_mount=one_mount)
    status = os.fstat(descriptor)
    if os.path.samestat(status, expected) and stat.S_IFMT(status.st_mode) == stat.S_IFMT(expected.st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.ESTALE, "it was replaced meanwhile", os.fsdecode(path))


def xattr_path(directory: int, name: bytes) -> bytes:
    """Return the path by which the xattrs of *name* in an open directory are reached, a symlink's own included."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def _open(here: int, path: bytes, flags: int, one_mount: bool) -> int:
    try:
        return openat2(here, path, flags, _INSIDE | RESOLVE_NO_XDEV if one_mount else _INSIDE)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # some sandboxes know no openat2
            raise
    return _open_by_steps(here, path.split(b"/"), flags, one_mount)


def _open_by_steps(top: int, names: list[bytes], flags: int, one_mount: bool) -> int:
    """Do what openat2 does, one name at a time."""
    here = os.dup(top)
    mount = identity(top).mount
    for number, name in enumerate(names, 1):
        try:
            if name == b"..":
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(name))
            there = os.open(name, flags if number == len(names) else _STEP, dir_fd=here)
        finally:
            os.close(here)
        if one_mount and identity(there).mount != mount:
            os.close(there)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(name))
        here = there
    return here
