"""What differs between two trees: pruned by ids at every directory, so that nothing equal is looked at."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from store.bounds import check_place
from store.database import Reading
from store.errors import NotFoundError
from store.listing import Entry
from store.revisions import find_place
from store.schema import TreeId
from store.tree import find, load_listing
from tools.render import quote_path


class Kind(StrEnum):
    """How something changed, by git's letters; MODIFIED: contents, metadata or target."""

    ADDED = "A"
    DELETED = "D"
    MODIFIED = "M"
    TYPE = "T"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that is not the same in both trees; of a directory in both: its mode, owner or xattrs."""

    path: bytes
    old: Entry | None
    new: Entry | None

    @property
    def kind(self) -> Kind:
        """What happened to the path."""
        if self.old is None or self.new is None:
            return Kind.ADDED if self.old is None else Kind.DELETED
        return Kind.MODIFIED if stat.S_IFMT(self.old.mode) == stat.S_IFMT(self.new.mode) else Kind.TYPE


def diff_trees(
    reading: Reading, old: Entry | None, new: Entry | None, path: bytes = b"", *, whole: bool = True
) -> Iterator[Change]:
    """Yield what differs between two entries (None: nothing there), in preorder by name; paths begin with *path*.

    With whole=False as OSTree has it: nothing below a directory that is gone, or that became one or something else.
    """
    stack = [iter([(path, old, new)])]
    while stack:
        pair = next(stack[-1], None)
        if pair is None:
            stack.pop()
            continue
        change = Change(*pair)
        before, after = change.old, change.new
        are_directories = before is not None and after is not None and before.is_directory and after.is_directory
        if not are_directories or _meta_id(before) != _meta_id(after):
            yield change
        if are_directories or whole or change.kind is Kind.ADDED:
            check_place(len(stack) - 1, change.path)
            stack.append(_different_pairs(reading, change))


def _meta_id(entry: Entry | None) -> int | None:
    return entry.meta_id if entry else None


def _different_pairs(reading: Reading, change: Change) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
    if change.old and change.new and _are_same_directory(change.old, change.new):
        return
    old, new = _entries(reading, change.old), _entries(reading, change.new)
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a is None or b is None or _identity(a) != _identity(b):
            yield change.path + b"/" + name, a, b


def _are_same_directory(a: Entry, b: Entry) -> bool:
    return a.is_directory and b.is_directory and a.id == b.id


def _identity(entry: Entry) -> tuple[bool, int, int]:
    return entry.is_directory, entry.id, entry.meta_id


def _entries(reading: Reading, entry: Entry | None) -> dict[bytes, Entry]:
    if entry is None or not entry.is_directory:
        return {}
    return {below.name: below for below in load_listing(reading, TreeId(entry.id))}


def diff_revisions(
    reading: Reading, old: str, new: str, paths: Sequence[bytes] = (), *, now_s: int, whole: bool = True
) -> Iterator[Change]:
    """Yield what differs between what "REV" or "REV:/path" name; with *paths*, only at and below these.

    Raises:
        NotFoundError: one of them, or a path in both of them, is not there.
    """
    a, b = find_place(reading, old, now_s=now_s), find_place(reading, new, now_s=now_s)
    for path in paths:
        if _find_or_none(reading, a.entry, path) is None and _find_or_none(reading, b.entry, path) is None:
            raise NotFoundError(f"{quote_path(path)} exists neither in {old} nor in {new}")
    is_one_thing = a.path == b.path or not (a.entry.is_directory and b.entry.is_directory)
    return diff_paths(reading, a.entry, b.entry, paths, b.path if is_one_thing else b"", whole=whole)


def diff_paths(
    reading: Reading,
    old: Entry | None,
    new: Entry | None,
    paths: Sequence[bytes] = (),
    base: bytes = b"",
    *,
    whole: bool = True,
) -> Iterator[Change]:
    """Yield what differs at and below *paths* (none: everywhere) in two entries; what neither has does not differ.

    The paths in the changes begin with *base*.
    """
    for path in paths or (b"",):
        before, after = _find_or_none(reading, old, path), _find_or_none(reading, new, path)
        if before is None or after is None or _identity(before) != _identity(after):
            inner = b"".join(b"/" + name for name in path.split(b"/") if name not in (b"", b"."))
            if before or after:
                yield from diff_trees(reading, before, after, base + inner, whole=whole)


def _find_or_none(reading: Reading, root: Entry | None, path: bytes) -> Entry | None:
    try:
        return None if root is None else find(reading, root, path)
    except NotFoundError:
        return None
