"""What a view costs when its repository is large: by operation, against a small repository of the same shape."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench, attempt
from tests.bench.contender import Fsview
from tests.bench.growth import FAN_OUT, LEVELS, REF, directories, make_commits, make_files
from tests.bench.loads import PROBE, Load
from tests.bench.results import OWN, Goal, Row, at_most, middle, say, within
from tests.bench.views import FIRST_LS_S, STATES, first_list

GROWS_BY_MAX = 1.3
_LISTED_WITHIN_S = 5  # of the smaller number of commits
_LISTINGS = ("ls", "ls -l")
COMMITS = (10_000, 100_000)
SMALL = "small"
_PARENTS = 90  # of directories, that are looked at: 900 directories, 9,000 files
_LEVELS = {SMALL: 3, OWN: LEVELS}
_TURNS = 3  # for each wanted run: these are short
_OPERATIONS = {"lookup": "look-up", "list": "readdir", "open": "open and release"}


class _Generated(Fsview):
    """A repository that is there already."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.point.mkdir(parents=True)
        self.repository = self.work / "repo"


def large_tree(bench: Bench) -> None:
    """Measure look-ups, listings and opens in a tree of a million files, and how long it takes to mount it."""
    name = f"{FAN_OUT ** (LEVELS + 1):,} files"
    goals: tuple[Goal, ...] = (within(GROWS_BY_MAX, SMALL),)
    costs = {
        way: row
        for way, what in _OPERATIONS.items()
        if (row := bench.results.row(f"growth: {what}, {name}", *goals, unit="µs")) is not None
    }
    mounts = {
        state: row
        for state in STATES
        if (row := bench.results.row(f"growth: mount to first ls, {name}, {state}", at_most(FIRST_LS_S))) is not None
    }
    if costs or mounts:
        with ExitStack() as stack:
            views = {
                own: stack.enter_context(bench.removed(_Generated(bench.work / f"files-{levels}")))
                for own, levels in _LEVELS.items()
                if costs or own == OWN
            }
            rows = [*costs.values(), *mounts.values()]
            if all(attempt(rows, OWN, partial(_make, views[own], _LEVELS[own])) for own in views):
                for way, row in costs.items():
                    attempt([row], OWN, partial(_operation, bench, views, way, row))
                for state, row in mounts.items():
                    attempt([row], OWN, partial(first_list, bench, views[OWN], REF, row, state == "cold"))


def _make(view: Fsview, levels: int) -> None:
    say(f"making a repository of {FAN_OUT ** (levels + 1):,} files")
    make_files(view.repository, levels)


def _operation(bench: Bench, views: Mapping[str, Fsview], way: str, row: Row) -> None:
    """Measure an operation in both repositories by turns, on fresh mounts: the index is in memory, the kernel is new.

    By turns, so that what else the machine does falls on both.
    """
    say(row.what)
    times: dict[str, list[float]] = {own: [] for own in views}
    loads = {own: _load(view, _LEVELS[own], way) for own, view in views.items()}
    for run in range(1 + _TURNS * bench.runs):
        for own, view in views.items():
            load, count = loads[own]
            view.mount()
            seconds, seen = load.run(view.path(REF), bench.limit_s)
            view.unmount()
            assert seen.split()[0] == str(count), f"{own}: it did {seen} of {count}"
            if run:  # the first reads the index from the disk
                times[own].append(seconds / count * 1e6)
    row.measured.update((own, middle(each)) for own, each in times.items())


def _load(view: Fsview, levels: int, way: str) -> tuple[Load, int]:
    """Return what does the operation, and how often."""
    chosen = random.Random(1).sample(list(directories(levels)), _PARENTS)
    paths = [path for together in chosen for path in together]
    if way != "list":
        paths = [f"{path}/file-{at}" for path in paths for at in range(FAN_OUT)]
    names = view.work / f"{way}.list"
    names.write_text("".join(f"{path}\n" for path in paths))
    return Load(way, f"{PROBE} {way} {names}", is_probe=True), len(paths)


def many_commits(bench: Bench, counts: Iterable[int]) -> None:
    """Measure how long the directories that list commits take, when there are many."""
    for count in counts:
        goals = (at_most(_LISTED_WITHIN_S),) if count == COMMITS[0] else ()
        rows = {
            (place, command): row
            for place in ("commits", f"history/{REF}")
            for command in _LISTINGS
            if (row := bench.results.row(f"growth: {command} {place}, {count:,} commits", *goals)) is not None
        }
        mount = bench.results.row(f"growth: mount to first ls, {count:,} commits, warm", at_most(FIRST_LS_S))
        if not rows and mount is None:
            continue
        view = _Generated(bench.work / f"commits-{count}")
        with bench.removed(view):
            say(f"making a repository of {count:,} commits")
            if attempt(rows.values(), OWN, partial(make_commits, view.repository, count)):
                for (place, command), row in rows.items():
                    attempt([row], OWN, partial(_listing, bench, view, command, place, row, count))
                if mount is not None:
                    attempt([mount], OWN, partial(first_list, bench, view, REF, mount, False))


def _listing(bench: Bench, view: Fsview, command: str, place: str, row: Row, count: int) -> None:
    """Measure the first listing on a fresh mount."""
    load, times = Load(row.what, f"{command} {place}/ | grep -v ^total | wc -l"), []
    for _ in range(bench.runs):
        view.unmount()
        view.mount()
        if not (view.point / place.partition("/")[0]).exists():
            bench.results.skip(place, "this fsview shows no such directory")
            bench.results.rows.remove(row)
            return
        seconds, seen = load.run(view.point, 10 * bench.limit_s)
        assert seen == str(count), f"{place} lists {seen} commits of {count}"
        times.append(seconds)
    row.measured[OWN] = middle(times)
