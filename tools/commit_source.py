"""The tree of an earlier commit as a source: taken whole, or shaped anew where options ask for it."""

from __future__ import annotations

from dataclasses import dataclass

from store.content import chunks, file_header, file_record
from store.database import Reading
from store.listing import Entry
from store.objects import DirMeta
from store.repository import Repository
from store.schema import FileId, MetaId, TreeId
from store.stager import WHOLE_BYTES_MAX, Stager
from store.tree import load_dirmeta, load_listing, tree_record
from tools.patterns import IsIgnored
from tools.recipe import Recipe
from tools.sources import FoundFile, Scanned


@dataclass(frozen=True, slots=True)
class CommitScan:
    """What all directories of one commit share; what the recipe changes is staged anew."""

    repository: Repository
    stager: Stager
    recipe: Recipe
    is_skipped: IsIgnored | None

    @property
    def as_it_is(self) -> bool:
        """Whether the commit's trees can be taken whole."""
        return self.recipe == Recipe() and self.is_skipped is None

    def file(self, reading: Reading, file_id: FileId) -> FoundFile:
        """Return the file object that the recipe makes of one: the same one, if it changes nothing."""
        record = file_record(reading, file_id)
        header = file_header(record)
        shaped = self.recipe.reshape(header)
        if shaped == header:
            return file_id
        if shaped.symlink_target:
            return self.stager.symlink(shaped, record.mtime_ns)
        pieces = chunks(self.repository, reading, file_id)
        if record.size <= WHOLE_BYTES_MAX:
            return self.stager.whole(b"".join(pieces), shaped, record.mtime_ns)
        checksum = self.stager.stream(
            lambda _: next(pieces, b""), shaped, record.mtime_ns, lambda size: size == record.size
        )
        assert checksum is not None
        return checksum


class CommitDirectory:
    """A directory of a commit that is here already."""

    __slots__ = ("_entry", "_place", "_scan", "path")

    def __init__(self, scan: CommitScan, entry: Entry, path: bytes, place: bytes = b"") -> None:
        """*entry* is the directory's, or its commit's root; *place* is its path in the commit."""
        self._scan, self._entry, self.path, self._place = scan, entry, path, place

    @property
    def tree_id(self) -> TreeId:
        """The dirtree in the commit."""
        return TreeId(self._entry.id)

    def meta(self) -> DirMeta | MetaId:
        """Return the dirmeta."""
        meta_id = MetaId(self._entry.meta_id)
        if self._scan.recipe == Recipe():
            return meta_id
        with self._scan.repository.database.reading() as reading:
            return self._scan.recipe.reshape_directory(load_dirmeta(reading, meta_id))

    def scan(self) -> Scanned:
        """Return what is in it."""
        scan, tree_id = self._scan, self.tree_id
        with scan.repository.database.reading() as reading:
            scanned = Scanned(tree_record(reading, tree_id).mtime_ns, tree_id=tree_id if scan.as_it_is else None)
            for entry in load_listing(reading, tree_id):
                place = self._place + b"/" + entry.name
                if scan.is_skipped and scan.is_skipped(place, entry.is_directory):
                    continue
                if entry.is_directory:
                    below = CommitDirectory(scan, entry, self.path + b"/" + entry.name, place)
                    scanned.directories[entry.name] = below
                else:
                    file_id = FileId(entry.id)
                    scanned.files[entry.name] = file_id if scan.as_it_is else scan.file(reading, file_id)
        return scanned
