"""Run the benchmarks that are named (all: commit, read, diff) and print one table of ratios."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.bench.commits import commits
from tests.bench.timing import Results
from tests.bench.views import diffs, few_changes, reads


def main() -> None:
    """Measure in a temporary directory beside the trees, so that reflinks and renames are possible."""
    if os.geteuid() != 0:
        sys.exit("the benchmarks drop caches and keep owners: run them as root")
    trees = Path(os.environ.get("FSVIEW_TREES", "build/trees")).resolve()
    wanted = sys.argv[1:] or ["commit", "read", "diff"]
    base, next_base, dev = (trees / name for name in ("debian-12-base", "debian-13-base", "debian-12-dev"))
    results = Results()
    with tempfile.TemporaryDirectory(dir=trees, prefix="bench-") as name:
        work = Path(name)
        if "commit" in wanted:
            commits(results, base, work)
            commits(results, dev, work)
        if "read" in wanted:
            reads(results, base, work)
            reads(results, dev, work)
        if "diff" in wanted:
            diffs(results, base, next_base, work, "plain > 1")
            few_changes(results, dev, work)
    results.print_table()


if __name__ == "__main__":
    main()
