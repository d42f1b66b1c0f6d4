"""The lock of a sysroot: one changing command at a time. As apt and dnf do, the second waits and says for whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from store.errors import ConflictError
from store.locking import LockFile

LOCK_FILE: Final = "lock"
_BYTE: Final = 0


@contextmanager
def locked(sysroot: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of the sysroot at *sysroot*.

    Raises:
        ConflictError: somebody else has it, and *wait* is false.
        AccessError: this user may not take it.
        OSError: the file system can't be written.
    """
    with LockFile(sysroot / LOCK_FILE) as file:
        if wait:
            file.take(_BYTE, exclusive=True)
        elif not file.try_to_take(_BYTE, exclusive=True):
            holder = file.holder(_BYTE, exclusive=True)
            raise ConflictError(f"{sysroot} is being changed by {holder}; nothing was changed: try again later")
        yield
