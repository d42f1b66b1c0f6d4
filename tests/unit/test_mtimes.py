"""First-seen mtimes: kept for good, and never one second for two contents of one size."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.database import Writing
from store.mtimes import limit_mtime
from store.objects import Checksum, FileHeader
from store.repository import Repository
from store.tree import commit_number, commit_record, load_commit, root_entry, walk
from tests.checking import assert_sound
from tests.committing import TIME_S, commit_tree
from tests.forge import forge
from tests.trees import Directory, File, Spec, Symlink, build_tree

SECOND = 10**9
YEAR = 1_577_836_800 * SECOND + 123_456_789
LOOSE = b"loose" * 10_000


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(tmp_path / "repo") as repository:
        yield repository
    assert_sound(tmp_path / "repo")


def _publish(repository: Repository, files: Mapping[str, tuple[bytes, int]], mode: int = 0o100644) -> dict[str, int]:
    """Publish files (content, mtime) in this order and return the mtimes that they have now."""
    with forge(repository) as work:
        made = {
            name.encode(): work.file(content, mode=mode, mtime_ns=mtime) for name, (content, mtime) in files.items()
        }
        return _mtimes(repository, work.publish(work.tree(made)))


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the seconds that are looked at, as keys: what finding a free one costs."""
    found: list[bytes] = []
    real = Writing.get

    def get(self: Writing, table: bytes, key: bytes) -> bytes | None:
        if table == b"mtime":
            found.append(key)
        return real(self, table, key)

    monkeypatch.setattr(Writing, "get", get)
    return found


def _mtimes(repository: Repository, checksum: Checksum) -> dict[str, int]:
    """Return path -> mtime of everything in a commit; "" is the root."""
    with repository.database.reading() as reading:
        number = commit_number(reading, checksum)
        assert number is not None
        root = root_entry(reading, commit_record(reading, number))
        rows = [(path.decode()[1:], entry.mtime_ns) for path, entry in walk(reading, root)]
        return {"": root.mtime_ns, **dict(rows)}


def test_a_file_has_the_time_of_its_source(repository: Repository) -> None:
    found = _publish(repository, {"a": (b"inline", YEAR), "b": (LOOSE, YEAR + 5), "c": (b"", YEAR + 7)})
    assert (found["a"], found["b"], found["c"]) == (YEAR, YEAR + 5, YEAR + 7)
    assert [path.stat().st_mtime_ns for path in (repository.path / "objects").glob("*/*")] == [YEAR + 5]


def test_the_first_time_is_kept_for_good(repository: Repository) -> None:
    first = _publish(repository, {"a": (b"one", YEAR), "b": (LOOSE, YEAR), "e": (b"", YEAR)})
    old = {"a": b"one", "b": LOOSE, "e": b""}
    for shift in (-10, 10, SECOND, -SECOND * 10**6):
        files = {**old, f"new{shift}": b"%d" % shift}
        again = _publish(repository, {name: (content, YEAR + shift) for name, content in files.items()})
        assert first.items() - {("", 0)} <= again.items()


@pytest.mark.parametrize("contents", [(b"one", b"two"), (LOOSE, LOOSE[::-1])])
def test_two_contents_of_one_size_have_different_seconds(repository: Repository, contents: tuple[bytes, bytes]) -> None:
    one, two = contents
    found = _publish(repository, {"a": (one, YEAR), "b": (two, YEAR + 1)})
    assert found["a"] == YEAR and found["b"] == YEAR + 1 - SECOND  # earlier, with the nanoseconds of its own
    later = _publish(repository, {"c": (two[::2] + one[1::2], YEAR)})  # of another size, or not
    assert later["c"] // SECOND <= YEAR // SECOND


def test_sizes_do_not_hinder_each_other(repository: Repository) -> None:
    files = {f"{size}": (b"x" * size, YEAR) for size in range(1, 50)}
    assert {time for name, time in _publish(repository, files).items() if name} == {YEAR}


def test_one_content_with_other_metadata_may_share_a_time(repository: Repository) -> None:
    first = _publish(repository, {"a": (b"same", YEAR)})
    assert _publish(repository, {"a": (b"same", YEAR + 9)}, mode=0o100755)["a"] == YEAR + 9
    assert _publish(repository, {"b": (b"emas", YEAR)})["b"] == YEAR - SECOND
    assert _publish(repository, {"a": (b"same", YEAR + 1)}, mode=0o100600)["a"] // SECOND == first["a"] // SECOND


def test_swapped_contents_are_seen(repository: Repository) -> None:
    """Two files that change places, times and all: each name has another second then."""
    before = _publish(repository, {"a": (b"one", YEAR), "b": (b"two", YEAR)})
    after = _publish(repository, {"a": (b"two", YEAR), "b": (b"one", YEAR)})
    assert (after["a"], after["b"]) == (before["b"], before["a"]) and after["a"] // SECOND != after["b"] // SECOND


def test_a_change_back_is_seen(repository: Repository) -> None:
    found = [_publish(repository, {"a": (content, YEAR)})["a"] // SECOND for content in (b"1", b"2", b"3", b"1")]
    assert len(set(found)) == 3 and found[0] == found[3]


@pytest.mark.parametrize("second", [0, 1_000_000_000, -5, -(2**33)])
def test_a_thousand_files_of_one_size_with_one_time(
    repository: Repository, second: int, looked_up: list[bytes]
) -> None:
    files = {f"{number}": (b"%04d" % number, second * SECOND + 7) for number in range(1000)}
    found = _publish(repository, files)
    seconds = sorted(mtime // SECOND for name, mtime in found.items() if name)
    assert seconds == list(range(second - 999, second + 1))
    assert {mtime % SECOND for name, mtime in found.items() if name} == {7}
    assert len(looked_up) <= 2 * 1000
    more = _publish(repository, {"x": (b"more", second * SECOND)})
    assert more["x"] == (second - 1000) * SECOND


def test_neighbouring_seconds_are_leapt_over(repository: Repository, looked_up: list[bytes]) -> None:
    """Clamped times next to each other must not make it quadratic."""
    files = {
        f"{number}": (b"%05d" % number, YEAR - (number % 7) * SECOND) for number in range(7000)
    }  # seven runs, all growing into each other
    found = _publish(repository, files)
    seconds = {mtime // SECOND for name, mtime in found.items() if name}
    assert len(seconds) == 7000 and max(seconds) == YEAR // SECOND
    assert len(looked_up) <= 8 * 7000  # its own, and the end of each run


@pytest.mark.parametrize("mtime", [0, -1, -SECOND, -YEAR, 1])
def test_times_around_and_before_1970(repository: Repository, mtime: int) -> None:
    found = _publish(repository, {"a": (b"one", mtime), "b": (b"two", mtime)})
    assert found["a"] == mtime and found["b"] == mtime - SECOND


def test_what_does_not_fit_is_the_nearest_that_does(repository: Repository) -> None:
    found = _publish(repository, {"a": (b"future", 10**22), "b": (b"past", -(10**22)), "c": (b"future", 10**25)})
    assert found["a"] == limit_mtime(10**22) == found["c"] > 0 > found["b"]
    assert limit_mtime(YEAR) == YEAR and limit_mtime(-YEAR) == -YEAR


def test_symlinks_and_empty_files_may_share_a_time(repository: Repository) -> None:
    with forge(repository) as work:
        links = {target: work.stager.symlink(FileHeader(0, 0, 0o120777, (), target), YEAR) for target in (b"aa", b"bb")}
        empty = {b"e": work.file(b"", mtime_ns=YEAR), b"f": work.file(b"", mode=0o100600, mtime_ns=YEAR)}
        regular = {b"r": work.file(b"cc", mtime_ns=YEAR)}
        found = _mtimes(repository, work.publish(work.tree(links | empty | regular)))
    assert {mtime for name, mtime in found.items() if name} == {YEAR}


def test_zero(tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "tree", {"a": b"1", "b": b"2", "d": {"l": Symlink("x"), "big": LOOSE, "e": b""}})
    with Repository.create(tmp_path / "repo", mtime="zero") as repository:
        found = _mtimes(repository, commit_tree(repository, tree).checksum)
        assert {mtime for name, mtime in found.items() if name} == {0}
        assert [path.stat().st_mtime_ns for path in (tmp_path / "repo/objects").glob("*/*")] == [0]
    with Repository.open(tmp_path / "repo") as repository:
        assert repository.settings.mtime == "zero"
    assert_sound(tmp_path / "repo")


# Directories


def test_a_directory_has_the_time_of_its_source_and_keeps_it(repository: Repository, tmp_path: Path) -> None:
    spec: Spec = {"d": Directory({"f": File(b"f", mtime_ns=YEAR)}, mtime_ns=YEAR + 1)}
    tree = build_tree(tmp_path / "tree", spec)
    first = _mtimes(repository, commit_tree(repository, tree).checksum)
    assert (first["d"], first["d/f"], first[""]) == (YEAR + 1, YEAR, TIME_S * SECOND)
    os.utime(tree / "d", ns=(5, 5))
    (tree / "other").touch()
    assert _mtimes(repository, commit_tree(repository, tree).checksum)["d"] == YEAR + 1
    (tree / "d/g").touch()
    os.utime(tree / "d", ns=(7, 7))
    assert _mtimes(repository, commit_tree(repository, tree).checksum)["d"] == 7  # it is another dirtree


def test_the_root_has_the_time_of_its_commit(repository: Repository, tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "tree", {})
    os.utime(tree, ns=(YEAR, YEAR))
    checksum = commit_tree(repository, tree).checksum
    assert _mtimes(repository, checksum) == {"": TIME_S * SECOND}
    with repository.database.reading() as reading:
        number = commit_number(reading, checksum)
        assert number is not None and load_commit(reading, number).timestamp_s == TIME_S


# In general


def test_the_order_of_later_commits_does_not_matter(repository: Repository, tmp_path: Path) -> None:
    trees = []
    for number in range(3):
        spec = {f"{name}": File(b"%d%d" % (number % 2, name), mtime_ns=YEAR) for name in range(9)}
        trees.append(build_tree(tmp_path / f"tree{number}", spec))
    first = [_mtimes(repository, commit_tree(repository, tree).checksum) for tree in trees]
    again = [_mtimes(repository, commit_tree(repository, tree).checksum) for tree in reversed(trees)]
    assert again[::-1] == first and first[0] == first[2] != first[1]


contents = st.binary(min_size=1, max_size=2)
times = st.integers(-3, 3).map(lambda second: second * SECOND) | st.integers(-3 * SECOND, 3 * SECOND)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=st.lists(st.lists(st.tuples(contents, times, st.booleans()), max_size=12), min_size=1, max_size=4))
def test_no_second_is_given_to_two_contents_of_one_size(
    tmp_path: Path, commits: list[list[tuple[bytes, int, bool]]]
) -> None:
    shutil.rmtree(tmp_path / "repo", ignore_errors=True)
    given_times: dict[tuple[bytes, int], int] = {}
    with Repository.create(tmp_path / "repo") as repository:
        for files in commits:
            with forge(repository) as work:
                names = {}
                for at, (content, mtime, is_executable) in enumerate(files):
                    mode = 0o100755 if is_executable else 0o100644
                    names[b"%d" % at] = work.file(content, mode=mode, mtime_ns=mtime)
                found = _mtimes(repository, work.publish(work.tree(names)))
            for at, (content, _, is_executable) in enumerate(files):
                assert given_times.setdefault((content, is_executable), found[str(at)]) == found[str(at)]
    owners: dict[tuple[int, int], bytes] = {}
    for (content, _), mtime in given_times.items():
        assert owners.setdefault((len(content), mtime // SECOND), content) == content
