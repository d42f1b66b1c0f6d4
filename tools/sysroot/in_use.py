"""A tree that a command runs in stays on disk until that has ended: a shared lock, which ends with its processes.

It is of one byte of SYSROOT/in-use, numbered as the tree's root is, and so for the owner of the sysroot alone: any user
may open a tree, and a lock of that would keep everybody else out of it. Who runs a command in another user's sysroot
locks the tree itself (flock), and is refused where somebody holds that.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from store.errors import AccessError, ConflictError, NotFoundError
from store.locking import LockFile

IN_USE_FILE: Final = "in-use"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BYTES_MAX: Final = 1 << 62  # of a file that can be locked; numbers of inodes are seldom that large


@contextmanager
def using(sysroot: Path, deployment: Path) -> Iterator[None]:
    """Keep a deployment from being removed.

    Raises:
        NotFoundError: it was removed a moment ago.
        ConflictError: the sysroot is another user's, and somebody keeps the deployment locked.
        OSError: this user may not look into it.
    """
    descriptor = os.open(deployment, _DIRECTORY)
    try:
        with ExitStack() as stack:
            file = _lock_file(sysroot, stack)
            if file is not None:
                file.take(_byte(descriptor), exclusive=False)
            elif not _is_locked(descriptor, fcntl.LOCK_SH):
                raise ConflictError(f"another process has locked {deployment}: it is removed, or kept from being used")
            if not deployment.is_dir() or not os.path.samestat(os.stat(deployment), os.fstat(descriptor)):
                raise NotFoundError(f"{deployment} was removed just now; 'fsview status' shows what there is")
            yield
    finally:
        os.close(descriptor)


@contextmanager
def unless_used(sysroot: Path, deployment: Path) -> Iterator[bool]:
    """Keep others from beginning to use a deployment; whether nobody uses it."""
    descriptor = os.open(deployment, _DIRECTORY)
    try:
        with LockFile(sysroot / IN_USE_FILE) as file:
            is_free = file.try_to_take(_byte(descriptor), exclusive=True)
            yield is_free and _is_locked(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _lock_file(sysroot: Path, stack: ExitStack) -> LockFile | None:
    """Open the sysroot's lock file, unless it is another user's, or can't be written."""
    try:
        return stack.enter_context(LockFile(sysroot / IN_USE_FILE))
    except AccessError:
        return None
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return None


def _byte(deployment: int) -> int:
    return os.fstat(deployment).st_ino % _BYTES_MAX


def _is_locked(deployment: int, how: int) -> bool:
    """Lock a tree itself, unless somebody else is in the way."""
    try:
        fcntl.flock(deployment, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
