"""How much memory the processes of a view hold for themselves: RssAnon, as the LMDB map is shared."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

from fsview.mountpoint import PID_MARK
from tests.bench.bench import Bench, attempt
from tests.bench.contender import Fsview
from tests.bench.loads import Load
from tests.bench.results import OWN, Goal, Measured, Row, at_most, say
from tests.bench.timing import shell

WORKER_MIB_MAX = 80
WALKS = 10
_GROWN_MIB = 2.0  # an allocator's noise


def memory(bench: Bench, tree: Path) -> None:
    """Measure the largest process of a view after one full walk of *tree*, and after ten."""
    grown: dict[str, float] = {}
    first = bench.results.row(f"RssAnon of the largest process, {tree.name}, 1 walk", at_most(WORKER_MIB_MAX, "MiB"))
    goals = (at_most(WORKER_MIB_MAX, "MiB"), _not_grown(grown))
    last = bench.results.row(f"RssAnon of the largest process, {tree.name}, {WALKS} walks", *goals)
    for row in (first, last):
        if row is not None:
            row.unit = "MiB"
    rows = [row for row in (first, last) if row is not None]
    for view in bench.contenders((Fsview,)) if rows else ():
        assert isinstance(view, Fsview)
        with bench.removed(view):
            attempt(rows, OWN, partial(_measure, bench, view, tree, first, last, grown))


def _not_grown(grown: dict[str, float]) -> Goal:
    return Goal(
        "not growing", lambda row: (grown["last"] <= grown["first"] + _GROWN_MIB, f"{grown['first']:.1f} MiB before")
    )


def _measure(
    bench: Bench, view: Fsview, tree: Path, first: Row | None, last: Row | None, grown: dict[str, float]
) -> None:
    view.prepare({tree.name: tree})
    view.mount()
    walk = Load("walk", "find . -ls | wc -l; tar c . | wc -c")
    for number in range(1, WALKS + 1):
        say(f"walk {number} of {tree.name}")
        walk.run(view.path(tree.name), 10 * bench.limit_s)
        for at, row, key in ((1, first, "first"), (WALKS, last, "last")):
            if number == at:
                sizes = anonymous_mib(view.point)
                grown[key] = max(sizes.values())
                if row is not None:
                    row.measured[OWN] = Measured(grown[key])
                    row.notes[OWN] = ", ".join(f"{name} {mib:.1f} MiB" for name, mib in sizes.items())


def anonymous_mib(point: Path) -> dict[str, float]:
    """Return the RssAnon of the server of the view at *point*, and of all its descendants: its workers."""
    server = int(os.getxattr(point, PID_MARK))
    workers = _descendants(server)
    return {"server": _rss_anon_mib(server)} | {
        f"worker {number}": _rss_anon_mib(pid) for number, pid in enumerate(workers, 1)
    }


def _descendants(pid: int) -> list[int]:
    children = [int(child) for child in shell(f"cat /proc/{pid}/task/*/children").split()]
    return [below for child in children for below in (child, *_descendants(child))]


def _rss_anon_mib(pid: int) -> float:
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, f"the kernel tells no RssAnon of process {pid}"
    return int(found[1]) / 1024
