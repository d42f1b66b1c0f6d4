"""What the checks of records look things up with."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar

from store.database import Reading
from store.errors import CorruptionError, FormatError, FsviewError
from store.findings import Subject
from store.objects import Checksum, DirMeta, ObjectType
from store.reach import Reach
from store.repository import Repository
from store.schema import (
    FIRST_ID,
    CommitRecord,
    FileRecord,
    MetaRecord,
    TreeId,
    TreeRecord,
    counter_key,
    id_key,
    key_id,
)
from store.tree import object_id

Record = TypeVar("Record")
_TABLES: Final = {
    ObjectType.FILE: b"file",
    ObjectType.DIRTREE: b"dirtree",
    ObjectType.DIRMETA: b"dirmeta",
    ObjectType.COMMIT: b"commit",
}
COUNTERS: Final = {
    ObjectType.FILE: "file",
    ObjectType.DIRTREE: "tree",
    ObjectType.DIRMETA: "meta",
    ObjectType.COMMIT: "commit",
}


class Elsewhere(Exception):
    """What a record names is damaged itself: reported where that is visited, so not here again."""


class Context:
    """The index at one moment; every look-up gives a record, None where there is none, or raises Elsewhere."""

    def __init__(self, repository: Repository, reading: Reading) -> None:
        """Look through *reading*, which must outlive this."""
        self.repository, self.reading = repository, reading
        self.is_first_seen = repository.settings.mtime == "first-seen"
        self.meta = lru_cache(maxsize=4096)(self._meta)
        self._reach = Reach(reading)

    def get(self, table: bytes, key: bytes) -> bytes | None:
        """Return a value, or None."""
        try:
            return self.reading.get(table, key)
        except CorruptionError:
            raise Elsewhere from None

    def find(self, kind: ObjectType, checksum: Checksum) -> int | None:
        """Return the id of an object, or None."""
        try:
            return object_id(self.reading, kind, checksum)
        except (CorruptionError, ValueError):
            raise Elsewhere from None

    def file(self, number: int) -> FileRecord | None:
        """Return the record of a file object."""
        return self._record(b"file", number, FileRecord.unpack)

    def tree(self, number: int) -> TreeRecord | None:
        """Return the record of a dirtree."""
        return self._record(b"dirtree", number, TreeRecord.unpack)

    def commit(self, number: int) -> CommitRecord | None:
        """Return the record of a commit."""
        return self._record(b"commit", number, CommitRecord.unpack)

    def reach(self, tree_id: int) -> str:
        """Return what is too deep in the tree of a commit, "" if nothing is."""
        try:
            return self._reach.problem(TreeId(tree_id))
        except FsviewError:
            raise Elsewhere from None

    def counter(self, name: str) -> int | None:
        """Return the counter *name*, or None where it is damaged, which is reported with the table head.

        Where it is missing no id was given out: so all that have one are findings.
        """
        try:
            value = self.reading.get(b"head", counter_key(name))
            return FIRST_ID if value is None else key_id(value)
        except (CorruptionError, struct.error):
            return None

    def was_pruned(self, kind: ObjectType, number: int) -> bool:
        """Whether this object is recorded as deleted by a prune."""
        try:
            return self.reading.was_pruned(_TABLES[kind], id_key(number))
        except (CorruptionError, ValueError):
            raise Elsewhere from None

    def checksum(self, subject: Subject) -> Checksum | None:
        """Return the checksum of an object, or None where its record is gone or damaged."""
        try:
            value = self.get(_TABLES[subject.kind], id_key(subject.id))
        except Elsewhere:
            return None
        return None if value is None else Checksum(value[:32])

    def name_of(self, subject: Subject | None) -> str:
        """Return the beginning of a sentence about an object."""
        if subject is None:
            return ""
        checksum = self.checksum(subject)
        kind = "file object" if subject.kind == ObjectType.FILE else subject.kind.name.lower()
        return f"{kind} {checksum.hex()}: " if checksum else f"{kind} with id {subject.id}: "

    def _meta(self, number: int) -> tuple[Checksum, DirMeta] | None:
        """Return the checksum and the object of a dirmeta."""
        record = self._record(b"dirmeta", number, MetaRecord.unpack)
        try:
            return None if record is None else (record.checksum, DirMeta.from_bytes(record.raw))
        except FormatError:
            raise Elsewhere from None

    def _record(self, table: bytes, number: int, unpack: Callable[[bytes], Record]) -> Record | None:
        value = self.get(table, id_key(number))
        try:
            return None if value is None else unpack(value)
        except (struct.error, ValueError, IndexError):
            raise Elsewhere from None
