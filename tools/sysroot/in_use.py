"""A tree that a command runs in stays on disk until that has ended: a lock of its root directory.

It is the kernel's (flock), shared by those who use the tree, and ends with their processes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from store.errors import NotFoundError

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def using(deployment: Path) -> Iterator[None]:
    """Keep a deployment from being removed.

    Raises:
        NotFoundError: it was removed a moment ago.
        OSError: this user may not look into it.
    """
    descriptor = os.open(deployment, _DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits while it is being removed
        if not deployment.is_dir() or not os.path.samestat(os.stat(deployment), os.fstat(descriptor)):
            raise NotFoundError(f"{deployment} was removed just now; 'fsview status' shows what there is")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def unless_used(deployment: Path) -> Iterator[bool]:
    """Keep others from beginning to use a deployment; whether nobody uses it."""
    descriptor = os.open(deployment, _DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
