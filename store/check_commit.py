"""Check one commit and all that it reaches, for `fsview verify --tree`.

From the commit's own bytes on, each object is looked up by the checksum that names it, and its bytes must have it; each
listing must say what its dirtree says. So where this finds nothing, whoever reads the commit, by listings as all do,
gets exactly the tree that its checksum stands for. Unlike `fsck` it leaves nothing to the check of another table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from pyroaring import BitMap64

from store.check_context import Context, Elsewhere
from store.check_objects import check_commit as commit_problems
from store.check_objects import check_dirmeta, check_dirtree, check_file
from store.content import certify
from store.database import Reading
from store.errors import FsviewError
from store.findings import RESTORE, Finding, Subject, error
from store.objects import Checksum, DirTree, ObjectType
from store.repository import Repository
from store.schema import CommitNumber, FileId, TreeId, id_key
from store.tree import load_commit, object_id, tree_record

_AT_A_TIME: Final = 256  # objects in one look at the index
_CHECKS: Final = {
    ObjectType.COMMIT: (b"commit", commit_problems),
    ObjectType.DIRTREE: (b"dirtree", check_dirtree),
    ObjectType.DIRMETA: (b"dirmeta", check_dirmeta),
    ObjectType.FILE: (b"file", check_file),
}
_DAMAGE: Final = (FsviewError, OSError, struct.error, ValueError, IndexError, OverflowError)
_Name = tuple[ObjectType, Checksum]


def check_commit(
    repository: Repository, checksum: Checksum, advance: Callable[[int], object] = lambda step: None
) -> Iterator[Finding]:
    """Yield what is wrong with a commit and what it reaches; *advance* hears of each object.

    The caller holds the repository's lock, lest a prune deletes what is being read.
    """
    waiting: list[_Name] = [(ObjectType.COMMIT, checksum)]
    seen = {kind: BitMap64() for kind in _CHECKS}
    while waiting:
        with repository.database.reading() as reading:
            context = Context(repository, reading)
            for _ in range(min(_AT_A_TIME, len(waiting))):
                yield from _check_named(context, *waiting.pop(), seen, waiting)
                advance(1)


def _check_named(
    context: Context, kind: ObjectType, checksum: Checksum, seen: dict[ObjectType, BitMap64], waiting: list[_Name]
) -> Iterator[Finding]:
    """Check one object, unless it was seen, and add what it names to *waiting*."""
    where, mend = str(context.repository.path / "index"), RESTORE
    named = f"{'file object' if kind == ObjectType.FILE else kind.name.lower()} {checksum.hex()}"
    try:
        number = object_id(context.reading, kind, checksum)
        if number is None or context.checksum(Subject(kind, number)) != checksum:
            yield error(f"{named} is not here", where, mend)
        elif number not in seen[kind]:
            seen[kind].add(number)
            for problem in _problems(context, kind, number):
                yield error(f"{named}: {problem}", where, mend, Subject(kind, number))
            waiting += (name for name in _names(context.reading, kind, number) if not _is_seen(context, name, seen))
    except Elsewhere:
        yield error(f"{named}: what it names is damaged", where, mend)
    except _DAMAGE as problem:
        yield error(f"{named}: {problem}", where, mend)


def _problems(context: Context, kind: ObjectType, number: int) -> Iterator[str]:
    table, check = _CHECKS[kind]
    key = id_key(number)
    yield from check(context, key, context.reading.need(table, key))
    if kind == ObjectType.FILE:
        certify(context.repository, context.reading, FileId(number), lambda: None)


def _names(reading: Reading, kind: ObjectType, number: int) -> Iterator[_Name]:
    """Yield what an object names."""
    if kind == ObjectType.COMMIT:
        commit = load_commit(reading, CommitNumber(number))
        yield ObjectType.DIRTREE, commit.root_dirtree
        yield ObjectType.DIRMETA, commit.root_dirmeta
    elif kind == ObjectType.DIRTREE:
        tree = DirTree.from_bytes(tree_record(reading, TreeId(number)).raw)
        yield from ((ObjectType.FILE, checksum) for _, checksum in tree.files)
        for _, dirtree, dirmeta in tree.dirs:
            yield ObjectType.DIRTREE, dirtree
            yield ObjectType.DIRMETA, dirmeta


def _is_seen(context: Context, name: _Name, seen: dict[ObjectType, BitMap64]) -> bool:
    """Whether this very object was checked; a checksum that leads to the id of another is not."""
    kind, checksum = name
    number = object_id(context.reading, kind, checksum)
    return number is not None and number in seen[kind] and context.checksum(Subject(kind, number)) == checksum
