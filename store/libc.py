"""System calls that Python's os module lacks, through libc. Each raises OSError, with the path it was given."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

RESOLVE_NO_XDEV: Final = 0x01  # linux/openat2.h
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RENAME_NOREPLACE: Final = 1  # linux/fs.h
RENAME_EXCHANGE: Final = 2

FICLONE: Final = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int), for fcntl.ioctl

_OPENAT2: Final = 437  # its number on all architectures
_AT_EMPTY_PATH: Final = 0x1000
_STATX_INO: Final = 0x100
_STATX_MNT_ID: Final = 0x1000  # Linux 5.8
_STATX_BYTES: Final = 256
_STATX_INODE: Final = struct.Struct("=Q")  # at 32
_STATX_PLACE: Final = struct.Struct("=IIQ")  # at 136: the device's two numbers, the mount's
_HOW: Final = struct.Struct("=QQQ")
_TRIES: Final = 32  # openat2 answers EAGAIN when something on the way was just renamed

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Identity(NamedTuple):
    """What tells an open file or directory from all others: device, inode, and the mount through which it is seen."""

    device: tuple[int, int]
    inode: int
    mount: int


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """Open *path* below *directory*, resolved as the RESOLVE_ flags say; openat2(2)."""
    how = _HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_TRIES):
        descriptor: int = _libc.syscall(_OPENAT2, directory, path, how, len(how))
        if descriptor >= 0:
            return descriptor
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise _error(path)


def identity(descriptor: int) -> Identity:
    """Return what a descriptor is of; statx(2)."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if _libc.statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_INO | _STATX_MNT_ID, buffer):
        raise _error(b"")
    major, minor, mount = _STATX_PLACE.unpack_from(buffer, 136)
    return Identity((major, minor), _STATX_INODE.unpack_from(buffer, 32)[0], mount)


def renameat2(
    source: bytes, target: bytes, flags: int, *, source_directory: int = -100, target_directory: int = -100
) -> None:  # fmt: skip
    """Rename with RENAME_ flags; renameat2(2). The directories are descriptors; -100: the working directory."""
    if _libc.renameat2(source_directory, source, target_directory, target, flags):
        raise _error(source, target)


def _error(path: bytes, other: bytes | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), os.fsdecode(path), None, None if other is None else os.fsdecode(other))
