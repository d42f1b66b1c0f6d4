"""What the mounted tree looks like, without the kernel: nodes in, attributes, rows and bytes out.

Each answer follows from the node number and the repository alone, so any process can give any answer, and nothing
has to be forgotten. Names above the commits are in fsview/names.py, directories of commits in fsview/commit_tree.py;
here are files of commits, and who answers for which node.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from fsview.acls import heeded
from fsview.attributes import Attributes, Row
from fsview.cache import BoundedCache
from fsview.commit_tree import CommitTrees, Place
from fsview.damage import Damage
from fsview.kernel_reads import NOTES, note
from fsview.names import Names
from fsview.nodeid import (
    COMMITS,
    ROOT,
    Directory,
    File,
    Fixed,
    Ino,
    Node,
    NodeId,
    PlacedFile,
    StaleNodeError,
    Virtual,
    file_node,
    parse,
)  # fmt: skip
from fsview.overlay_xattrs import escaped
from fsview.ownership import AS_COMMITTED, Ownership
from fsview.pinned import Pinned
from fsview.rank import Rank
from store.content import Content, certify, file_header, open_content
from store.database import Reading
from store.errors import CorruptionError, FsviewError, NotFoundError
from store.objects import Xattrs
from store.repository import Repository
from store.schema import MAX_ENTRIES, FileId, FileRecord, MetaId, Storage, id_key
from store.tree import commit_number, commit_record, load_dirmeta

_CERTIFIED_MAX: Final = 1 << 16  # file ids: about 10 MB
_OPEN_CONTENTS_MAX: Final = 128  # each a descriptor at most, or INLINE_BYTES_MAX of memory


class Space(NamedTuple):
    """The size of the view as df shows it: full, as it can't be written to."""

    block_bytes: int
    blocks: int
    entries: int


class View:
    """The tree below the mount point."""

    def __init__(
        self,
        repository: Repository,
        *,
        uid: int,
        gid: int,
        now_s: Callable[[], int],
        marks: Mapping[bytes, Callable[[], bytes]] | None = None,
        status: Mapping[bytes, Callable[[], bytes]] | None = None,
        ownership: Ownership = AS_COMMITTED,
        certify_contents: bool = False,
        place_inodes: bool = False,
        place_st_ino: bool = False,
        kernel_reads: bool = False,
        heeds_acls: bool = False,
        pinned: Pinned | None = None,
    ) -> None:
        """*uid* and *gid* own what is above the commits; *marks* make the unlisted xattrs of the mount point.

        *status* makes the files in .fsview/, by name, beside those that are always there; it must be the same in all
        processes that serve a mount.
        *ownership* is whose the files in commits are; with *certify_contents* the sha256 of each is checked when it
        is first opened, which may take long: then *on_progress* hears that it goes on. *place_inodes*: equal files
        have node numbers of their own; *place_st_ino*: and a st_ino of their own. *kernel_reads*: tell an overlay
        where loose files are (fsview/kernel_reads.py). *heeds_acls*: the kernel does (fsview/acls.py).
        """
        self._repository, self._database, self._ownership = repository, repository.database, ownership
        self._damage = Damage(repository)
        self._must_certify = certify_contents
        self._certified: BoundedCache[FileId, bool] = BoundedCache(_CERTIFIED_MAX)
        self.on_progress: Callable[[], None] = _do_nothing
        self._trees = CommitTrees(repository, ownership, place_inodes=place_inodes, place_st_ino=place_st_ino)
        self._place_st_ino, self._kernel_reads, self._heeds_acls = place_st_ino, kernel_reads, heeds_acls
        self._names = Names(repository, self._trees, uid, gid, now_s, status or {}, lambda: self.on_progress())
        self._marks = dict(marks or {})
        self._pinned = None if pinned is None else self._directory_of(pinned)
        self._contents: BoundedCache[FileId, Content] = BoundedCache(_OPEN_CONTENTS_MAX, lambda one: one.close())

    def close(self) -> None:
        """Close the files that are open."""
        self._contents.clear()

    def generation(self) -> int:
        """Return a number that is another one when something was pruned: what was kept of commits may be stale."""
        return self._trees.renew()

    def attributes(self, node: int) -> Attributes:
        """Return what stat shows of a node.

        Raises:
            StaleNodeError, PrunedError: there is no such node any more.
            CorruptionError: what tells of it is damaged.
        """
        parsed = self._parse(node)
        if isinstance(parsed, File):
            found = self._file_attributes(parsed.file_id)
            return found._replace(node=NodeId(node), ino=Ino(node) if self._place_st_ino else found.ino)
        if isinstance(parsed, Directory):
            return self._directory_attributes(parsed)
        return self._names.attributes(parsed)

    def find(self, node: int, name: bytes) -> Attributes | None:
        """Return what is called *name* in a directory, "." and ".." too; None if nothing is.

        Raises:
            StaleNodeError, PrunedError, CorruptionError: as above.
            NotFoundError: the node is no directory.
        """
        if name == b".":
            return self.attributes(node)
        parsed = self._parse(node)
        if isinstance(parsed, Directory):
            place = self._trees.place(parsed)
            return self._parent_attributes(place) if name == b".." else self._trees.find(place, name)
        virtual = _virtual(parsed, node)
        return self._names.attributes(self._names.parent(virtual)) if name == b".." else self._names.find(virtual, name)

    def rows(self, node: int, after: int, before: int = MAX_ENTRIES) -> Iterator[Row]:
        """Yield the rows of a directory behind the one with the cookie *after*; 0 is the beginning.

        In a directory of a commit cookies are indexes, and those from *before* on are left out.
        """
        parsed = self._parse(node)
        if not isinstance(parsed, Directory):
            return self._names.rows(_virtual(parsed, node), after)
        place = self._trees.place(parsed)
        own = place.attributes if parsed != self._pinned else self.attributes(ROOT)
        return self._trees.rows(place, own, self._parent_attributes(place), after, before)

    def row_count(self, node: int) -> int:
        """Return how many rows a directory of a commit has."""
        parsed = self._parse(node)
        assert isinstance(parsed, Directory)
        return self._trees.row_count(self._trees.place(parsed))

    def readlink(self, node: int) -> bytes:
        """Return the target of a symlink."""
        parsed = self._parse(node)
        if isinstance(parsed, Directory):
            raise NotFoundError(f"node {node:#x} is no symlink")
        if not isinstance(parsed, File):
            return self._names.target(parsed)
        with self._database.reading() as reading:
            return file_header(_file_record(reading, parsed.file_id)).symlink_target

    @property
    def checks_at_open(self) -> bool:
        """Whether `open` has anything to do."""
        return self._must_certify

    def open(self, node: int) -> None:
        """Check what has to be checked before a file is read.

        Raises:
            CorruptionError: it is not what its checksum says.
        """
        parsed = self._parse(node)
        if self._must_certify and isinstance(parsed, File):
            self._check_whole(parsed.file_id)

    def read(self, node: int, offset: int, size: int) -> bytes:
        """Return *size* bytes of a file from *offset*, fewer only at its end.

        Raises:
            CorruptionError: a block in this range is damaged.
        """
        parsed = self._parse(node)
        if not isinstance(parsed, File):
            return self._names.content(_virtual(parsed, node))[offset : offset + size]
        try:
            return self._content(parsed.file_id).read(offset, size)
        except (CorruptionError, OSError) as error:
            self._damage.note(parsed.file_id, error)
            raise

    def _content(self, file_id: FileId) -> Content:
        content = self._contents.get(file_id)
        if content is None:
            if self._must_certify:  # opened by another worker, it may be
                self._check_whole(file_id)
            with self._database.reading() as reading:
                content = open_content(self._repository, reading, file_id)
            self._contents.put(file_id, content)
        return content

    def _check_whole(self, file_id: FileId) -> None:
        if self._certified.get(file_id) is None:
            try:
                with self._database.reading() as reading:
                    certify(self._repository, reading, file_id, self.on_progress)
            except (CorruptionError, OSError) as error:
                self._damage.note(file_id, error)
                raise
            self._certified.put(file_id, True)

    def xattrs(self, node: int) -> Xattrs:
        """Return the extended attributes of a node as (name, value), those that overlayfs reads escaped."""
        xattrs, mode, gid = self._committed_xattrs(node)
        return escaped(heeded(xattrs, mode, gid, self._ownership) if self._heeds_acls else xattrs)

    def _committed_xattrs(self, node: int) -> tuple[Xattrs, int, int]:
        """Return the extended attributes of a node as (name, value), and its committed mode and group."""
        parsed = self._parse(node)
        if isinstance(parsed, File):
            with self._database.reading() as reading:
                record = _file_record(reading, parsed.file_id)
            _, gid, mode = record.owner_mode
            return file_header(record).xattrs if record.has_xattrs else (), mode, gid
        if isinstance(parsed, Directory):
            meta_id = MetaId(self._trees.place(parsed).entry.meta_id)
            with self._database.reading() as reading:
                meta = load_dirmeta(reading, meta_id)
            return meta.xattrs, meta.mode, meta.gid
        return (), 0, 0

    def xattr(self, node: int, name: bytes) -> bytes | None:
        """Return the value of one extended attribute, or None."""
        if node == ROOT and name in self._marks:
            return self._marks[name]()
        if self._kernel_reads and name in NOTES:
            return self._loose_note(node, name)
        return dict(self.xattrs(node)).get(name)

    def _loose_note(self, node: int, name: bytes) -> bytes | None:
        parsed = self._parse(node)
        if not isinstance(parsed, File):
            return None
        with self._database.reading() as reading:
            record = _file_record(reading, parsed.file_id)
        return note(name, record.checksum) if record.storage == Storage.LOOSE else None

    def space(self) -> Space:
        """Return how large the view is: what is used of the file system that the repository is on."""
        status = os.statvfs(self._repository.path)
        with self._database.reading() as reading:
            entries = reading.count(b"file") + reading.count(b"dirtree")
        return Space(status.f_frsize, status.f_blocks - status.f_bfree, entries)

    def describe(self, node: int) -> str:
        """Return what a node is, for the log; never raises."""
        try:
            return self._describe(node)
        except (FsviewError, OSError):
            return f"node {node:#x}"

    def _describe(self, node: int) -> str:
        parsed = self._parse(node)
        if isinstance(parsed, File):
            return self._damage.describe(parsed.file_id)
        if isinstance(parsed, Directory):
            with self._database.reading() as reading:
                checksum = commit_record(reading, parsed.commit).checksum.hex()
            return f"commits/{checksum}{os.fsdecode(self._trees.place(parsed).path)}"
        return f"{type(parsed).__name__} {tuple(parsed)}"

    def _parent_attributes(self, place: Place) -> Attributes:
        if self._pinned == (place.commit, place.rank):
            return self.attributes(ROOT)
        if place.rank == Rank(0):
            return self._names.attributes(Fixed(COMMITS))
        return self._directory_attributes(Directory(place.commit, place.parent))

    def _parse(self, node: int) -> File | Directory | Virtual:
        """Return what a node number stands for.

        Of a file that has a place, what it is everywhere else. Where a directory is shown alone, it is ROOT.
        """
        if node == ROOT and self._pinned is not None:
            return self._pinned
        parsed = parse(node)
        return File(FileId(self._trees.file(parsed).id)) if isinstance(parsed, PlacedFile) else parsed

    def _directory_attributes(self, directory: Directory) -> Attributes:
        found = self._trees.place(directory).attributes
        return found if directory != self._pinned else found._replace(node=ROOT)

    def _directory_of(self, pinned: Pinned) -> Directory:
        with self._database.reading() as reading:
            number = commit_number(reading, pinned.commit)
        if number is None:
            raise NotFoundError(
                f"the commit {pinned.commit.hex()}, which was mounted, is not in the repository any more"
            )
        return self._trees.directory_at(number, pinned.path)

    def _file_attributes(self, file_id: FileId) -> Attributes:
        with self._database.reading() as reading:
            record = _file_record(reading, file_id)
        uid, gid, mode = record.owner_mode
        node = file_node(file_id)
        return Attributes(node, Ino(node), *self._ownership.shown(mode, uid, gid), record.size, record.mtime_ns)


def block_count(attributes: Attributes) -> int:
    """Return st_blocks: units of 512 bytes."""
    return 0 if stat.S_ISLNK(attributes.mode) else -(-attributes.size // 512)


def _do_nothing() -> None:
    pass


def _virtual(parsed: Node, node: int) -> Virtual:
    if isinstance(parsed, (File, Directory, PlacedFile)):
        raise NotFoundError(f"node {node:#x} is no directory")
    return parsed


def _file_record(reading: Reading, file_id: FileId) -> FileRecord:
    value = reading.get(b"file", id_key(file_id))
    if value is None and file_id >= reading.counter("file"):
        raise StaleNodeError(file_id)
    return FileRecord.unpack(value or reading.need(b"file", id_key(file_id)))
