"""A machine to be changed, and a place for many changes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RunFsview
from tests.sysroot.rig import Machine
from tests.trees import supports_xattrs

_ROOM = 2 << 30  # bytes, for three images of XFS; a container may have 64 MiB there


@pytest.fixture
def machine(run_fsview: RunFsview, tmp_path: Path) -> Machine:
    """Return a sysroot with one stateroot, called main, and an empty repository."""
    return Machine.make(run_fsview, tmp_path)


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """Return a directory in memory, if that has room and xattrs: syncfs waits for all that others write to a disk."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM and supports_xattrs(memory):
        with tempfile.TemporaryDirectory(dir=memory) as path:
            yield Path(path)
    else:
        yield tmp_path
