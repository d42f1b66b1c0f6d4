"""A second user who owns a directory in a tree that root commits: what he puts there meanwhile leads root nowhere."""

from __future__ import annotations

import os
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from store.errors import SourceError
from store.objects import Checksum
from store.repository import Repository
from tests.committing import commit_tree
from tests.hostile.attacker import CAMPAIGN, Attack, attacking
from tests.marks import needs_root
from tests.readback import committed_snapshot
from tests.users import NOBODY
from tools.disk_source import DiskDirectory
from tools.hashing import Hasher
from tools.sources import DiskOptions

pytestmark = needs_root

SECRET = b"root alone may read this"
FILES = 40


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a directory of root's with the same names as the user's, which nobody else may enter."""
    path = tmp_path / "secret"
    path.mkdir(0o700)
    for number in range(FILES):
        (path / f"file{number}").write_bytes(SECRET)
    return path


@pytest.fixture
def tree(nobodys: Path) -> Path:
    """Return a tree in which the user owns the directory `home`."""
    top = nobodys / "tree"
    (top / "home/sub").mkdir(parents=True)
    for number in range(FILES):
        (top / f"home/sub/file{number}").write_bytes(b"his own")
    for path in (top / "home", *top.glob("home/**/*")):
        os.chown(path, NOBODY, NOBODY)
    return top


def assert_nothing_leaked(repository: Repository, commits: set[Checksum]) -> None:
    """Look that no content of these commits is root's secret."""
    leak = sha256(SECRET).hexdigest()
    for checksum in commits:
        assert leak not in {entry.content for entry in committed_snapshot(repository, checksum).values()}


@pytest.mark.parametrize("level", ["home", "home/sub"])
def test_a_directory_that_becomes_a_symlink_between_scan_and_hash(
    tmp_path: Path, tree: Path, secret: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment that he has to find by chance, found in each run."""
    (secret / "sub").symlink_to(".")
    submit = Hasher.submit

    def swapped_then(self: Hasher, directory: Any, *more: Any) -> Any:
        path = tree / level
        if not path.is_symlink():
            path.rename(path.with_name("away"))
            path.symlink_to(secret)
        return submit(self, directory, *more)

    with Repository.create(tmp_path / "repo") as repository:
        with monkeypatch.context() as patch:
            patch.setattr(Hasher, "submit", swapped_then)
            with pytest.raises(SourceError, match=r"vanished while it was read: .*home/sub/file0"):
                commit_tree(repository, tree)
            done = commit_tree(repository, tree, allow_changed=True)
        assert_nothing_leaked(repository, {done.checksum})


def test_a_directory_that_becomes_a_symlink_before_it_is_scanned(
    tmp_path: Path, tree: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = DiskDirectory._child

    def swapped_then(self: DiskDirectory, name: bytes, *more: Any) -> DiskDirectory:
        path = tree / "home"
        if name == b"home":
            path.rename(path.with_name("away"))
            path.symlink_to(secret)
        return child(self, name, *more)

    with Repository.create(tmp_path / "repo") as repository, monkeypatch.context() as patch:
        patch.setattr(DiskDirectory, "_child", swapped_then)
        with pytest.raises(SourceError, match=r"vanished while it was read: .*/home"):
            commit_tree(repository, tree)


def test_another_file_by_the_same_name_is_told(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = Hasher.submit

    def replaced_then(self: Hasher, directory: Any, name: bytes, *more: Any) -> Any:
        if name == b"file7":
            (tree / "home/sub/new").write_bytes(b"another")
            (tree / "home/sub/new").rename(tree / "home/sub/file7")
        return submit(self, directory, name, *more)

    monkeypatch.setattr(Hasher, "submit", replaced_then)
    with (
        Repository.create(tmp_path / "repo") as repository,
        pytest.raises(SourceError, match=r"changed while it was read: .*/home/sub/file7"),
    ):
        commit_tree(repository, tree)


@CAMPAIGN
def test_races(tmp_path: Path, tree: Path, secret: Path, runs: int) -> None:
    """A user who swaps his directory and a symlink all the time, while root commits it again and again."""
    home = tree / "home"
    (home / "link").symlink_to(secret)

    def swap() -> None:
        for old, new in (("sub", "away"), ("link", "sub"), ("sub", "link"), ("away", "sub")):
            os.rename(old, new)

    refused, commits = 0, set()
    options = DiskOptions(stat_cache=False)
    with Repository.create(tmp_path / "repo") as repository:
        with attacking(Attack(home, swap)):
            for number in count():
                if number >= runs and refused >= runs // 10:  # he was in time, and not seldom
                    break
                try:
                    done = commit_tree(repository, tree, options=options, allow_changed=number % 2 == 1)
                    commits.add(done.checksum)
                except SourceError:
                    refused += 1
        assert_nothing_leaked(repository, commits)
