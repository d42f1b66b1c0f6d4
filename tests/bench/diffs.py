"""`diff -rq` between two trees: through the view, on plain directories, and on OSTree's hardlinked checkouts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench, attempt
from tests.bench.contender import Contender
from tests.bench.loads import Load, measure
from tests.bench.peers import DIFFERS
from tests.bench.results import Goal, Row, times_faster, within
from tests.bench.timing import shell
from tests.bench.views import STATES

NOT_SLOWER = (within(1, "hardlinked"), times_faster(1, "plain"))
FEW_CHANGES = (times_faster(10, "hardlinked"), times_faster(20, "plain"))


def diffs(bench: Bench, old: Path, new: Path, goals: tuple[Goal, ...] = NOT_SLOWER) -> None:
    """Measure `diff -rq` between *old* and *new*."""
    rows = {
        state: row
        for state in STATES
        if (row := bench.results.row(f"diff -rq, {old.name} {new.name}, {state}", *goals)) is not None
    }
    expected: list[str] = []
    for contender in bench.contenders(DIFFERS) if rows else ():
        with bench.removed(contender):
            if attempt(rows.values(), contender.name, partial(contender.prepare, {"old": old, "new": new})):
                _run(bench, contender, rows, expected)


def _run(bench: Bench, contender: Contender, rows: dict[str, Row], expected: list[str]) -> None:
    if not attempt(rows.values(), contender.name, contender.mount):
        return
    for state, row in rows.items():
        attempt([row], contender.name, partial(_fill, bench, contender, row, state == "cold", expected))


def _fill(bench: Bench, contender: Contender, row: Row, is_cold: bool, expected: list[str]) -> None:
    """Measure; the lines must be those of the plain directories, but for where those are."""
    old, new = contender.path("old"), contender.path("new")
    for name, place in (("old", old), ("new", new)):
        assert shell("ls", place), f"{name} is empty"
    compare = f"{{ diff -rq --no-dereference {old}/ {new}/ || [ $? = 1 ]; }}"  # 1: they differ; 2: trouble
    load = Load("diff -rq", f"{compare} | sed 's#{old}/#old/#g; s#{new}/#new/#g' | LC_ALL=C sort")
    row.measured[contender.name], seen = measure(
        contender,
        "old",
        load,
        cold=is_cold,
        runs=bench.runs,
        limit_s=bench.limit_s,
        expected=expected[0] if expected else None,
    )
    if not row.measured[contender.name].at_least:
        expected.append(seen)
        row.notes["diff"] = f"{len(expected[0].splitlines())} lines"


@contextmanager
def copy_with_changes(tree: Path, work: Path, count: int = 10) -> Iterator[Path]:
    """Make a copy of *tree* with a byte appended to *count* files, spread over it."""
    copy = work / f"{tree.name}-changed"
    shell(f"cp -a --reflink=auto {tree} {copy}")
    change_files(copy, count)
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


def change_files(tree: Path, count: int = 10) -> None:
    """Append a byte to *count* files spread over a tree."""
    files = sorted(path for path in (tree / "usr").rglob("*") if path.is_file() and not path.is_symlink())
    for path in files[:: max(1, len(files) // count)][:count]:
        with path.open("ab") as file:
            file.write(b"\n")
