"""The LMDB environment: many short reads, one write transaction at a time, and a guard on every value.

LMDB has no checksums of its own: a flipped bit in a page makes a wrong value, or a key that is not found any more.
So each value is stored with 8 bytes behind it (see store/schema.py) that are checked at each read, and a record
that must be there, by an id that was given out, is a CorruptionError when it is missing, never a "not found".

The directory of the index is opened once (store/entrance.py), and LMDB, which knows paths only, is led to that one.

An environment is opened to be read, and opened anew at the first write: to open its databases for writing takes the
lock of the writers, and so `fsview log` would wait until a large commit beside it is published.

Rules of LMDB that this module keeps for everybody (lmdb.h, "Caveats"): one environment a process, never used after
a fork, nor closed by the child; no long-lived read transactions; a killed reader's slot is cleared before each write.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal, TypeVar

import lmdb
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from store.errors import AccessError, ConflictError, CorruptionError, FormatError, FsviewError, PrunedError
from store.length import check_length
from store.locking import close_to_others, told_when_long
from store.schema import COUNTED, DATABASES, FIRST_ID, OBJECT_COUNTERS, counter_key, id_key, key_id

Result = TypeVar("Result")

MAP_BYTES: Final = 64 << 30  # address space, not disk; grows by doubling when the index outgrows it
_READERS_MAX: Final = 1024
_GUARD_BYTES: Final = 8
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FULL_BYTES: Final = 1 << 20  # a file system with less space than this is full
_SEEDS: Final = {name: xxh3_64_intdigest(name) for name in DATABASES}

_open: dict[tuple[int, int], Database] = {}  # (device, inode) -> environment


def _drop_inherited() -> None:
    """Let go of what a forked child inherited, without closing it.

    Closing would clear the parent's slots among the readers, and writers would overwrite the pages that it reads. With
    its last reference gone, lmdb forgets the environment, and the child can open its own. So not within a reading.
    """
    for database in _open.values():
        database._handles.clear()
        del database._env
        os.close(database._directory)
    _open.clear()


os.register_at_fork(after_in_child=_drop_inherited)


def guard(table: bytes, key: bytes, value: bytes | memoryview) -> bytes:
    """Return the 8 bytes that stand behind *value*."""
    return xxh3_64_digest(value, xxh3_64_intdigest(key, _SEEDS[table]))


class Reading:
    """A consistent look at the index; its methods are valid until the transaction ends.

    kept is what this process remembers of earlier looks, by whose it is (store/presence.py).
    """

    __slots__ = ("_handles", "_txn", "kept", "where")

    def __init__(
        self,
        txn: lmdb.Transaction[memoryview],
        handles: dict[bytes, lmdb._Database],
        where: str,
        kept: dict[bytes, object],
    ) -> None:
        self._txn, self._handles, self.where, self.kept = txn, handles, where, kept

    @property
    def transaction(self) -> int:
        """The number of the last write that is seen here."""
        return self._txn.id()

    def get(self, table: bytes, key: bytes) -> bytes | None:
        """Return the value of *key*, or None.

        Raises:
            CorruptionError: the value is not what was written.
        """
        stored = self._txn.get(key, db=self._handles[table])
        return None if stored is None else self._checked(table, key, stored)

    def size(self, table: bytes, key: bytes) -> int:
        """Return how many bytes the value of *key* has, 0 if there is none; it is not read."""
        stored = self._txn.get(key, db=self._handles[table])
        return 0 if stored is None else len(stored) - _GUARD_BYTES

    def need(self, table: bytes, key: bytes) -> bytes:
        """Return the value of a key that was given out and therefore must be there.

        Raises:
            CorruptionError: the value is not what was written, or is gone.
            PrunedError: it was deleted by a prune.
        """
        value = self.get(table, key)
        if value is None:
            if self.was_pruned(table, key):
                what = f"{OBJECT_COUNTERS[table]} {key_id(key[:8])}"
                raise PrunedError(f"{what} in {self.where} is not here any more: 'fsview prune' deleted it")
            raise CorruptionError(f"{table.decode()} {key.hex()}", self.where, "a record", "none")
        return value

    def was_pruned(self, table: bytes, key: bytes) -> bool:
        """Whether the object that *key* is of was deleted by a prune."""
        if table not in OBJECT_COUNTERS:
            return False
        from store.pruned import pruned_ids  # seldom needed

        return key_id(key[:8]) in pruned_ids(self, OBJECT_COUNTERS[table])

    def items(self, table: bytes, start: bytes = b"", prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in the order of keys, from *start*, while the keys begin with *prefix*."""
        with self._txn.cursor(self._handles[table]) as cursor:
            if not cursor.set_range(max(start, prefix)):
                return
            for key_view, stored in cursor:
                key = bytes(key_view)
                if not key.startswith(prefix):
                    return
                yield key, self._checked(table, key, stored)

    def keys_backwards(self, table: bytes, prefix: bytes) -> Iterator[bytes]:
        """Yield the keys that begin with *prefix*, the last first."""
        with self._txn.cursor(self._handles[table]) as cursor:
            # No key of ours ends in as many 0xff bytes, so this is just behind the last one.
            found = cursor.prev() if cursor.set_range(prefix + b"\xff" * 16) else cursor.last()
            while found and bytes(cursor.key()).startswith(prefix):
                yield bytes(cursor.key())
                found = cursor.prev()

    def count(self, table: bytes) -> int:
        """Return the number of records in *table*."""
        return self._txn.stat(self._handles[table])["entries"]

    def counter(self, name: str) -> int:
        """Return the next id that *name* would give out: all below it, from FIRST_ID, were given.

        Raises:
            CorruptionError: it is missing, and ids were given out: the first one would be given out a second time.
        """
        key = counter_key(name)
        value = self.get(b"head", key)
        if value is not None:
            return key_id(value)
        if name in COUNTED and self.count(COUNTED[name]):
            raise CorruptionError(f"head {key.hex()}", self.where, "the next id", "none")
        return FIRST_ID

    def _checked(self, table: bytes, key: bytes, stored: memoryview) -> bytes:
        value = bytes(stored[:-_GUARD_BYTES])
        if stored[-_GUARD_BYTES:] != guard(table, key, value):
            raise CorruptionError(
                f"{table.decode()} {key.hex()}", self.where, "the guard written with it", "other bytes"
            )
        return value


class Writing(Reading):
    """The one write transaction: everything in it becomes visible and durable together, or not at all.

    settle_s is how long readers may go on believing what they saw before; `Database.write` waits it out.
    """

    __slots__ = ("settle_s",)

    def __init__(self, txn: lmdb.Transaction[memoryview], handles: dict[bytes, lmdb._Database], where: str) -> None:
        super().__init__(txn, handles, where, {})
        self.settle_s = 0.0

    def put(self, table: bytes, key: bytes, value: bytes, *, append: bool = False) -> None:
        """Store *value*; with *append*, *key* is greater than all others in *table* (faster, denser)."""
        stored = value + guard(table, key, value)
        if not self._txn.put(key, stored, db=self._handles[table], append=append):
            raise AssertionError(f"{table!r} {key!r} is not behind the last key")

    def delete(self, table: bytes, key: bytes) -> None:
        """Remove *key*, if it is there."""
        self._txn.delete(key, db=self._handles[table])

    def set_counter(self, name: str, value: int) -> None:
        """Say that every id below *value* was given out."""
        self.put(b"head", counter_key(name), id_key(value))

    def take_id(self, name: str) -> int:
        """Return a new id of the counter *name*, never given out before."""
        number = self.counter(name)
        self.set_counter(name, number + 1)
        return number


class Database:
    """The open environment of one repository in this process."""

    def __init__(
        self, env: lmdb.Environment, handles: dict[bytes, lmdb._Database], path: Path, directory: int
    ) -> None:  # fmt: skip
        """Use Database.open: a second environment on one file in one process breaks LMDB's locks."""
        self._env, self._handles, self.path, self._directory = env, handles, path, directory
        self._key = (0, 0)
        self._is_writable = False
        self._users = 1
        self._readings = 0
        self._kept: dict[bytes, object] = {}

    @classmethod
    def create(cls, path: Path, *, map_bytes: int = MAP_BYTES) -> Database:
        """Make an empty index in the directory *path* and open it."""
        path.mkdir(mode=0o700, exist_ok=True)
        return cls._open(path, os.open(path, _DIRECTORY), map_bytes, create=True)

    @classmethod
    def open(cls, path: Path, *, descriptor: int | None = None, map_bytes: int = MAP_BYTES) -> Database:
        """Open the index in the directory *path*; the same object again if this process has it open.

        *descriptor* is of that directory, where somebody has looked at it; it is taken over.

        Raises:
            FormatError: no index there, or one that LMDB or this program can't read.
            CorruptionError: it was cut off.
            AccessError: the index can't be reached, or its lock file not be written, by this user.
        """
        directory = os.open(path, _DIRECTORY) if descriptor is None else descriptor
        return cls._open(path, directory, map_bytes, create=False)

    @classmethod
    def _open(cls, path: Path, directory: int, map_bytes: int, *, create: bool) -> Database:
        with ExitStack() as stack:
            stack.callback(os.close, directory)
            status = os.fstat(directory)
            key = (status.st_dev, status.st_ino)
            if key in _open:
                _open[key]._users += 1
                return _open[key]
            inside = _inside(path, directory)
            if not create:
                _check_files(path, inside)
                check_length(inside, path)
            if (inside / "lock.mdb").exists():
                close_to_others(inside / "lock.mdb")
            env, handles = _environment(path, inside, map_bytes, "create" if create else "read")
            database = cls(env, handles, path, directory)
            database._key, database._is_writable = key, create
            _open[key] = database
            stack.pop_all()
            return database

    def close(self) -> None:
        """Give the environment back; the last user closes it."""
        self._users -= 1
        if self._users == 0:
            _open.pop(self._key, None)
            self._env.close()
            os.close(self._directory)

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """Look at the index as it is now. Keep it short: what is deleted meanwhile can't be reused."""
        try:
            txn = self._begin_read()
        except lmdb.Error as error:
            raise _translated(error, self.path) from error
        self._readings += 1
        reading = Reading(txn, self._handles, str(self.path), self._kept)
        try:
            yield reading
        except lmdb.Error as error:
            raise _translated(error, self.path) from error
        finally:
            self._readings -= 1
            txn.abort()
            del reading._txn  # whoever still has it would keep the environment alive in a child

    def last_change(self) -> int:
        """Return a number that is another one after each write, by whichever process: a fraction of what a look costs.

        LMDB's transaction id: that of the write that this reader would see.
        """
        try:
            txn = self._begin_read()
            try:
                return txn.id()
            finally:
                txn.abort()
        except lmdb.Error as error:
            raise _translated(error, self.path) from error

    def write(self, body: Callable[[Writing], Result]) -> Result:
        """Run *body* in the write transaction and commit it: LMDB's switch of its meta page is the atomic step.

        *body* may be run again from the start when the map has to grow, so its effects outside must bear that.
        Nothing in this process may be reading.
        """
        self._make_writable()
        while True:
            try:
                # A reader that was killed holds pages for good, and the file grows without bound, until it is cleared.
                self._env.reader_check()
                with self._begin_write() as txn:
                    writing = Writing(txn, self._handles, str(self.path))
                    try:
                        result = body(writing)
                    finally:
                        del writing._txn
                time.sleep(writing.settle_s)
                return result
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()["map_size"])
            except lmdb.MapResizedError:
                self._env.set_mapsize(0)
            except lmdb.Error as error:
                raise _translated(error, self.path) from error

    def _make_writable(self) -> None:
        """Open the environment anew, to be written, unless it is so or this user may not: to begin will tell."""
        inside = _inside(self.path, self._directory)
        if self._is_writable or not os.access(inside / "data.mdb", os.W_OK):
            return
        assert not self._readings, "a reading in this process would lose its ground"
        map_bytes = self._env.info()["map_size"]
        self._env.close()
        with told_when_long(self._waiting_text):
            self._env, self._handles = _environment(self.path, inside, map_bytes, "write")
        self._is_writable = True

    def _begin_write(self) -> lmdb.Transaction[memoryview]:
        with told_when_long(self._waiting_text):
            return self._env.begin(write=True, buffers=True)

    def _waiting_text(self) -> str:
        return f"waiting for another command, which is writing to {self.path}"

    def _begin_read(self) -> lmdb.Transaction[memoryview]:
        try:
            return self._env.begin(buffers=True)
        except lmdb.MapResizedError:  # another process made the map larger
            if self._readings:  # to map it anew would pull the ground from under them
                raise ConflictError(f"{self.path} grew while it was read; try again") from None
            self._env.set_mapsize(0)
            return self._env.begin(buffers=True)


def _inside(path: Path, directory: int) -> Path:
    """Return a path to this very directory, whatever has become of *path*; that where /proc is missing."""
    inside = Path(f"/proc/self/fd/{directory}")
    return inside if inside.exists() else path


def _check_files(path: Path, inside: Path) -> None:
    """Refuse an index that this user can't read: LMDB has fewer words for it. *path* is how errors call it."""
    data, lock = inside / "data.mdb", inside / "lock.mdb"
    if not os.access(inside, os.X_OK):
        raise AccessError(f"{path} is not open to this user; run fsview as the owner of the repository")
    if not data.exists():
        raise FormatError(f"{path} has no data.mdb: this is no fsview repository, or its index was removed")
    if not os.access(lock if lock.exists() else inside, os.W_OK):
        raise AccessError(
            f"{path / 'lock.mdb'} can't be written: readers, too, register in it; "
            f'let your group in (shared = "group" in fsview.toml), or run fsview as the owner of the repository'
        )


def _environment(
    path: Path, inside: Path, map_bytes: int, purpose: Literal["read", "write", "create"]
) -> tuple[lmdb.Environment, dict[bytes, lmdb._Database]]:
    """Open the environment and its databases. Whoever opens it to be read doesn't wait for a writer."""
    create = purpose == "create"
    try:
        env = lmdb.open(
            str(inside), map_size=map_bytes, readonly=purpose == "read", max_dbs=len(DATABASES),
            max_readers=_READERS_MAX, mode=0o600, create=create,
        )  # fmt: skip
    except lmdb.Error as error:
        raise _translated(error, path) from error
    try:
        if purpose == "read":
            return env, {name: env.open_db(name, create=False) for name in DATABASES}
        with env.begin(write=True) as txn:  # open_db's own would stop all threads of this process while it waits
            return env, {name: env.open_db(name, txn, create=create) for name in DATABASES}
    except lmdb.Error as error:
        env.close()
        raise _translated(error, path) from error


def _translated(error: lmdb.Error, path: Path) -> Exception:
    """Return what *error* means to a user."""
    text = str(error)
    if os.strerror(errno.EIO) in text and _is_full(path):  # LMDB's word for a write that the disk cut short
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path / "data.mdb"))
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number), str(path / "data.mdb"))
    if isinstance(error, (lmdb.VersionMismatchError, lmdb.InvalidError)):
        return FormatError(f"{path / 'data.mdb'} is not an index that this program can read: {text}")
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.NotFoundError)):
        return CorruptionError("the index", str(path / "data.mdb"), "sound pages", text)
    if isinstance(error, lmdb.ReadonlyError):
        return FsviewError(f"{path / 'data.mdb'} can't be written by this user: {text}")
    return FsviewError(f"{path / 'data.mdb'}: {text}")


def _is_full(path: Path) -> bool:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize < _FULL_BYTES
