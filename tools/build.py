"""From a source's directories to dirtrees, without holding the tree: the middle of every commit.

Directories are scanned in preorder and their dirtrees are made when their files are hashed, children first. What
waits in between is bounded by the hasher. A directory whose files, sub-directories and dirmetas are all as the stat
cache knows them is known whole, and costs a scan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from store.bounds import PATH_BYTES_MAX, beyond, shortened
from store.content import file_record
from store.database import Database
from store.errors import SourceError
from store.mtimes import limit_mtime
from store.object_rules import NAME_BYTES_MAX
from store.objects import Checksum, DirMeta, DirTree
from store.publication import Phase, Report
from store.schema import FileId, MetaId, TreeId
from store.staging import NO_STAT_KEY, StagedTree
from store.statcache import STAT, is_racy
from store.tree import meta_record, tree_record
from store.writer import Root, Writer
from tools.hashing import Ticket
from tools.sources import Directory, Scanned

_UNSURE = bytes(STAT.size)
_QUEUED_MAX: Final = 1 << 17  # entries of directories that wait for their files
_ENTRY_BYTES: Final = 256  # about what one takes in memory; paths of directories count, too


class _Made(NamedTuple):
    """A finished directory; the ids are None where they are not known before it is published."""

    dirtree: Checksum
    dirmeta: Checksum
    tree_id: TreeId | None
    meta_id: MetaId | None


@dataclass(slots=True)
class _Frame:
    """A directory under way."""

    name: bytes
    directory: Directory
    scanned: Scanned
    waiting: Iterator[tuple[bytes, Directory]]
    parent: _Frame | None
    level: int  # how many directories are above it
    path_bytes: int  # of its path below the root
    children: dict[bytes, _Made] = field(default_factory=dict)
    lost: set[bytes] = field(default_factory=set)  # directories that vanished before they could be read

    @property
    def weight(self) -> int:
        """About how many entries it holds in memory."""
        path = len(self.directory.path) // _ENTRY_BYTES
        return 1 + path + len(self.scanned.stats) + (len(self.scanned.unchanged.names) if self.scanned.unchanged else 0)


@dataclass(slots=True)
class Outcome:
    """What was noticed on the way; the paths are those of the source."""

    files: int = 0
    changed: list[bytes] = field(default_factory=list)
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)


class Builder:
    """Makes the dirtrees of one commit."""

    def __init__(
        self, database: Database, writer: Writer, scan_ns: int, is_full: Callable[[], bool], report: Report
    ) -> None:
        """*scan_ns* is the time when the scan began; *is_full* says that the hasher has enough to do."""
        self._database, self._writer, self._scan_ns, self._is_full = database, writer, scan_ns, is_full
        self._report, self._phase = report, Phase.HASHING
        self._meta_checksums: dict[MetaId, Checksum] = {}
        self.outcome = Outcome()

    def build(self, root: Directory) -> Root:
        """Scan *root*, stage its dirtrees and dirmetas, and return what names it.

        Where the outcome lists unreadable files, the tree lacks them and must not be published.

        Raises:
            SourceError: it is deeper than a tree may be.
        """
        queue: deque[_Frame] = deque()  # what is scanned, in postorder: children before parents
        queued = 0
        for frame in self._walk(root):
            self._report(Phase.HASHING, self.outcome.files)
            queue.append(frame)
            queued += frame.weight
            while len(queue) > 1 and (self._is_full() or queued > _QUEUED_MAX):
                queued -= queue[0].weight
                self._finish(queue.popleft())
        self._phase = Phase.STAGING
        while len(queue) > 1:
            self._finish(queue.popleft())
        made = self._make(queue[0])
        return Root(made.dirtree, made.dirmeta)

    def _walk(self, root: Directory) -> Iterator[_Frame]:
        """Scan in preorder, yield in postorder."""
        stack = [self._frame(b"", root, None)]
        while stack:
            frame = stack[-1]
            child = next(frame.waiting, None)
            if child is None:
                yield stack.pop()
                continue
            below = self._frame(*child, frame)
            if below.scanned.vanished:
                frame.lost.add(below.name)
            else:
                stack.append(below)

    def _frame(self, name: bytes, directory: Directory, parent: _Frame | None) -> _Frame:
        level, path_bytes = (parent.level + 1, parent.path_bytes + 1 + len(name)) if parent else (0, 0)
        _check_place(directory, level, path_bytes)
        scanned = directory.scan()
        if path_bytes + 1 + NAME_BYTES_MAX > PATH_BYTES_MAX:
            _check_place(directory, level, path_bytes + 1 + max(map(len, scanned.all_files()), default=-1))
        waiting = scanned.directories if scanned.tree_id is None else {}  # a tree that is known needs no look inside
        return _Frame(name, directory, scanned, iter(waiting.items()), parent, level, path_bytes)

    def _finish(self, frame: _Frame) -> None:
        assert frame.parent is not None
        frame.parent.children[frame.name] = self._make(frame)

    def _make(self, frame: _Frame) -> _Made:
        dirmeta, meta_id = self._meta(frame.directory)
        tree_id = self._known_tree(frame)
        if tree_id is not None:
            with self._database.reading() as reading:
                record = tree_record(reading, tree_id)
            self._count(len(frame.scanned.all_files()) if frame.scanned.tree_id is None else record.entries)
            return _Made(record.checksum, dirmeta, tree_id, meta_id)
        return _Made(self._stage(frame), dirmeta, None, meta_id)

    def _meta(self, directory: Directory) -> tuple[Checksum, MetaId | None]:
        meta = directory.meta()
        if isinstance(meta, DirMeta):
            return self._writer.add_meta(meta), None
        if meta not in self._meta_checksums:
            with self._database.reading() as reading:
                self._meta_checksums[meta] = meta_record(reading, meta).checksum
        return self._meta_checksums[meta], meta

    def _known_tree(self, frame: _Frame) -> TreeId | None:
        """Return the dirtree's id if nothing changed below this directory."""
        if frame.scanned.tree_id is not None:
            return frame.scanned.tree_id
        record = frame.scanned.unchanged
        if record is None or frame.lost:
            return None
        seen = record.by_name() if frame.children else {}
        for name, made in frame.children.items():
            if seen[name][1:] != (made.tree_id, made.meta_id):
                return None
        return TreeId(record.tree_id)

    def _stage(self, frame: _Frame) -> Checksum:
        """Make the dirtree of a directory that is new, or may be."""
        scanned = frame.scanned
        stats = {name: packed for name, packed in scanned.all_stats().items() if name not in frame.lost}
        files = []
        with self._database.reading() as reading:
            for name, found in scanned.all_files().items():
                if isinstance(found, Ticket):
                    checksum = self._hashed(frame, name, found, stats)
                elif isinstance(found, bytes):
                    checksum = found
                else:
                    checksum = file_record(reading, FileId(found)).checksum
                if checksum is not None:
                    files.append((name, Checksum(checksum)))
        dirs = [(name, made.dirtree, made.dirmeta) for name, made in frame.children.items()]
        tree = DirTree(tuple(sorted(files)), tuple(sorted(dirs)))
        checksum = tree.checksum
        self._writer.add_tree(
            StagedTree(checksum, limit_mtime(scanned.mtime_ns), tree.to_bytes(), *self._cacheable(scanned, stats))
        )
        self._count(len(files))
        return checksum

    def _hashed(self, frame: _Frame, name: bytes, ticket: Ticket, stats: dict[bytes, bytes]) -> Checksum | None:
        """Take what the hasher found, and note what the stat cache is to know of it."""
        hashed = ticket.result()
        path = frame.directory.path.rstrip(b"/") + b"/" + name
        if hashed.problem:
            self.outcome.unreadable.append((path, hashed.problem))
            stats.pop(name, None)
            return None
        if hashed.changed:
            self.outcome.changed.append(path)
        stats[name] = _UNSURE if hashed.changed else hashed.stat
        return hashed.checksum

    def _cacheable(self, scanned: Scanned, stats: dict[bytes, bytes]) -> tuple[bytes, bytes]:
        if scanned.stat_key is None:
            return NO_STAT_KEY, b""
        packed = (stats[name] for name in sorted(stats))
        return scanned.stat_key, b"".join(_UNSURE if is_racy(one, self._scan_ns) else one for one in packed)

    def _count(self, files: int) -> None:
        self.outcome.files += files
        self._report(self._phase, self.outcome.files)


def _check_place(directory: Directory, level: int, path_bytes: int) -> None:
    """Refuse what is too deep before more of it is read: the way there is held in memory, all of it."""
    what = beyond(level, path_bytes)
    if what:
        raise SourceError(
            f"{shortened(directory.path)} has {what}, which no checkout could be made of; nothing was committed; "
            f"leave it out with --ignore, or move up what is in it"
        )
