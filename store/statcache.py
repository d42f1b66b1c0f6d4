"""What the last scan of a directory saw, so that an unchanged file isn't read again.

One record a directory of a source tree (database "stat"):

    key     blake2b-128 of the directory's absolute path, NUL, and the options that shape its objects
    value   tree id u64, count u32
            count stats        device, inode, mode, uid, gid, size, mtime_ns, ctime_ns
            count ids          file id, or tree id; dirmeta id, or 0. Both 0: don't use this entry
            names              sorted, joined by NUL

A file is taken as unchanged when all eight numbers of its stat are the same. That is not enough if it was written in
the same moment as it was scanned, when its times couldn't change any more (git calls such an entry racy): an entry
whose change time is not RACY_NS before the scan that saw it has no ids.

Its limits: a clock that was set back, and a write through mmap whose times the kernel has not yet updated. The caller
uses it only where the ctime can be relied on: `fsview.mountinfo.has_reliable_times`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Self

RACY_NS: Final = 2 * 10**9  # the coarsest times in use: FAT's
STAT: Final = struct.Struct(">QQIIIQQQ")
_U64_MAX: Final = 2**64 - 1  # times are cut to it: 64 bits of nanoseconds end in 2262, file systems later
IDS: Final = struct.Struct(">QQ")
_HEADER = struct.Struct(">QI")
assert (STAT.size, IDS.size) == (52, 16)


def stat_key(directory: bytes, options: bytes) -> bytes:
    """Return the key of a directory's record."""
    return blake2b(directory + b"\0" + options, digest_size=16).digest()


def pack_stat(status: os.stat_result) -> bytes:
    """Return the eight numbers that tell whether a file changed."""
    return STAT.pack(
        status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid,
        status.st_size, status.st_mtime_ns & _U64_MAX, status.st_ctime_ns & _U64_MAX,
    )  # fmt: skip


def is_racy(packed: bytes, scan_ns: int) -> bool:
    """Whether a file with this stat may have changed after the scan that began at *scan_ns* without a trace."""
    ctime_ns: int = STAT.unpack(packed)[7]
    return ctime_ns > scan_ns - RACY_NS


@dataclass(frozen=True, slots=True)
class StatRecord:
    """What a scan saw of one directory; stats and ids have one fixed record for each name."""

    tree_id: int
    names: tuple[bytes, ...]
    stats: bytes
    ids: bytes

    def pack(self) -> bytes:
        """Return the value as stored."""
        return _HEADER.pack(self.tree_id, len(self.names)) + self.stats + self.ids + b"\0".join(self.names)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Parse a stored value.

        Raises:
            ValueError: it is none.
        """
        tree_id, count = _HEADER.unpack_from(data)
        ids_at = _HEADER.size + count * STAT.size
        names_at = ids_at + count * IDS.size
        names = tuple(data[names_at:].split(b"\0")) if count else ()
        if len(names) != count or names_at > len(data):
            raise ValueError(f"{count} files have {len(names)} names in {len(data)} bytes")
        return cls(tree_id, names, data[_HEADER.size : ids_at], data[ids_at:names_at])

    def ids_at(self, index: int) -> tuple[int, int]:
        """Return id and dirmeta id of the entry at *index*."""
        number, meta_id = IDS.unpack_from(self.ids, index * IDS.size)
        return number, meta_id

    def by_name(self) -> dict[bytes, tuple[bytes, int, int]]:
        """Return name -> (packed stat, id, dirmeta id) of the entries that may be used."""
        stats = (self.stats[at : at + STAT.size] for at in range(0, len(self.stats), STAT.size))
        rows = zip(self.names, stats, IDS.iter_unpack(self.ids), strict=True)
        return {name: (packed, one, two) for name, packed, (one, two) in rows if one}
