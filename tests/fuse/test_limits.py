"""The longest names, the deepest paths, the largest directory, the most commits: shown whole, and soon."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.objects import Checksum
from store.repository import Repository
from tests.bench.growth import REF, make_commits
from tests.conftest import MountView, Tell
from tests.forge import Forge, forge
from tests.fuse.conftest import run
from tests.running import RunFsview

LEVELS = 40
ENTRIES = 100_000
NAMES = (b"n" * 255, "ü".encode() * 127 + b"x", b"\xf0\x9f\x8c\xb3" * 63 + b"\nx\t")  # of 255 bytes each


@contextmanager
def _directory(path: bytes | Path, names: list[bytes] | None = None) -> Iterator[int]:
    """Open a directory, and from there on one name after the other, as their path is longer than any call takes."""
    here = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for name in names or ():
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    try:
        yield here
    finally:
        os.close(here)


def _publish(repo: Path, make: Callable[[Forge], Checksum]) -> None:
    with Repository.open(repo) as repository, forge(repository) as work:
        work.publish(make(work), "r")


def test_names_of_255_bytes(make_repo: Callable[..., Path], mount_view: MountView) -> None:
    repo = make_repo()
    assert {len(name) for name in NAMES} == {255}

    def make(work: Forge) -> Checksum:
        links = {name[:-1] + b"l": work.symlink(b"/".join([name] * 16)) for name in NAMES}  # 4,095 bytes
        return work.tree({name[:-1] + b"f": work.file(name) for name in NAMES} | links, {n: work.tree() for n in NAMES})

    _publish(repo, make)
    root = os.fsencode(mount_view(repo) / "refs/r") + b"/"
    assert set(os.listdir(root)) == {name[:-1] + end for name in NAMES for end in (b"f", b"l", name[-1:])}
    for name in NAMES:
        path = root + name[:-1]
        assert Path(os.fsdecode(path + b"f")).read_bytes() == name
        assert os.readlink(path + b"l") == b"/".join([name] * 16)
        assert os.listdir(root + name) == []
        assert not os.path.lexists(path + b"\xff") and not os.path.lexists(b"\xff" * 255)
        with pytest.raises(OSError) as caught:
            os.lstat(path + b"xx")
        assert caught.value.errno == errno.ENAMETOOLONG
    assert len(run("find", os.fsdecode(root), "-print0").split("\0")) == 1 + 1 + 3 * len(NAMES)


def test_forty_levels(make_repo: Callable[..., Path], mount_view: MountView, tmp_path: Path) -> None:
    """With names of 255 bytes a path is longer than the kernel takes; programs go down step by step."""
    repo, names = make_repo(), [b"%03d" % level + b"d" * 252 for level in range(LEVELS)]

    def make(work: Forge) -> Checksum:
        tree = work.tree({b"bottom": work.file(b"at the bottom")})
        for name in reversed(names):
            tree = work.tree({b"f": work.file(name)}, {name: tree})
        return tree

    _publish(repo, make)
    root = mount_view(repo) / "refs/r"
    with _directory(root, names) as bottom:
        with open(os.open("bottom", os.O_RDONLY, dir_fd=bottom), "rb") as file:
            assert file.read() == b"at the bottom"
        for name in reversed(names):
            os.stat("..", dir_fd=bottom)
            up = os.open("..", os.O_RDONLY, dir_fd=bottom)
            assert os.path.samestat(os.stat(name, dir_fd=up), os.fstat(bottom))
            os.dup2(up, bottom)
            os.close(up)
        assert os.path.samestat(os.fstat(bottom), root.stat())
    lines = run("find", f"{root}/", "-type", "f", "-printf", "%d\n").split()
    assert sorted(map(int, lines)) == list(range(1, LEVELS + 2))
    run("tar", "cf", tmp_path / "deep.tar", "-C", root, ".")
    assert run("tar", "tf", tmp_path / "deep.tar").count("\n") == 2 * LEVELS + 2


def test_a_directory_of_a_hundred_thousand(make_repo: Callable[..., Path], mount_view: MountView) -> None:
    repo, names = make_repo(), [b"%06d" % number for number in range(ENTRIES)]

    def make(work: Forge) -> Checksum:
        same, empty = work.file(b"same"), work.tree()
        return work.tree(dict.fromkeys(names[::2], same), dict.fromkeys(names[1::2], empty))

    _publish(repo, make)
    root = mount_view(repo) / "refs/r"
    for number in (0, 1, ENTRIES - 2, ENTRIES - 1, *random.Random(1).sample(range(ENTRIES), 50)):
        assert (root / f"{number:06}").is_dir() == bool(number % 2)  # before it was listed
        assert not os.path.lexists(root / f"{number:06}x")
    assert sorted(os.listdir(os.fsencode(root))) == names
    with os.scandir(root) as entries:
        assert sum(entry.is_dir() for entry in entries) == ENTRIES // 2
    found = subprocess.run(["find", f"{root}/", "-type", "f"], stdout=subprocess.PIPE, check=True).stdout
    assert found.count(b"\n") == ENTRIES // 2
    assert (root / "099998").read_bytes() == b"same"


class Clock:
    """Takes the time of what is done, for people to read."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, *command: str | Path) -> list[str]:
        """Run a command; return the words that it writes."""
        began = time.monotonic()
        words = run(*command).split()
        self.seconds.setdefault(" ".join(map(str, command)), round(time.monotonic() - began, 2))  # the first time
        return words


def _check_commits(point: Path, count: int) -> dict[str, float]:
    """Look at all commits in every way; return how long what took."""
    clock = Clock()
    os.chdir(point)
    commits, history = clock.run("ls", "commits"), clock.run("ls", f"history/{REF}")
    assert len(set(commits)) == len(set(history)) == count
    assert clock.run("ls", "info") == commits and clock.run("ls", f"history/{REF}") == history
    assert [name for name in clock.run("ls", "-R", "by-date") if "T" in name] == history
    for at in (0, 1, count // 2, count - 1):
        full = os.readlink(f"history/{REF}/{history[at]}").rpartition("/")[2]
        assert full in commits and clock.run("readlink", f"commits/{full[:12]}") == [full]
        for path in (f"commits/{full}", f"refs/{REF}~{count - 1 - at}"):
            assert clock.run("cat", f"{path}/changes") == [str(at)]
    for path in ("0" * 64, "0123456789abcdef"):  # and that nothing has a name takes no longer
        began = time.monotonic()
        assert not os.path.lexists(f"commits/{path}")
        clock.seconds[f"no commits/{path[:16]}"] = round(time.monotonic() - began, 2)
    os.chdir("/")
    return clock.seconds


@pytest.mark.unchecked
def test_thousands_of_commits(tmp_path: Path, mount_view: MountView, run_fsview: RunFsview) -> None:
    repo = tmp_path / "repo"
    make_commits(repo, 2_000)
    _check_commits(mount_view(repo), 2_000)
    assert run_fsview("log", "--repo", repo, "--oneline", "-n", "1", REF).stdout.endswith(" change 1999\n")


@pytest.mark.torture
@pytest.mark.unchecked
def test_a_hundred_thousand_commits(tmp_path: Path, mount_view: MountView, run_fsview: RunFsview, tell: Tell) -> None:
    repo = tmp_path / "repo"
    make_commits(repo, 100_000)
    seconds = _check_commits(mount_view(repo), 100_000)
    began = time.monotonic()
    assert run_fsview("log", "--repo", repo, "--oneline", "-n", "1", REF).stdout.endswith(" change 99999\n")
    seconds["log -n 1"] = round(time.monotonic() - began, 2)
    tell(*(f"{each:8} s  {what[:100]}" for what, each in seconds.items()))
