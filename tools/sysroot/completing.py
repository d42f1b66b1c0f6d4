"""Something done in, or to, a directory that is written, whatever its mode."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.walking.beneath import DIRECTORY


@contextmanager
def completing(directory: Path) -> Iterator[None]:
    """Let something be done in, or to, a directory that is written, whatever its mode; that and its times stay.

    It is for directories that nobody else can replace: those above it are ours.
    """
    status = directory.stat()
    if os.geteuid() != 0:  # to root no mode forbids it
        directory.chmod(status.st_mode | stat.S_IRWXU)
    descriptor = os.open(os.path.join(directory, "."), DIRECTORY)  # it may be moved
    try:
        yield
        os.fchmod(descriptor, status.st_mode)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(descriptor)
