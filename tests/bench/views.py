"""Read a tree through every contender: rows of the same loads, warm and cold, and how long a mount takes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench, attempt
from tests.bench.contender import Contender
from tests.bench.loads import FILE_LOADS, Load, make_file_tree, measure, split_lists, tree_loads
from tests.bench.peers import READERS
from tests.bench.results import Row, at_most, middle, say
from tests.bench.timing import drop_caches, shell

STATES = ("warm", "cold")
FIRST_LS_S = 0.3


@dataclass(frozen=True, slots=True)
class _Task:
    """A row and what fills it."""

    row: Row
    load: Load
    is_cold: bool


def reads(bench: Bench, tree: Path) -> None:
    """Measure what is done with a tree of files."""
    lists = bench.work / "lists"
    split_lists(tree, lists)
    _compare(bench, tree, tree_loads(lists), with_mounts=True)
    shutil.rmtree(lists)


def large_file(bench: Bench, size_bytes: int) -> None:
    """Measure what is done with one large file."""
    tree = bench.work / f"file-of-{size_bytes >> 20}-MiB"
    if any(bench.results.wants(_name(load, tree, state)) for load in FILE_LOADS for state in STATES):
        make_file_tree(tree, size_bytes)
        _compare(bench, tree, FILE_LOADS, with_mounts=False)
        shutil.rmtree(tree)


def _name(load: Load, tree: Path, state: str) -> str:
    return f"{load.what}, {tree.name}, {state}"


def _compare(bench: Bench, tree: Path, loads: Iterable[Load], *, with_mounts: bool) -> None:
    tasks = [
        _Task(row, load, state == "cold")
        for load in loads
        for state in STATES
        if (row := bench.results.row(_name(load, tree, state), *load.goals(state))) is not None
    ]
    mounts = [
        (row, state == "cold")
        for state in STATES
        if with_mounts
        and (row := bench.results.row(f"mount to first ls, {tree.name}, {state}", at_most(FIRST_LS_S))) is not None
    ]
    if not tasks and not mounts:
        return
    expected: dict[str, str] = {}  # what the plain directory, the first contender, showed
    for contender in bench.contenders(READERS):
        with bench.removed(contender):
            say(f"preparing {contender.name} of {tree.name}")
            rows = [task.row for task in tasks] + [row for row, _ in mounts]
            if attempt(rows, contender.name, partial(contender.prepare, {tree.name: tree})):
                _run(bench, contender, tree.name, tasks, expected)
                if contender.name != "plain":
                    _first_lists(bench, contender, tree.name, mounts)


def _run(bench: Bench, contender: Contender, name: str, tasks: list[_Task], expected: dict[str, str]) -> None:
    """Do all tasks; the warm ones in one mount."""
    rows = [task.row for task in tasks]
    if not tasks or not attempt(rows, contender.name, contender.mount):
        return
    for task in sorted(tasks, key=lambda task: task.is_cold):
        attempt([task.row], contender.name, partial(_fill, bench, contender, name, task, expected))
    attempt([], contender.name, contender.unmount)


def _fill(bench: Bench, contender: Contender, name: str, task: _Task, expected: dict[str, str]) -> None:
    measured, seen = measure(
        contender,
        name,
        task.load,
        cold=task.is_cold,
        runs=bench.runs,
        limit_s=bench.limit_s,
        expected=expected.get(task.load.what),
    )
    task.row.measured[contender.name] = measured
    if not measured.at_least:
        expected.setdefault(task.load.what, seen)


def _first_lists(bench: Bench, contender: Contender, name: str, rows: list[tuple[Row, bool]]) -> None:
    for row, is_cold in rows:
        attempt([row], contender.name, partial(first_list, bench, contender, name, row, is_cold))


def first_list(bench: Bench, contender: Contender, name: str, row: Row, is_cold: bool) -> None:
    """Measure from `mount` until the tree is listed."""
    times = []
    for _ in range(bench.runs):
        contender.unmount()
        if is_cold:
            drop_caches()
        began = time.perf_counter()
        contender.mount()
        names = shell("ls", contender.path(name))
        times.append(time.perf_counter() - began)
        assert names, "the tree is empty"
    row.measured[contender.name] = middle(times)
    contender.unmount()
