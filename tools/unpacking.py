"""What is compressed with gzip, bzip2 or xz, read as a stream, in bounded memory and whole.

Not left to tarfile, which doesn't check what the compressor wrote to be checked.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, Final, cast

from store.errors import FormatError
from store.stager import PIECE_BYTES
from tools.render import size_text
from tools.tar_limits import XZ_MEMORY_BYTES_MAX

DAMAGE: Final = (EOFError, zlib.error, lzma.LZMAError)  # what reading may raise, beside OSError without an errno
_XZ_MAGIC: Final = b"\xfd7zXZ\0"


@contextmanager
def unpacked(raw: BinaryIO) -> Iterator[tuple[IO[bytes], bool]]:
    """Open what may be compressed; the second is whether it is."""
    buffered = io.BufferedReader(raw, PIECE_BYTES) if isinstance(raw, io.RawIOBase) else raw
    assert isinstance(buffered, io.BufferedReader)
    magic = buffered.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=buffered) as file:
            yield cast("IO[bytes]", file), True
    elif magic.startswith(b"BZh"):
        with bz2.BZ2File(buffered) as file:
            yield file, True
    elif magic == _XZ_MAGIC:
        with io.BufferedReader(_Xz(buffered), PIECE_BYTES) as file:
            yield file, True
    else:
        yield buffered, False


class _Xz(io.RawIOBase):
    """One or several xz streams. lzma's own reader has no bound for memory: a stream may ask for 4 GiB."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw, self._unused = raw, b""
        self._decompressor: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; 0: that was all."""
        view = memoryview(buffer).cast("B")
        while True:
            if self._decompressor is None or self._decompressor.eof:
                if not self._begin():
                    return 0
                assert self._decompressor is not None
            data = self._decompress(len(view))
            if data:
                view[: len(data)] = data
                return len(data)

    def _begin(self) -> bool:
        """Begin the next stream; return whether there is one. Zeros may stand between and behind them."""
        rest = self._decompressor.unused_data if self._decompressor else b""
        while not (rest := rest.lstrip(b"\0")):
            rest = self._raw.read(PIECE_BYTES)
            if not rest:
                return False
        self._unused = rest
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES_MAX)
        return True

    def _decompress(self, size: int) -> bytes:
        assert self._decompressor is not None
        fed, self._unused = self._unused, b""
        if not fed and self._decompressor.needs_input:
            fed = self._raw.read(PIECE_BYTES)
            if not fed:
                raise EOFError("the compressed stream ends in the middle")
        try:
            return self._decompressor.decompress(fed, size)
        except lzma.LZMAError as error:
            if "limit" not in str(error):
                raise
            raise FormatError(
                f"the tar archive takes more than {size_text(XZ_MEMORY_BYTES_MAX)} of memory to be decompressed; "
                f"if you trust it: xz -dc FILE | fsview commit --tree=tar=-"
            ) from None
