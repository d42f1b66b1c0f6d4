"""The view below a commit: directories found from their rank, their attributes and their rows.

Nothing here ever changes, so listings and places are cached, up to a bound, until something is pruned. All that is
shown of a directory is a function of its path, dirtree and dirmeta; of a commit's root, of its commit too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from fsview.attributes import DOT_COOKIE, DOT_DOT_COOKIE, STEADY_NAME_S, Attributes, Row
from fsview.cache import BoundedCache
from fsview.nodeid import (
    Directory,
    Ino,
    NodeId,
    PlacedFile,
    StaleNodeError,
    directory_ino,
    directory_node,
    file_node,
    placed_node,
    root_ino,
)  # fmt: skip
from fsview.ownership import Ownership
from fsview.rank import EntryRank, Rank, child_entry_rank, child_rank, descend, descend_to_entry
from store.bounds import PATH_BYTES_MAX, beyond, shortened
from store.database import Reading
from store.errors import FormatError
from store.listing import Entry, Listing
from store.repository import Repository
from store.schema import GENERATION, CommitNumber, CommitRecord, MetaId, TreeId, id_key
from store.tree import commit_record, load_listing, root_entry

_LISTED_ENTRIES_MAX: Final = 1 << 16  # about 10 MB
_PLACES_MAX: Final = 1 << 15  # about 20 MB
_PLACE_BYTES: Final = 8 << 10  # a longer path counts for more, but the way to the deepest place of a tree fits in
_FILES_MAX: Final = 1 << 14  # about 8 MB
_SECONDS_MAX: Final = (1 << 63) // 10**9 - 1  # a commit's time has 64 bits of seconds; stat shows it in nanoseconds


class Place(NamedTuple):
    """A directory of a commit, found: *path* begins with "/" and is b"" for the root."""

    commit: CommitNumber
    rank: Rank
    entry_rank: EntryRank
    parent: Rank  # of the root: its own
    path: bytes
    entry: Entry
    attributes: Attributes


class CommitTrees:
    """The directories of all commits of a repository."""

    def __init__(
        self, repository: Repository, ownership: Ownership, *, place_inodes: bool = False, place_st_ino: bool = False
    ) -> None:
        """*place_inodes*: files have numbers by their places, or equal ones would be one to a writable overlay.

        *place_st_ino*: what stat shows, too.
        """
        self._database, self._secret, self._ownership = repository.database, repository.secret, ownership
        self._zero_mtime = repository.settings.mtime == "zero"
        self._listings: BoundedCache[TreeId, Listing] = BoundedCache(_LISTED_ENTRIES_MAX)
        self._place_inodes, self._place_st_ino = place_inodes, place_st_ino
        self._files: BoundedCache[PlacedFile, Entry] = BoundedCache(_FILES_MAX)
        self._places: BoundedCache[tuple[CommitNumber, Rank], Place] = BoundedCache(_PLACES_MAX)
        self._change, self._generation = -1, 0

    def renew(self) -> int:
        """Return how often the repository was pruned; forget all that was cached before the last time."""
        change = self._database.last_change()
        if change != self._change:
            with self._database.reading() as reading:
                generation = reading.counter(GENERATION)
            if generation != self._generation:
                self._listings.clear()
                self._places.clear()
                self._files.clear()
            self._change, self._generation = change, generation
        return self._generation

    def place(self, directory: Directory) -> Place:
        """Return a directory, with where it stands.

        Raises:
            StaleNodeError: there is no such commit, or it has fewer directories.
            PrunedError: there is none any more.
            CorruptionError: something on the way to it is damaged.
        """
        self.renew()
        found = self._places.get(directory)
        if found is not None:
            return found
        place = self._root(directory.commit)
        if directory.rank:
            count = self.listing(TreeId(place.entry.id)).directories
            if directory.rank >= count:
                raise StaleNodeError(directory_node(*directory))
            for _, entry in descend(self.listing, place.entry, directory.rank)[1:]:
                place = self._below(place, entry)
        return place

    def file(self, placed: PlacedFile) -> Entry:
        """Return the entry of a file that has a place.

        Raises:
            StaleNodeError: there is no such commit, or no file at this rank.
            PrunedError: there is none any more.
            CorruptionError: something on the way to it is damaged.
        """
        self.renew()
        found = self._files.get(placed)
        if found is not None:
            return found
        root = self._root(placed.commit).entry
        if placed.rank > self.listing(TreeId(root.id)).entries:
            raise StaleNodeError(placed_node(*placed))
        entry = descend_to_entry(self.listing, root, placed.rank)[-1][1]
        if entry.is_directory:
            raise StaleNodeError(placed_node(*placed))
        self._files.put(placed, entry)
        return entry

    def directory_at(self, commit: CommitNumber, path: bytes) -> Directory:
        """Return the directory at a path that is there, as b"/usr/share"."""
        place = self._root(commit)
        for name in path.split(b"/")[1:]:
            entry = self.listing(TreeId(place.entry.id)).find(name)
            assert entry is not None and entry.is_directory
            place = self._below(place, entry)
        return Directory(commit, place.rank)

    def root(self, commit: CommitNumber) -> Attributes:
        """Return the attributes of a commit's root."""
        self.renew()
        return self._root(commit).attributes

    def commit_mtime_ns(self, time_s: int) -> int:
        """Return the mtime of a commit that was made at *time_s*."""
        return 0 if self._zero_mtime else min(time_s, _SECONDS_MAX) * 10**9

    def find(self, place: Place, name: bytes) -> Attributes | None:
        """Return what is called *name* in a directory, or None."""
        entry = self.listing(TreeId(place.entry.id)).find(name)
        return None if entry is None else self._attributes(place, entry)

    def row_count(self, place: Place) -> int:
        """Return how many rows a directory has, "." and ".." among them."""
        return DOT_DOT_COOKIE + len(self.listing(TreeId(place.entry.id)))

    def rows(self, place: Place, own: Attributes, parent: Attributes, after: int, before: int) -> Iterator[Row]:
        """Yield the rows of a directory from index *after* up to *before*; a cookie is the next row's index."""
        dots = (Row(b".", own, DOT_COOKIE), Row(b"..", parent, DOT_DOT_COOKIE))
        yield from dots[after:before]
        listing = self.listing(TreeId(place.entry.id))
        for index in range(max(after - len(dots), 0), min(before - len(dots), len(listing))):
            entry = listing.entry(index)
            yield Row(entry.name, self._attributes(place, entry), index + len(dots) + 1)

    def _attributes(self, place: Place, entry: Entry) -> Attributes:
        if entry.is_directory:
            return self._below(place, entry).attributes
        node = ino = file_node(entry.id)
        if self._place_inodes:
            node = placed_node(place.commit, child_entry_rank(place.entry_rank, entry))
        return self.shown(node, Ino(node if self._place_st_ino else ino), entry)

    def _root(self, commit: CommitNumber) -> Place:
        found = self._places.get((commit, Rank(0)))
        if found is not None:
            return found
        with self._database.reading() as reading:
            entry = root_entry(reading, record_below(reading, commit, directory_node(commit, Rank(0))))
        mtime_ns = self.commit_mtime_ns(entry.mtime_ns // 10**9)
        node = directory_node(commit, Rank(0))
        attributes = self.shown(node, root_ino(commit), entry)._replace(mtime_ns=mtime_ns, name_s=STEADY_NAME_S)
        place = Place(commit, Rank(0), EntryRank(0), Rank(0), b"", entry, attributes)
        self._places.put((commit, Rank(0)), place)
        return place

    def _below(self, place: Place, entry: Entry) -> Place:
        """Return the sub-directory that *entry* of *place* is."""
        rank = child_rank(place.rank, entry)
        found = self._places.get((place.commit, rank))
        if found is not None:
            return found
        path = place.path + b"/" + entry.name
        if len(path) > PATH_BYTES_MAX:
            raise FormatError(f"{shortened(path)} has {beyond(0, len(path))}; fsview commits no such tree any more")
        ino = directory_ino(self._secret, path, TreeId(entry.id), MetaId(entry.meta_id))
        attributes = self.shown(directory_node(place.commit, rank), ino, entry)
        entry_rank = child_entry_rank(place.entry_rank, entry)
        child = Place(place.commit, rank, entry_rank, place.rank, path, entry, attributes)
        self._places.put((place.commit, rank), child, 1 + len(path) // _PLACE_BYTES)
        return child

    def shown(self, node: NodeId, ino: Ino, entry: Entry) -> Attributes:
        """Return the attributes of an entry, with the owner and mode that the view shows."""
        owned = self._ownership.shown(entry.mode, entry.uid, entry.gid)
        return Attributes(node, ino, *owned, entry.size, entry.mtime_ns)

    def listing(self, tree_id: TreeId) -> Listing:
        """Return the listing of a dirtree."""
        found = self._listings.get(tree_id)
        if found is not None:
            return found
        with self._database.reading() as reading:
            listing = load_listing(reading, tree_id)
        self._listings.put(tree_id, listing, 1 + len(listing))
        return listing


def record_below(reading: Reading, commit: CommitNumber, node: int) -> CommitRecord:
    """Return the record of the commit that *node* belongs to.

    Raises:
        StaleNodeError: no commit got this number: the index is older than the node.
        CorruptionError: the record is damaged, or none.
    """
    if reading.get(b"commit", id_key(commit)) is None and commit >= reading.counter("commit"):
        raise StaleNodeError(node)
    return commit_record(reading, commit)
