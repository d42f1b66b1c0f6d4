"""Trees that are small to write down and huge to walk, and numbers at their limits: refused before anything is seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.database import Reading
from store.errors import FormatError
from store.listing import Entry
from store.objects import Checksum
from store.repository import Repository
from store.schema import DATABASES, MAX_COMMIT_NUMBER, MAX_ENTRIES, MAX_FILE_ID, TreeId, check_counts
from store.tree import commit_number, commit_record, find, load_listing, root_entry, tree_record, walk
from tests.checking import assert_sound
from tests.forge import Forge, forge
from tests.readback import committed_snapshot, head

pytestmark = pytest.mark.unchecked

LEVELS_MAX = 10_000


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with _new(tmp_path) as repository:
        yield repository
    assert_sound(tmp_path / "repo")


@pytest.fixture
def nearly_full(tmp_path: Path) -> Iterator[Repository]:
    """Return a repository whose counters may be set; its ids aren't dense then, so it isn't checked at the end."""
    with _new(tmp_path) as repository:
        yield repository


def _new(where: Path) -> Repository:
    repository = Repository.create(where / "repo")
    with forge(repository) as work:
        work.publish(work.tree({b"first": work.file(b"first")}))
    return repository


def _records(repository: Repository) -> dict[bytes, list[tuple[bytes, bytes]]]:
    with repository.database.reading() as reading:
        return {table: list(reading.items(table)) for table in DATABASES}


def _counts(repository: Repository, commit: Checksum) -> tuple[int, int]:
    with repository.database.reading() as reading:
        number = commit_number(reading, commit)
        assert number is not None
        record = commit_record(reading, number)
        tree = tree_record(reading, record.tree_id)
        listing = load_listing(reading, record.tree_id)
        assert (record.directories, record.entries) == (tree.directories, tree.entries)
        assert (record.directories, record.entries) == (listing.directories, listing.entries)
        return record.directories, record.entries


def _double(work: Forge, levels: int) -> Checksum:
    """Stage dirtrees that each name the one before twice: 2^(levels + 1) - 1 directories."""
    tree = work.tree()
    for _ in range(levels):
        tree = work.tree(None, {b"a": tree, b"b": tree})
    return tree


def test_a_bomb_is_refused_before_anything_is_published(repository: Repository) -> None:
    before = _records(repository)
    with forge(repository) as work, pytest.raises(FormatError, match="more than 4294967295 entries"):
        work.publish(_double(work, 40))
    assert _records(repository) == before
    assert list((repository.path / "tmp").iterdir()) == []


def test_a_flat_bomb_is_refused(repository: Repository) -> None:
    """Few levels, many names: 1,000 directories of 1,000 directories of 1,000 directories of 10 files."""
    with forge(repository) as work, pytest.raises(FormatError, match="more than 4294967295 entries"):
        tree = work.tree({b"%d" % number: work.file(b"same") for number in range(10)})
        for _ in range(3):
            tree = work.tree(None, {b"%d" % number: tree for number in range(1000)})
        work.publish(tree)


def test_as_many_entries_as_can_be_counted(repository: Repository) -> None:
    with forge(repository) as work:
        half = _double(work, 30)  # 2^31 - 1 directories, itself included
        commit = work.publish(work.tree({b"x": work.file(b"x")}, {b"a": half, b"b": half}))
    assert _counts(repository, commit) == (MAX_ENTRIES, MAX_ENTRIES)
    with forge(repository) as work, pytest.raises(FormatError, match="more than 4294967295 entries"):
        work.publish(work.tree({b"x": work.file(b"x"), b"y": work.file(b"y")}, {b"a": half, b"b": half}))


def test_the_last_of_all_ranks(repository: Repository) -> None:
    with forge(repository) as work:
        commit = work.publish(_double(work, 31))
    with repository.database.reading() as reading:
        entry, rank, path = _root(reading, commit), MAX_ENTRIES - 1, b""
        while rank:
            entry = load_listing(reading, TreeId(entry.id)).directory_at(rank - 1)
            rank -= 1 + entry.directories_before
            path += b"/" + entry.name
    assert path == b"/b" * 31


@pytest.mark.parametrize(
    ("directories", "entries"), [(1, MAX_ENTRIES), (MAX_ENTRIES, MAX_ENTRIES), (MAX_ENTRIES, MAX_ENTRIES - 1)]
)
def test_counts_up_to_the_limit_pass(directories: int, entries: int) -> None:
    check_counts(directories, entries, "a tree")


@pytest.mark.parametrize(("directories", "entries"), [(1, MAX_ENTRIES + 1), (MAX_ENTRIES + 1, MAX_ENTRIES)])
def test_counts_beyond_the_limit_are_refused(directories: int, entries: int) -> None:
    with pytest.raises(FormatError, match="a tree has more than 4294967295 entries"):
        check_counts(directories, entries, "a tree")


def test_ten_thousand_levels(repository: Repository) -> None:
    with forge(repository) as work:
        commit = work.publish(_chain(work, LEVELS_MAX))
    assert _counts(repository, commit) == (LEVELS_MAX, LEVELS_MAX)
    with repository.database.reading() as reading:
        root = _root(reading, commit)
        assert sum(1 for _ in walk(reading, root)) == LEVELS_MAX
        assert find(reading, root, b"/d" * (LEVELS_MAX - 1) + b"/bottom").size == len(b"bottom")


def _chain(work: Forge, levels: int) -> Checksum:
    """Stage so many directories inside each other, with one file at the bottom."""
    tree = work.tree({b"bottom": work.file(b"bottom")})
    for _ in range(levels - 1):
        tree = work.tree(None, {b"d": tree})
    return tree


def _root(reading: Reading, commit: Checksum) -> Entry:
    number = commit_number(reading, commit)
    assert number is not None
    return root_entry(reading, commit_record(reading, number))


def test_the_last_commit_number(nearly_full: Repository) -> None:
    _set_counter(nearly_full, "commit", MAX_COMMIT_NUMBER)
    with forge(nearly_full) as work:
        last = work.publish(work.tree(), time_s=1)
    assert head(nearly_full, "main") == last
    before = _records(nearly_full)
    with forge(nearly_full) as work, pytest.raises(FormatError, match="more can't be numbered"):
        work.publish(work.tree(), time_s=2)
    assert _records(nearly_full) == before


def test_the_last_file_id(nearly_full: Repository) -> None:
    _set_counter(nearly_full, "file", MAX_FILE_ID - 1)
    with forge(nearly_full) as work:
        last = work.publish(work.tree({b"a": work.file(b"last but one"), b"b": work.file(b"last")}))
    assert committed_snapshot(nearly_full, last)[b"b"].size == len(b"last")
    before = _records(nearly_full)
    with forge(nearly_full) as work, pytest.raises(FormatError, match="more can't be numbered"):
        work.publish(work.tree({b"c": work.file(b"one too many")}))
    assert _records(nearly_full) == before
    with forge(nearly_full) as work:  # what is here already needs no number
        work.publish(work.tree({b"again": work.file(b"last")}))


def _set_counter(repository: Repository, name: str, value: int) -> None:
    repository.database.write(lambda writing: writing.set_counter(name, value))
