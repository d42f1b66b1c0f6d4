"""Large directories, and many files that agree in size and time: right, and quick."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.listing import Listing, pack_listing
from store.repository import Repository
from store.tree import commit_number, commit_record, find, root_entry, walk
from tests.checking import assert_sound
from tests.forge import forge

COUNT = 100_000


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail if the block takes this process longer, which is far more than it does, unless the work is quadratic.

    What else the machine does is not counted.
    """
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds


def test_a_directory_of_a_hundred_thousand(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "repo") as repository:
        with at_most(30), forge(repository) as work:
            file, empty = work.file(b"same"), work.tree()
            names = [b"%06d" % number for number in range(COUNT)]
            commit = work.publish(
                work.tree(
                    {name: file for number, name in enumerate(names) if number % 10},
                    {name: empty for number, name in enumerate(names) if number % 10 == 0},
                )
            )
        with at_most(20), repository.database.reading() as reading:
            number = commit_number(reading, commit)
            assert number is not None
            root = root_entry(reading, commit_record(reading, number))
            assert [path for path, _ in walk(reading, root)] == [b"/" + name for name in names]
            for name in random.Random(1).sample(names, 10):
                assert find(reading, root, name).name == name
    assert_sound(tmp_path / "repo")


def test_finding_in_a_large_listing() -> None:
    rows = [(b"%06d" % number, number, 0, 0o40755, 0, 0, 1, 2, 3, 4) for number in range(COUNT)]
    with at_most(10):
        listing = Listing(pack_listing(rows))
        assert len(listing) == COUNT and (listing.directories, listing.entries) == (1 + 3 * COUNT, 5 * COUNT)
        for name, number, *_ in rows:
            entry = listing.find(name)
            assert entry is not None and entry.id == number and entry.directories_before == 3 * number
        assert [entry.id for entry in listing] == list(range(COUNT))
        for name in (b"", b"000000x", b"0000", b"1", b"\xff"):
            assert listing.find(name) is None


@pytest.mark.parametrize("seconds", [1, 50, 5_000])
def test_many_files_of_one_size_in_few_seconds(tmp_path: Path, seconds: int) -> None:
    """Each gets a second of its own, and looking for it doesn't pass over all that are taken, one by one."""
    count = 5_000
    chance = random.Random(seconds)
    with Repository.create(tmp_path / "repo") as repository:
        with at_most(20), forge(repository) as work:
            files = {
                b"%06d" % number: work.file(b"%06d" % number, mtime_ns=chance.randrange(seconds) * 10**9 + number)
                for number in range(count)
            }
            commit = work.publish(work.tree(files))
        with repository.database.reading() as reading:
            number = commit_number(reading, commit)
            assert number is not None
            rows = list(walk(reading, root_entry(reading, commit_record(reading, number))))
        assert len({row.mtime_ns // 10**9 for _, row in rows}) == count
    assert_sound(tmp_path / "repo")


def test_two_series_of_files_written_one_a_second(tmp_path: Path) -> None:
    """The first takes all seconds: the second finds others without passing over each of them each time."""
    count = 4_000
    with Repository.create(tmp_path / "repo") as repository:
        for series, order in ((b"a", range(count)), (b"b", reversed(range(count)))):
            with at_most(10), forge(repository) as work:
                files = {b"%d" % at: work.file(b"%s%05d" % (series, at), mtime_ns=at * 10**9) for at in order}
                work.publish(work.tree(files))
    assert_sound(tmp_path / "repo")
