"""The writer and its stage: nothing stays behind when they fail, and no lie about a size or checksum gets in."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from store.objects import DirTree, FileHeader
from store.publication import Phase
from store.repository import Repository
from store.schema import BLOCK_BYTES, Storage
from store.stager import PIECE_BYTES, Stager
from store.staging import Stage, StagedTree
from store.writer import Writer
from tests.checking import assert_sound
from tests.forge import Forge, forge
from tests.leaks import open_descriptors
from tests.readback import committed_snapshot

LARGE = bytes(range(256)) * 100  # loose


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(tmp_path / "repo") as repository:
        yield repository
    assert_sound(tmp_path / "repo")


def _full(*arguments: object, **options: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["mkdir", "open"])
def test_a_stage_that_can_not_be_made_leaves_nothing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(Path, name, _full)
        with pytest.raises(OSError, match="No space left"):
            Stage(repository)
    assert list((repository.path / "tmp").iterdir()) == []
    assert open_descriptors() == before


def test_leaving_a_stage_on_a_full_disk_tells_the_error_and_removes_it(repository: Repository) -> None:
    before = open_descriptors()

    def commit() -> None:
        with Stage(repository) as stage:
            os.dup2(full, stage._trees.fileno())
            stage.add_tree(StagedTree(DirTree((), ()).checksum, 0, bytes(2 << 20)))

    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space left"):
            commit()
    finally:
        os.close(full)
    assert list((repository.path / "tmp").iterdir()) == []
    assert open_descriptors() == before


def test_the_next_writer_sweeps_what_a_dead_one_left(repository: Repository) -> None:
    left = Path(tempfile.mkdtemp(prefix="stage-", dir=repository.path / "tmp"))
    (left / "loose").mkdir()
    (left / "loose" / "x.1").write_bytes(b"x")
    with Writer(repository):
        assert not left.exists()


def test_a_writer_leaves_the_stage_of_a_living_one_alone(repository: Repository) -> None:
    with Writer(repository) as first, Writer(repository) as second:
        assert first.stage.path.is_dir() and second.stage.path.is_dir()


def test_what_a_stage_held_is_published_once(repository: Repository) -> None:
    with forge(repository) as work:
        checksum = work.publish(work.tree({b"a": work.file(LARGE), b"b": work.file(LARGE), b"c": work.file(b"small")}))
    assert len(committed_snapshot(repository, checksum)) == 4


def test_a_loose_file_whose_record_was_never_published_is_replaced(repository: Repository) -> None:
    header = FileHeader(0, 0, 0o100644)
    hasher = header.hasher()
    hasher.update(LARGE)
    left = repository.path / "objects" / hasher.hexdigest()[:2] / hasher.hexdigest()[2:]
    left.parent.mkdir(parents=True)
    left.write_bytes(b"not durable when the power failed")
    with forge(repository) as work:
        work.publish(work.tree({b"large": work.file(LARGE)}))
    assert left.read_bytes() == LARGE


def test_a_transaction_that_runs_again_because_the_map_is_too_small(repository: Repository) -> None:
    grown = 0

    def report(phase: Phase, done: int) -> None:
        nonlocal grown
        grown += phase == Phase.PUBLISHING and done == 0

    repository.database._env.set_mapsize(256 << 10)
    with Writer(repository, report) as writer, Stager(repository, writer.stage.path, "forged") as stager:
        work = Forge(writer, stager)
        files = {b"%d" % number: work.file(bytes([number]) * size) for number in range(60) for size in (9_000, 20_000)}
        files |= {b"s%d" % number: work.file(bytes([number]) * 9_000) for number in range(60)}
        commit = work.publish(work.tree(files))
    assert grown > 2
    assert len(committed_snapshot(repository, commit)) == 121


@pytest.mark.parametrize("pieces", [[PIECE_BYTES, 300_000], [PIECE_BYTES, PIECE_BYTES], [5 * BLOCK_BYTES, 1]])
def test_a_stream_ends_where_it_gives_fewer_bytes(repository: Repository, pieces: list[int]) -> None:
    """A file that grows while it is read gives more later; guards count whole blocks from the start."""
    source = iter([bytes([7]) * size for size in pieces] + [b"more that came later"])
    with forge(repository) as work:
        checksum = work.stager.stream(lambda size: next(source), FileHeader(0, 0, 0o100644), 0, lambda size: True)
        assert checksum is not None
        made = work.publish(work.tree({b"log": checksum}))
    short = next((at for at, size in enumerate(pieces) if size < PIECE_BYTES), None)
    expected = sum(pieces) + len(b"more that came later") if short is None else sum(pieces[: short + 1])
    assert committed_snapshot(repository, made)[b"log"].size == expected


@pytest.mark.parametrize("year", [1500, 1822, 1970, 2240, 2263, 2446, 9999])
@pytest.mark.parametrize("content", [b"", b"inline", LARGE])
def test_any_time_that_a_file_system_can_hold_can_be_committed(
    repository: Repository, year: int, content: bytes
) -> None:
    mtime_ns = (year - 1970) * 31_556_952 * 10**9 + 5
    with forge(repository) as work:
        files = {name: work.file(content + name, mtime_ns=mtime_ns) for name in (b"a", b"b")}
        made = work.publish(work.tree(files))
    found = committed_snapshot(repository, made)
    if 1822 <= year <= 2240:
        assert found[b"a"].mtime_ns == mtime_ns
    assert len({found[b"a"].mtime_ns // 10**9, found[b"b"].mtime_ns // 10**9}) == 2  # equal sizes: another second


@pytest.mark.parametrize(
    "name", ["security.capability", "system.posix_acl_access", "user." + "x" * 300, "nonsense", "user.\udcff"]
)
def test_an_xattr_that_this_file_system_refuses_is_kept_in_the_object(repository: Repository, name: str) -> None:
    header = FileHeader(0, 0, 0o100644, ((os.fsencode(name), b"no such value"),))
    with forge(repository) as work:
        made = work.publish(work.tree({b"f": work.stager.whole(LARGE, header, 0)}))
    assert committed_snapshot(repository, made)[b"f"].xattrs == ((name, b"no such value"),)


Lie = Callable[[Any], Any]
LIES: dict[str, tuple[bytes, Lie]] = {
    "an inline file's size": (b"inline", lambda staged: replace(staged, size=7)),
    "a loose file's size": (LARGE, lambda staged: replace(staged, size=BLOCK_BYTES + 1)),
    "an empty file's size": (b"", lambda staged: replace(staged, payload=b"x")),
    "where an inline file is": (b"inline", lambda staged: replace(staged, storage=Storage.EMPTY)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_staged_file_that_lies_is_our_own_bug(repository: Repository, lie: str) -> None:
    content, change = LIES[lie]
    with forge(repository) as work:
        add = work.stager._spool.add
        work.stager._spool.add = lambda staged: add(change(staged))  # type: ignore[method-assign]
        with pytest.raises(AssertionError, match="size"):
            work.publish(work.tree({b"f": work.file(content)}))


def test_a_dirtree_under_another_checksum_is_our_own_bug(repository: Repository) -> None:
    with forge(repository) as work:
        wrong = work.raw_tree(DirTree((), ()).to_bytes(), DirTree(((b"x", work.meta),), ()).checksum)
        with pytest.raises(AssertionError):
            work.publish(wrong)


def test_a_disk_that_fills_up_in_a_process_that_hashes_leaves_no_descriptor(
    repository: Repository, tmp_path: Path
) -> None:
    before = open_descriptors()
    with Writer(repository) as writer:
        stager = Stager(repository, writer.stage.path, "0")
        shutil.rmtree(writer.stage.path / "loose")  # as good as full: nothing can be written there
        with pytest.raises(FileNotFoundError), stager:
            stager.whole(LARGE, FileHeader(0, 0, 0o100644), 0)
    assert open_descriptors() == before
