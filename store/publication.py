"""The publishing transaction: what is staged and new gets its ids, records and listings.

It may run again from the start when the index has to grow: what it did outside, renames of loose files, is told by
`moved`, which outlives it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

from store.content import file_record
from store.database import Writing
from store.entrance import make_directory
from store.errors import FormatError
from store.listing import pack_listing
from store.mtimes import assign_mtime
from store.objects import Checksum, Commit, DirTree, ObjectType, checksum_of
from store.reach import Reach
from store.repository import Repository
from store.schema import (
    BLOCK_BYTES,
    BLOCKS_PER_GROUP,
    MAX_COMMIT_NUMBER,
    MAX_FILE_ID,
    CommitNumber,
    CommitRecord,
    FileId,
    FileRecord,
    MetaId,
    MetaRecord,
    Storage,
    TreeId,
    TreeRecord,
    blocks_key,
    check_counts,
    id_key,
)
from store.staging import FSYNC_EACH_MAX, NO_STAT_KEY, Stage, StagedFile, StagedTree, sync_path
from store.statcache import IDS, STAT, StatRecord
from store.tree import load_dirmeta, load_listing, object_id, tree_record

_GUARD_BYTES: Final = 8
_GROUP_BYTES: Final = _GUARD_BYTES * BLOCKS_PER_GROUP
_REPORT_EVERY: Final = 64
_ROWS_MAX: Final = 1 << 18  # some 80 MB
_Row = tuple[int, int, int, int, int, int, int, int, int]  # a listing's entry, without its name (store/listing.py)


class Phase(StrEnum):
    """What a commit under way is doing."""

    HASHING = "hashing"
    STAGING = "staging"
    SYNCING = "syncing"
    PUBLISHING = "publishing"


Report = Callable[[Phase, int], None]  # called with the number of steps done in this phase


class Publication:
    """One run of the publishing transaction."""

    def __init__(
        self, repository: Repository, writing: Writing, stage: Stage, moved: set[Checksum], report: Report
    ) -> None:
        self._repository, self._writing, self._stage = repository, writing, stage
        self._moved, self._report, self.steps = moved, report, 0
        self._new_loose: list[Path] = []
        self._meta = lru_cache(maxsize=4096)(self._find_meta)
        self._zero_mtime = repository.settings.mtime == "zero"
        self._rows: dict[Checksum, _Row] = {}  # of new files, by checksum, up to _ROWS_MAX

    def run(self, metas: dict[Checksum, bytes]) -> None:
        """Publish every object that is new."""
        self._add_files()
        self._report(Phase.PUBLISHING, self.steps)
        self._sync_names()
        self._report(Phase.PUBLISHING, self.steps)
        for checksum, raw in metas.items():
            if object_id(self._writing, ObjectType.DIRMETA, checksum) is None:
                meta_id = self._take("meta", ObjectType.DIRMETA, checksum)
                self._writing.put(b"dirmeta", id_key(meta_id), MetaRecord(checksum, raw).pack(), append=True)
        for staged in self._stage.trees():
            self._add_tree(staged)
            self._step()

    def add_commit(self, commit: Commit) -> tuple[CommitNumber, Checksum]:
        """Publish the commit object, unless it is there already."""
        raw, checksum = commit.to_bytes(), commit.checksum
        known = object_id(self._writing, ObjectType.COMMIT, checksum)
        if known is not None:
            return CommitNumber(known), checksum
        tree_id = self._need(ObjectType.DIRTREE, commit.root_dirtree)
        meta_id = self._need(ObjectType.DIRMETA, commit.root_dirmeta)
        problem = Reach(self._writing).problem(TreeId(tree_id))
        if problem:
            raise FormatError(
                f"the tree to be committed has {problem}; nothing was committed; leave out what is so deep"
            )
        tree = tree_record(self._writing, TreeId(tree_id))
        record = CommitRecord(checksum, TreeId(tree_id), MetaId(meta_id), tree.directories, tree.entries, raw)
        number = self._take("commit", ObjectType.COMMIT, checksum)
        if number > MAX_COMMIT_NUMBER:
            raise FormatError(f"{self._repository.path} has had {MAX_COMMIT_NUMBER} commits, more can't be numbered")
        self._writing.put(b"commit", id_key(number), record.pack(), append=True)
        return CommitNumber(number), checksum

    def _step(self) -> None:
        self.steps += 1
        if self.steps % _REPORT_EVERY == 1:
            self._report(Phase.PUBLISHING, self.steps)

    def _take(self, counter: str, kind: ObjectType, checksum: Checksum) -> int:
        number = self._writing.take_id(counter)
        self._writing.put(b"object", bytes((kind,)) + checksum, id_key(number))
        return number

    def _need(self, kind: ObjectType, checksum: Checksum) -> int:
        number = object_id(self._writing, kind, checksum)
        if number is None:
            name = f"{kind.name.lower()} object {checksum.hex()}"
            raise FormatError(f"the {name} is named, but not there; nothing was committed")
        return number

    def _add_files(self) -> None:
        writing = self._writing
        next_id = writing.counter("file")
        for staged in self._stage.files():
            self._step()
            key = b"\x01" + staged.checksum
            if writing.get(b"object", key) is not None:
                continue
            assert len(staged.payload) == _payload_bytes(staged), "a stager lied about the size"
            file_key = id_key(next_id)
            mtime_ns = 0 if self._zero_mtime else assign_mtime(writing, staged)
            record = FileRecord(staged.checksum, staged.size, mtime_ns, staged.storage, staged.header)
            writing.put(b"object", key, file_key)
            writing.put(b"file", file_key, record.pack(), append=True)
            if staged.storage == Storage.INLINE:
                writing.put(b"content", file_key, staged.payload, append=True)
            elif staged.storage == Storage.LOOSE:
                self._add_loose(staged, FileId(next_id), mtime_ns)
            if len(self._rows) < _ROWS_MAX:
                self._rows[staged.checksum] = _file_row(FileId(next_id), record)
            next_id += 1
        if next_id > MAX_FILE_ID + 1:
            raise FormatError(f"{self._repository.path} has had {MAX_FILE_ID} files, more can't be numbered")
        writing.set_counter("file", next_id)

    def _add_loose(self, staged: StagedFile, file_id: FileId, mtime_ns: int) -> None:
        for group, at in enumerate(range(0, len(staged.payload), _GROUP_BYTES)):
            guards = staged.payload[at : at + _GROUP_BYTES]
            self._writing.put(b"blocks", blocks_key(file_id, group), guards, append=True)
        source, target = self._stage.loose_path(staged), self._repository.loose_path(staged.checksum)
        if staged.checksum not in self._moved:  # else an earlier run of this transaction did it
            make_directory(target.parent, self._repository.settings.modes)
            os.utime(source, ns=(mtime_ns, mtime_ns))
            source.rename(target)  # over a leftover at most, which no record names
            self._moved.add(staged.checksum)
        if len(self._new_loose) <= FSYNC_EACH_MAX:  # of more it's enough to know that there are
            self._new_loose.append(target)

    def _sync_names(self) -> None:
        """Make the new loose files durable under their names, with their mtimes.

        Also objects/ itself: a directory in it may be left over from a writer that died before it was durable.
        """
        if len(self._new_loose) > FSYNC_EACH_MAX:
            self._stage.sync_filesystem()
        elif self._new_loose:
            directories = {path.parent for path in self._new_loose}
            for path in (*self._new_loose, *directories, self._repository.path / "objects"):
                sync_path(path)

    def _add_tree(self, staged: StagedTree) -> None:
        tree_id = object_id(self._writing, ObjectType.DIRTREE, staged.checksum)
        if tree_id is None:
            tree_id = self._compile(staged)
        if staged.stat_key != NO_STAT_KEY:
            self._remember(staged, tree_id)

    def _compile(self, staged: StagedTree) -> int:
        """Give a new dirtree its record and its listing."""
        assert checksum_of(staged.raw) == staged.checksum
        tree = DirTree.from_bytes(staged.raw)
        rows = sorted((*self._file_rows(tree), *self._directory_rows(tree)))
        directories, entries = 1 + sum(row[-2] for row in rows), sum(1 + row[-1] for row in rows)
        check_counts(directories, entries, f"the dirtree {staged.checksum.hex()}")
        mtime_ns = 0 if self._zero_mtime else staged.mtime_ns
        record = TreeRecord(staged.checksum, mtime_ns, directories, entries, staged.raw)
        tree_id = self._take("tree", ObjectType.DIRTREE, staged.checksum)
        self._writing.put(b"dirtree", id_key(tree_id), record.pack(), append=True)
        self._writing.put(b"listing", id_key(tree_id), pack_listing(rows), append=True)
        return tree_id

    def _file_rows(self, tree: DirTree) -> Iterator[tuple[bytes, *_Row]]:
        for name, checksum in tree.files:
            row = self._rows.get(checksum)
            if row is None:
                file_id = FileId(self._need(ObjectType.FILE, checksum))
                row = _file_row(file_id, file_record(self._writing, file_id))
            yield name, *row

    def _directory_rows(self, tree: DirTree) -> Iterator[tuple[bytes, *_Row]]:
        for name, dirtree, dirmeta in tree.dirs:
            tree_id = TreeId(self._need(ObjectType.DIRTREE, dirtree))
            record = tree_record(self._writing, tree_id)
            meta_id, uid, gid, mode = self._meta(dirmeta)
            size = len(record.raw)
            yield (
                name, tree_id, meta_id, mode, uid, gid, size, record.mtime_ns, record.directories, record.entries,
            )  # fmt: skip

    def _find_meta(self, checksum: Checksum) -> tuple[MetaId, int, int, int]:
        meta_id = MetaId(self._need(ObjectType.DIRMETA, checksum))
        meta = load_dirmeta(self._writing, meta_id)
        return meta_id, meta.uid, meta.gid, meta.mode

    def _remember(self, staged: StagedTree, tree_id: int) -> None:
        """Write what the stat cache keeps of a directory: its stats, beside the ids that the listing now has."""
        entries = list(load_listing(self._writing, TreeId(tree_id)))
        assert len(staged.stats) == STAT.size * len(entries)
        stats = (staged.stats[at : at + STAT.size] for at in range(0, len(staged.stats), STAT.size))
        ids = (
            IDS.pack(entry.id, entry.meta_id) if any(packed) else IDS.pack(0, 0)
            for entry, packed in zip(entries, stats, strict=True)
        )
        record = StatRecord(tree_id, tuple(entry.name for entry in entries), staged.stats, b"".join(ids))
        self._writing.put(b"stat", staged.stat_key, record.pack())


def _file_row(file_id: FileId, record: FileRecord) -> _Row:
    uid, gid, mode = record.owner_mode
    return file_id, 0, mode, uid, gid, record.size, record.mtime_ns, 0, 0


def _payload_bytes(staged: StagedFile) -> int:
    """Return how long the payload of a staged file must be: nothing, the contents, or a guard for each block."""
    if staged.storage == Storage.LOOSE:
        return _GUARD_BYTES * -(-staged.size // BLOCK_BYTES)
    return staged.size if staged.storage == Storage.INLINE else 0
