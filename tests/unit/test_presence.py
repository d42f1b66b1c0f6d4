"""A name that is not found where it should be is damage, whoever asks; one that was never there is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroaring import BitMap64

from store.commit_facts import detached_metadata
from store.database import Reading, Writing
from store.errors import CorruptionError, NotFoundError
from store.gvariant import Variant
from store.objects import Checksum, DirMeta, ObjectType, pack_detached
from store.presence import numbered
from store.pruned import record_pruned
from store.refs import find_ref, list_refs, reflog, set_ref
from store.repository import Repository
from store.revisions import resolve
from store.schema import COUNTED, GENERATION, CommitNumber, counter_key, id_key
from store.tree import commit_number
from tests.forge import forge

FIRST, SECOND = CommitNumber(1024), CommitNumber(1025)
SIGNED = (("signed", Variant("s", "by nobody")),)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """Return a repository with two commits, the second of which has detached metadata, and two refs."""
    with Repository.create(tmp_path / "repo") as repository:
        for time_s, ref in ((1, "a/b"), (2, "o:c/d")):
            with forge(repository) as work:
                work.publish(work.tree({b"f": work.file(b"%d" % time_s)}), ref, time_s=time_s)
        _write(repository, lambda writing: writing.put(b"detached", id_key(SECOND), pack_detached(SIGNED)))
        _write(repository, lambda writing: set_ref(writing, "a/b", SECOND, time_s=3, message="moved"))
        yield repository


def _write(repository: Repository, body: Callable[[Writing], object]) -> None:
    repository.database.write(body)


def _checksum(repository: Repository, number: CommitNumber) -> Checksum:
    with repository.database.reading() as reading:
        return Checksum(reading.need(b"commit", id_key(number))[:32])


def _refuses(repository: Repository, ask: Callable[[Reading], object]) -> None:
    with repository.database.reading() as reading, pytest.raises(CorruptionError, match="expected a"):
        ask(reading)


@pytest.mark.unchecked
def test_a_commit_whose_number_is_hidden(repository: Repository) -> None:
    checksum = _checksum(repository, FIRST)
    with repository.database.reading() as reading:
        assert commit_number(reading, Checksum(bytes(32))) is None  # what was kept for it tells of the others, too
    _write(repository, lambda writing: writing.delete(b"object", bytes((ObjectType.COMMIT,)) + checksum))
    _refuses(repository, lambda reading: commit_number(reading, checksum))
    _refuses(repository, lambda reading: resolve(reading, checksum.hex()[:10], now_s=0))
    with repository.database.reading() as reading:
        assert commit_number(reading, Checksum(checksum[:20] + bytes(12))) is None
        with pytest.raises(NotFoundError):
            resolve(reading, checksum.hex()[:20] + "0" * 12, now_s=0)


def test_a_commit_that_comes_after_it_was_asked_for(repository: Repository) -> None:
    with forge(repository) as work:
        root = work.tree({b"new": work.file(b"new")})
        with repository.database.reading() as reading:
            assert commit_number(reading, Checksum(bytes(32))) is None
        new = work.publish(root, None)
    with repository.database.reading() as reading:
        assert commit_number(reading, new) == 1026 and commit_number(reading, Checksum(bytes(31) + b"\1")) is None


@pytest.mark.unchecked
@pytest.mark.parametrize("number", [FIRST, SECOND])
def test_a_record_of_a_commit_that_is_hidden(repository: Repository, number: CommitNumber) -> None:
    _write(repository, lambda writing: writing.delete(b"commit", id_key(number)))
    _refuses(repository, lambda reading: list(numbered(reading, b"commit")))

    def note(writing: Writing) -> None:
        record_pruned(writing, "commit", BitMap64([number]))
        writing.take_id(GENERATION)

    _write(repository, note)
    with repository.database.reading() as reading:
        assert [found for found, _ in numbered(reading, b"commit")] == [FIRST + SECOND - number]


@pytest.mark.unchecked
@pytest.mark.parametrize("name", ["a/b", "o:c/d"])
def test_a_ref_that_is_hidden(repository: Repository, name: str) -> None:
    with repository.database.reading() as reading:
        assert find_ref(reading, "a") is None and find_ref(reading, name + "x") is None
    _write(repository, lambda writing: writing.delete(b"ref", name.encode()))
    _refuses(repository, lambda reading: find_ref(reading, name))
    for prefix in ("", name, name.rpartition("/")[0]):
        _refuses(repository, lambda reading, prefix=prefix: list(list_refs(reading, prefix)))  # type: ignore[misc]
    with repository.database.reading() as reading:
        assert find_ref(reading, name + "x") is None and list(list_refs(reading, "x")) == []


@pytest.mark.unchecked
@pytest.mark.parametrize("index", [0, 1])
def test_a_move_that_is_hidden(repository: Repository, index: int) -> None:
    with repository.database.reading() as reading:
        ref = find_ref(reading, "a/b")
        assert ref is not None
        keys = list(reading.keys_backwards(b"reflog", id_key(ref.ref_id)))
        assert [move.new for move in reflog(reading, ref.ref_id, ref.commit)] == [SECOND, FIRST]
    _write(repository, lambda writing: writing.delete(b"reflog", keys[index]))
    _refuses(repository, lambda reading: list(reflog(reading, ref.ref_id, ref.commit)))
    _refuses(repository, lambda reading: resolve(reading, "a/b@{1}", now_s=0))


def test_detached_metadata_that_are_hidden(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """By LMDB's pages: to take the record away takes it out of the count, too."""
    with repository.database.reading() as reading:
        assert detached_metadata(reading, FIRST) == () and detached_metadata(reading, SECOND) == SIGNED
    monkeypatch.setattr(Reading, "get", lambda reading, table, key: None)
    _refuses(repository, lambda reading: detached_metadata(reading, SECOND))


@pytest.mark.unchecked
@pytest.mark.parametrize("name", COUNTED)
def test_a_counter_that_is_hidden(repository: Repository, name: str) -> None:
    """Else all nodes of commits would be stale, and the next commit would be written over the first."""
    _write(repository, lambda writing: writing.delete(b"head", counter_key(name)))
    with repository.database.reading() as reading, pytest.raises(CorruptionError, match="expected the next id"):
        reading.counter(name)
    with pytest.raises(CorruptionError), forge(repository) as work:
        work.meta = work.writer.add_meta(DirMeta(1, 1, 0o40700))
        work.publish(work.tree({b"new": work.file(b"new")}), "new", time_s=5)
    with repository.database.reading() as reading:
        assert reading.count(b"commit") == 2
