"""From a commit's listings to files on disk: the tree below one destination.

First all directories are made, then they are filled, by several processes if there is much to do. One is open at a
time, and every name is taken relative to it, so depth and hostile names don't matter. The destination itself is nobody
else's to enter until all is done. Children are complete before their parents, as not every mode lets its owner in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from store import object_rules
from store.errors import CorruptionError, InvalidNameError
from store.listing import Entry, Listing, pack_listing
from store.repository import Repository
from store.schema import TreeId
from store.tree import load_listing
from tools.crew import Hand, work_together
from tools.filling import Filler, Written
from tools.linking import Linker
from tools.neighbours import Neighbour
from tools.render import quote_path

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_MAX: Final = 10_000
_ACLS: Final = ("system.posix_acl_default", "system.posix_acl_access")
_REACH_BYTES_MAX: Final = 4000  # of a path, for the kernel
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
        self._entries = 0  # of the whole tree
        self._filler = Filler(repository, linker, user_mode, shown, neighbours)
        # Who is not root is kept out by a mode that he has set, so for him the order counts.
        self._processes = processes or (min(os.cpu_count() or 1, _PROCESSES_MAX) if os.geteuid() == 0 else 1)

    @property
    def done(self) -> Written:
        """How much was written."""
        return self._filler.done

    def directory(self, top: int, path: bytes, root: Entry) -> None:
        """Write what is in the directory *root* into the empty directory *top*, and give that its attributes."""
        self._filler.top = path
        os.fchmod(top, 0o700)
        made = list(self._lay_out(top, path, root))
        made.reverse()
        last = made.pop()
        if self._processes > 1 and self._entries > _ALONE_ENTRIES_MAX:
            self._share_out(top, made)
        else:
            for one in made:
                self._advance(self._complete(self._filler, self._repository, top, one))
        self._advance(self._complete(self._filler, self._repository, top, last))

    def single(self, directory: int, name: bytes, path: bytes, entry: Entry) -> None:
        """Write a file or a symlink called *name* into *directory*."""
        self._filler.top = path
        with self._repository.database.reading() as reading:
            self._filler.single(reading, directory, name, path, entry)

    def _lay_out(self, top: int, path: bytes, root: Entry) -> Iterator[_Made]:
        """Make all directories, parents first."""
        kept = 0
        here = os.dup(top)
        try:
            listing = self._listing(path, root)
            self._entries = listing.entries
            yield _Made(path, root, listing)
            stack = [(path, listing.subdirectories())]
            while stack:
                path, waiting = stack[-1]
                child = next(waiting, None)
                if child is None:
                    stack.pop()
                    if stack:
                        here = _go(here, b"..")
                    continue
                below = path + b"/" + child.name
                if len(stack) > _DEPTH_MAX:
                    raise CorruptionError("a dirtree", quote_path(below), f"at most {_DEPTH_MAX} levels", "more")
                with self._filler.told(below):
                    os.mkdir(child.name, 0o700, dir_fd=here)
                listing = self._listing(below, child)
                kept += len(listing)
                yield _Made(below, child, listing if not listing or kept <= _KEPT_ENTRIES_MAX else None)
                if listing.directories > 1:
                    with self._filler.told(below):
                        here = _go(here, child.name)
                    stack.append((below, listing.subdirectories()))
        finally:
            os.close(here)

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

    def _complete(self, filler: Filler, repository: Repository, top: int, made: _Made) -> int:
        """Fill a directory, and give it its attributes; return how many entries it has."""
        with repository.database.reading() as reading, filler.told(made.path):
            listing = load_listing(reading, TreeId(made.entry.id)) if made.listing is None else made.listing
            here = _open_below(top, made.path[len(filler.top) :])
            try:
                filler.fill(reading, here, made.path, made.entry, listing)
                filler.dress(reading, here, made.path, made.entry)
            finally:
                os.close(here)
        return len(listing)

    def _share_out(self, top: int, made: Sequence[_Made]) -> None:
        """Have several processes complete directories, some at a time."""
        steps = list(_parts(made, 1 + len(made) // (self._processes * _STEPS_EACH)))

        def begin() -> Hand:
            repository = Repository.open(self._repository.path)  # an index can't be used through a fork
            filler = self._filler.over(repository)

            def step(number: int) -> int:
                return sum(self._complete(filler, repository, top, one) for one in steps[number])

            return Hand(step, lambda: (filler.done, filler.counts))

        for done, counts in work_together(len(steps), self._processes, begin, self._advance):
            self._filler.done.add(done)
            self._filler.counts.add(counts)


def _go(here: int, name: bytes) -> int:
    """Go to another directory; what was open is closed."""
    there = os.open(name, DIRECTORY, dir_fd=here)
    os.close(here)
    return there


def _open_below(top: int, path: bytes) -> int:
    """Open the directory *path* below *top*, however long that is."""
    here = os.dup(top)
    names = path.strip(b"/").split(b"/") if path else []
    while names:
        count = length = 0
        while count < len(names) and length + len(names[count]) < _REACH_BYTES_MAX:
            length += len(names[count]) + 1
            count += 1
        try:
            there = os.open(b"/".join(names[:count]), DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here, names = there, names[count:]
    return here


def _parts(made: Sequence[_Made], size: int) -> Iterator[Sequence[_Made]]:
    for at in range(0, len(made), size):
        yield made[at : at + size]


def forget_acls(directory: int) -> None:
    """Take from a new directory what its parent wants for new files: it is not what was committed."""
    for acl in _ACLS:
        with suppress(OSError):
            os.removexattr(directory, acl)
