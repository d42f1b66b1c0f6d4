"""Files that nobody else can lead elsewhere: no symlinks, FIFOs or links of somebody else's on the way to them.

Another user who may write to a directory, or to one above it, can put a symlink to a file of root's where fsview is
about to write, or a FIFO, at which it would hang. So such files are opened without following, looked at when they are
open, and refused if they aren't plain files of this user's or of root's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC  # to go through a directory takes no right to list it
_SYMLINKS_MAX: Final = 40  # as the kernel's


def is_ours(uid: int) -> bool:
    """Whether a file of this owner is this user's or root's. In a user namespace root is whoever has "/".

    `entrance.is_trusted` is what is asked of repositories and sysroots: there a user may name others, too.
    """
    return uid in (0, os.geteuid()) or uid == os.stat("/").st_uid


def open_plain(name: str | Path, flags: int, mode: int = 0o600, *, directory: int | None = None) -> int:
    """Open a plain file, in *directory* if that is given, and never hang.

    Raises:
        OSError: also where it is a symlink, a FIFO or a device.
    """
    try:
        descriptor = os.open(name, flags | _SAFELY, mode, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # ENXIO: a FIFO that nobody reads, a socket
            raise OSError(error.errno, "it is a symlink, a FIFO or a socket, not a plain file", str(name)) from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EPERM, "it is a FIFO or a device, not a plain file", str(name))


def open_own(directory: int, name: str, flags: int) -> int:
    """Open a plain file of this user's (0600), with no other name, to which nobody else can have led.

    Raises:
        OSError: also where it is none.
    """
    descriptor = open_plain(name, flags, directory=directory)
    status = os.fstat(descriptor)
    if is_ours(status.st_uid) and status.st_nlink <= 1:
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        return descriptor
    os.close(descriptor)
    why = f"it belongs to user {status.st_uid}" if status.st_nlink <= 1 else "it has other names (hard links)"
    raise OSError(errno.EPERM, why, name)


def own_directory(
    path: Path, *, make: bool = False, is_believed: Callable[[int], bool] = is_ours
) -> int:  # fmt: skip
    """Open a directory; each directory and each symlink on the way is root's or this user's.

    With *make*, those that are missing are made, for this user alone. *is_believed*: of other users, too.

    Raises:
        OSError: also where one belongs to somebody else.
    """
    walk = _Walk(make, is_believed)
    try:
        walk.go(os.path.abspath(path))
        return os.open(".", _DIRECTORY, dir_fd=walk.here)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(walk.here)


def create_anew(path: Path, mode: int) -> int:
    """Make a file to be written; what a killed command left there, or somebody put there, is removed, not followed."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, NEW, 0o600)
    os.fchmod(descriptor, mode)  # whatever the umask
    return descriptor


class _Walk:
    """A walk from "/" by names and symlinks, whose owners are asked for."""

    def __init__(self, make: bool, is_believed: Callable[[int], bool]) -> None:
        self.here = os.open("/", _STEP)
        self._make, self._is_believed, self._followed = make, is_believed, 0

    def go(self, path: str) -> None:
        if path.startswith("/"):
            self._enter("/")
        for name in path.split("/"):
            if name not in ("", "."):
                self._step(name)

    def _step(self, name: str) -> None:
        found = self._look(name)
        try:
            status = os.fstat(found)
            self._check_owner(name, status.st_uid)
            if not stat.S_ISLNK(status.st_mode):
                self._enter(name)
                return
            self._followed += 1
            if self._followed > _SYMLINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            self.go(os.readlink("", dir_fd=found))
        finally:
            os.close(found)

    def _enter(self, name: str) -> None:
        there = os.open(name, _STEP | os.O_NOFOLLOW, dir_fd=self.here)
        os.close(self.here)
        self.here = there
        self._check_owner(name, os.fstat(there).st_uid)  # it may have been exchanged since the look

    def _look(self, name: str) -> int:
        try:
            return os.open(name, _LOOK, dir_fd=self.here)
        except FileNotFoundError:
            if not self._make:
                raise
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.here)
        return os.open(name, _LOOK, dir_fd=self.here)

    def _check_owner(self, name: str, uid: int) -> None:
        if not self._is_believed(uid):
            raise OSError(errno.EPERM, f"{name!r} on the way to it belongs to user {uid}")
