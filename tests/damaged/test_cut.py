"""An index that was cut off: told before LMDB is killed by SIGBUS; and one that is sound and short."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from store import raw_pages
from store.database import Writing
from store.errors import CorruptionError
from store.meta_pages import META
from store.repository import Repository
from tests.conftest import TreeFactory
from tests.running import RunFsview

pytestmark = pytest.mark.unchecked

PAGE = os.sysconf("SC_PAGE_SIZE")
COMMANDS = (
    ("log", "main"), ("ls", "-R", "main"), ("cat", "main", "/f1"), ("refs",), ("commit", "-b", "new", "tree"),
    ("prune",), ("fsck",), ("doctor",),
)  # fmt: skip


@pytest.fixture
def repo(make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory) -> Path:
    """Return a repository with some commits, so that the trees reach to the end of the index."""
    path, tree = make_repo(), tree_factory({}, "tree")
    for number in range(4):
        for name in range(30):
            (tree / f"f{name}").write_bytes(bytes([number]) * 6000 + bytes([name]))
        run_fsview("commit", "--repo", path, "-b", "main", tree)
    return path


def _last_page(data: Path) -> int:
    """Return the highest page by the meta page that holds."""
    with data.open("rb") as file:
        metas = [META.unpack_from(os.pread(file.fileno(), META.size, number * PAGE)) for number in range(2)]
    last: int = max(metas, key=lambda meta: int(meta[-1]))[-2]
    return last


@pytest.mark.parametrize("part", [1, 3, 20, 50, 99])
def test_it_is_told_and_not_died_of(part: int, repo: Path, run_fsview: RunFsview) -> None:
    data = repo / "index/data.mdb"
    whole = data.read_bytes()
    size = max(2, len(whole) // PAGE * part // 100) * PAGE
    for command in COMMANDS:
        data.write_bytes(whole[:size])
        done = run_fsview(*command, repo=repo, status=None)
        said = done.stdout + done.stderr
        assert done.returncode == (1 if command == ("doctor",) else 12), (command, done)
        assert str(data) in said and "it was cut off" in said and "Traceback" not in said, (command, done)


@pytest.mark.parametrize("lost", [1, 100, PAGE])
def test_a_little_at_the_end(lost: int, repo: Path) -> None:
    data = repo / "index/data.mdb"
    highest = _highest(data)
    os.truncate(data, (highest + 1) * PAGE)
    Repository.open(repo).close()
    os.truncate(data, (highest + 1) * PAGE - lost)
    with pytest.raises(CorruptionError, match=f"expected at least {(highest + 1) * PAGE} bytes, found"):
        Repository.open(repo)


def _highest(data: Path) -> int:
    with data.open("rb") as file:
        pages = [os.pread(file.fileno(), PAGE, number * PAGE) for number in range(2)]
        newest = max(pages, key=lambda page: int(META.unpack_from(page)[-1]))
        roots = [struct.unpack_from("@Q", newest, at)[0] for at in (80, 128)]
        return max(raw_pages.highest_page(file.fileno(), PAGE, root) for root in roots)


@pytest.fixture
def short(repo: Path) -> Path:
    """Return a sound repository, whose index ends before the last page that was ever given out."""

    def body(writing: Writing) -> None:
        writing.put(b"content", b"\xff" * 8, bytes(4 << 20))
        writing.delete(b"content", b"\xff" * 8)

    with Repository.open(repo) as repository:
        repository.database.write(body)
    data = repo / "index/data.mdb"
    assert data.stat().st_size <= _last_page(data) * PAGE
    return repo


def test_a_sound_one_that_is_short_is_opened(short: Path, run_fsview: RunFsview) -> None:
    for command in COMMANDS[:-1]:
        run_fsview(*command, repo=short)


def test_a_short_one_is_told_when_it_is_cut_as_well(short: Path, run_fsview: RunFsview) -> None:
    data = short / "index/data.mdb"
    os.truncate(data, _highest(data) * PAGE)
    assert "it was cut off" in run_fsview("log", "main", repo=short, status=12).stderr


def test_the_trees_are_walked_only_where_it_is_short(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> int:
        raise AssertionError("walked")

    monkeypatch.setattr(raw_pages, "highest_page", never)
    Repository.open(repo).close()
    os.truncate(repo / "index/data.mdb", 4 * PAGE)
    with pytest.raises(AssertionError, match="walked"):
        Repository.open(repo)
