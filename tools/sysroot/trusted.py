"""Whose a sysroot is: what its files say is believed, and done.

So each directory on the way to it, its own directories and its files belong to root or to the caller, and not all users
may write to them. None of its own is a symlink, a FIFO or the like.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from store.entrance import TRUST_VARIABLE, is_trusted
from store.errors import AccessError, FormatError, SysrootError
from store.own_files import open_plain, own_directory

_TEXT_BYTES_MAX: Final = 1 << 20
_BY_ALL: Final = 0o002


def check_sysroot(path: Path) -> None:
    """Refuse a sysroot that belongs to somebody else, or that somebody else could put another one in the place of.

    Raises:
        AccessError: whose it is.
    """
    try:
        directory = own_directory(path, is_believed=is_trusted)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        raise AccessError(f"{path}: {error.strerror}, {_WHY}") from error
    try:
        _check(os.fstat(directory), path)
    finally:
        os.close(directory)


def check_directory(path: Path) -> None:
    """Refuse a directory of a sysroot that is not one, or somebody else's.

    Raises:
        SysrootError: it is a symlink, or a file.
        AccessError: whose it is.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise SysrootError(f"{path} is no directory, as it is in a sysroot: put the directory itself there")
    _check(status, path)


def check_link(path: Path) -> None:
    """Refuse a symlink of a sysroot that somebody else made.

    Raises:
        AccessError: whose it is.
    """
    status = os.lstat(path)
    if not is_trusted(status.st_uid):
        raise AccessError(f"{path} belongs to user {status.st_uid}, {_WHY}")


def read_text(path: Path) -> str:
    """Return what is in a file of a sysroot.

    Raises:
        FileNotFoundError: there is none.
        FormatError: it is no plain file, or too long for one of fsview's.
        AccessError: it is not to be believed.
        UnicodeDecodeError: it is no text.
    """
    try:
        descriptor = open_plain(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EPERM):
            raise
        raise FormatError(f"{path}: {error.strerror}; put the file itself there") from error
    with open(descriptor, "rb") as stream:
        _check(os.fstat(descriptor), path)
        text = stream.read(_TEXT_BYTES_MAX + 1)
    if len(text) > _TEXT_BYTES_MAX:
        raise FormatError(f"{path} is longer than {_TEXT_BYTES_MAX} bytes: it is not what fsview wrote")
    return text.decode("utf-8")


_WHY: Final = f"who could have this command read and write what he likes; if you trust him: {TRUST_VARIABLE}=USER"


def _check(status: os.stat_result, path: Path) -> None:
    if not is_trusted(status.st_uid):
        raise AccessError(f"{path} belongs to user {status.st_uid}, {_WHY}")
    if status.st_mode & _BY_ALL:
        raise AccessError(
            f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):04o}), who could put anything there; "
            f"mend it with: chmod go-w {path}"
        )
