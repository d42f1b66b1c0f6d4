"""Check the index: that each record can be read and parsed, and that records agree with each other, both ways.

Every record of every table is visited once, and its check yields what is wrong with it, as text. What a record names
is looked up; if that is damaged itself it is reported where it is visited, so that one flipped bit is one finding.
Memory is bounded by the largest record, whatever the number of records.

LMDB has no checksums, and a flipped bit in a page can make keys vanish without an error. So it is checked that ids are
dense, but for those that were pruned, that keys ascend, that each key which is seen in passing is found by a look-up,
too, and that there are as many records as LMDB counts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from pyroaring import BitMap64

from store import check_names, check_objects
from store.check_context import Context, Elsewhere
from store.database import Database, Reading
from store.errors import CorruptionError, FsviewError
from store.findings import RESTORE, Finding, Subject, error
from store.objects import ObjectType
from store.pruned import pruned_ids
from store.repository import Repository
from store.schema import DATABASES, FIRST_ID, OBJECT_COUNTERS, key_id

Check = Callable[[Context, bytes, bytes], Iterator[str]]
Advance = Callable[[int], object]

_CHECKS: Final[dict[bytes, Check]] = {
    b"head": check_names.check_head,
    b"object": check_objects.check_object,
    b"file": check_objects.check_file,
    b"content": check_objects.check_content,
    b"blocks": check_objects.check_blocks,
    b"dirtree": check_objects.check_dirtree,
    b"listing": check_objects.check_listing,
    b"dirmeta": check_objects.check_dirmeta,
    b"commit": check_objects.check_commit,
    b"detached": check_objects.check_detached,
    b"ref": check_names.check_ref,
    b"refdir": check_names.check_refdir,
    b"refid": check_names.check_refid,
    b"reflog": check_names.check_reflog,
    b"mtime": check_names.check_mtime,
    b"stat": check_names.check_stat,
}
assert set(_CHECKS) == set(DATABASES)

_DENSE: Final = {b"file": "file", b"dirtree": "tree", b"dirmeta": "meta", b"commit": "commit", b"refid": "ref"}
_SUBJECTS: Final = {
    b"file": ObjectType.FILE,
    b"content": ObjectType.FILE,
    b"blocks": ObjectType.FILE,
    b"dirtree": ObjectType.DIRTREE,
    b"listing": ObjectType.DIRTREE,
    b"dirmeta": ObjectType.DIRMETA,
    b"commit": ObjectType.COMMIT,
    b"detached": ObjectType.COMMIT,
}
_UNPARSABLE: Final = (struct.error, ValueError, IndexError, OverflowError)
_MENDS: Final = {b"stat": "commit with --no-stat-cache, which writes the record anew"}


def check_index(repository: Repository, advance: Advance = lambda step: None) -> Iterator[Finding]:
    """Yield what is wrong in the index; *advance* hears of records."""
    where = str(repository.path / "index" / "data.mdb")
    for table in DATABASES:
        try:
            with repository.database.reading() as reading:
                yield from _check_table(repository, reading, table, advance)
        except CorruptionError as problem:
            yield error(f"the table {table.decode()} can't be read: {problem.found}", where)
        except (FsviewError, OSError) as problem:
            yield error(f"the table {table.decode()} can't be read: {problem}", where)


def count_records(database: Database) -> int:
    """Return how many records there are to be checked; 0 if that can't be said."""
    try:
        with database.reading() as reading:
            return sum(reading.count(table) for table in DATABASES)
    except FsviewError:
        return 0


def _check_table(repository: Repository, reading: Reading, table: bytes, advance: Advance) -> Iterator[Finding]:
    context = Context(repository, reading)
    where = f"{repository.path / 'index'}, table {table.decode()}"
    seen, following, missing = 0, b"", _Gaps(context, table)
    for key in reading.keys_backwards(table, b""):
        if following and key >= following:
            yield error(f"the key {key.hex()} stands before {following.hex()}: pages are damaged", where)
            return
        for what in missing.before(key):
            yield error(what, where)
        yield from _check_record(context, table, key, where)
        seen, following = seen + 1, key
        advance(1)
    for what in missing.before(None):
        yield error(what, where)
    if seen != reading.count(table):
        yield error(f"it has {seen} records, but should have {reading.count(table)}: pages are damaged", where)


def _check_record(context: Context, table: bytes, key: bytes, where: str) -> Iterator[Finding]:
    subject = _subject(table, key)
    mend = _MENDS.get(table, RESTORE)
    try:
        for what in _problems(context, table, key):
            yield error(f"{context.name_of(subject)}{what}", f"{where}, key {_key_text(table, key)}", mend, subject)
    except FsviewError as problem:
        yield error(f"{context.name_of(subject)}{problem}", f"{where}, key {_key_text(table, key)}", mend, subject)


def _problems(context: Context, table: bytes, key: bytes) -> Iterator[str]:
    try:
        value = context.reading.get(table, key)
    except CorruptionError:
        yield "the value is not what was written: its guard is another"
        return
    if value is None:
        yield "the key is there, but is not found: pages are damaged"
        return
    try:
        yield from _CHECKS[table](context, key, value)
    except Elsewhere:
        pass
    except _UNPARSABLE as problem:
        yield f"the record can't be parsed: {problem}"


def _subject(table: bytes, key: bytes) -> Subject | None:
    kind = _SUBJECTS.get(table)
    return None if kind is None or len(key) < 8 else Subject(kind, key_id(key[:8]))


def _key_text(table: bytes, key: bytes) -> str:
    if table in (b"ref", b"refdir", b"head"):
        return key.decode("utf-8", "backslashreplace")
    return str(key_id(key)) if len(key) == 8 else key.hex()


class _Gaps:
    """Ids are given out without a gap: one that is missing below its counter was pruned, or has vanished."""

    def __init__(self, context: Context, table: bytes) -> None:
        self._name = _DENSE.get(table, "")
        self._next = context.counter(self._name) if self._name else None
        self._pruned = _pruned(context, self._name) if table in OBJECT_COUNTERS else BitMap64()

    def before(self, key: bytes | None) -> Iterator[str]:
        """Yield what is missing between *key* (None: the beginning) and the key that came before it, backwards."""
        if self._next is None or self._pruned is None or (key is not None and len(key) != 8):
            return
        number = FIRST_ID - 1 if key is None else key_id(key)
        if number >= self._next:
            yield f"{self._name} id {number} is there, but ids were only given out below {self._next}"
        elif self._next - number - 1 > self._pruned.range_cardinality(number + 1, self._next):
            missing = BitMap64()
            missing.add_range(number + 1, self._next)
            missing -= self._pruned
            which = f"{self._name} ids {missing.min()} to {missing.max()}"
            yield f"{which} were given out, but are not there: {len(missing)} are missing"
        if key is not None and number in self._pruned:
            yield f"{self._name} id {number} is there, but is recorded as pruned"
        self._next = number


def _pruned(context: Context, counter: str) -> BitMap64 | None:
    """Return the ids that were pruned, or None where that is damaged, which is reported with the table head."""
    try:
        return pruned_ids(context.reading, counter)
    except (CorruptionError, ValueError, IndexError):
        return None
