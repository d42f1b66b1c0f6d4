"""The lock of a sysroot: one changing command at a time.

As apt and dnf do, the second waits and says for whom: the holder writes its pid and command into the file. The lock is
the kernel's (an open-file-description lock), so it ends with the process, and what an earlier holder wrote is nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from store.errors import ConflictError

LOCK_FILE: Final = "lock"
_WHOLE: Final = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_TEXT_BYTES_MAX: Final = 1000


@contextmanager
def locked(sysroot: Path, *, wait: bool = True, tell: Callable[[str], object] = lambda text: None) -> Iterator[None]:
    """Hold the lock of the sysroot at *sysroot*; *tell* is given a line where that takes waiting.

    Raises:
        ConflictError: somebody else has it, and *wait* is false.
        OSError: this user may not write there.
    """
    descriptor = os.open(sysroot / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _try(descriptor):
            holder = os.pread(descriptor, _TEXT_BYTES_MAX, 0).decode(errors="replace").strip() or "another process"
            if not wait:
                raise ConflictError(f"{sysroot} is being changed by {holder}; nothing was changed: try again later")
            tell(f"waiting for {holder}, which is changing {sysroot}")
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _WHOLE)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _who(), 0)
        yield
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _who() -> bytes:
    command = " ".join(["fsview", *sys.argv[1:]])
    return f"process {os.getpid()} ({command[:200]!r})\n".encode(errors="backslashreplace")[:_TEXT_BYTES_MAX]
