"""Look at the tree of a commit: find a path, list a directory, walk it all. The one reader of listings."""

from __future__ import annotations

from collections.abc import Iterator

from store.database import Reading
from store.errors import CorruptionError, NotFoundError
from store.listing import Entry, Listing
from store.objects import Checksum, Commit, DirMeta, ObjectType, parent_and_time
from store.presence import check_no_commit
from store.schema import CommitNumber, CommitRecord, MetaId, MetaRecord, TreeId, TreeRecord, id_key, key_id


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
    """Return the record of a commit that was given out."""
    return CommitRecord.unpack(reading.need(b"commit", id_key(number)))


def load_commit(reading: Reading, number: CommitNumber) -> Commit:
    """Return the commit object with this number."""
    return Commit.from_bytes(commit_record(reading, number).raw)


def tree_record(reading: Reading, tree_id: TreeId) -> TreeRecord:
    """Return the record of a dirtree."""
    return TreeRecord.unpack(reading.need(b"dirtree", id_key(tree_id)))


def meta_record(reading: Reading, meta_id: MetaId) -> MetaRecord:
    """Return the record of a dirmeta."""
    return MetaRecord.unpack(reading.need(b"dirmeta", id_key(meta_id)))


def load_listing(reading: Reading, tree_id: TreeId) -> Listing:
    """Return the listing of a dirtree."""
    return Listing(reading.need(b"listing", id_key(tree_id)))


def root_entry(reading: Reading, commit: CommitRecord) -> Entry:
    """Return the root of a commit as if it stood in a directory; its mtime is the commit's time."""
    meta = DirMeta.from_bytes(meta_record(reading, commit.meta_id).raw)
    size = len(tree_record(reading, commit.tree_id).raw)
    mtime_ns = parent_and_time(commit.raw)[1] * 10**9
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
    """Yield (path, entry) of everything below the directory *root*, in preorder; paths begin with *path* + "/"."""
    stack = [(path, iter(load_listing(reading, TreeId(root.id))))]
    while stack:
        here, entries = stack[-1]
        for entry in entries:
            below = here + b"/" + entry.name
            yield below, entry
            if entry.is_directory:
                if len(stack) > 10_000:  # a path that long has no name in any file system
                    raise CorruptionError("a dirtree", _text(below), "at most 10,000 levels", "more")
                stack.append((below, iter(load_listing(reading, TreeId(entry.id)))))
                break
        else:
            stack.pop()


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
