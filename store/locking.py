"""Locks of files, and whom somebody waits for.

Any user can hold a lock of a file that he may merely read, and keep everybody waiting for good. So lock files are for
their owner alone, or for the group where that may write to the directory; older ones are narrowed by who may do it.

The locks are the kernel's, of open file descriptions, so they exclude other threads, too, and end with the process.
They have no pid, also not in /proc/locks; but /proc/PID/fdinfo tells which descriptor holds one, as far as this user
may look.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from store.errors import AccessError
from store.own_files import is_ours, open_plain

PATIENCE_S: Final = 2.0  # who waits longer is told for whom
_COMMAND_LENGTH_MAX: Final = 200
_BUSY: Final = (errno.EAGAIN, errno.EACCES)


def _say_nothing(text: str) -> None:
    """Before somebody wants to hear."""


_tell: Callable[[str], object] = _say_nothing


def on_waiting(tell: Callable[[str], object]) -> None:
    """Have *tell* be given a line, in another thread, whenever this process waits for a lock for long.

    One for all locks: they are taken in many places, and there is one user who waits.
    """
    global _tell
    _tell = tell


@contextmanager
def told_when_long(text: Callable[[], str]) -> Iterator[None]:
    """Tell *text* if what is done inside takes longer than anybody waits without asking why."""
    import threading  # seldom needed

    timer = threading.Timer(PATIENCE_S, lambda: _tell(text()))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # a fork later would lose it in the middle


class LockFile:
    """An open lock file, made where there is none. Use as a context manager: all its locks end with it."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            AccessError: it isn't this user's to use, or no plain file.
            OSError: the file system can't be written.
        """
        self._path = path
        try:
            self._descriptor = _opened(path)
        except PermissionError as error:
            raise AccessError(
                f"the lock {path} can't be taken: {error.strerror}; "
                f"run fsview as the owner of {path.parent}, to whom that file must belong, or read through a view"
            ) from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise AccessError(f"the lock {path} can't be taken: {error.strerror}; remove it") from error
            raise

    def try_to_take(self, byte: int, *, exclusive: bool) -> bool:
        """Take the lock of one byte, unless somebody else has it."""
        try:
            self._set(fcntl.F_OFD_SETLK, byte, fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            return False
        return True

    def take(self, byte: int, *, exclusive: bool) -> None:
        """Take the lock of one byte; wait while somebody else has it, and tell for whom if that takes long."""
        if not self.try_to_take(byte, exclusive=exclusive):
            with told_when_long(lambda: f"waiting for {self.holder(byte, exclusive=exclusive)}: {self._path} is taken"):
                self._set(fcntl.F_OFD_SETLKW, byte, fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK)

    def release(self, byte: int) -> None:
        """Give the lock of one byte back."""
        self._set(fcntl.F_OFD_SETLK, byte, fcntl.F_UNLCK)

    def holder(self, byte: int, *, exclusive: bool) -> str:
        """Return who is in the way of a lock, for people; "another process" where this user can't see it."""
        found = _holders(os.fstat(self._descriptor), byte, exclusive)
        if not found:
            return "another process"
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"process {found[0]} ({_command(found[0])!r}){more}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _set(self, how: int, byte: int, kind: int) -> None:
        fcntl.fcntl(self._descriptor, how, struct.pack("hhqqi", kind, os.SEEK_SET, byte, 1, 0))


def lock_mode(directory: os.stat_result) -> int:
    """Return the mode of lock files in a directory: its group's, too, where that may write there."""
    return 0o660 if directory.st_mode & stat.S_IWGRP else 0o600


def close_to_others(path: Path) -> None:
    """Take from a lock file of LMDB's what neither its owner needs, nor the group, where that may enter the directory.

    Who may write there could hold up all writers for good; who may read, too, with a lock.
    """
    status = os.lstat(path)
    wanted = 0o660 if os.stat(path.parent).st_mode & stat.S_IXGRP else 0o600
    if os.geteuid() in (0, status.st_uid) and stat.S_IMODE(status.st_mode) & ~wanted:
        descriptor = open_plain(path, os.O_RDONLY)
        try:
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & wanted)
        finally:
            os.close(descriptor)


def _opened(path: Path) -> int:
    directory = os.stat(path.parent)
    try:
        descriptor = open_plain(path, os.O_RDWR)
    except FileNotFoundError:
        descriptor = _made(path, directory)
    try:
        status, mode = os.fstat(descriptor), lock_mode(directory)
        if not is_ours(status.st_uid) and status.st_uid != directory.st_uid and mode == 0o600:
            raise PermissionError(errno.EPERM, f"it belongs to user {status.st_uid}", str(path))
        if os.geteuid() in (0, status.st_uid) and stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _made(path: Path, directory: os.stat_result) -> int:
    """Make a lock file, as one of the directory's owner: root may be the first who needs it."""
    try:
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except FileExistsError:  # somebody was faster
        return open_plain(path, os.O_RDWR)
    if os.geteuid() == 0 and directory.st_uid != 0:
        os.fchown(descriptor, directory.st_uid, directory.st_gid)
    return descriptor


def _holders(lock: os.stat_result, byte: int, exclusive: bool) -> list[int]:
    """Return the processes that hold a lock which is in the way of one of *byte*; without their children."""
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    found = [pid for pid in pids if _holds(pid, lock, byte, exclusive)]
    return [pid for pid in found if _parent(pid) not in found]  # what is forked shares the descriptor


def _holds(pid: int, lock: os.stat_result, byte: int, exclusive: bool) -> bool:
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fdinfo"):
            with suppress(OSError):  # closed meanwhile
                text = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
                is_in_the_way = any(_is_in_the_way(line, lock.st_ino, byte, exclusive) for line in text.splitlines())
                # Asked last: to look at a file of a view whose server hangs would hang, too.
                if is_in_the_way and os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), lock):
                    return True
    return False


def _is_in_the_way(line: str, inode: int, byte: int, exclusive: bool) -> bool:
    """Whether a line of fdinfo tells of such a lock.

    >>> _is_in_the_way("lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:37 0 0", 37, 0, exclusive=True)
    True
    """
    match line.split():
        case ["lock:", _, ("OFDLCK" | "POSIX"), _, kind, _, file, first, last]:
            is_there = int(first) <= byte and (last == "EOF" or byte <= int(last))
            return is_there and (exclusive or kind == "WRITE") and file.rpartition(":")[2] == str(inode)
    return False


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    return 0


def _command(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return os.fsdecode(b" ".join(words))[:_COMMAND_LENGTH_MAX]
    return ""
