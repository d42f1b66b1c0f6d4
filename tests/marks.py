"""Marks that tests of several rooms have."""

from __future__ import annotations

import os

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do what this tries")
