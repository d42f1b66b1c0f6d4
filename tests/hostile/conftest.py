"""A place that other users can enter, but not write to: pytest's own directories let nobody in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Return a directory of root's that all can enter and look into."""
    if os.geteuid() != 0:
        pytest.skip("takes root, to become somebody else")
    with tempfile.TemporaryDirectory(prefix="fsview-open-") as path:
        os.chmod(path, 0o755)
        yield Path(path)
