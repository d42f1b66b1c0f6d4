"""MNT/versions/: the tree of a commit in which each file is a directory of all that it was.

    MNT/versions/<ref>                      symlink to ../…/<sha256>; revisions and abbreviations resolve, unlisted
    MNT/versions/<sha256>/                  unlisted: the commit's directories, with their owners and modes
    MNT/versions/<sha256>/<path>/<name>     a file or symlink that was at this path in the commit or one before it, by
                                            the name (fsview/commit_names.py) of the oldest commit with it
    MNT/versions/<sha256>/<gone path>       unlisted: symlink to the same path in the newest commit that has it

A version is the file object itself, with the same node as in commits/. Numbers are commit and entry rank; cookies are
indexes in a listing, and numbers of commits.

Who could not get to a file by its path, in the commit or in any before it, can not get to its versions: that directory
is the mounting user's alone.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

from fsview.ancestry import Ancestry
from fsview.attributes import COOKIES_BEFORE_ENTRIES, FOREVER_S, STEADY_NAME_S, Attributes, Row
from fsview.commit_names import CommitNames
from fsview.commit_tree import record_below
from fsview.nodeid import (
    ROOT,
    VERSIONS,
    Fixed,
    GoneLink,
    Ino,
    StaleNodeError,
    Versioned,
    VersionsDirectory,
    Virtual,
    file_node,
    virtual_node,
)  # fmt: skip
from fsview.rank import EntryRank, child_entry_rank, descend_to_entry
from fsview.rooms.commits import find_abbreviated, find_commit
from fsview.rooms.refs import RefTree, directory_prefix, outer_directory, ref_name
from fsview.rooms.room import Ground, Room, answered, is_no
from fsview.timeline import Timelines, Version, version_of, versions_after
from store.database import Reading
from store.errors import NotFoundError
from store.listing import Entry
from store.schema import CommitNumber, RefId, TreeId
from store.tree import commit_record, root_entry

_PRIVATE: Final = stat.S_IFDIR | 0o500
_PUBLIC: Final = stat.S_IFDIR | 0o555
_TARGET_BYTES_MAX: Final = 4095

Way = list[tuple[EntryRank, Entry]]


class VersionedTree(Room[Versioned | GoneLink]):
    """MNT/versions/<sha256>/ and what is below."""

    def __init__(self, ground: Ground, ancestry: Ancestry, names: CommitNames) -> None:
        """Share what is known of commits with other rooms."""
        super().__init__(ground)
        self._names, self._trees, self._timelines = names, ground.trees, Timelines(ground.trees, ancestry)

    def attributes(self, node: Versioned | GoneLink) -> Attributes:
        """Return the attributes of a directory, or of a symlink to one."""
        with self._database.reading() as reading:
            way = self._way(reading, node)
            if isinstance(node, GoneLink):
                return self._gone(reading, node, way)
            is_open = way[-1][1].is_directory or self._is_open(reading, node.commit, way[:-1])
        return self._attributes(node, way[-1][1], is_open)

    def find(self, directory: Versioned | GoneLink, name: bytes) -> Attributes | None:
        """Return what has the versions of *name*, or a version."""
        if isinstance(directory, GoneLink):
            raise is_no("directory", directory)
        with self._database.reading() as reading:
            way = self._way(reading, directory)
            here, rank = way[-1][1], way[-1][0]
            if not here.is_directory:
                return self._find_version(reading, directory.commit, way, name)
            entry = self._trees.listing(TreeId(here.id)).find(name)
            if entry is None:
                return self._find_gone(reading, directory.commit, way, name)
            is_open = entry.is_directory or self._is_open(reading, directory.commit, way)
        return self._attributes(Versioned(directory.commit, child_entry_rank(rank, entry)), entry, is_open)

    def rows(self, directory: Versioned | GoneLink, after: int) -> Iterator[Row]:
        """Return what has the versions of something, or the versions of something."""
        if isinstance(directory, GoneLink):
            raise is_no("directory", directory)
        with self._database.reading() as reading:
            way = self._way(reading, directory)
            if way[-1][1].is_directory:
                return self._rows_below(directory.commit, way, self._is_open(reading, directory.commit, way), after)
            versions = self._timelines.versions(reading, directory.commit, way)
        return answered(self._database, versions_after(versions, after), self._row)

    def _rows_below(self, commit: CommitNumber, way: Way, is_open: bool, after: int) -> Iterator[Row]:
        rank, here = way[-1]
        listing = self._trees.listing(TreeId(here.id))
        for index in range(max(0, after + 1 - COOKIES_BEFORE_ENTRIES), len(listing)):
            entry = listing.entry(index)
            below = Versioned(commit, child_entry_rank(rank, entry))
            yield Row(entry.name, self._attributes(below, entry, is_open), index + COOKIES_BEFORE_ENTRIES)

    def parent(self, directory: Versioned | GoneLink) -> Virtual:
        """Return the directory that a directory lies in."""
        with self._database.reading() as reading:
            way = self._way(reading, directory)
        return Fixed(VERSIONS) if len(way) == 1 else Versioned(directory.commit, way[-2][0])

    def target(self, node: Versioned | GoneLink) -> bytes:
        """Return the way to the newest commit that has a path."""
        if not isinstance(node, GoneLink):
            return super().target(node)
        with self._database.reading() as reading:
            return self._target(reading, node, self._way(reading, node))

    def _way(self, reading: Reading, node: Versioned | GoneLink) -> Way:
        """Return what is on the way from the commit's root to a node, both included."""
        self._trees.renew()
        record = record_below(reading, node.commit, virtual_node(node))
        if node.rank > record.entries:
            raise StaleNodeError(virtual_node(node))
        return descend_to_entry(self._trees.listing, root_entry(reading, record), node.rank)

    def _is_open(self, reading: Reading, commit: CommitNumber, way: Way) -> bool:
        """Whether all users could always get to what is in a directory."""
        return self._timelines.directory(reading, commit, way).is_open

    def _attributes(self, node: Versioned, entry: Entry, is_open: bool) -> Attributes:
        number = virtual_node(node)
        if entry.is_directory:
            shown = self._trees.shown(number, Ino(number), entry)
            return shown if node.rank else shown._replace(name_s=STEADY_NAME_S)
        mode = _PUBLIC if is_open else _PRIVATE
        mtime_ns = entry.mtime_ns + self._trees.renew()  # another one after a prune, which may take versions away
        return Attributes(number, Ino(number), mode, *self._ground.owner, 0, mtime_ns, FOREVER_S, STEADY_NAME_S)

    def _row(self, reading: Reading, version: Version) -> Row:
        return Row(self._names.name(reading, version.commit), self._of_version(version.entry), version.commit)

    def _of_version(self, entry: Entry) -> Attributes:
        node = file_node(entry.id)
        return self._trees.shown(node, Ino(node), entry)._replace(name_s=STEADY_NAME_S)

    def _find_version(self, reading: Reading, commit: CommitNumber, way: Way, name: bytes) -> Attributes | None:
        number = self._names.find(reading, name)
        if number is None:
            return None
        version = version_of(self._timelines.versions(reading, commit, way), number)
        return None if version is None else self._of_version(version.entry)

    def _find_gone(self, reading: Reading, commit: CommitNumber, way: Way, name: bytes) -> Attributes | None:
        newest = self._timelines.newest_with(reading, commit, way, name)
        if newest is None:
            return None
        path = [entry.name for _, entry in way[1:]] + [name]
        gone = self._find_way(reading, newest, path)
        return self._gone(reading, GoneLink(newest, gone[-1][0]), gone)

    def _find_way(self, reading: Reading, commit: CommitNumber, names: list[bytes]) -> Way:
        """Return what is on the way from a commit's root to the path that *names* make, which it has."""
        record = commit_record(reading, commit)
        way = [(EntryRank(0), root_entry(reading, record))]
        for name in names:
            entry = self._trees.listing(TreeId(way[-1][1].id)).find(name)
            if entry is None:
                raise NotFoundError(f"commit number {commit} has no {b'/'.join(names)!r}")
            way.append((child_entry_rank(way[-1][0], entry), entry))
        return way

    def _gone(self, reading: Reading, node: GoneLink, way: Way) -> Attributes:
        size = len(self._target(reading, node, way))
        if size > _TARGET_BYTES_MAX:
            raise NotFoundError("a symlink to a path as long as this is more than a kernel takes")
        return self._ground.symlink(virtual_node(node), size, way[-1][1].mtime_ns, STEADY_NAME_S)

    def _target(self, reading: Reading, node: GoneLink, way: Way) -> bytes:
        record = commit_record(reading, node.commit)
        up = b"../" * (len(way) - 1)
        return up + record.checksum.hex().encode() + b"".join(b"/" + entry.name for _, entry in way[1:])


class VersionsTop(RefTree[Fixed | VersionsDirectory]):
    """MNT/versions itself and the directories of refs in it."""

    def __init__(self, ground: Ground, tree: VersionedTree) -> None:
        """*tree* has the commits."""
        super().__init__(ground)
        self._tree = tree

    def find(self, directory: Fixed | VersionsDirectory, name: bytes) -> Attributes | None:
        """Return a ref, a directory of refs or, not listed, a commit or a symlink to one."""
        found = super().find(directory, name)
        if found is not None or isinstance(directory, VersionsDirectory):
            return found
        with self._database.reading() as reading:
            number = find_commit(reading, name)
            if number is None:
                number = find_abbreviated(reading, name, self._ground.now_s())
                return None if number is None else self._ground.commit_link(0, number)
        return self._tree.attributes(Versioned(number, EntryRank(0)))

    def prefix(self, reading: Reading, directory: Fixed | VersionsDirectory) -> bytes:
        """Return what the names of the refs in *directory* begin with."""
        return b"" if isinstance(directory, Fixed) else directory_prefix(reading, directory)

    def directory_of(self, ref_id: RefId) -> VersionsDirectory:
        """Return a directory of refs."""
        return VersionsDirectory(ref_id)

    def of_ref(self, prefix: bytes, ref_id: RefId, commit: CommitNumber) -> Attributes:
        """Return the symlink to a ref's commit."""
        return self.of_revision(prefix, commit)

    def of_revision(self, prefix: bytes, commit: CommitNumber) -> Attributes:
        """Return a symlink to a commit from the directory with this prefix."""
        return self._ground.sibling_link(prefix.count(b"/"), commit)

    def parent(self, directory: Fixed | VersionsDirectory) -> Virtual:
        """Return the directory that a directory lies in."""
        if isinstance(directory, Fixed):
            return Fixed(ROOT)
        with self._database.reading() as reading:
            outer = outer_directory(reading, ref_name(reading, directory).name)
        return Fixed(VERSIONS) if outer is None else VersionsDirectory(outer)
