"""How deep a tree is and how long its longest path, without a look at most of it: for who publishes, and for fsck."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from store.bounds import LEVELS_MAX, beyond
from store.database import Reading
from store.listing import Entry, Listing
from store.object_rules import NAME_BYTES_MAX
from store.schema import TreeId
from store.tree import load_listing

_SMALL_DIRECTORIES: Final = 64  # what has no more can't reach far, so it is worth no look
_KNOWN_MAX: Final = 1 << 17


class _Size(NamedTuple):
    """How many levels of directories are below a directory, and how long the longest path below it is."""

    levels: int
    path_bytes: int


class _Frame:
    """A directory that is being measured."""

    __slots__ = ("levels", "name", "path_bytes", "tree_id", "waiting")

    def __init__(self, name: bytes, tree_id: int, listing: Listing) -> None:
        self.name, self.tree_id = name, tree_id
        self.levels, self.path_bytes = 0, max(map(len, listing.names), default=-1) + 1
        self.waiting = _counted(listing)

    def add(self, name: bytes, size: _Size) -> None:
        self.levels = max(self.levels, 1 + size.levels)
        self.path_bytes = max(self.path_bytes, 1 + len(name) + size.path_bytes)


class Reach:
    """Measures trees; remembers what it has measured."""

    def __init__(self, reading: Reading) -> None:
        """Look through *reading*, which must outlive this."""
        self._reading = reading
        self._known: dict[int, dict[int, _Size]] = {_SMALL_DIRECTORIES: {}, 0: {}}

    def problem(self, root: TreeId) -> str:
        """Return what is too much about the tree *root*; "" if nothing is."""
        for small in self._known:  # a second time exactly, where the first one's guess is too much
            what = beyond(*self._measure(root, small))
            if not what:
                return ""
        return what

    def _measure(self, root: TreeId, small: int) -> _Size:
        """Return the size of a tree; of one with up to *small* directories the most that it could be."""
        known = self._known[small]
        if len(known) > _KNOWN_MAX:
            known.clear()
        stack = [self._frame(b"", root)]
        while True:
            frame = stack[-1]
            child, directories = next(frame.waiting, (None, 0))
            if child is None:
                size = known[frame.tree_id] = _Size(frame.levels, frame.path_bytes)
                stack.pop()
                if not stack:
                    return size
                stack[-1].add(frame.name, size)
            elif child.id in known:
                frame.add(child.name, known[child.id])
            elif directories <= small:
                frame.add(child.name, _Size(directories - 1, directories * (1 + NAME_BYTES_MAX)))
            elif len(stack) > LEVELS_MAX:
                return _Size(len(stack), 0)
            else:
                stack.append(self._frame(child.name, TreeId(child.id)))

    def _frame(self, name: bytes, tree_id: TreeId) -> _Frame:
        return _Frame(name, tree_id, load_listing(self._reading, tree_id))


def _counted(listing: Listing) -> Iterator[tuple[Entry, int]]:
    """Yield each sub-directory, and how many directories it is with all below it."""
    last: Entry | None = None
    for entry in listing.subdirectories():
        if last is not None:
            yield last, entry.directories_before - last.directories_before
        last = entry
    if last is not None:
        yield last, listing.directories - 1 - last.directories_before
