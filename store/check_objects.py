"""The checks of records that hold objects; each yields what is wrong, as the end of a sentence about the record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from store.check_context import COUNTERS, Context, Elsewhere
from store.errors import FormatError
from store.findings import Subject
from store.listing import pack_listing
from store.objects import Checksum, Commit, DirMeta, DirTree, FileHeader, ObjectType, checksum_of, unpack_detached
from store.schema import (
    BLOCK_BYTES,
    BLOCKS_PER_GROUP,
    MAX_COMMIT_NUMBER,
    MAX_ENTRIES,
    CommitRecord,
    FileId,
    FileRecord,
    MetaRecord,
    Storage,
    TreeRecord,
    blocks_key,
    id_key,
    key_id,
    mtime_key,
)

_GUARD_BYTES: Final = 8
_S_IFMT, _S_IFLNK = 0o170000, 0o120000


class _Totals(NamedTuple):
    directories: int
    entries: int


def check_object(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """Checksum -> id: the id was given out, and its record has this checksum."""
    kind, checksum, number = ObjectType(key[0]), Checksum(key[1:]), key_id(value)
    if len(checksum) != 32:
        yield f"a key has 33 bytes, not {len(key)}"
    counter = context.counter(COUNTERS[kind])
    if counter is not None and number >= counter:
        yield f"the id {number} was never given out"
    found = context.checksum(Subject(kind, number))
    if found is None:
        yield from _gone(context, kind, number)
    elif found != checksum:
        yield f"it stands for {kind.name.lower()} id {number}, which is {found.hex()}"


def check_file(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """A file record: known by its checksum, its header in normal form, its contents where it says."""
    record, number = FileRecord.unpack(value), key_id(key)
    yield from _known(context, ObjectType.FILE, record.checksum, number)
    try:
        header = FileHeader.from_bytes(record.header)
    except FormatError as problem:
        yield f"its header is not valid: {problem}"
        return
    is_link = header.mode & _S_IFMT == _S_IFLNK
    if is_link and record.size != len(header.symlink_target):
        yield f"its size is {record.size}, its target has {len(header.symlink_target)} bytes"
    if (record.storage == Storage.EMPTY) != (is_link or record.size == 0):
        yield f"its contents are {record.storage.name.lower()}, its size is {record.size}"
    if bool(header.xattrs) != record.has_xattrs:
        yield "its header is of a length that it can't have"
    yield from _check_contents(context, record, FileId(number))
    yield from _check_mtime(context, record)


def _check_contents(context: Context, record: FileRecord, number: FileId) -> Iterator[str]:
    content = context.get(b"content", id_key(number))
    if (content is not None) != (record.storage == Storage.INLINE):
        yield "its contents are gone from the index" if content is None else "it has contents that it should not have"
    elif content is not None and len(content) != record.size:
        yield f"its contents have {len(content)} bytes, not {record.size}"
    if record.storage == Storage.LOOSE:
        blocks = -(-record.size // BLOCK_BYTES)
        for group in range(-(-blocks // BLOCKS_PER_GROUP)):
            if context.get(b"blocks", blocks_key(number, group)) is None:
                yield f"the guards of its blocks from {group * BLOCKS_PER_GROUP} are gone"


def _check_mtime(context: Context, record: FileRecord) -> Iterator[str]:
    if not context.is_first_seen:
        if record.mtime_ns:
            yield f"its mtime is {record.mtime_ns} ns; the repository is set to zero"
        return
    second = record.mtime_ns // 10**9
    if record.storage != Storage.EMPTY and context.get(b"mtime", mtime_key(record.size, second)) is None:
        yield f"that {record.size} bytes have the second {second} is not recorded"


def check_content(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """Small contents belong to a file."""
    record = context.file(key_id(key))
    if record is None or record.storage != Storage.INLINE:
        yield "there are contents in the index, but no file that has its contents there"


def check_blocks(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """Guards belong to a loose file, and there are as many as it has blocks."""
    if len(key) != 12:
        yield f"a key has 12 bytes, not {len(key)}"
        return
    record, group = context.file(key_id(key[:8])), int.from_bytes(key[8:], "big")
    if record is None or record.storage != Storage.LOOSE:
        yield "there are guards of blocks, but no loose file"
        return
    blocks = -(-record.size // BLOCK_BYTES)
    expected = min(blocks - group * BLOCKS_PER_GROUP, BLOCKS_PER_GROUP) * _GUARD_BYTES
    if len(value) != expected:
        yield f"the guards of group {group} have {len(value)} bytes, not {expected}"


def check_dirtree(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """A dirtree: its sha256, every name in it known here, counts that add up, a listing that says the same."""
    record, number = TreeRecord.unpack(value), key_id(key)
    yield from _known(context, ObjectType.DIRTREE, record.checksum, number)
    if checksum_of(record.raw) != record.checksum:
        yield f"its sha256 is {checksum_of(record.raw).hex()}"
    try:
        tree = DirTree.from_bytes(record.raw)
    except FormatError as problem:
        yield str(problem)
        return
    problems: list[str] = []
    rows = sorted((*_file_rows(context, tree, problems), *_directory_rows(context, tree, problems)))
    yield from problems
    if problems:
        return
    totals = _Totals(1 + sum(row[-2] for row in rows), sum(1 + row[-1] for row in rows))
    if totals != (record.directories, record.entries):
        yield f"it counts {record.directories} directories and {record.entries} entries, there are {tuple(totals)}"
    if totals.entries > MAX_ENTRIES:
        yield "it has more entries than a view can number"
    listing = context.get(b"listing", key)
    if listing is None:
        yield "it has no listing"
    elif listing != pack_listing(rows):
        yield "its listing is not what compiling it again gives"


_Row = tuple[bytes, int, int, int, int, int, int, int, int, int]


def _file_rows(context: Context, tree: DirTree, problems: list[str]) -> Iterator[_Row]:
    for name, checksum in tree.files:
        number = context.find(ObjectType.FILE, checksum)
        record = None if number is None else context.file(number)
        if number is None or record is None:
            problems.append(f"it names the file object {checksum.hex()} ({name!r:.100}), which is not here")
            continue
        uid, gid, mode = record.owner_mode
        yield name, number, 0, mode, uid, gid, record.size, record.mtime_ns, 0, 0


def _directory_rows(context: Context, tree: DirTree, problems: list[str]) -> Iterator[_Row]:
    for name, dirtree, dirmeta in tree.dirs:
        tree_id, meta_id = context.find(ObjectType.DIRTREE, dirtree), context.find(ObjectType.DIRMETA, dirmeta)
        record = None if tree_id is None else context.tree(tree_id)
        known = None if meta_id is None else context.meta(meta_id)
        if tree_id is None or meta_id is None or record is None or known is None:
            lacking = f"dirtree {dirtree.hex()}" if record is None else f"dirmeta {dirmeta.hex()}"
            problems.append(f"it names the {lacking} ({name!r:.100}), which is not here")
            continue
        meta = known[1]
        yield (
            name, tree_id, meta_id, meta.mode, meta.uid, meta.gid, len(record.raw), record.mtime_ns,
            record.directories, record.entries,
        )  # fmt: skip


def check_listing(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """A listing belongs to a dirtree, whose check compares it."""
    if context.tree(key_id(key)) is None:
        yield "there is a listing, but no dirtree"


def check_dirmeta(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """A dirmeta: its sha256, in normal form."""
    record = MetaRecord.unpack(value)
    yield from _known(context, ObjectType.DIRMETA, record.checksum, key_id(key))
    if checksum_of(record.raw) != record.checksum:
        yield f"its sha256 is {checksum_of(record.raw).hex()}"
    DirMeta.from_bytes(record.raw)


def check_commit(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """A commit: its sha256, in normal form; its ids are those of the objects that it names, its counts the tree's."""
    record, number = CommitRecord.unpack(value), key_id(key)
    yield from _known(context, ObjectType.COMMIT, record.checksum, number)
    if checksum_of(record.raw) != record.checksum:
        yield f"its sha256 is {checksum_of(record.raw).hex()}"
    if number > MAX_COMMIT_NUMBER:
        yield f"its number {number} is greater than a view can show"
    commit = Commit.from_bytes(record.raw)
    tree, meta = context.tree(record.tree_id), context.meta(record.meta_id)
    if tree is None or tree.checksum != commit.root_dirtree:
        yield f"its root is dirtree {commit.root_dirtree.hex()}, but the id {record.tree_id} is another or none"
    elif (tree.directories, tree.entries) != (record.directories, record.entries):
        yield f"it counts {record.directories} directories and {record.entries} entries, its dirtree does not"
    else:
        too_much = context.reach(record.tree_id)
        if too_much:
            yield f"its tree has {too_much}, so it can't be checked out"
    if meta is None or meta[0] != commit.root_dirmeta:
        yield f"its root is dirmeta {commit.root_dirmeta.hex()}, but the id {record.meta_id} is another or none"


def check_detached(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """Detached metadata belong to a commit."""
    if context.commit(key_id(key)) is None:
        yield "there are detached metadata of a commit that is not here"
    try:
        unpack_detached(value)
    except FormatError as problem:
        yield f"its detached metadata are not valid: {problem}"


def _known(context: Context, kind: ObjectType, checksum: Checksum, number: int) -> Iterator[str]:
    """The way back: the checksum stands for this id, and for no other."""
    found = context.find(kind, checksum)
    if found != number:
        yield f"its checksum stands for {'no id' if found is None else f'id {found}'}, not for {number}"


def _gone(context: Context, kind: ObjectType, number: int) -> Iterator[str]:
    """Yield that a record is gone; nothing if it is merely damaged, which is reported where it is."""
    readers = {ObjectType.FILE: context.file, ObjectType.DIRTREE: context.tree, ObjectType.COMMIT: context.commit}
    read = readers.get(kind, context.meta)
    try:
        if read(number) is None:
            yield f"it stands for {kind.name.lower()} id {number}, which is not here"
    except Elsewhere:
        return
