"""From a commit's listings to files on disk: the tree below one destination.

Of a subtree first all directories are made, then they are filled; several processes take a subtree each, or the files
of a large directory. One directory is open at a time, and every name is taken relative to it, so depth and hostile
names don't matter. The destination itself is nobody else's to enter until all is done. Children are complete before
their parents, as not every mode lets its owner in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Final, NamedTuple

from store import object_rules
from store.bounds import check_place
from store.errors import CorruptionError, FormatError, InvalidNameError
from store.listing import Entry, Listing, pack_listing
from store.reach import Reach
from store.repository import Repository
from store.schema import TreeId
from store.tree import load_listing
from store.walking.beneath import DIRECTORY, open_beneath
from store.walking.walk import Walk
from tools.crew import Hand, work_together
from tools.filling import Filler, Written
from tools.linking import Linker
from tools.neighbours import Neighbour
from tools.render import quote_path

_ALONE_ENTRIES_MAX: Final = 2048  # for more, other processes pay
_PROCESSES_MAX: Final = 8
_STEPS_EACH: Final = 32
_KEPT_ENTRIES_MAX: Final = 1 << 18  # in listings that are kept from the first pass to the second, some 40 MB
_EMPTY: Final = Listing(pack_listing([]))


class _Made(NamedTuple):
    """A directory that is there and empty; the listing is None where it was not kept."""

    path: bytes  # in the commit
    entry: Entry
    listing: Listing | None


class _Step(NamedTuple):
    """What one process does at a time: some directories in one that is there; or, where they are None, its files."""

    above: _Made
    children: list[Entry] | None


class TreeWriter:
    """Writes below one destination."""

    def __init__(
        self, repository: Repository, linker: Linker, user_mode: bool, shown: Path, advance: Callable[[int], object],
        *, hollow: Container[bytes] = (), neighbours: Sequence[Neighbour] = (), processes: int | None = None,
    ) -> None:  # fmt: skip
        """*user_mode* leaves out owners, xattrs, setuid and setgid; *shown* is how errors call the destination.

        *hollow* are the paths of directories that are left empty; *neighbours* are trees in which the same file may be.
        A large tree is written by *processes* (for root as many as there are cores, at most 8).
        """
        self._repository, self._hollow, self._neighbours, self._advance = repository, hollow, neighbours, advance
        self._filler = Filler(repository, linker, user_mode, shown, neighbours)
        # Who is not root is kept out by a mode that he has set, so for him the order counts.
        self._processes = processes or (min(os.cpu_count() or 1, _PROCESSES_MAX) if os.geteuid() == 0 else 1)

    @property
    def done(self) -> Written:
        """How much was written."""
        return self._filler.done

    def directory(self, top: int, path: bytes, root: Entry) -> None:
        """Write what is in the directory *root* into the empty directory *top*, and give that its attributes."""
        self._refuse_too_deep(root)
        self._filler.top = path
        os.fchmod(top, 0o700)
        if self._processes > 1 and (entries := self._listing(path, root).entries) > _ALONE_ENTRIES_MAX:
            self._share_out(top, path, root, 1 + entries // (self._processes * _STEPS_EACH))
        else:
            for count in self._write(top, path, root):
                self._advance(count)

    def _refuse_too_deep(self, root: Entry) -> None:
        """Refuse a tree of before there were bounds at once, not when most of it is written."""
        with self._repository.database.reading() as reading:
            problem = Reach(reading).problem(TreeId(root.id))
        if problem:
            raise FormatError(f"this tree has {problem}, so it can't be written; check out what is in it instead")

    def single(self, directory: int, name: bytes, path: bytes, entry: Entry) -> None:
        """Write a file or a symlink called *name* into *directory*."""
        self._filler.top = path
        with self._repository.database.reading() as reading:
            self._filler.single(reading, directory, name, path, entry)

    def _write(self, top: int, path: bytes, root: Entry) -> Iterator[int]:
        """Complete the directory *root*, which is there, and all below it; yield how many entries each has."""
        for made in reversed(list(self._lay_out(top, path, root))):
            yield self._complete(top, made)

    def _lay_out(self, top: int, path: bytes, root: Entry) -> Iterator[_Made]:
        """Make all directories below *root*, parents first."""
        kept = 0
        start = self._open(top, path)
        try:
            with Walk(start, self._filler.shown(path), one_mount=True) as walk:
                listing = self._listing(path, root)
                yield _Made(path, root, listing)
                stack = [(path, listing.subdirectories())]
                while stack:
                    path, waiting = stack[-1]
                    child = next(waiting, None)
                    if child is None:
                        stack.pop()
                        if stack:
                            walk.leave()
                        continue
                    below = self._make(walk.here, path, child.name)
                    listing = self._listing(below, child)
                    kept += len(listing)
                    yield _Made(below, child, listing if not listing or kept <= _KEPT_ENTRIES_MAX else None)
                    if listing.directories > 1:
                        with self._filler.told(below):
                            walk.enter(child.name)
                        stack.append((below, listing.subdirectories()))
        finally:
            os.close(start)

    def _make(self, here: int, path: bytes, name: bytes) -> bytes:
        """Make a directory in *path*, which is open; return its own path."""
        below = path + b"/" + name
        check_place(below.count(b"/"), below)
        with self._filler.told(below):
            os.mkdir(name, 0o700, dir_fd=here)
        return below

    def _open(self, top: int, path: bytes) -> int:
        return open_beneath(top, path[len(self._filler.top) :].lstrip(b"/"), DIRECTORY, one_mount=True)

    def _listing(self, path: bytes, directory: Entry) -> Listing:
        if path in self._hollow:
            return _EMPTY
        with self._repository.database.reading() as reading:
            listing = load_listing(reading, TreeId(directory.id))
            for neighbour in self._neighbours:
                neighbour.enter(reading, path, directory.id, listing)
        try:  # again what was checked when it was committed: a listing could have been written by somebody else
            object_rules.check_names(listing.names)
        except InvalidNameError as error:
            raise CorruptionError("a listing", quote_path(path or b"/"), "names of files", str(error)) from error
        return listing

    def _complete(self, top: int, made: _Made, *, fill: bool = True, dress: bool = True) -> int:
        """Write a directory's files, and give it its attributes; return how many entries it has."""
        with self._repository.database.reading() as reading, self._filler.told(made.path):
            listing = load_listing(reading, TreeId(made.entry.id)) if made.listing is None else made.listing
            here = self._open(top, made.path)
            try:
                if fill:
                    self._filler.fill(reading, here, made.path, made.entry, listing)
                if dress:
                    self._filler.dress(reading, here, made.path, made.entry)
            finally:
                os.close(here)
        return len(listing)

    def _share_out(self, top: int, path: bytes, root: Entry, share: int) -> None:
        """Have several processes write the tree, about *share* entries at a time."""
        large, steps = self._plan(top, path, root, share)

        def begin() -> Hand:
            own = copy(self)
            own._repository = Repository.open(self._repository.path)  # an index can't be used through a fork
            own._filler = self._filler.over(own._repository)
            return Hand(lambda number: own._do(top, steps[number]), lambda: (own._filler.done, own._filler.counts))

        for done, counts in work_together(len(steps), self._processes, begin, self._advance):
            self._filler.done.add(done)
            self._filler.counts.add(counts)
        for made in reversed(large):
            self._complete(top, made, fill=False)

    def _plan(self, top: int, path: bytes, root: Entry, share: int) -> tuple[list[_Made], list[_Step]]:
        """Make the directories with more than *share* entries below them, parents first; the rest is steps."""
        large: list[_Made] = []
        steps: list[_Step] = []
        waiting = [(path, root)]
        while waiting:
            path, entry = waiting.pop()
            listing = self._listing(path, entry)
            made = _Made(path, entry, listing)
            large.append(made)
            steps.append(_Step(made, None))
            here = self._open(top, path)
            try:
                for children, size in _groups(listing, share):
                    if size > share:
                        waiting += [(self._make(here, path, child.name), child) for child in children]
                    else:
                        steps.append(_Step(made, children))
            finally:
                os.close(here)
        return large, steps

    def _do(self, top: int, step: _Step) -> int:
        """Do what one process does at a time; return how many entries that are."""
        above, children = step
        if children is None:
            return self._complete(top, above, dress=False)
        here = self._open(top, above.path)
        try:
            made = [(self._make(here, above.path, child.name), child) for child in children]
        finally:
            os.close(here)
        return sum(count for path, child in made for count in self._write(top, path, child))


def _groups(listing: Listing, share: int) -> Iterator[tuple[list[Entry], int]]:
    """Yield sub-directories and how many entries they are, all below included: some together, or a large one."""
    group: list[Entry] = []
    size = 0
    ends = [*(entry.entries_before for entry in listing), listing.entries][1:]
    for entry, end in zip(listing, ends, strict=True):
        if entry.is_directory:
            below = end - entry.entries_before
            if group and size + below > share:
                yield group, size
                group, size = [], 0
            group.append(entry)
            size += below
    if group:
        yield group, size
