"""A dirtree, compiled: what one directory of the view shows, in one record.

    count u32, directories u32, entries u32     entries of this directory; totals over the whole subtree
    count fixed records                         see Entry; sorted by name
    names                                       joined by NUL

A listing holds everything that readdirplus answers, so that a directory costs one read. The two prefix sums make a
directory's preorder rank, and the way back from a rank to a path, a matter of bisection (fsview/rank.py).
"""

from __future__ import annotations

import stat
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from store.errors import FormatError

_HEADER = struct.Struct(">III")
_ENTRY = struct.Struct(">QQIIIQqII")
_IDS = struct.Struct(">QQ36x")
_U32 = struct.Struct(">I")
_DIRECTORIES_BEFORE, _ENTRIES_BEFORE = 44, 48  # offsets in _ENTRY
assert _ENTRY.size == _IDS.size == 52


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory.

    id is a file id, or a tree id; meta_id is the dirmeta's id of a directory, else 0. size is in bytes (of a
    directory: of its dirtree). The sums are over the siblings before this one in the listing.
    """

    name: bytes
    id: int
    meta_id: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    directories_before: int
    entries_before: int

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.mode)


class Listing:
    """A directory's entries by name, by index and by rank. Immutable."""

    __slots__ = ("_data", "directories", "entries", "names")

    def __init__(self, data: bytes) -> None:
        """Take a record as pack_listing made it.

        Raises:
            FormatError: it is none.
        """
        count, self.directories, self.entries = _HEADER.unpack_from(data)
        names_at = _HEADER.size + count * _ENTRY.size
        self._data = data
        self.names: list[bytes] = data[names_at:].split(b"\0") if count else []
        if len(self.names) != count or names_at > len(data):
            raise FormatError(f"a listing of {count} entries has {len(self.names)} names in {len(data)} bytes")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in the order of their names (as bytes)."""
        fixed = memoryview(self._data)[_HEADER.size : _HEADER.size + len(self.names) * _ENTRY.size]
        for name, fields in zip(self.names, _ENTRY.iter_unpack(fixed), strict=True):
            yield Entry(name, *fields)

    def subdirectories(self) -> Iterator[Entry]:
        """Yield the directories among the entries, without unpacking the others."""
        if self.directories > 1:
            for index, (_, meta_id) in enumerate(listing_ids(self._data)):
                if meta_id:
                    yield self.entry(index)

    def entry(self, index: int) -> Entry:
        """Return the entry at *index*, 0 <= index < len(self)."""
        return Entry(self.names[index], *_ENTRY.unpack_from(self._data, _HEADER.size + index * _ENTRY.size))

    def find(self, name: bytes) -> Entry | None:
        """Return the entry called *name*, or None."""
        index = bisect_left(self.names, name)
        return self.entry(index) if index < len(self.names) and self.names[index] == name else None

    def directory_at(self, offset: int) -> Entry:
        """Return the sub-directory whose subtree holds the *offset*-th directory below this one, from 0.

        It is the last entry with at most *offset* directories before it: behind a directory the sum has grown.
        """
        assert 0 <= offset < self.directories - 1
        return self._last_with(_DIRECTORIES_BEFORE, offset)

    def entry_at(self, offset: int) -> Entry:
        """Return the entry that is, or whose subtree holds, the *offset*-th entry below this directory, from 0."""
        assert 0 <= offset < self.entries
        return self._last_with(_ENTRIES_BEFORE, offset)

    def _last_with(self, field: int, sum_max: int) -> Entry:
        """Return the last entry with at most *sum_max* in the prefix sum that is at *field*."""

        def sum_before(index: int) -> int:
            number: int = _U32.unpack_from(self._data, _HEADER.size + index * _ENTRY.size + field)[0]
            return number

        return self.entry(bisect_right(range(len(self.names)), sum_max, key=sum_before) - 1)


def listing_ids(data: bytes) -> Iterator[tuple[int, int]]:
    """Return (id, meta id) of each entry of a record; the meta id of what is no directory is 0."""
    count: int = _U32.unpack_from(data)[0]
    return _IDS.iter_unpack(memoryview(data)[_HEADER.size : _HEADER.size + count * _IDS.size])


def pack_listing(entries: Iterable[tuple[bytes, int, int, int, int, int, int, int, int, int]]) -> bytes:
    """Return the record of a directory with *entries*, sorted by name.

    Each is (name, id, meta id, mode, uid, gid, size, mtime_ns, directories, entries); the last two are the counts
    over a directory's own subtree: itself included, itself not included; 0 and 0 for a file.
    """
    records, names = [], []
    directories_before = entries_before = 0
    for name, *fields, directories, below in entries:
        records.append(_ENTRY.pack(*fields, directories_before, entries_before))
        names.append(name)
        directories_before += directories
        entries_before += 1 + below
    header = _HEADER.pack(len(names), 1 + directories_before, entries_before)
    return b"".join((header, *records, b"\0".join(names)))
