"""Marks that tests of several rooms have: what a developer's machine may lack, and `make test` can't install.

CI runs as root and with /dev/fuse; without them a developer can still try what doesn't need them.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

HAS_FUSE: Final = os.access("/dev/fuse", os.R_OK | os.W_OK)
NO_FUSE: Final = "/dev/fuse is missing or may not be used here"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do what this tries")
needs_fuse = pytest.mark.skipif(not HAS_FUSE, reason=NO_FUSE)
