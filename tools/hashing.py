"""Read, hash and stage the files of a directory tree in several processes.

    hasher.submit(directory, name, status) -> Ticket     collected into batches, which go to the processes of a pool
    ticket.result()                        -> Hashed     waits for its batch

A process reads a file, and stages it if the repository doesn't have that object yet (store/stager.py); only the
checksum travels back. A tree with few files starts no process.

Others may write in the tree. A process opens the directory that was scanned below the top of the tree, through no
symlink; if another one is there now its files are gone. Of a file it is told the inode, too.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple, Self

from store.errors import InvalidNameError, SourceError
from store.objects import Checksum
from store.repository import Repository
from store.stager import WHOLE_BYTES_MAX, Stager
from store.statcache import pack_stat
from store.walking.beneath import DIRECTORY, FILE, open_beneath, xattr_path
from tools.orphans import interrupts_held, leave_signals_to
from tools.recipe import Recipe

_BATCH_FILES: Final = 128
_BATCH_BYTES: Final = 16 << 20
_OUTSTANDING_BATCHES_MAX: Final = 256
_TRIES: Final = 3
_NONE: Final = Checksum(bytes(32))
GONE: Final = "it vanished before it could be read"
GONE_ERRORS: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)  # ESTALE: there is another one now


class Hashed(NamedTuple):
    """A file as it was read: its checksum, and its stat then. Or why it couldn't be; problem then says so.

    changed: it did not hold still for _TRIES readings, or another file was there; it is stored as it was read last.
    """

    checksum: Checksum
    stat: bytes
    changed: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """What the processes need to know: where to stage, and how."""

    repository: Path
    stage: Path
    recipe: Recipe


class Recorded(NamedTuple):
    """Owner and mode that a file is to be committed with, where those on disk say something else."""

    uid: int
    gid: int
    mode: int


class Inode(NamedTuple):
    """What tells a file or directory from others, as long as it is there."""

    device: int
    number: int

    @classmethod
    def of(cls, status: os.stat_result) -> Inode:
        """Return that of what has this stat."""
        return cls(status.st_dev, status.st_ino)


class ScannedDirectory(NamedTuple):
    """A directory on disk, for another process: *path* leads there from *base*, which is an absolute path."""

    base: bytes
    path: bytes
    inode: Inode


class Wanted(NamedTuple):
    """A file in a directory; recorded: the attributes to be committed, if not its own."""

    name: bytes
    inode: Inode
    recorded: Recorded | None


Files = list[tuple[ScannedDirectory, list[Wanted]]]


class _Batch:
    __slots__ = ("bytes", "count", "files", "future", "results")

    def __init__(self) -> None:
        self.files: Files = []
        self.count = self.bytes = 0
        self.future: Future[list[Hashed]] | None = None
        self.results: list[Hashed] | None = None

    def add(self, directory: ScannedDirectory, wanted: Wanted, size: int) -> int:
        """Take a file; return its place."""
        if not self.files or self.files[-1][0] is not directory:
            self.files.append((directory, []))
        self.files[-1][1].append(wanted)
        self.bytes += size
        self.count += 1
        return self.count - 1


class Ticket(NamedTuple):
    """The promise of a Hashed."""

    hasher: Hasher
    batch: _Batch
    place: int

    def result(self) -> Hashed:
        """Wait for it.

        Raises:
            SourceError: the processes that hash died.
        """
        if self.batch.results is None:
            self.batch.results = self.hasher.finish(self.batch)
        return self.batch.results[self.place]


class Hasher:
    """Where files are handed in. Use as a context manager."""

    def __init__(self, job: Job, processes: int | None = None) -> None:
        """Hash with so many processes (all cores, at most 8, by default), started when they are needed."""
        self._job = job
        self._processes = processes or min(os.cpu_count() or 1, 8)
        self._pool: ProcessPoolExecutor | None = None
        self._local: _Worker | None = None
        self._batch = _Batch()
        self._outstanding = 0

    @property
    def is_full(self) -> bool:
        """Whether so much is under way that results should be taken before more is handed in."""
        return self._outstanding > _OUTSTANDING_BATCHES_MAX

    def submit(
        self, directory: ScannedDirectory, name: bytes, status: os.stat_result, recorded: Recorded | None = None
    ) -> Ticket:  # fmt: skip
        """Hand in a regular file or a symlink as it was seen; *recorded*: with other attributes than it has."""
        batch = self._batch
        place = batch.add(directory, Wanted(name, Inode.of(status), recorded), status.st_size)
        if batch.count >= _BATCH_FILES or batch.bytes >= _BATCH_BYTES:
            self._send(batch)
        return Ticket(self, batch, place)

    def finish(self, batch: _Batch) -> list[Hashed]:
        """Return the results of a batch: from its process, or made here if it was never worth one."""
        if batch is self._batch:
            self._batch = _Batch()
        if batch.future is None:
            self._local = self._local or _Worker(self._job)
            return self._local.run(batch.files)
        with _telling_of_death():
            results = batch.future.result()
        self._outstanding -= 1
        batch.future = None
        batch.files.clear()
        return results

    def _send(self, batch: _Batch) -> None:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes, get_context("fork"), initializer=_start_worker, initargs=(self._job, os.getpid())
            )
        with _telling_of_death(), interrupts_held():  # the first one forks
            batch.future = self._pool.submit(_run_batch, batch.files)
        self._outstanding += 1
        self._batch = _Batch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            if kind is not None:
                _kill_workers(self._pool)
            self._pool.shutdown(cancel_futures=kind is not None)
        if self._local is not None:
            with suppress(OSError) if kind is not None else nullcontext():  # a full disk was told of already
                self._local.close()


def _kill_workers(pool: ProcessPoolExecutor) -> None:
    """End what nobody waits for any more: a process may have hours to read. (From Python 3.14: pool.kill_workers.)"""
    for process in list((pool._processes or {}).values()):
        process.kill()


@contextmanager
def _telling_of_death() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise SourceError(
            "a process that hashed files was killed (by the kernel, when memory ran out?); "
            "nothing was committed; try again"
        ) from error


class _Worker:
    """The work of one process."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._repository = Repository.open(job.repository)
        self._stager = Stager(self._repository, job.stage, str(os.getpid()))

    def run(self, files: Files) -> list[Hashed]:
        """Hash and stage files.

        Raises:
            OSError: the stage can't be written.
        """
        try:
            results = [result for directory, wanted in files for result in self._in(directory, wanted)]
            self._stager.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._job.stage)) from error
        return results

    def close(self) -> None:
        with self._stager, self._repository:
            pass

    def _in(self, directory: ScannedDirectory, wanted: list[Wanted]) -> list[Hashed]:
        try:
            here = open_scanned(directory)
        except OSError as error:
            return [_problem(error)] * len(wanted)
        try:
            return [self._hash(here, one) for one in wanted]
        finally:
            os.close(here)

    def _hash(self, here: int, wanted: Wanted) -> Hashed:
        try:
            for tries_left in reversed(range(_TRIES)):
                result = self._hash_once(here, wanted, tries_left == 0)
                if result is not None:
                    return result
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # reading never says so: it is the stage that is full
                raise
            return _problem(error)
        except InvalidNameError as error:
            return Hashed(_NONE, b"", problem=str(error))
        raise AssertionError("the last try gives a result")

    def _hash_once(self, here: int, wanted: Wanted, is_last: bool) -> Hashed | None:
        """Return the file as it is, or None if it changed under our hands and there is another try."""
        try:
            file = os.open(wanted.name, FILE, dir_fd=here)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return self._hash_symlink(here, wanted, is_last)
        try:
            return self._hash_open(file, wanted, is_last)
        finally:
            os.close(file)

    def _hash_symlink(self, here: int, wanted: Wanted, is_last: bool) -> Hashed | None:
        name = wanted.name
        status, target = os.stat(name, dir_fd=here, follow_symlinks=False), os.readlink(name, dir_fd=here)
        xattrs = self._job.recipe.xattrs_of(xattr_path(here, name))
        packed = pack_stat(status)
        changed = packed != pack_stat(os.stat(name, dir_fd=here, follow_symlinks=False))
        if changed and not is_last:
            return None
        header = self._job.recipe.file(*(wanted.recorded or found_attributes(status)), xattrs, target)
        is_other = Inode.of(status) != wanted.inode
        return Hashed(self._stager.symlink(header, status.st_mtime_ns), packed, changed or is_other)

    def _hash_open(self, file: int, wanted: Wanted, is_last: bool) -> Hashed | None:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return Hashed(_NONE, b"", problem="it was replaced by something else while it was read")
        xattrs = self._job.recipe.xattrs_of(file)
        header = self._job.recipe.file(*(wanted.recorded or found_attributes(status)), xattrs, b"")
        packed = pack_stat(status)
        changed = False

        def accept(size: int) -> bool:
            nonlocal changed
            changed = size != status.st_size or packed != pack_stat(os.fstat(file))
            return is_last or not changed

        if status.st_size > WHOLE_BYTES_MAX:
            checksum = self._stager.stream(_bounded(file, status.st_size), header, status.st_mtime_ns, accept)
        else:
            data = _read(file, status.st_size)
            checksum = self._stager.whole(data, header, status.st_mtime_ns) if accept(len(data)) else None
        is_other = Inode.of(status) != wanted.inode
        return None if checksum is None else Hashed(checksum, packed, changed or is_other)


def open_scanned(directory: ScannedDirectory) -> int:
    """Open a directory that was scanned, and no other.

    Raises:
        OSError: it is not there any more: another is, or a symlink.
    """
    base = os.open(directory.base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        here = open_beneath(base, directory.path, DIRECTORY)
    finally:
        os.close(base)
    if Inode.of(os.fstat(here)) != directory.inode:
        os.close(here)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), os.fsdecode(directory.path))
    return here


def _problem(error: OSError) -> Hashed:
    return Hashed(_NONE, b"", problem=GONE if error.errno in GONE_ERRORS else error.strerror or str(error))


def found_attributes(status: os.stat_result) -> Recorded:
    """Return owner and mode as they are on disk."""
    return Recorded(status.st_uid, status.st_gid, status.st_mode)


def _read(file: int, size: int) -> bytes:
    """Return *size* bytes, fewer only at the end of the file."""
    data = os.read(file, size)
    if len(data) == size or not data:
        return data
    parts = [data]
    missing = size - len(data)
    while missing and (data := os.read(file, missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def _bounded(file: int, size: int) -> Callable[[int], bytes]:
    """Return what reads *file* up to *size* bytes: one that grows faster than it is read has no end."""
    left = size

    def read(most: int) -> bytes:
        nonlocal left
        data = _read(file, min(most, left))
        left -= len(data)
        return data

    return read


_worker: _Worker | None = None


def _start_worker(job: Job, parent: int) -> None:
    """Begin a process of the pool: it dies with its parent, and leaves Ctrl-C to it."""
    global _worker
    leave_signals_to(parent)
    _worker = _Worker(job)


def _run_batch(files: Files) -> list[Hashed]:
    assert _worker is not None
    return _worker.run(files)
