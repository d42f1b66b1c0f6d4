"""Read, hash and stage the files of a directory tree in several processes.

    hasher.submit(path, size) -> Ticket        collected into batches, which go to the processes of a pool
    ticket.result()           -> Hashed        waits for its batch

A process reads a file, and stages it if the repository doesn't have that object yet (store/stager.py); only the
checksum travels back. A tree with few files starts no process.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from tools.orphans import interrupts_held, leave_signals_to
from tools.recipe import Recipe

_BATCH_FILES: Final = 128
_BATCH_BYTES: Final = 16 << 20
_OUTSTANDING_BATCHES_MAX: Final = 256
_TRIES: Final = 3
_NONE: Final = Checksum(bytes(32))
GONE: Final = "it vanished before it could be read"


class Hashed(NamedTuple):
    """A file as it was read: its checksum, and its stat then. Or why it couldn't be; problem then says so.

    changed: it did not hold still for _TRIES readings; it is stored as it was read last.
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


class _Batch:
    __slots__ = ("bytes", "future", "paths", "recorded", "results")

    def __init__(self) -> None:
        self.paths: list[bytes] = []
        self.recorded: dict[bytes, Recorded] = {}
        self.bytes = 0
        self.future: Future[list[Hashed]] | None = None
        self.results: list[Hashed] | None = None


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

    def submit(self, path: bytes, size: int, recorded: Recorded | None = None) -> Ticket:
        """Hand in a regular file or a symlink of about *size* bytes; *recorded*: with other attributes than it has."""
        batch = self._batch
        batch.paths.append(path)
        if recorded is not None:
            batch.recorded[path] = recorded
        batch.bytes += size
        ticket = Ticket(self, batch, len(batch.paths) - 1)
        if len(batch.paths) >= _BATCH_FILES or batch.bytes >= _BATCH_BYTES:
            self._send(batch)
        return ticket

    def finish(self, batch: _Batch) -> list[Hashed]:
        """Return the results of a batch: from its process, or made here if it was never worth one."""
        if batch is self._batch:
            self._batch = _Batch()
        if batch.future is None:
            self._local = self._local or _Worker(self._job)
            return self._local.run(batch.paths, batch.recorded)
        with _telling_of_death():
            results = batch.future.result()
        self._outstanding -= 1
        batch.future = None
        batch.paths.clear()
        return results

    def _send(self, batch: _Batch) -> None:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes, get_context("fork"), initializer=_start_worker, initargs=(self._job, os.getpid())
            )
        with _telling_of_death(), interrupts_held():  # the first one forks
            batch.future = self._pool.submit(_run_batch, batch.paths, batch.recorded)
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

    def run(self, paths: Iterable[bytes], recorded: Mapping[bytes, Recorded]) -> list[Hashed]:
        """Hash and stage files.

        Raises:
            OSError: the stage can't be written.
        """
        try:
            results = [self._hash(path, recorded.get(path)) for path in paths]
            self._stager.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._job.stage)) from error
        return results

    def close(self) -> None:
        with self._stager, self._repository:
            pass

    def _hash(self, path: bytes, recorded: Recorded | None) -> Hashed:
        try:
            for tries_left in reversed(range(_TRIES)):
                result = self._hash_once(path, recorded, tries_left == 0)
                if result is not None:
                    return result
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # reading never says so: it is the stage that is full
                raise
            gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
            return Hashed(_NONE, b"", problem=GONE if gone else error.strerror or str(error))
        except InvalidNameError as error:
            return Hashed(_NONE, b"", problem=str(error))
        raise AssertionError("the last try gives a result")

    def _hash_once(self, path: bytes, recorded: Recorded | None, is_last: bool) -> Hashed | None:
        """Return the file as it is, or None if it changed under our hands and there is another try."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return self._hash_symlink(path, recorded, is_last)
        try:
            return self._hash_open(file, recorded, is_last)
        finally:
            os.close(file)

    def _hash_symlink(self, path: bytes, recorded: Recorded | None, is_last: bool) -> Hashed | None:
        status, target = os.lstat(path), os.readlink(path)
        xattrs = self._job.recipe.xattrs_of(path)
        packed = pack_stat(status)
        changed = packed != pack_stat(os.lstat(path))
        if changed and not is_last:
            return None
        header = self._job.recipe.file(*(recorded or found_attributes(status)), xattrs, target)
        return Hashed(self._stager.symlink(header, status.st_mtime_ns), packed, changed)

    def _hash_open(self, file: int, recorded: Recorded | None, is_last: bool) -> Hashed | None:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return Hashed(_NONE, b"", problem="it was replaced by something else while it was read")
        xattrs = self._job.recipe.xattrs_of(file)
        header = self._job.recipe.file(*(recorded or found_attributes(status)), xattrs, b"")
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
        return None if checksum is None else Hashed(checksum, packed, changed)


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


def _run_batch(paths: list[bytes], recorded: dict[bytes, Recorded]) -> list[Hashed]:
    assert _worker is not None
    return _worker.run(paths, recorded)
