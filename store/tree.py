"""Look at the tree of a commit: find a path, list a directory, walk it all. The one reader of listings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from store.bounds import check_place
from store.database import Reading
from store.errors import CorruptionError, FormatError, NotFoundError
from store.listing import Entry, Listing
from store.objects import Checksum, Commit, DirMeta, ObjectType, parent_and_time
from store.parsing import parsed
from store.presence import check_no_commit
from store.schema import CommitNumber, CommitRecord, MetaId, MetaRecord, TreeId, TreeRecord, id_key, key_id

T = TypeVar("T")


def object_id(reading: Reading, kind: ObjectType, checksum: Checksum) -> int | None:
    """Return the id of an object, or None if this repository doesn't have it."""
    value = reading.get(b"object", bytes((kind,)) + checksum)
    return None if value is None else key_id(value)


def commit_number(reading: Reading, checksum: Checksum) -> CommitNumber | None:
    """Return the number of a commit, or None if this repository doesn't have it.

    Raises:
        CorruptionError: it has it, but the number is not found.
    """
    number = object_id(reading, ObjectType.COMMIT, checksum)
    if number is None:
        check_no_commit(reading, checksum.hex())
        return None
    return CommitNumber(number)


def commit_record(reading: Reading, number: CommitNumber) -> CommitRecord:
    """Return the record of a commit that was given out.

    Raises:
        CorruptionError: it is damaged, or none; so for all that follow.
    """
    return _parsed(reading, b"commit", number, CommitRecord.unpack)


def load_commit(reading: Reading, number: CommitNumber) -> Commit:
    """Return the commit object with this number."""
    return commit_of(reading, commit_record(reading, number))


def commit_of(reading: Reading, record: CommitRecord) -> Commit:
    """Return the commit object of a record."""
    try:
        return Commit.from_bytes(record.raw)
    except FormatError as problem:
        raise _no_commit(reading, record, problem) from None


def load_parent_and_time(reading: Reading, number: CommitNumber) -> tuple[Checksum | None, int]:
    """Return what is wanted of each of many commits, a tenth of the work of `load_commit`; the time in s."""
    return _parent_and_time(reading, commit_record(reading, number))


def tree_record(reading: Reading, tree_id: TreeId) -> TreeRecord:
    """Return the record of a dirtree."""
    return _parsed(reading, b"dirtree", tree_id, TreeRecord.unpack)


def meta_record(reading: Reading, meta_id: MetaId) -> MetaRecord:
    """Return the record of a dirmeta."""
    return _parsed(reading, b"dirmeta", meta_id, MetaRecord.unpack)


def load_dirmeta(reading: Reading, meta_id: MetaId) -> DirMeta:
    """Return the dirmeta object with this id."""
    return _parsed(reading, b"dirmeta", meta_id, lambda data: DirMeta.from_bytes(MetaRecord.unpack(data).raw))


def load_listing(reading: Reading, tree_id: TreeId) -> Listing:
    """Return the listing of a dirtree."""
    return _parsed(reading, b"listing", tree_id, Listing)


def _parsed(reading: Reading, table: bytes, number: int, parse: Callable[[bytes], T]) -> T:
    """Return a record as *parse* makes it of the stored value, which only a forged one can't be."""
    return parsed(f"{table.decode()} {number}", reading.where, reading.need(table, id_key(number)), parse)


def _parent_and_time(reading: Reading, record: CommitRecord) -> tuple[Checksum | None, int]:
    try:
        return parent_and_time(record.raw)
    except FormatError as problem:
        raise _no_commit(reading, record, problem) from None


def _no_commit(reading: Reading, record: CommitRecord, problem: FormatError) -> CorruptionError:
    return CorruptionError(f"commit {record.checksum.hex()}", reading.where, "a commit", str(problem))


def root_entry(reading: Reading, commit: CommitRecord) -> Entry:
    """Return the root of a commit as if it stood in a directory; its mtime is the commit's time."""
    meta = load_dirmeta(reading, commit.meta_id)
    size = len(tree_record(reading, commit.tree_id).raw)
    mtime_ns = _parent_and_time(reading, commit)[1] * 10**9
    return Entry(b"", commit.tree_id, commit.meta_id, meta.mode, meta.uid, meta.gid, size, mtime_ns, 0, 0)


def find(reading: Reading, root: Entry, path: bytes) -> Entry:
    """Return the entry at *path* below *root*; empty components and a leading or trailing "/" don't matter.

    Raises:
        NotFoundError: nothing is there; symlinks are not followed.
    """
    entry, done = root, b""
    for name in path.split(b"/"):
        if name in (b"", b"."):
            continue
        if not entry.is_directory:
            raise NotFoundError(f"{_text(done)} is not a directory, so it has no {_text(name)} in it")
        found = load_listing(reading, TreeId(entry.id)).find(name)
        done += b"/" + name
        if found is None:
            raise NotFoundError(f"{_text(done)} does not exist in this commit")
        entry = found
    return entry


def walk(reading: Reading, root: Entry, path: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
    """Yield (path, entry) of everything below the directory *root*, in preorder; paths begin with *path* + "/".

    Raises:
        FormatError: it is deeper than any tree that is committed now.
    """
    stack = [(path, iter(load_listing(reading, TreeId(root.id))))]
    while stack:
        here, entries = stack[-1]
        for entry in entries:
            below = here + b"/" + entry.name
            yield below, entry
            if entry.is_directory:
                check_place(len(stack), below)
                stack.append((below, iter(load_listing(reading, TreeId(entry.id)))))
                break
        else:
            stack.pop()


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
