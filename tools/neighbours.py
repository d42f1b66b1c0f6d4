"""Trees that were written from commits of the same repository, and stand in the same file system.

A file or symlink that has the same place and the same file object in a neighbour can be linked: also small contents,
which are no files of the repository. It must still look as it was written (owner, mode, size, mtime, xattrs), and have
the same bytes, as somebody may have written to it who could set the mtime back. What was looked at, and is open, is
what gets linked, whatever has its name by then.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from store.database import Reading
from store.listing import Entry, Listing
from store.objects import Xattrs
from store.schema import TreeId
from store.tree import load_listing
from tools.recipe import read_xattrs
from tools.safe_links import is_closed, is_written_to, link_opened

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SYMLINK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class NeighbourDirectory:
    """One directory of a neighbour, open."""

    def __init__(self, directory: int, listing: Listing | None) -> None:
        """*listing* is what the neighbour's directory had in it; None: the same as the new one."""
        self._directory, self._listing = directory, listing
        self._prefix = f"/proc/self/fd/{directory}/".encode()

    def link(
        self, entry: Entry, owner: tuple[int, int], mode: int, mtime_ns: int, xattrs: Xattrs,
        is_same: Callable[[int], bool], directory: int,
    ) -> bool:  # fmt: skip
        """Make the file object of *entry* in *directory* a link of the one here, if that is here and as it has to be.

        *is_same* says whether an open file, or an open symlink, has the right contents.

        Raises:
            OSError: it can't be linked.
        """
        if self._listing is not None:
            other = self._listing.find(entry.name)
            if other is None or other.id != entry.id or other.is_directory:
                return False
        try:
            file = os.open(entry.name, _SYMLINK if stat.S_ISLNK(entry.mode) else _FILE, dir_fd=self._directory)
        except OSError:
            return False
        try:
            if not self._fits(file, entry, (owner, mode, mtime_ns, xattrs), is_same):
                return False
            link_opened(file, entry.name, directory)
            return True
        finally:
            os.close(file)

    def _fits(
        self, file: int, entry: Entry, wanted: tuple[tuple[int, int], int, int, Xattrs], is_same: Callable[[int], bool]
    ) -> bool:
        """Whether an open file is as it has to be; the bytes are read when nobody can change them any more."""
        owner, mode, mtime_ns, xattrs = wanted
        is_symlink = stat.S_ISLNK(entry.mode)
        try:
            status = os.fstat(file)
            return (
                (status.st_size, status.st_mtime_ns) == (entry.size, mtime_ns)
                and status.st_mode == stat.S_IFMT(entry.mode) | mode
                and (status.st_uid, status.st_gid) == owner
                and is_closed(status)
                and read_xattrs(self._prefix + entry.name if is_symlink else file) == xattrs  # there is no other way
                and (is_symlink or not is_written_to(file))
                and is_same(file)
            )
        except OSError:
            return False


class Neighbour:
    """A tree on disk, and the root of the commit that it was written from."""

    def __init__(self, path: Path, root: Entry) -> None:
        self._path = os.fsencode(os.path.realpath(path))
        self._directories: dict[bytes, Entry] = {b"": root}

    def enter(self, reading: Reading, path: bytes, tree_id: int, listing: Listing) -> None:
        """Look into the directory *path*, if there is one; before, those above it.

        *listing* is of the dirtree *tree_id*, which may well be the same.
        """
        entry = self._directories.get(path)
        if entry is not None:
            own = listing if entry.id == tree_id else load_listing(reading, TreeId(entry.id))
            self._directories |= {path + b"/" + child.name: child for child in own.subdirectories()}

    def open(self, reading: Reading, path: bytes, tree_id: int) -> tuple[int, Listing | None] | None:
        """Return a descriptor of the directory *path* and what was written there (None: the dirtree *tree_id*)."""
        entry = self._directories.get(path)
        descriptor = None if entry is None else self._descriptor(path)
        if entry is None or descriptor is None:
            return None
        return descriptor, None if entry.id == tree_id else load_listing(reading, TreeId(entry.id))

    def _descriptor(self, path: bytes) -> int | None:
        """Open a directory, but not through a symlink that somebody put on the way to it."""
        try:
            descriptor = os.open(self._path + path, _DIRECTORY)
        except OSError:
            return None
        if os.readlink(f"/proc/self/fd/{descriptor}".encode()) != self._path + path:
            os.close(descriptor)
            return None
        return descriptor


@contextmanager
def opened(
    neighbours: Sequence[Neighbour], reading: Reading, path: bytes, tree_id: int
) -> Iterator[list[NeighbourDirectory]]:
    """Yield the directories *path* of those neighbours that have it."""
    with ExitStack() as stack:
        directories = []
        for neighbour in neighbours:
            found = neighbour.open(reading, path, tree_id)
            if found is not None:
                stack.callback(os.close, found[0])
                directories.append(NeighbourDirectory(*found))
        yield directories
