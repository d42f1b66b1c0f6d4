"""A directory tree on disk as a source: the stat cache, patterns, other file systems, and what changes meanwhile.

Others may write in it. The top is where the given path leads; from there each directory is opened through no symlink
(store/walking/), and it must be the one that was seen in the directory above it.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fsview.mountinfo import has_reliable_times
from store.database import Database
from store.objects import DirMeta, Xattrs
from store.parsing import parsed
from store.schema import FileId, MetaId
from store.statcache import StatRecord, pack_stat, stat_key
from store.walking.beneath import DIRECTORY, FILE, open_same
from tools.hashing import GONE_ERRORS, Hasher, Inode, Recorded, ScannedDirectory, found_attributes
from tools.patterns import IGNORE_FILE, IgnoreFiles
from tools.sources import DiskOptions, Scanned

_TRIES: Final = 3
_REACH_MAX: Final = 3000  # bytes of a path that are resolved again for each directory


@dataclass(slots=True)
class DiskScan:
    """What all directories of one scan on disk share; problems are (path, text), gathered to be told together."""

    root: bytes
    device: int
    options: DiskOptions
    database: Database
    repository: tuple[int, int]  # device and inode of the repository's directory
    hasher: Hasher
    top: Anchor
    problems: list[tuple[bytes, str]] = field(default_factory=list)
    specials: list[bytes] = field(default_factory=list)
    vanished: list[bytes] = field(default_factory=list)
    changed: list[bytes] = field(default_factory=list)
    _reliable: dict[int, bool] = field(default_factory=dict)

    def uses_cache(self, device: int, descriptor: int) -> bool:
        """Whether the stat cache may be used on this device, where something is open."""
        if device not in self._reliable:
            self._reliable[device] = self.options.stat_cache and has_reliable_times(descriptor)
        return self._reliable[device]


def start_scan(path: Path, options: DiskOptions, database: Database, hasher: Hasher) -> tuple[DiskScan, os.stat_result]:
    """Return what the scan of the directory at *path*, which may be a symlink, shares, and the directory's stat.

    Raises:
        OSError: it is not there, or not a directory.
    """
    real = os.path.realpath(os.fsencode(path), strict=True)
    top = Anchor(os.open(real, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC), real)
    status, home = os.fstat(top.descriptor), database.path.parent.stat()
    return DiskScan(real, status.st_dev, options, database, (home.st_dev, home.st_ino), hasher, top), status


class DiskDirectory:
    """A directory on disk."""

    __slots__ = ("_anchor", "_here", "_ignored", "_meta_id", "_reach", "_scan", "_status", "_xattrs", "path")

    def __init__(
        self, scan: DiskScan, path: bytes, status: os.stat_result, parent: DiskDirectory | None = None
    ) -> None:
        """*path* is its name for people; none has a *parent* but the top."""
        self._scan, self.path, self._status = scan, path, status
        self._meta_id: MetaId | None = None  # the stat cache's
        self._xattrs: Xattrs | None = None  # once they are read
        self._ignored: IgnoreFiles = parent._ignored if parent else IgnoreFiles()  # by the ignore files above
        self._anchor: Anchor = parent._anchor if parent else scan.top  # from where its path leads to it
        self._reach: bytes = os.path.join(parent._reach, os.path.basename(path)) if parent else b""
        self._here = -1  # a descriptor, while it is being scanned

    @classmethod
    def root(cls, path: Path, options: DiskOptions, database: Database, hasher: Hasher) -> DiskDirectory:
        """Return the directory at *path*, which may be a symlink.

        Raises:
            OSError: it is not there, or not a directory.
        """
        scan, status = start_scan(path, options, database, hasher)
        return cls(scan, scan.root, status)

    @property
    def shared(self) -> DiskScan:
        """What the scan gathered."""
        return self._scan

    def meta(self) -> DirMeta | MetaId:
        """Return the dirmeta."""
        if self._meta_id is not None:
            return self._meta_id
        recipe = self._scan.options.recipe
        xattrs = self._read_xattrs() if self._xattrs is None else self._xattrs
        return recipe.directory(*(self._recorded_itself() or found_attributes(self._status)), xattrs)

    def _read_xattrs(self) -> Xattrs:
        try:
            here = self._open() if self._here < 0 else os.dup(self._here)
            try:
                return self._scan.options.recipe.xattrs_of(here)
            finally:
                os.close(here)
        except OSError as error:
            self._complain(self.path, error)
            return ()

    def scan(self) -> Scanned:
        """Return what is in it, and hand what changed to the hasher."""
        if self._scan.options.one_file_system and self._status.st_dev != self._scan.device:
            return Scanned(self._status.st_mtime_ns)  # a mount point belongs to the tree, what is mounted doesn't
        try:
            self._here = self._open()
        except OSError as error:
            self._complain(self.path, error)
            return Scanned(self._status.st_mtime_ns, vanished=error.errno in GONE_ERRORS)
        try:
            return self._scan_open()
        finally:
            os.close(self._here)
            self._here = -1

    def _open(self) -> int:
        """Open it, if it still is what was seen in the directory above it."""
        return open_same(self._anchor.descriptor, self._reach, DIRECTORY, self._status)

    def _scan_open(self) -> Scanned:
        scan = self._scan
        if len(self._reach) > _REACH_MAX:  # else a deep tree would be gone through from its top for each directory
            self._anchor, self._reach = Anchor(os.dup(self._here)), b""
        entries = self._entries()
        scanned = Scanned(self._status.st_mtime_ns, vanished=entries is None)
        rows = self._wanted(entries or [])
        stats = [pack_stat(status) for _, status in rows]
        record = None
        if scan.uses_cache(self._status.st_dev, self._here):
            scanned.stat_key = stat_key(self.path, scan.options.recipe.key)
            with scan.database.reading() as reading:
                value = reading.get(b"stat", scanned.stat_key)
            if value is not None:
                record = parsed("a record of the stat cache", reading.where, value, StatRecord.unpack)
        if record and record.stats == b"".join(stats) and record.names == tuple(name for name, _ in rows):
            scanned.unchanged = record
            self._add_directories(scanned, rows, record)
        else:
            self._add(scanned, rows, stats, record.by_name() if record else {})
        if self._meta_id is None:
            self._xattrs = self._read_xattrs()
        return scanned

    def _entries(self) -> list[tuple[bytes, os.stat_result]] | None:
        """Return name and stat of all entries, sorted by name; None if the directory vanished.

        A directory that changes under our hands is read again: a listing may lack a name that was only moved.
        """
        before = self._status
        for tries_left in reversed(range(_TRIES)):
            try:
                found, gone = self._read()
                after = os.fstat(self._here)
                if not after.st_nlink:  # it was deleted, and only we still have it
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            except OSError as error:
                self._complain(self.path, error)
                return None if error.errno in GONE_ERRORS else []
            if pack_stat(before) == pack_stat(after) and not (gone and tries_left):
                self._scan.vanished += gone
                return sorted(found)
            self._status = before = after
            self._meta_id = None
        self._scan.changed.append(self.path)
        return sorted(found)

    def _read(self) -> tuple[list[tuple[bytes, os.stat_result]], list[bytes]]:
        """Return name and stat of what is here, and the paths of what is listed, but not there."""
        found, gone = [], []
        with os.scandir(self._here) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                try:
                    found.append((name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    gone.append(os.path.join(self.path, name))
                except OSError as error:
                    self._complain(os.path.join(self.path, name), error)
        return found, gone

    def _complain(self, path: bytes, error: OSError) -> None:
        if error.errno in GONE_ERRORS and path != self._scan.root:
            self._scan.vanished.append(path)
        else:
            self._scan.problems.append((path, error.strerror or str(error)))

    def _wanted(self, rows: list[tuple[bytes, os.stat_result]]) -> list[tuple[bytes, os.stat_result]]:
        for name, status in rows if self._scan.options.ignore_files else ():
            if name == IGNORE_FILE and stat.S_ISREG(status.st_mode):
                self._heed(status)
        return [row for row in rows if self._is_wanted(*row)]

    def _heed(self, patterns: os.stat_result) -> None:
        """Take up the ignore file that is here."""
        try:
            file = open_same(self._here, IGNORE_FILE, FILE, patterns)
            try:
                self._ignored = self._ignored.with_file(self.path, b"/proc/self/fd/%d" % file)
            finally:
                os.close(file)
        except OSError as error:
            self._complain(os.path.join(self.path, IGNORE_FILE), error)

    def _is_wanted(self, name: bytes, status: os.stat_result) -> bool:
        options, path = self._scan.options, os.path.join(self.path, name)
        is_directory = stat.S_ISDIR(status.st_mode)
        if options.is_skipped and options.is_skipped(path[len(self._scan.root.rstrip(b"/")) :], is_directory):
            return False
        if self._ignored.verdicts and self._ignored(path, is_directory):
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
        submit = self._scan.hasher.submit
        place = ScannedDirectory(self._anchor.path, self._reach, Inode.of(self._status))
        for (name, status), packed in zip(rows, stats, strict=True):
            seen, number, meta_id = cached.get(name, (b"", 0, 0))
            hit = seen == packed
            if stat.S_ISDIR(status.st_mode):
                scanned.directories[name] = self._child(name, status, MetaId(meta_id) if hit else None)
            elif hit:
                scanned.files[name] = FileId(number)
            else:
                scanned.files[name] = submit(place, name, status, self._recorded(name, status))
            scanned.stats[name] = packed

    def _recorded_itself(self) -> Recorded | None:
        """Return what this directory is to be committed with, if that is not what it has."""
        return None

    def _recorded(self, name: bytes, status: os.stat_result) -> Recorded | None:
        """Return what a file is to be committed with, if that is not what it has."""
        return None

    def _child(self, name: bytes, status: os.stat_result, meta_id: MetaId | None) -> DiskDirectory:
        child = DiskDirectory(self._scan, os.path.join(self.path, name), status, self)
        child._meta_id = meta_id
        return child


class Anchor:
    """A directory held open, from which others are reached, by other processes as well.

    It is closed when no directory below it is left: a directory is kept until its files are hashed.
    """

    __slots__ = ("descriptor", "path")

    def __init__(self, descriptor: int, path: bytes = b"") -> None:
        """*path*: by which other processes reach it, if not by this one's descriptor."""
        self.descriptor = descriptor
        self.path = path or b"/proc/%d/fd/%d" % (os.getpid(), descriptor)

    def __del__(self) -> None:
        os.close(self.descriptor)
