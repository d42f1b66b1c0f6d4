"""The tables of offsets at the end of GVariant's containers: where the members of varying size end.

    container = body, then a table of offsets from the container's start, each as wide as the whole container needs:
                1 byte up to 255 bytes in all, 2 up to 65535, then 4, then 8
    array     an offset for each element, in their order: the last one says where the table begins
    tuple     an offset for each member of varying size but the last member, in reverse order

>>> frame(b"ab", [1, 2]).hex(" ")
'61 62 01 02'
>>> array_ends(frame(b"ab", [1, 2]), 0, 4)
[1, 2]
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from store.errors import FormatError

_OFFSET: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


def frame(body: bytes | bytearray, offsets: Sequence[int]) -> bytes:
    """Return a container: its body, then the table of its offsets."""
    code = _OFFSET[offset_width(len(body), len(offsets))]
    return b"".join((body, struct.pack(f"<{len(offsets)}{code}", *offsets)))


def offset_width(body_size: int, count: int) -> int:
    """Return the bytes of each of *count* offsets behind a body; of a whole container: body_size is all, count is 0."""
    return next((w for w in (1, 2, 4) if body_size + count * w < 1 << 8 * w), 8)


def array_ends(data: bytes, start: int, end: int) -> list[int]:
    """Return where the elements of an array of varying size end, in order; the last is where the table begins."""
    if start == end:
        return []
    width = offset_width(end - start, 0)
    table = start + int.from_bytes(data[end - width : end], "little")
    count, rest = divmod(end - table, width)
    if not start <= table < end or rest or offset_width(table - start, count) != width:
        raise refusal(end - width, "an array's table of offsets is not in normal form")
    ends = [start + offset for offset in struct.unpack_from(f"<{count}{_OFFSET[width]}", data, table)]
    if ends != sorted(ends):
        raise refusal(table, "an array's elements end before they begin")
    return ends


def tuple_ends(data: bytes, start: int, end: int, count: int) -> tuple[list[int], int]:
    """Return where *count* members of a tuple end, the last first, and where the table begins."""
    width = offset_width(end - start, 0)
    table = end - count * width
    if table < start or (count and offset_width(table - start, count) != width):
        raise refusal(end, "a tuple's offsets are not in normal form")
    return [start + offset for offset in struct.unpack_from(f"<{count}{_OFFSET[width]}", data, table)], table


def skip_padding(data: bytes, at: int, alignment: int, limit: int) -> int:
    """Return the first multiple of *alignment* from *at*, which must not be beyond *limit*."""
    aligned = at + -at % alignment
    if aligned > limit or any(data[at:aligned]):
        raise refusal(at, "padding is zero and within its container")
    return aligned


def refusal(at: int, what: str) -> FormatError:
    """Return the error that says what is wrong at byte *at*."""
    return FormatError(f"not a GVariant in normal form: at byte {at}: {what}")
