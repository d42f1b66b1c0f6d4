"""Read a tree through the mount: against the plain directory, and rofiles-fuse over an `ostree checkout`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.commits import change_files
from tests.bench.timing import Results, drop_caches, expect, shell, timed

FIND = "find . -ls | wc -l"
TAR = "tar c --hard-dereference --sort=name . | wc -c"  # the view has no hard links: nlink is 1


@contextmanager
def mounted(repository: Path, point: Path) -> Iterator[Path]:
    """Mount a repository for a while."""
    point.mkdir(parents=True, exist_ok=True)
    shell(f"fsview mount {repository} {point}")
    try:
        yield point
    finally:
        shell(f"fsview umount {point}")


@contextmanager
def rofiles(directory: Path, point: Path) -> Iterator[Path]:
    """Mount rofiles-fuse over a directory for a while."""
    point.mkdir(parents=True, exist_ok=True)
    shell(f"rofiles-fuse {directory} {point}")
    try:
        yield point
    finally:
        shell(f"fusermount3 -u {point} || fusermount -u {point} || umount {point}")


def reads(results: Results, tree: Path, work: Path) -> None:
    """Measure find and tar of *tree*, warm and cold."""
    repo, peer = work / "read.fsview", work / "read.ostree"
    shell(f"fsview init {repo} && fsview commit --repo {repo} -b bench {tree}")
    shell(f"ostree init --repo={peer} --mode=bare && ostree commit --repo={peer} -b bench {tree}")
    shell(f"ostree checkout --repo={peer} -H bench {work}/checkout")
    with ExitStack() as stack:
        places = {
            "fsview": stack.enter_context(mounted(repo, work / "view")) / "refs/bench",
            "plain": tree,
            "rofiles-fuse": stack.enter_context(rofiles(work / "checkout", work / "rofiles")),
        }
        for what, command, goal in (("find -ls", FIND, "rofiles-fuse > 1"), ("tar", TAR, "rofiles-fuse > 1")):
            check = expect(shell(command, tree))
            for state in ("warm", "cold"):
                before = drop_caches if state == "cold" else (lambda: None)
                seconds = {}
                for name, place in places.items():
                    if state == "warm":
                        shell(command, place)
                    seconds[name] = timed(command, cwd=place, before=before, check=check)
                results.add(f"{what} of {tree.name}, {state}", seconds, goal)
    shell(f"rm -rf {repo} {peer} {work}/checkout")


def diffs(results: Results, old: Path, new: Path, work: Path, goal: str) -> None:
    """Measure `diff -rq` between two trees: through the mount, and on plain directories."""
    repo = work / "diff.fsview"
    shell(f"fsview init {repo}")
    for name, tree in (("old", old), ("new", new)):
        shell(f"fsview commit --repo {repo} -b {name} --skip-special {tree}")
    command = "diff -rq --no-dereference {}/ {}/ | sed 's#[^ ]*/\\(old\\|new\\)/#\\1/#g' | sort"
    with mounted(repo, work / "view") as view:
        for name, tree in (("old", old), ("new", new)):
            seen, there = (shell("find . | wc -l", place) for place in (view / "refs" / name, tree))
            assert seen == there, f"{name}: {seen} entries in the view, {there} in the tree"
        places = {"fsview": view / "refs", "plain": work / "plain"}
        places["plain"].mkdir()
        for name, tree in (("old", old), ("new", new)):
            (places["plain"] / name).symlink_to(tree.resolve())
        lines = shell(command.format(places["plain"] / "old", places["plain"] / "new"), ok=(0, 1))
        for state in ("warm", "cold"):
            before = drop_caches if state == "cold" else (lambda: None)
            seconds = {
                name: timed(command.format(place / "old", place / "new"), before=before, check=expect(lines), ok=(0, 1))
                for name, place in places.items()
            }
            what = f"diff -rq {old.name} {new.name}, {len(lines.splitlines())} lines, {state}"
            results.add(what, seconds, goal)
    shell(f"rm -rf {repo} {work}/plain")


def few_changes(results: Results, tree: Path, work: Path) -> None:
    """Measure `diff -rq` of a tree and a copy of it with ten changed files."""
    copy = work / f"{tree.name}-changed"
    shell(f"cp -a {tree} {copy}")
    change_files(copy)
    diffs(results, tree, copy, work, "plain >= 20")
    shell(f"rm -rf {copy}")
