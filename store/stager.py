"""Make file objects: hash contents, and stage those that the repository doesn't have yet.

One Stager for each process; it looks into the index, but only its spool and its loose files are written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from xxhash import xxh3_64_intdigest, xxh3_128, xxh3_128_digest

from store.content import pack_guards
from store.loose import Dress, published_as, put_on
from store.mtimes import limit_mtime
from store.object_rules import check_target_size
from store.objects import Checksum, FileHeader
from store.repository import Repository
from store.schema import BLOCK_BYTES, INLINE_BYTES_MAX, Storage
from store.staging import NO_CONTENT_KEY, FileSpool, StagedFile

_STAGED_MAX: Final = 1 << 18  # some 30 MB
WHOLE_BYTES_MAX: Final = 8 << 20  # longer contents should come as a stream
PIECE_BYTES: Final = 8 * BLOCK_BYTES


class Stager:
    """Stages file objects into the stage at *stage*, through the spool *number*. Use as a context manager."""

    def __init__(self, repository: Repository, stage: Path, number: str) -> None:
        """Begin a spool."""
        self._repository, self._shared = repository, repository.settings.is_shared
        self._spool = FileSpool(stage, number)
        self._seed = xxh3_64_intdigest(repository.secret)
        self._staged: set[Checksum] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def flush(self) -> None:
        """Let the process that publishes see what was staged."""
        self._spool.flush()

    def symlink(self, header: FileHeader, mtime_ns: int) -> Checksum:
        """Stage a symlink."""
        check_target_size(header.symlink_target)
        checksum = Checksum(header.hasher().digest())
        if self._is_new(checksum):
            self._add(header, checksum, len(header.symlink_target), mtime_ns, Storage.EMPTY, NO_CONTENT_KEY, b"")
        return checksum

    def whole(self, data: bytes, header: FileHeader, mtime_ns: int) -> Checksum:
        """Stage a regular file with the contents *data*."""
        hasher = header.hasher()
        hasher.update(data)
        checksum = Checksum(hasher.digest())
        if not self._is_new(checksum):
            return checksum
        storage, payload = Storage.INLINE if data else Storage.EMPTY, data
        if len(data) > INLINE_BYTES_MAX:
            storage, payload = Storage.LOOSE, pack_guards(data)
            with _Loose(self._spool.loose_path(checksum.hex())) as loose:
                loose.write(data)
                loose.dress(published_as(header, shared=self._shared, uid=os.geteuid()))
        key = xxh3_128_digest(data, self._seed)
        self._add(header, checksum, len(data), mtime_ns, storage, key, payload)
        return checksum

    def stream(
        self, read: Callable[[int], bytes], header: FileHeader, mtime_ns: int, accept: Callable[[int], bool]
    ) -> Checksum | None:
        """Stage a regular file whose contents *read* gives, PIECE_BYTES at a time, until it gives fewer.

        At the end *accept* is asked with the number of bytes; if it says no, nothing is staged and None comes back.
        """
        path, guards = self._spool.loose_path("unnamed"), []
        hasher, content, size = header.hasher(), xxh3_128(seed=self._seed), 0
        with _Loose(path) as loose:
            while data := read(PIECE_BYTES):
                hasher.update(data)
                content.update(data)
                guards.append(pack_guards(data))
                loose.write(data)
                size += len(data)
                if len(data) < PIECE_BYTES:  # not to be asked again: a file that grows would give more, off the blocks
                    break
            loose.dress(published_as(header, shared=self._shared, uid=os.geteuid()))
        checksum = Checksum(hasher.digest())
        accepted = accept(size)
        if accepted and self._is_new(checksum):
            path.rename(self._spool.loose_path(checksum.hex()))
            payload = b"".join(guards)
            self._add(header, checksum, size, mtime_ns, Storage.LOOSE, content.digest(), payload)
        else:
            path.unlink()
        return checksum if accepted else None

    def _is_new(self, checksum: Checksum) -> bool:
        """Whether neither the repository nor this stager has the object; marks it as staged.

        Of very many it forgets some: an object that is staged twice is published once.
        """
        if checksum in self._staged:
            return False
        with self._repository.database.reading() as reading:
            if reading.get(b"object", b"\x01" + checksum) is not None:
                return False
        if len(self._staged) >= _STAGED_MAX:
            self._staged.clear()
        self._staged.add(checksum)
        return True

    def _add(
        self,
        header: FileHeader,
        checksum: Checksum,
        size: int,
        mtime_ns: int,
        storage: Storage,
        key: bytes,
        data: bytes,
    ) -> None:
        self._spool.add(StagedFile(checksum, size, limit_mtime(mtime_ns), storage, key, header.to_bytes(), data))


class _Loose:
    """A loose file being written."""

    def __init__(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)  # the same, staged before: its mode may bar writing
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def dress(self, dress: Dress) -> None:
        put_on(self._file, dress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
