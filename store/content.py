"""Read the bytes of a file object, each block checked against its XXH3.

A block that is not what was written is an error, never wrong bytes; the blocks beside it can still be read. A read
returns every byte that was asked for up to the file's size, or raises: the kernel takes a short reply for the end.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from xxhash import xxh3_64_intdigest

from store.database import Database, Reading
from store.errors import CorruptionError, PrunedError
from store.objects import FileHeader
from store.parsing import parsed
from store.repository import Repository
from store.schema import BLOCK_BYTES, BLOCKS_PER_GROUP, FileId, FileRecord, Storage, blocks_key, id_key

_LOOSE: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO there is no reason to wait
CHUNK_BYTES: Final = 1 << 20  # what whole-file readers take at a time: a multiple of BLOCK_BYTES
assert CHUNK_BYTES % BLOCK_BYTES == 0


class Content(Protocol):
    """The bytes of one file object."""

    def read(self, offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset*, fewer only at the end.

        Raises:
            CorruptionError: a block in this range is damaged.
        """

    def close(self) -> None:
        """Release what the reading needed."""


def file_record(reading: Reading, file_id: FileId) -> FileRecord:
    """Return the record of a file object."""
    return parsed(f"file {file_id}", reading.where, reading.need(b"file", id_key(file_id)), FileRecord.unpack)


def file_header(record: FileRecord) -> FileHeader:
    """Return the owner, mode, xattrs and symlink target of a file object."""
    return FileHeader.from_bytes(record.header)


def open_content(repository: Repository, reading: Reading, file_id: FileId) -> Content:
    """Return the contents of a file object; close them.

    Raises:
        CorruptionError: the loose file is not there, or is not as long as it should be.
        PrunedError: it was deleted by a prune.
    """
    record = file_record(reading, file_id)
    if record.storage == Storage.INLINE:
        return _Inline(reading.need(b"content", id_key(file_id)))
    if record.storage == Storage.EMPTY:
        return _Inline(b"")
    return _Loose(repository.loose_path(record.checksum), repository.database, file_id, record.size)


def certify(repository: Repository, reading: Reading, file_id: FileId, on_progress: Callable[[], None]) -> None:
    """Read a whole file object and compare its sha256 with its name; *on_progress* is called for each chunk.

    Raises:
        CorruptionError: it is another, or a block is damaged.
    """
    record = file_record(reading, file_id)
    hasher = sha256(record.header)
    for data in chunks(repository, reading, file_id):
        hasher.update(data)
        on_progress()
    if hasher.digest() != record.checksum:
        is_loose = record.storage == Storage.LOOSE
        where = repository.loose_path(record.checksum) if is_loose else repository.database.path
        raise CorruptionError("a file object", str(where), f"sha256 {record.checksum.hex()}", hasher.hexdigest())


def chunks(repository: Repository, reading: Reading, file_id: FileId) -> Iterator[bytes]:
    """Yield the contents of a file object in order, at most CHUNK_BYTES at a time."""
    content = open_content(repository, reading, file_id)
    try:
        offset = 0
        while data := content.read(offset, CHUNK_BYTES):
            yield data
            offset += len(data)
    finally:
        content.close()


class _Inline:
    """Contents that are a value of the index, which its guard covered when it was read."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def close(self) -> None:
        pass


class _Loose:
    """Contents that are a file of their own."""

    __slots__ = ("_database", "_file", "_file_id", "_group", "_guards", "_path", "_size")

    def __init__(self, path: Path, database: Database, file_id: FileId, size: int) -> None:
        self._path, self._database, self._file_id, self._size = path, database, file_id, size
        self._group, self._guards = -1, b""
        try:
            self._file = os.open(path, _LOOSE)
        except FileNotFoundError:
            with database.reading() as reading:  # begun now: first the record may have gone, then the file
                if reading.was_pruned(b"file", id_key(file_id)):
                    raise PrunedError(f"{path} is not here any more: 'fsview prune' deleted it") from None
            raise CorruptionError("a file object", str(path), "a loose file", "none") from None
        found = os.fstat(self._file).st_size
        if found != size:
            os.close(self._file)
            raise CorruptionError("a file object", str(path), f"{size} bytes", f"{found} bytes")

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self._size)
        if offset >= end:
            return b""
        first, last = offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        start = first * BLOCK_BYTES
        data = os.pread(self._file, min((last + 1) * BLOCK_BYTES, self._size) - start, start)
        view = memoryview(data)
        for block in range(first, last + 1):
            at = (block - first) * BLOCK_BYTES
            self._check(block, view[at : at + BLOCK_BYTES])
        return data if len(data) == end - offset and start == offset else bytes(view[offset - start : end - start])

    def close(self) -> None:
        os.close(self._file)

    def _check(self, block: int, data: memoryview) -> None:
        group, index = divmod(block, BLOCKS_PER_GROUP)
        if group != self._group:
            with self._database.reading() as reading:
                self._guards = reading.need(b"blocks", blocks_key(self._file_id, group))
            self._group = group
        guards = f"the guards of file {self._file_id}"
        expected: int = parsed(
            guards, str(self._path), self._guards, lambda data: _GUARD.unpack_from(data, index * _GUARD.size)[0]
        )
        found = xxh3_64_intdigest(data)
        if found != expected:
            where = f"{self._path}, bytes {block * BLOCK_BYTES} to {block * BLOCK_BYTES + len(data)}"
            raise CorruptionError("a block of a file object", where, f"XXH3 {expected:016x}", f"{found:016x}")


_GUARD = struct.Struct(">Q")


def pack_guards(data: bytes | memoryview) -> bytes:
    """Return the guards of *data*, which starts on a block's border: 8 bytes a block."""
    view = memoryview(data)
    return b"".join(
        _GUARD.pack(xxh3_64_intdigest(view[at : at + BLOCK_BYTES])) for at in range(0, len(view), BLOCK_BYTES)
    )
