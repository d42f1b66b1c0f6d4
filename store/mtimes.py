"""Which mtime a new file object gets: its source's, or an earlier second that no other content of its size has.

Two contents that agree in size and in the second of their mtime are the same to rsync, make and Python's filecmp. In
a repository, clamped and swapped times are common, so each size remembers which content has which second. Given once,
kept for good: everything that the view shows of a file is a function of its object.
"""

from __future__ import annotations

from typing import Final

from store.database import Writing
from store.parsing import parsed
from store.schema import MtimeRecord, Storage, mtime_key
from store.staging import StagedFile

_SECOND: Final = 10**9
_LIMIT: Final = 2**33 * _SECOND  # 272 years: 64 bits of nanoseconds hold it, and room for earlier seconds
_PASSED_MAX: Final = 16


def limit_mtime(mtime_ns: int) -> int:
    """Return *mtime_ns*, or the nearest time that can be stored: file systems know the years -100,000 and 2400 too."""
    return max(-_LIMIT, min(mtime_ns, _LIMIT))


def assign_mtime(writing: Writing, staged: StagedFile) -> int:
    """Return the mtime (ns) of a new file object, and note that it is taken."""
    if staged.storage == Storage.EMPTY:  # a symlink, or nothing: there is no other content to be confused with
        return staged.mtime_ns
    second, rest_ns = divmod(staged.mtime_ns, _SECOND)
    key = mtime_key(staged.size, second)
    value = writing.get(b"mtime", key)
    if value is None:
        writing.put(b"mtime", key, MtimeRecord(staged.content_key, second).pack())
        return staged.mtime_ns
    taken = _taken(writing, value)
    if taken.content == staged.content_key:
        return staged.mtime_ns
    free = _earlier_second(writing, staged, min(taken.last_given, second) - 1)
    writing.put(b"mtime", key, MtimeRecord(taken.content, free).pack())
    return free * _SECOND + rest_ns


def _taken(writing: Writing, value: bytes) -> MtimeRecord:
    """Return a record; a forged one may name a later second, on which nobody may wait: callers go down in any case."""
    return parsed("a record of mtimes", writing.where, value, MtimeRecord.unpack)


def _earlier_second(writing: Writing, staged: StagedFile, second: int) -> int:
    """Return *second*, or the next before it that is free or has this content already; note that it is taken."""
    passed: list[tuple[bytes, MtimeRecord]] = []
    while True:
        key = mtime_key(staged.size, second)
        value = writing.get(b"mtime", key)
        if value is None:
            writing.put(b"mtime", key, MtimeRecord(staged.content_key, second).pack())
            break
        taken = _taken(writing, value)
        if taken.content == staged.content_key:
            break
        passed.append((key, taken))
        second = min(taken.last_given, second) - 1  # leap over what was given instead of that second
    if len(passed) > _PASSED_MAX:  # else as many files written one a second would each pass over all before them
        for key, taken in passed:
            writing.put(b"mtime", key, MtimeRecord(taken.content, second).pack())
    return second
