"""What may be asked of a view: other owners, whole contents certified; and what it does about damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import EIO, EMFILE
from pathlib import Path

import pytest

from fsview import nodeid
from fsview.damage import Damage
from fsview.ownership import Ownership
from fsview.view import View
from store.content import file_record
from store.damage import noted_damage
from store.errors import CorruptionError
from store.findings import Subject
from store.objects import ObjectType
from store.places import find_places
from store.repository import Repository
from store.schema import FIRST_ID, FileId, FileRecord, Storage, id_key
from tests.unit.test_view import NOW_S, make


@dataclass
class Sample:
    """A repository, and its commits."""

    repository: Repository
    checksums: list[str]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    repository, checksums = make(tmp_path_factory.mktemp("view"))
    with repository:
        yield Sample(repository, checksums)


def test_owners_are_those_of_the_commit_unless_somebody_wants_others(sample: Sample) -> None:
    def shown(ownership: Ownership) -> list[tuple[int, int, int]]:
        view = View(sample.repository, uid=0, gid=0, now_s=lambda: NOW_S, ownership=ownership)
        root = view.find(nodeid.COMMITS, sample.checksums[0].encode())
        assert root is not None
        rows = [row.attributes for row in view.rows(root.node, 0) if row.name != b".."]
        assert all(view.attributes(one.node) == one._replace(name_s=view.attributes(one.node).name_s) for one in rows)
        return [(one.mode, one.uid, one.gid) for one in rows]

    committed = shown(Ownership())
    assert shown(Ownership(5, 6)) == [(mode, 5, 6) for mode, _, _ in committed]
    assert shown(Ownership(gid=6)) == [(mode, uid, 6) for mode, uid, _ in committed]


@pytest.mark.parametrize(
    ("mode", "owner", "expected"),
    [
        (0o100000, (0, 0), 0o100400),  # what root could read in spite of its mode
        (0o100640, (0, 42), 0o100600),  # the group is another one than the one that was meant
        (0o100664, (0, 0), 0o100644),
        (0o100644, (1000, 100), 0o100644),
        (0o100060, (1000, 100), 0o100060),  # his own file, as it is
        (0o040700, (0, 0), 0o040700),
        (0o040000, (0, 0), 0o040500),
        (0o104755, (0, 0), 0o104755),
        (0o120777, (0, 0), 0o120777),
    ],
)
def test_who_takes_the_owners_place_may_read(mode: int, owner: tuple[int, int], expected: int) -> None:
    assert Ownership(1000, 100, by_mode=True).shown(mode, *owner) == (expected, 1000, 100)


@pytest.mark.unchecked
def test_a_content_is_certified_when_it_is_first_opened(tmp_path: Path) -> None:
    """A wrong content that the index vouches for, as one that was damaged before it was guarded."""
    repository, _ = make(tmp_path)
    with repository:
        file_id, record = next(
            (FileId(number), record)
            for number in range(FIRST_ID, FIRST_ID + 20)
            if (record := _file_record(repository, number)).storage == Storage.INLINE
        )
        with repository.database.reading() as reading:
            good = reading.need(b"content", id_key(file_id))
        wrong = bytes([good[0] ^ 1]) + good[1:]
        repository.database.write(lambda writing: writing.put(b"content", id_key(file_id), wrong))
        trusting = View(repository, uid=0, gid=0, now_s=lambda: NOW_S)
        trusting.open(file_id)
        assert trusting.read(file_id, 0, 100) == wrong
        view = View(repository, uid=0, gid=0, now_s=lambda: NOW_S, certify_contents=True)
        calls: list[Callable[[], object]] = [lambda: view.open(file_id), lambda: view.read(file_id, 0, 1)]
        for call in calls * 2:
            with pytest.raises(CorruptionError, match=f"sha256 {record.checksum.hex()}"):
                call()
        assert [checksum for checksum, _ in noted_damage(repository)] == [record.checksum]
        repository.database.write(lambda writing: writing.put(b"content", id_key(file_id), good))
        view.open(file_id)
        assert view.read(file_id, 0, 100) == good
        repository.database.write(lambda writing: writing.put(b"content", id_key(file_id), wrong))
        view.open(file_id)  # once a process


def _file_record(repository: Repository, number: int) -> FileRecord:
    with repository.database.reading() as reading:
        return file_record(reading, FileId(number))


def test_damage_that_cant_be_noted_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    repository, _ = make(tmp_path)
    with repository:
        (repository.path / "damaged").write_text("not a directory")
        damage = Damage(repository)
        damage.note(FileId(FIRST_ID), OSError(EMFILE, "too many"))  # which is no damage
        assert not caplog.records
        damage.note(FileId(FIRST_ID), OSError(EIO, "bad sector"))
        damage.note(FileId(FIRST_ID), OSError(EIO, "bad sector"))
        assert ["fsview doctor" in record.message for record in caplog.records] == [True]
        assert noted_damage(repository) == []
        (repository.path / "damaged").unlink()


def test_a_search_for_places_has_a_bound(sample: Sample) -> None:
    subject = Subject(ObjectType.FILE, FIRST_ID)
    with sample.repository.database.reading() as reading:
        whole = find_places(reading, {subject}, each=10)[subject]
        assert find_places(reading, {subject}, each=1)[subject] == whole[:1]
        assert find_places(reading, {subject}, each=1, entries_max=1) == {}
        assert len(whole) > 1
