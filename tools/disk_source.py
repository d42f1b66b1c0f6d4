"""A directory tree on disk as a source: the stat cache, patterns, other file systems, and what changes meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fsview.mountinfo import has_reliable_times
from store.database import Database
from store.objects import DirMeta
from store.schema import FileId, MetaId
from store.statcache import StatRecord, pack_stat, stat_key
from tools.hashing import Hasher, Recorded, found_attributes
from tools.patterns import IGNORE_FILE, IsIgnored, nested
from tools.sources import DiskOptions, Scanned

_TRIES: Final = 3
_GONE: Final = (errno.ENOENT, errno.ENOTDIR)
_REACH_MAX: Final = 3000  # bytes; the kernel takes 4095, of which a name may be 255


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
    changed: list[bytes] = field(default_factory=list)
    _reliable: dict[int, bool] = field(default_factory=dict)

    def uses_cache(self, device: int, path: bytes) -> bool:
        """Whether the stat cache may be used on this device: not on FUSE and network file systems."""
        if device not in self._reliable:
            self._reliable[device] = self.options.stat_cache and has_reliable_times(Path(os.fsdecode(path)))
        return self._reliable[device]


def start_scan(path: Path, options: DiskOptions, database: Database, hasher: Hasher) -> tuple[DiskScan, os.stat_result]:
    """Return what the scan of the directory at *path*, which may be a symlink, shares, and the directory's stat.

    Raises:
        OSError: it is not there, or not a directory.
    """
    real = os.path.realpath(os.fsencode(path), strict=True)
    status = os.stat(real)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    home = database.path.parent.stat()
    return DiskScan(real, status.st_dev, options, database, (home.st_dev, home.st_ino), hasher), status


class DiskDirectory:
    """A directory on disk."""

    __slots__ = ("_anchor", "_ignored", "_meta_id", "_reach", "_scan", "_status", "path")

    def __init__(
        self, scan: DiskScan, path: bytes, status: os.stat_result, parent: DiskDirectory | None = None
    ) -> None:
        """*path* is its name for people; through *parent* it can be reached where that is too long for the kernel."""
        self._scan, self.path, self._status = scan, path, status
        self._meta_id: MetaId | None = None  # the stat cache's
        self._ignored: IsIgnored | None = parent._ignored if parent else None  # by the ignore files above
        self._anchor: _Anchor | None = parent._anchor if parent else None
        self._reach: bytes = os.path.join(parent._reach, os.path.basename(path)) if parent else path

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
        try:
            xattrs = recipe.xattrs_of(self._reach)
        except OSError as error:
            self._complain(self.path, error)
            xattrs = ()
        return recipe.directory(*(self._recorded_itself() or found_attributes(self._status)), xattrs)

    def scan(self) -> Scanned:
        """Return what is in it, and hand what changed to the hasher."""
        scan = self._scan
        if scan.options.one_file_system and self._status.st_dev != scan.device:
            return Scanned(self._status.st_mtime_ns)  # a mount point belongs to the tree, what is mounted doesn't
        entries = self._entries()
        scanned = Scanned(self._status.st_mtime_ns, vanished=entries is None)
        rows = self._wanted(entries or [])
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

    def _entries(self) -> list[tuple[bytes, os.stat_result]] | None:
        """Return name and stat of all entries, sorted by name; None if the directory vanished.

        A directory that changes under our hands is read again: a listing may lack a name that was only moved.
        """
        before = self._status
        for _ in range(_TRIES):
            try:
                if len(self._reach) > _REACH_MAX:
                    self._anchor = _Anchor(self._reach)
                    self._reach = self._anchor.path
                found = self._read()
                after = os.lstat(self._reach)
                if not stat.S_ISDIR(after.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            except OSError as error:
                self._complain(self.path, error)
                return None if error.errno in _GONE else []
            if pack_stat(before) == pack_stat(after):
                return sorted(found)
            self._status = before = after
            self._meta_id = None
        self._scan.changed.append(self.path)
        return sorted(found)

    def _read(self) -> list[tuple[bytes, os.stat_result]]:
        found = []
        with os.scandir(self._reach) as entries:
            for entry in entries:
                try:
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue  # the directory changed, then, and is read again
                except OSError as error:
                    self._complain(os.path.join(self.path, entry.name), error)
        return found

    def _complain(self, path: bytes, error: OSError) -> None:
        if error.errno in _GONE and path != self._scan.root:
            self._scan.vanished.append(path)
        else:
            self._scan.problems.append((path, error.strerror or str(error)))

    def _wanted(self, rows: list[tuple[bytes, os.stat_result]]) -> list[tuple[bytes, os.stat_result]]:
        has_patterns = any(name == IGNORE_FILE and stat.S_ISREG(status.st_mode) for name, status in rows)
        if has_patterns and self._scan.options.ignore_files:
            try:
                self._ignored = nested(self._ignored, self.path, os.path.join(self._reach, IGNORE_FILE))
            except OSError as error:
                self._complain(os.path.join(self.path, IGNORE_FILE), error)
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
        submit, prefix = self._scan.hasher.submit, self._reach + (b"" if self._reach.endswith(b"/") else b"/")
        for (name, status), packed in zip(rows, stats, strict=True):
            seen, number, meta_id = cached.get(name, (b"", 0, 0))
            hit = seen == packed
            if stat.S_ISDIR(status.st_mode):
                scanned.directories[name] = self._child(name, status, MetaId(meta_id) if hit else None)
            elif hit:
                scanned.files[name] = FileId(number)
            else:
                scanned.files[name] = submit(prefix + name, status.st_size, self._recorded(name, status))
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


class _Anchor:
    """A directory held open, because its path is longer than the kernel takes; other processes reach it as well.

    It is closed when no directory below it is left: a directory is kept until its files are hashed.
    """

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: bytes) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.path = b"/proc/%d/fd/%d/." % (os.getpid(), self._descriptor)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
