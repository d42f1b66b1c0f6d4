"""Run the benchmarks and print one table; see --help."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.bench.bench import Bench
from tests.bench.commits import commits
from tests.bench.deployments import deployments
from tests.bench.diffs import FEW_CHANGES, NOT_SLOWER, copy_with_changes, diffs
from tests.bench.growth_rows import COMMITS, large_tree, many_commits
from tests.bench.memory import memory
from tests.bench.results import Results, say
from tests.bench.views import large_file, reads

_SMALL_TREE, _LARGE_TREE = "debian-12-base", "debian-12-dev"
_OTHER_RELEASES = ("debian-12-updated", "debian-13-base")
_LARGE_FILE_BYTES = 1 << 30
_QUICK_FILE_BYTES = 1 << 26

EXAMPLES = """
examples:
  python -m tests.bench --quick                             the small tree only, each row once
  python -m tests.bench --only 'find|tar' --peers erofs,squashfuse
  python -m tests.bench --only growth --work /dev/shm --json growth.json

Rows are called such as "find -ls, debian-12-base, warm". It empties the machine's caches, again and again, and takes
hours with all peers on the large tree. Ctrl-C unmounts everything, and prints what was measured so far.
"""


def main() -> None:
    """Measure in a temporary directory beside the trees, so that reflinks and hard links are possible."""
    options = _parse(sys.argv[1:])
    if os.geteuid() != 0:
        sys.exit("the benchmarks drop caches, mount and keep owners: run them as root")
    trees = Path(os.environ.get("FSVIEW_TREES", "build/trees")).resolve()
    for name in (_SMALL_TREE, _LARGE_TREE, *_OTHER_RELEASES):
        if not (trees / name).is_dir():
            say(f"{trees / name} is missing; tests/bench/trees.sh {name} builds it")
    results = Results(re.compile(options.only))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(dir=options.work or trees, prefix="bench-", ignore_cleanup_errors=True) as name:
        os.environ["XDG_STATE_HOME"] = name  # the views' logs
        peers = None if options.peers is None else frozenset(options.peers.split(","))
        bench = Bench(results, Path(name), 1 if options.quick else options.runs, options.limit, peers)
        try:
            _run(bench, trees, quick=options.quick)
            status = 0
        except KeyboardInterrupt:
            status = 130
    results.print()
    if options.json:
        options.json.write_text(json.dumps(results.as_json(), indent=2) + "\n")
    sys.exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Begin to unmount everything; a second Ctrl-C must not stop that."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    say("interrupted; unmounting")
    raise KeyboardInterrupt


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.bench",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="PATTERN", default="", help="rows whose name has a match of this expression")
    parser.add_argument("--peers", metavar="NAMES", help="of the peers only these, with commas between them")
    parser.add_argument("--quick", action="store_true", help="no large tree, a small file, and each row once")
    parser.add_argument("--runs", metavar="N", type=int, default=3, help="of which the median is taken (3)")
    parser.add_argument("--limit", metavar="S", type=float, default=120.0, help="end what takes longer (120 seconds)")
    parser.add_argument("--work", metavar="DIR", type=Path, help="work there, not beside the trees")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there, too")
    return parser.parse_args(arguments)


def _run(bench: Bench, trees: Path, *, quick: bool) -> None:
    small, large = trees / _SMALL_TREE, trees / _LARGE_TREE
    walked = [tree for tree in ([small] if quick else [small, large]) if tree.is_dir()]
    for tree in walked:
        commits(bench, tree)
        reads(bench, tree)
    large_file(bench, _QUICK_FILE_BYTES if quick else _LARGE_FILE_BYTES)
    for name in _OTHER_RELEASES:
        if small.is_dir() and (trees / name).is_dir():
            diffs(bench, small, trees / name)
    for tree in walked:
        if bench.results.wants(f"diff -rq, {tree.name} {tree.name}-changed, warm"):
            with copy_with_changes(tree, bench.work) as changed:
                diffs(bench, tree, changed, FEW_CHANGES if tree == large else NOT_SLOWER)
        memory(bench, tree)
    if small.is_dir() and (trees / _OTHER_RELEASES[0]).is_dir():
        deployments(bench, small, trees / _OTHER_RELEASES[0])
    if large in walked and bench.results.wants(f"deploy, {large.name}"):
        with copy_with_changes(large, bench.work) as changed:
            deployments(bench, large, changed)
    large_tree(bench)
    many_commits(bench, COMMITS[:1] if quick else COMMITS)


if __name__ == "__main__":
    main()
