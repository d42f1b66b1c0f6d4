"""docs/security.md names a test for each promise: they are there."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HOSTILE = PROJECT / "tests/hostile"


def test_each_promise_names_tests_that_are_there() -> None:
    text = (PROJECT / "docs/security.md").read_text()
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| he tries"))
    ]
    rows = [row for row in rows if not row.startswith(("| it has", "| it tries, as"))]
    named = [re.findall(r"`([./a-z_]+\.py)`", row.rsplit("|", 2)[1]) for row in rows]
    without = [row for row, tests in zip(rows, named, strict=True) if not tests and "--help" not in row]
    missing = [test for tests in named for test in tests if not (HOSTILE / test).is_file()]
    assert (without, missing) == ([], [])
    assert len(rows) > 25


def test_each_room_of_attacks_is_named() -> None:
    text = (PROJECT / "docs/security.md").read_text()
    assert [path.name for path in sorted(HOSTILE.glob("test_*.py")) if f"`{path.name}`" not in text] == []
