"""A machine to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import RunFsview
from tests.sysroot.rig import Machine


@pytest.fixture
def machine(run_fsview: RunFsview, tmp_path: Path) -> Machine:
    """Return a sysroot with one stateroot, called main, and an empty repository."""
    return Machine.make(run_fsview, tmp_path)
