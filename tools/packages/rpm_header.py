"""A header of rpm's database: name, epoch, version, release and architecture of a package.

    entries u32, data_bytes u32
    entries x (tag u32, type u32, offset u32, count u32)
    data_bytes of data, where each entry's value is at its offset

All numbers are big-endian. See "Header Format" in rpm's manual.
"""

from __future__ import annotations

import struct
from typing import Final

_INTRO: Final = struct.Struct(">II")
_ENTRY: Final = struct.Struct(">IIII")
_U32: Final = struct.Struct(">I")

_ENTRIES_MAX: Final = 65535  # as rpm

_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH = 1000, 1001, 1002, 1003, 1022  # tags
_INT32, _STRING = 4, 6  # types


class Header:
    """What is wanted of a header: "" and 0 stand for what it lacks.

    Raises:
        ValueError: these bytes are none.
    """

    __slots__ = ("architecture", "epoch", "name", "release", "version")

    def __init__(self, blob: bytes) -> None:
        if len(blob) < _INTRO.size:
            raise ValueError(f"a header has {len(blob)} bytes")
        count, data_bytes = _INTRO.unpack_from(blob)
        start = _INTRO.size + count * _ENTRY.size
        if start + data_bytes > len(blob):
            raise ValueError(f"a header of {start + data_bytes} bytes has {len(blob)}")
        if count > _ENTRIES_MAX:
            raise ValueError(f"a header has {count} entries")
        data = blob[start : start + data_bytes]
        entries = _ENTRY.iter_unpack(memoryview(blob)[_INTRO.size : start])
        places = {(tag, kind): offset for tag, kind, offset, _ in entries}
        self.name = _string(data, places.get((_NAME, _STRING)))
        self.version = _string(data, places.get((_VERSION, _STRING)))
        self.release = _string(data, places.get((_RELEASE, _STRING)))
        self.architecture = _string(data, places.get((_ARCH, _STRING)))
        self.epoch = _number(data, places.get((_EPOCH, _INT32)))


def _string(data: bytes, offset: int | None) -> str:
    if offset is None:
        return ""
    end = data.find(b"\0", offset)
    if end < 0:
        raise ValueError(f"a string at {offset} of {len(data)} bytes does not end")
    return data[offset:end].decode("utf-8", "surrogateescape")


def _number(data: bytes, offset: int | None) -> int:
    if offset is None:
        return 0
    if offset + _U32.size > len(data):
        raise ValueError(f"a number at {offset} is beyond the {len(data)} bytes")
    number: int = _U32.unpack_from(data, offset)[0]
    return number
