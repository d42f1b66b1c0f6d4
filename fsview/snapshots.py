"""What a file that changes held when it was opened, so that reading it piece by piece gives one whole.

The next piece may be asked of another worker, so snapshots are in memory that all of them share: a ring of slots, made
before the fork. A handle has the slot and a random mark that the slot must still have. Who keeps such a file open while
as many others are opened as there are slots is told that it is gone. What is larger than a slot has no snapshot.

    slot    mark u64, length u64, bytes, mark u64
    handle  11 | 10 | 1111 | 8: slot | 48: mark     a number that no node has (fsview/nodeid.py)
"""

from __future__ import annotations

import secrets
import struct
from mmap import mmap
from typing import Final

from fsview.nodeid import StaleNodeError

_SLOTS: Final = 64
_SLOT_BYTES: Final = 1 << 16
_U64: Final = struct.Struct("=Q")
_HEADER: Final = struct.Struct("=QQ")
_ROOM: Final = _SLOT_BYTES - _HEADER.size - _U64.size
_MARK_BITS: Final = 48
_TAG: Final = 0b11_10_1111
_TAG_AT: Final = 56


class Snapshots:
    """The snapshots of all workers."""

    def __init__(self) -> None:
        self._memory = mmap(-1, _SLOTS * _SLOT_BYTES)
        self._next: int | None = None

    def keep(self, data: bytes) -> int | None:
        """Return a handle to *data*, or None: it is too large."""
        if len(data) > _ROOM:
            return None
        slot = secrets.randbelow(_SLOTS) if self._next is None else self._next  # workers begin at different ones
        self._next = (slot + 1) % _SLOTS
        mark, at = secrets.randbits(_MARK_BITS), slot * _SLOT_BYTES
        _U64.pack_into(self._memory, at, 0)
        end = at + _HEADER.size + len(data)
        self._memory[at + _HEADER.size : end] = data
        _U64.pack_into(self._memory, end, mark)
        _HEADER.pack_into(self._memory, at, mark, len(data))
        return _TAG << _TAG_AT | slot << _MARK_BITS | mark

    def get(self, handle: int) -> bytes:
        """Return what was kept.

        Raises:
            StaleNodeError: its slot was needed.
        """
        slot, mark = handle >> _MARK_BITS & 0xFF, handle & (1 << _MARK_BITS) - 1
        at = slot % _SLOTS * _SLOT_BYTES
        found, length = _HEADER.unpack_from(self._memory, at)
        end = at + _HEADER.size + min(length, _ROOM)
        data = bytes(self._memory[at + _HEADER.size : end])
        marks = found, _U64.unpack_from(self._memory, end)[0], _U64.unpack_from(self._memory, at)[0]
        if marks != (mark, mark, mark):
            raise StaleNodeError(handle)
        return data


def is_snapshot(handle: int) -> bool:
    """Whether a handle is one of these, not a node number."""
    return handle >> _TAG_AT == _TAG
