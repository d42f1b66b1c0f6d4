"""Staging: what a commit under way has found, on disk but outside the index, until it is published.

    REPO/tmp/stage-…/lock       held by the process that owns the stage; a stage nobody holds is a leftover
    REPO/tmp/stage-…/files.N    spool of file objects, one for each process that hashes
    REPO/tmp/stage-…/trees      spool of dirtrees, children before parents
    REPO/tmp/stage-…/loose/     contents too large for the index, named CHECKSUM.N

Spools keep memory bounded while a tree of any size is committed, and let publishing start over. Nothing here is
seen by anybody else: a writer never adopts another's unpublished files, which may not be durable.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, Self

from store.entrance import make_directory
from store.errors import FsviewError
from store.objects import Checksum
from store.repository import Repository
from store.schema import Storage
from store.walking.remove import remove_tree

_LENGTH = struct.Struct(">I")
_FILE = struct.Struct(">32sQqB16sI")
_TREE = struct.Struct(">32sqI16s")
_SPOOL_BUFFER: Final = 1 << 20
FSYNC_EACH_MAX: Final = 16  # up to so many loose files are synced one by one, more with the file system as a whole
NO_CONTENT_KEY: Final = bytes(16)
NO_STAT_KEY: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file object that may be new.

    content_key is a keyed hash of the contents (zero for symlinks, whose mtime follows no rule); payload is the
    contents (INLINE) or the guards of their blocks (LOOSE); spool is the number of the file it was read from.
    """

    checksum: Checksum
    size: int
    mtime_ns: int
    storage: Storage
    content_key: bytes
    header: bytes
    payload: bytes
    spool: str = ""


@dataclass(frozen=True, slots=True)
class StagedTree:
    """A dirtree that may be new, and what the stat cache is to remember of its directory.

    stat_key is NO_STAT_KEY where it is to remember nothing; stats are packed stats of the entries, in their order,
    zeros for one that is racy.
    """

    checksum: Checksum
    mtime_ns: int
    raw: bytes
    stat_key: bytes = NO_STAT_KEY
    stats: bytes = b""


class FileSpool:
    """Where one process puts the file objects that it makes."""

    def __init__(self, stage: Path, number: str) -> None:
        """Begin the spool *number* of the stage."""
        self._stage, self._number = stage, number
        self._file = (stage / f"files.{number}").open("ab", buffering=_SPOOL_BUFFER)

    def add(self, staged: StagedFile) -> None:
        """Append a file object; its loose contents, if any, must be at loose_path already."""
        fixed = _FILE.pack(
            staged.checksum, staged.size, staged.mtime_ns, staged.storage, staged.content_key, len(staged.header)
        )
        body = fixed + staged.header + staged.payload
        self._file.write(_LENGTH.pack(len(body)) + body)

    def loose_path(self, name: str) -> Path:
        """Return the path for loose contents; *name* is the checksum in hex, or anything else until it is known."""
        return self._stage / "loose" / f"{name}.{self._number}"

    def flush(self) -> None:
        """Let other processes read what was added."""
        self._file.flush()

    def close(self) -> None:
        """Flush, and give the file back."""
        self._file.close()


class Stage:
    """The staging directory of one commit under way."""

    def __init__(self, repository: Repository) -> None:
        """Make a new stage, after sweeping those whose owner died."""
        with _tmp_lock(repository), ExitStack() as stack:
            _sweep(repository)
            modes = repository.settings.modes
            self.path = Path(tempfile.mkdtemp(prefix="stage-", dir=repository.path / "tmp"))
            self._lock = -1
            stack.callback(self._remove)
            lock = _try_lock(self.path)
            assert lock is not None, "whoever sweeps waits for the lock of tmp/"
            self._lock = lock
            os.fchmod(lock, modes.file)
            os.chmod(self.path, modes.directory)
            make_directory(self.path / "loose", modes)
            self._trees = (self.path / "trees").open("ab", buffering=_SPOOL_BUFFER)
            self._leaving = stack.pop_all()

    def add_tree(self, staged: StagedTree) -> None:
        """Append a dirtree, after those that it names."""
        fixed = _TREE.pack(staged.checksum, staged.mtime_ns, len(staged.raw), staged.stat_key)
        body = fixed + staged.raw + staged.stats
        self._trees.write(_LENGTH.pack(len(body)) + body)

    def files(self) -> Iterator[StagedFile]:
        """Yield the file objects of all spools."""
        for path in sorted(self.path.glob("files.*")):
            number = path.name.partition(".")[2]
            with path.open("rb", buffering=_SPOOL_BUFFER) as file:
                for body in _records(file):
                    checksum, size, mtime_ns, storage, content_key, header_bytes = _FILE.unpack_from(body)
                    split = _FILE.size + header_bytes
                    header, payload = body[_FILE.size : split], body[split:]
                    yield StagedFile(checksum, size, mtime_ns, Storage(storage), content_key, header, payload, number)

    def trees(self) -> Iterator[StagedTree]:
        """Yield the dirtrees, children before parents."""
        self._trees.flush()
        with (self.path / "trees").open("rb", buffering=_SPOOL_BUFFER) as file:
            for body in _records(file):
                checksum, mtime_ns, raw_bytes, stat_key = _TREE.unpack_from(body)
                split = _TREE.size + raw_bytes
                yield StagedTree(checksum, mtime_ns, body[_TREE.size : split], stat_key, body[split:])

    def loose_path(self, staged: StagedFile) -> Path:
        """Return where the loose contents of *staged* are."""
        return self.path / "loose" / f"{staged.checksum.hex()}.{staged.spool}"

    def sync(self, report: Callable[[int], None] = lambda done: None) -> None:
        """Make all loose contents durable; *report* hears of each step."""
        with os.scandir(self.path / "loose") as entries:
            paths = [Path(entry.path) for entry in islice(entries, FSYNC_EACH_MAX + 1)]
        if len(paths) > FSYNC_EACH_MAX:
            self.sync_filesystem()
            report(1)
            return
        for done, path in enumerate(paths, 1):
            sync_path(path)
            report(done)

    def sync_filesystem(self) -> None:
        """Make everything on the repository's file system durable: syncfs(2), which the os module lacks.

        The lock's descriptor is as old as the stage, so it is told of every write that failed since the stage began.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(self._lock) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the stage: what was published has left it."""
        with self._leaving, suppress(OSError):  # on a full disk the buffer's rest can't be written; nobody wants it
            self._trees.close()

    def _remove(self) -> None:
        with suppress(OSError, FsviewError):  # the next writer sweeps it
            remove_tree(self.path)
        if self._lock >= 0:
            os.close(self._lock)


def sync_path(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(repository: Repository) -> None:
    """Remove the stages of processes that died; the caller holds the lock of tmp/."""
    for path in (repository.path / "tmp").glob("stage-*"):
        lock = _try_lock(path)
        if lock is not None:
            with suppress(OSError, FsviewError):
                remove_tree(path)
            os.close(lock)


@contextmanager
def _tmp_lock(repository: Repository) -> Iterator[None]:
    """Hold the lock of tmp/, so that nobody sweeps a new stage before its owner has locked it."""
    descriptor = os.open(repository.path / "tmp", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_lock(stage: Path) -> int | None:
    """Lock a stage and return the descriptor, or None if a living process has it."""
    with suppress(FileNotFoundError, PermissionError):  # of another member, who has just begun
        descriptor = os.open(stage / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def _records(file: BinaryIO) -> Iterator[bytes]:
    while prefix := file.read(_LENGTH.size):
        length: int = _LENGTH.unpack(prefix)[0]
        body = file.read(length)
        assert len(body) == length, f"{file.name} ends in the middle of a record"
        yield body
