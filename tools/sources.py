"""Where the trees that are committed come from, one directory at a time.

    Directory                 what a source shows of one directory
    DiskDirectory             a directory on disk, with the stat cache, patterns and other file systems left out
    CommitDirectory           a directory of an earlier commit (--tree=ref=)
    MemoryDirectory           a directory read from a tar stream (tools/tar_source.py)
    MergedDirectory           several directories laid over each other: the last one wins, directories merge

`scan` hands changed files to the hasher and comes back at once; tools/build.py makes the dirtrees.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from store.database import Database
from store.listing import Entry
from store.objects import Checksum, DirMeta
from store.schema import FileId, MetaId, TreeId
from store.statcache import StatRecord, pack_stat, stat_key
from store.tree import load_listing, tree_record
from tools.hashing import Hasher, Ticket
from tools.mountinfo import has_reliable_times
from tools.patterns import IGNORE_FILE, IsIgnored, nested
from tools.recipe import Recipe, read_xattrs

FoundFile = Ticket | Checksum | FileId


@dataclass(slots=True)
class Scanned:
    """One directory of a source.

    files are promised, or known by checksum or id. stats are packed stats of all entries, for the stat cache, where
    stat_key is set. unchanged is the stat cache's record if every entry here is as it was: then files and stats are
    empty, and the record tells the rest. tree_id is set where the whole subtree is known.
    """

    mtime_ns: int
    files: dict[bytes, FoundFile] = field(default_factory=dict)
    directories: dict[bytes, Directory] = field(default_factory=dict)
    stat_key: bytes | None = None
    stats: dict[bytes, bytes] = field(default_factory=dict)
    unchanged: StatRecord | None = None
    tree_id: TreeId | None = None

    def all_files(self) -> dict[bytes, FoundFile]:
        """Return the files, from the stat cache's record if need be."""
        if self.unchanged is None:
            return self.files
        rows = self.unchanged.by_name().items()
        return {name: FileId(number) for name, (_, number, _) in rows if name not in self.directories}

    def all_stats(self) -> dict[bytes, bytes]:
        """Return the packed stats of all entries, likewise."""
        if self.unchanged is None:
            return self.stats
        return {name: packed for name, (packed, _, _) in self.unchanged.by_name().items()}


class Directory(Protocol):
    """A directory of a source."""

    path: bytes  # for messages

    def meta(self) -> DirMeta | MetaId:
        """Return owner, mode and xattrs, or the dirmeta that has them."""

    def scan(self) -> Scanned:
        """Return what is in it."""


@dataclass(slots=True)
class DiskOptions:
    """How directories on disk are read. `is_skipped` gets a path below the root, b"/usr/bin", and "is a directory"."""

    recipe: Recipe = field(default_factory=Recipe)
    is_skipped: IsIgnored | None = None
    ignore_files: bool = False  # honour IGNORE_FILE in the tree
    skip_special: bool = False
    one_file_system: bool = False
    stat_cache: bool = True


@dataclass(slots=True)
class DiskScan:
    """What all directories of one scan on disk share; problems are (path, text), gathered to be told together."""

    root: bytes
    device: int
    options: DiskOptions
    database: Database
    repository: tuple[int, int]  # device and inode of the repository's directory
    hasher: Hasher
    problems: list[tuple[bytes, str]] = field(default_factory=list)
    specials: list[bytes] = field(default_factory=list)
    vanished: list[bytes] = field(default_factory=list)
    _reliable: dict[int, bool] = field(default_factory=dict)

    def uses_cache(self, device: int, path: bytes) -> bool:
        """Whether the stat cache may be used on this device: not on FUSE and network file systems."""
        if device not in self._reliable:
            self._reliable[device] = self.options.stat_cache and has_reliable_times(Path(os.fsdecode(path)))
        return self._reliable[device]


class DiskDirectory:
    """A directory on disk."""

    __slots__ = ("_ignored", "_meta_id", "_scan", "_status", "path")

    def __init__(
        self, scan: DiskScan, path: bytes, status: os.stat_result, meta_id: MetaId | None = None,
        ignored: IsIgnored | None = None,
    ) -> None:  # fmt: skip
        """*meta_id* is the stat cache's; *ignored* are the patterns of ignore files above."""
        self._scan, self.path, self._status, self._meta_id, self._ignored = scan, path, status, meta_id, ignored

    @classmethod
    def root(cls, path: Path, options: DiskOptions, database: Database, hasher: Hasher) -> DiskDirectory:
        """Return the directory at *path*, which may be a symlink.

        Raises:
            OSError: it is not there, or not a directory.
        """
        real = os.path.realpath(os.fsencode(path), strict=True)
        status = os.stat(real)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(20, os.strerror(20), str(path))
        home = database.path.parent.stat()
        scan = DiskScan(real, status.st_dev, options, database, (home.st_dev, home.st_ino), hasher)
        return cls(scan, real, status)

    @property
    def shared(self) -> DiskScan:
        """What the scan gathered."""
        return self._scan

    def meta(self) -> DirMeta | MetaId:
        """Return the dirmeta."""
        if self._meta_id is not None:
            return self._meta_id
        recipe, status = self._scan.options.recipe, self._status
        xattrs = read_xattrs(self.path) if recipe.wants_xattrs else ()
        return recipe.directory(status.st_uid, status.st_gid, status.st_mode, xattrs)

    def scan(self) -> Scanned:
        """Return what is in it, and hand what changed to the hasher."""
        scan, scanned = self._scan, Scanned(self._status.st_mtime_ns)
        if scan.options.one_file_system and self._status.st_dev != scan.device:
            return scanned  # a mount point: the directory belongs to the tree, what is mounted there doesn't
        rows = self._rows()
        stats = [pack_stat(status) for _, status in rows]
        record = None
        if scan.uses_cache(self._status.st_dev, self.path):
            scanned.stat_key = stat_key(self.path, scan.options.recipe.key)
            with scan.database.reading() as reading:
                value = reading.get(b"stat", scanned.stat_key)
            record = StatRecord.unpack(value) if value is not None else None
        if record and record.stats == b"".join(stats) and record.names == tuple(name for name, _ in rows):
            scanned.unchanged = record
            self._add_directories(scanned, rows, record)
        else:
            self._add(scanned, rows, stats, record.by_name() if record else {})
        return scanned

    def _rows(self) -> list[tuple[bytes, os.stat_result]]:
        """Return name and stat of the entries that are wanted, sorted by name."""
        rows = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    try:
                        rows.append((entry.name, entry.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        self._scan.vanished.append(entry.path)
        except OSError as error:
            self._scan.problems.append((self.path, error.strerror or str(error)))
        rows.sort()
        if self._scan.options.ignore_files and any(name == IGNORE_FILE for name, _ in rows):
            self._ignored = nested(self._ignored, self.path)
        return [row for row in rows if self._is_wanted(*row)]

    def _is_wanted(self, name: bytes, status: os.stat_result) -> bool:
        options, path = self._scan.options, os.path.join(self.path, name)
        is_directory = stat.S_ISDIR(status.st_mode)
        if options.is_skipped and options.is_skipped(path[len(self._scan.root.rstrip(b"/")) :], is_directory):
            return False
        if self._ignored and self._ignored(path, is_directory):
            return False
        if not (is_directory or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            if not options.skip_special:
                self._scan.specials.append(path)
            return False
        if is_directory and (status.st_dev, status.st_ino) == self._scan.repository:
            self._scan.problems.append((path, "it is the repository itself; leave it out with --ignore"))
            return False
        try:
            name.decode()
        except UnicodeDecodeError:
            self._scan.problems.append((path, "its name is not UTF-8, which OSTree's objects need; rename it"))
            return False
        return True

    def _add_directories(self, scanned: Scanned, rows: list[tuple[bytes, os.stat_result]], record: StatRecord) -> None:
        for index, (name, status) in enumerate(rows):
            if stat.S_ISDIR(status.st_mode):
                scanned.directories[name] = self._child(name, status, MetaId(record.ids_at(index)[1]))

    def _add(
        self, scanned: Scanned, rows: list[tuple[bytes, os.stat_result]], stats: list[bytes],
        cached: dict[bytes, tuple[bytes, int, int]],
    ) -> None:  # fmt: skip
        submit, prefix = self._scan.hasher.submit, self.path + (b"" if self.path.endswith(b"/") else b"/")
        for (name, status), packed in zip(rows, stats, strict=True):
            seen, number, meta_id = cached.get(name, (b"", 0, 0))
            hit = seen == packed
            if stat.S_ISDIR(status.st_mode):
                scanned.directories[name] = self._child(name, status, MetaId(meta_id) if hit else None)
            elif hit:
                scanned.files[name] = FileId(number)
            else:
                scanned.files[name] = submit(prefix + name, status.st_size)
            scanned.stats[name] = packed

    def _child(self, name: bytes, status: os.stat_result, meta_id: MetaId | None) -> DiskDirectory:
        return DiskDirectory(self._scan, os.path.join(self.path, name), status, meta_id, self._ignored)


class CommitDirectory:
    """A directory of a commit that is here already."""

    __slots__ = ("_database", "_entry", "path")

    def __init__(self, database: Database, entry: Entry, path: bytes) -> None:
        """*entry* is the directory's, or its commit's root."""
        self._database, self._entry, self.path = database, entry, path

    def meta(self) -> DirMeta | MetaId:
        """Return the dirmeta."""
        return MetaId(self._entry.meta_id)

    def scan(self) -> Scanned:
        """Return what is in it."""
        tree_id = TreeId(self._entry.id)
        with self._database.reading() as reading:
            entries = list(load_listing(reading, tree_id))
            scanned = Scanned(tree_record(reading, tree_id).mtime_ns, tree_id=tree_id)
        for entry in entries:
            if entry.is_directory:
                scanned.directories[entry.name] = CommitDirectory(self._database, entry, self.path + b"/" + entry.name)
            else:
                scanned.files[entry.name] = FileId(entry.id)
        return scanned


class MemoryDirectory:
    """A directory that was read whole, its files staged already."""

    __slots__ = ("directories", "dirmeta", "files", "mtime_ns", "path")

    def __init__(self, path: bytes, dirmeta: DirMeta, mtime_ns: int) -> None:
        """Make an empty one."""
        self.path, self.dirmeta, self.mtime_ns = path, dirmeta, mtime_ns
        self.files: dict[bytes, Checksum] = {}
        self.directories: dict[bytes, MemoryDirectory] = {}

    def meta(self) -> DirMeta | MetaId:
        """Return the dirmeta."""
        return self.dirmeta

    def scan(self) -> Scanned:
        """Return what is in it."""
        return Scanned(self.mtime_ns, dict(self.files), dict(self.directories))


class MergedDirectory:
    """Several directories at the same place: a later one's files and metadata win, directories merge."""

    __slots__ = ("_layers", "path")

    def __init__(self, layers: list[Directory]) -> None:
        """*layers* from the lowest to the highest."""
        self._layers, self.path = layers, layers[-1].path

    def meta(self) -> DirMeta | MetaId:
        """Return the highest layer's dirmeta."""
        return self._layers[-1].meta()

    def scan(self) -> Scanned:
        """Return what is in it."""
        merged = Scanned(0)
        layers: dict[bytes, list[Directory]] = {}
        for layer in self._layers:
            scanned = layer.scan()
            merged.mtime_ns = scanned.mtime_ns
            for name, file in scanned.all_files().items():
                layers.pop(name, None)
                merged.files[name] = file
            for name, directory in scanned.directories.items():
                merged.files.pop(name, None)
                layers.setdefault(name, []).append(directory)
        for name, found in layers.items():
            merged.directories[name] = found[0] if len(found) == 1 else MergedDirectory(found)
        return merged
