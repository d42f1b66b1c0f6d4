"""Time whole commands, warm and cold, and hold results together as rows of a table."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tools.render import table

DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(slots=True)
class Row:
    """One thing that was done by several programs; seconds by program, the medians of some runs."""

    what: str
    seconds: dict[str, float]
    goal: str = ""


@dataclass(slots=True)
class Results:
    """All rows, printed as they come."""

    rows: list[Row] = field(default_factory=list)

    def add(self, what: str, seconds: dict[str, float], goal: str = "") -> None:
        """Keep a row, and print it."""
        self.rows.append(Row(what, seconds, goal))
        print(f"  {what}: " + ", ".join(f"{name} {time_s:.3f} s" for name, time_s in seconds.items()), flush=True)

    def print_table(self) -> None:
        """Print what fsview took, and each other program's time as a multiple of it (more than 1: fsview is faster)."""
        lines = [("", "fsview", "others, as multiples of fsview's time", "goal")]
        for row in self.rows:
            own = row.seconds["fsview"]
            others = ", ".join(f"{name} {time_s / own:.2f}" for name, time_s in row.seconds.items() if name != "fsview")
            lines.append((row.what, f"{own:.3f} s", others, row.goal))
        print(table(lines))


def shell(command: str, cwd: Path | None = None, ok: Sequence[int] = (0,)) -> str:
    """Run a shell command; return its output.

    Raises:
        AssertionError: its exit status is not one of *ok*.
    """
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode in ok, f"{command}: exit status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


def drop_caches() -> None:
    """Empty the page, dentry and inode caches (root)."""
    shell("sync")
    DROP_CACHES.write_text("3\n")


def timed(
    command: str,
    *,
    cwd: Path | None = None,
    runs: int = 3,
    before: Callable[[], object] = lambda: None,
    check: Callable[[str], object] = lambda output: None,
    ok: Sequence[int] = (0,),
) -> float:
    """Return the median time in seconds; *before* each run, and *check* of each output, are not counted."""
    times = []
    for _ in range(runs):
        before()
        start = time.perf_counter()
        output = shell(command, cwd, ok)
        times.append(time.perf_counter() - start)
        check(output)
    return median(times)


def expect(wanted: str) -> Callable[[str], None]:
    """Return a check that an output is *wanted*: that as much was seen as there is."""

    def check(output: str) -> None:
        assert output.strip() == wanted.strip(), f"expected {wanted[:200]!r}, got {output[:200]!r}"

    return check
