"""Commit a tree: first, unchanged, and with ten files changed; against `ostree commit` into a bare repository."""

from __future__ import annotations

from pathlib import Path

from tests.bench.timing import Results, drop_caches, shell, timed


def change_files(tree: Path, count: int = 10) -> None:
    """Append a byte to *count* files spread over a tree."""
    files = sorted(path for path in (tree / "usr").rglob("*") if path.is_file() and not path.is_symlink())
    for path in files[:: max(1, len(files) // count)][:count]:
        with path.open("ab") as file:
            file.write(b"\n")


def commits(results: Results, tree: Path, work: Path) -> None:
    """Measure commits of a copy of *tree*."""
    copy, name = work / "copy", tree.name
    shell(
        f"rm -rf {copy} && cp -a --reflink=auto {tree} {copy} && sync && sleep 3"
    )  # 3 s: older than git's racy moment
    own, peer = work / "commit.fsview", work / "commit.ostree"
    options = "-s bench --timestamp=@1700000000"
    commands = {
        "fsview": f"fsview commit --repo {own} -b bench {options} {copy}",
        "ostree": f"ostree commit --repo={peer} -b bench {options} {copy}",
    }
    make = {
        "fsview": f"rm -rf {own} && fsview init {own}",
        "ostree": f"rm -rf {peer} && ostree init --repo={peer} --mode=bare",
    }

    def measure(what: str, goal: str, before: dict[str, str], cold: bool = False) -> float:
        seconds, sums = {}, set()
        for program, command in commands.items():

            def prepare(step: str = before.get(program, "true")) -> None:
                shell(step)
                shell("sync")
                if cold:
                    drop_caches()

            seconds[program] = timed(command, before=prepare, runs=3, check=lambda output: sums.add(output.strip()))
        assert cold or before is not make or len(sums) == 1, f"the checksums differ: {sums}"
        results.add(f"{what} of {name}", seconds, goal)
        return seconds["ostree"]

    first = measure("first commit, warm", "ostree >= 1.67", make)
    measure("first commit, cold", "", make, cold=True)
    measure("unchanged commit", f"fsview <= {first / 10:.2f} s", {})
    change_files(copy)
    measure("commit with 10 changed files", "", {})
    shell(f"rm -rf {copy} {own} {peer}")
