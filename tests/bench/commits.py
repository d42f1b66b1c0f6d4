"""Commit a tree: first, unchanged, and with ten files changed; against `ostree commit` into a bare repository."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench, attempt
from tests.bench.diffs import change_files
from tests.bench.results import OWN, Goal, Measured, Row, at_most, say, times_faster
from tests.bench.timing import drop_caches, shell, timed

_RACY_S = 3  # older than git's racy moment


def commits(bench: Bench, tree: Path) -> None:
    """Measure commits of a copy of *tree*."""
    names: dict[str, tuple[Goal, ...]] = {
        "first, warm": (times_faster(1.67, "ostree"),),
        "first, cold": (),
        "unchanged": (),
        "10 changed files": (),
    }
    rows = {
        name: row
        for name, goals in names.items()
        if (row := bench.results.row(f"commit, {tree.name}, {name}", *goals)) is not None
    }
    if rows:
        work = bench.work / "commit"
        work.mkdir()
        try:
            _Commits(bench, tree, work).run(rows)
        finally:
            shutil.rmtree(work, ignore_errors=True)


class _Commits:
    def __init__(self, bench: Bench, tree: Path, work: Path) -> None:
        self._bench, self._copy = bench, work / "copy"
        self._own, self._peer = work / "commit.fsview", work / "commit.ostree"
        shell(f"cp -a --reflink=auto {tree} {self._copy} && sync && sleep {_RACY_S}")
        options = "-s bench --timestamp=@1700000000"
        self._commands = {
            OWN: f"fsview commit --repo {self._own} -b bench {options} {self._copy}",
            "ostree": f"ostree commit --repo={self._peer} -b bench {options} {self._copy}",
        }

    def run(self, rows: dict[str, Row]) -> None:
        """Do all steps, as each builds on the one before; fill those rows that are wanted."""
        make = {
            OWN: f"rm -rf {self._own} && fsview init {self._own}",
            "ostree": f"rm -rf {self._peer} && ostree init --repo={self._peer} --mode=bare",
        }
        first = rows.get("first, warm", Row(""))
        self._measure(first, make)
        if "first, cold" in rows:
            self._measure(rows["first, cold"], make, cold=True)
        unchanged = rows.get("unchanged", Row(""))
        if "ostree" in first.measured:
            unchanged.goals = (at_most(first.measured["ostree"].value / 10),)
        self._measure(unchanged, {})
        change_files(self._copy)
        self._measure(rows.get("10 changed files", Row("")), {})

    def _measure(self, row: Row, before: Mapping[str, str], *, cold: bool = False) -> None:
        sums: set[str] = set()
        for program, command in self._commands.items():
            say(f"{row.what or 'commit'}: {program}")
            step = before.get(program, "true")
            attempt([row], program, partial(self._time, row, program, command, step, cold, sums))
        if len(sums) > 1 and before:
            row.failures[OWN] = f"the checksums differ: {sums}"

    def _time(self, row: Row, program: str, command: str, step: str, cold: bool, sums: set[str]) -> None:
        def prepare() -> None:
            shell(f"{step} && sync")
            if cold:
                drop_caches()

        seconds = timed(
            command, runs=self._bench.runs, before=prepare, check=lambda output: sums.add(output.split()[-1])
        )
        row.measured[program] = Measured(seconds, self._bench.runs)
