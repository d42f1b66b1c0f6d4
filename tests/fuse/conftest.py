"""A repository that is mounted once for each module that only reads it.

refs/rel/1     a tree with one of everything, and many equal files and directories
refs/rel/2     the same with a few changes
refs/copy/1    the tree of rel/1, in a commit of its own
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import TreeFactory
from tests.leaks import LeakGuard
from tests.marks import HAS_FUSE, NO_FUSE
from tests.running import RunFsview, run_cli
from tests.trees import File, Spec, Symlink, build_tree, sample_tree

YEAR_2020_NS = 1_577_836_800 * 10**9
LARGE = b"".join(b"%08d\n" % number for number in range(200_000))

EQUAL: Spec = {f"{number:03}": {"same": b"same\n", "lib": {"a.py": b"import b\n", "b.py": b""}} for number in range(40)}
CHANGING: Spec = {
    "kept": {"a": b"1\n", "b": {"c": b"2\n"}},
    "data": {"equal": b"x" * 5000, "touched": File(b"old!\n", mtime_ns=YEAR_2020_NS), "large": LARGE},
    "gone": {"f": b"f\n"},
    "kind": b"a file\n",
    "link": Symlink("kept"),
}
CHANGED: Spec = {
    "kept": {"a": b"1\n", "b": {"c": b"2\n"}},
    "data": {"equal": b"x" * 5000, "touched": File(b"new!\n", mtime_ns=YEAR_2020_NS), "large": LARGE + b"more\n"},
    "come": {"f": b"f\n"},
    "kind": {"now": b"a directory\n"},
    "link": Symlink("data"),
}


@dataclass(frozen=True)
class Sample:
    """What the tests of a module look at; trees has the source of each ref."""

    home: Path
    repo: Path
    point: Path
    trees: dict[str, Path]

    def ref(self, name: str) -> Path:
        """Return the symlink that a ref is."""
        return self.point / "refs" / name

    def tree(self, name: str) -> str:
        """Return the root of a ref's commit as people should write it: with a slash, through the symlink."""
        return f"{self.ref(name)}/"

    def commit(self, name: str) -> Path:
        """Return the directory below commits/ that a ref leads to."""
        return (self.point / "refs" / name).resolve(strict=True)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, _run_guard: LeakGuard) -> Iterator[Sample]:
    """Return a repository with three commits, mounted."""
    if not HAS_FUSE:
        pytest.skip(NO_FUSE)
    home = tmp_path_factory.mktemp("fuse")
    trees = {
        "rel/1": build_tree(home / "one", {**sample_tree(), "equal": EQUAL, **CHANGING}),
        "rel/2": build_tree(home / "two", {**sample_tree(), "equal": EQUAL, **CHANGED}),
        "copy/1": home / "one",
    }
    repo, point = home / "repo", home / "mnt"
    run_cli(home, "init", repo)
    for ref, tree in trees.items():
        run_cli(home, "commit", "--repo", repo, "-b", ref, "-s", f"on {ref}", tree)
    point.mkdir()
    run_cli(home, "mount", repo, point)
    try:
        yield Sample(home, repo, point, trees)
    finally:
        run_cli(home, "umount", point)


def run(*command: str | Path, status: int = 0) -> str:
    """Run a program of the system; return what it wrote. It must exit with *status*, and complain of nothing."""
    done = subprocess.run(command, capture_output=True, env=os.environ | {"LC_ALL": "C.UTF-8"}, timeout=120)
    assert (done.returncode, done.stderr.decode()) == (status, "")
    return os.fsdecode(done.stdout)


def drop_caches() -> None:
    """Have the kernel forget names and attributes that nobody holds; needs root."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2\n")
    except OSError:
        pytest.skip("the kernel's caches are for root to drop")


@pytest.fixture
def repo(make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory) -> Path:
    """Return a repository with one commit on the ref r."""
    path = make_repo()
    run_fsview("commit", "--repo", path, "-b", "r", "-s", "1", tree_factory({"d": {"f": b"content"}}))
    return path


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """Return an empty directory."""
    (tmp_path / "mnt").mkdir()
    return tmp_path / "mnt"
