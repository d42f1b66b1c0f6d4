"""What is done with a tree: each load's time, and what it saw, so that nobody wins by doing less."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contender import Contender
from tests.bench.peers import FUSE_PEERS
from tests.bench.results import Goal, Measured, faster_than, middle, say, within
from tests.bench.timing import drop_caches, shell

PROBE = f"{sys.executable} {Path(__file__).with_name('probe.py')}"
READERS_COUNT = 8
_LONG_S = 20.0  # a run that takes longer isn't repeated


@dataclass(frozen=True, slots=True)
class Load:
    """A shell command that is run in a tree and prints what it saw; *probes* print their own time before that."""

    what: str
    command: str
    warm_goals: tuple[Goal, ...] = ()
    cold_goals: tuple[Goal, ...] = ()
    is_probe: bool = False

    def goals(self, state: str) -> tuple[Goal, ...]:
        """Return the goals when "warm" or "cold"."""
        return self.warm_goals if state == "warm" else self.cold_goals

    def run(self, place: Path, limit_s: float | None = None) -> tuple[float, str]:
        """Return the seconds and what was seen.

        Raises:
            AssertionError: the command failed.
            TimeoutExpired: it took longer than *limit_s*.
        """
        began = time.perf_counter()
        output = shell(self.command, place, limit_s=limit_s)
        seconds = time.perf_counter() - began
        if self.is_probe:
            own_time, _, output = output.partition(" ")
            seconds = float(own_time)
        return seconds, output.strip()


_FASTER = faster_than(FUSE_PEERS)
_KERNEL_READS = within(2, "plain", "kernel-reads")


def tree_loads(lists: Path) -> tuple[Load, ...]:
    """Return what is done with a tree of files; *lists* has a list of paths for each parallel reader."""
    # The view has no hard links; and GNU tar notices /dev/null as its output, and doesn't read.
    tar = "tar c --hard-dereference"
    return (
        Load("find -ls", "find . -ls | wc -l", (_FASTER, within(5, "plain")), (_FASTER,)),
        Load("tar", f"{tar} . | wc -c", (_FASTER, _KERNEL_READS), (_FASTER,)),
        Load("grep -r", "LC_ALL=C grep -rF 'General Public' . | wc -lc", (_FASTER, _KERNEL_READS), (_FASTER,)),
        Load(
            f"{READERS_COUNT} parallel tar",
            f"for part in {lists}/*; do {tar} --no-recursion --null -T $part | wc -c & done | sort",
            (_FASTER,),
            (_FASTER,),
        ),
    )


def split_lists(tree: Path, lists: Path) -> None:
    """Write a list of paths for each parallel reader: neighbours together, as far as may be."""
    lists.mkdir()
    shell(f"find . -print0 | LC_ALL=C sort -z > {lists}/all", tree)
    shell(f"split -t '\\0' -n l/{READERS_COUNT} all part. && rm all", lists)


FILE_LOADS = (
    Load("sequential read", f"{PROBE} sequential large", (_FASTER,), (_FASTER,), is_probe=True),
    Load("4096 random 4 KiB reads", f"{PROBE} random large 4096", (_FASTER,), (_FASTER,), is_probe=True),
)


def make_file_tree(tree: Path, size_bytes: int) -> None:
    """Make a directory with one large file of noise, which nothing can compress or share."""
    tree.mkdir()
    shell(f"head -c {size_bytes} /dev/urandom > {tree}/large")


def measure(
    contender: Contender, name: str, load: Load, *, cold: bool, runs: int, limit_s: float, expected: str | None
) -> tuple[Measured, str]:
    """Return the median of some runs of *load* in the tree *name*, and what was seen each time.

    Warm: after one run that doesn't count. Cold: with caches dropped, on a fresh mount.

    Raises:
        AssertionError: it failed, or saw something else than *expected*.
    """
    times: list[float] = []
    say(f"{load.what}, {name}, {'cold' if cold else 'warm'}: {contender.name}")
    for run in range(runs + (not cold)):
        if cold:
            contender.unmount()
            drop_caches()
            contender.mount()
        try:
            seconds, seen = load.run(contender.path(name), limit_s)
        except subprocess.TimeoutExpired:
            return Measured(limit_s, at_least=True), ""
        assert expected in (None, seen), f"it saw {seen!r}, where {expected!r} is"
        if cold or run or seconds > _LONG_S:
            times.append(seconds)
        if seconds > _LONG_S:
            break
    return middle(times), seen
