"""Names of commits that sort by time and never change, and the commits of a span of time.

    2026-11-23T101500Z-1a2b3c4d     the commit's time in UTC, 8 digits of its checksum
    2026-11-23T101500Z-1a2b3c4d…    with all 64, if a commit with a lower number has the 8 digits in the same second
    @00000253402300800-1a2b3c4d     a time that is no date: after the year 9999; the seconds since 1970

The format has no index by time, so each process keeps one in memory, 50 bytes a commit: built at the first question,
then extended by what is new, as commit numbers are dense; after a prune it is built again.
"""

from __future__ import annotations

import re
import time
from array import array
from bisect import bisect_left, bisect_right
from calendar import timegm
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from fsview.ancestry import PROGRESS_COMMITS
from fsview.cache import BoundedCache
from store.database import Database, Reading
from store.errors import PrunedError
from store.objects import Checksum, parent_and_time
from store.presence import numbered
from store.schema import FIRST_ID, GENERATION, MAX_COMMIT_NUMBER, CommitNumber, CommitRecord, id_key

END_OF_DATES_S: Final = 253_402_300_800  # 10000-01-01
_NAME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}Z|@[0-9]{20})-([0-9a-f]{8}|[0-9a-f]{64})")
_TIME: Final = "%Y-%m-%dT%H%M%SZ"
_NUMBER_BITS: Final = 28
_DIGITS: Final = 8
_DIGIT_BITS: Final = 4 * _DIGITS
_NAMES_AT_A_TIME: Final = 32  # about as many as the kernel asks for
_SPANS_MAX: Final = 1 << 20  # numbers in the spans that are cached: 4 bytes each
assert MAX_COMMIT_NUMBER < 1 << _NUMBER_BITS


def time_text(time_s: int) -> str:
    """Return a commit's time as names begin with it.

    >>> time_text(1763892900), time_text(1 << 40)
    ('2025-11-23T101500Z', '@00000001099511627776')
    """
    if time_s >= END_OF_DATES_S:
        return f"@{time_s:020}"
    return time.strftime(_TIME, time.gmtime(time_s))


def numbers_after(numbers: array[int], number: int) -> Iterator[CommitNumber]:
    """Yield those of *numbers*, which are sorted, that are greater than *number*."""
    for index in range(bisect_right(numbers, number), len(numbers)):
        yield CommitNumber(numbers[index])


class Named(NamedTuple):
    """A commit with its name and its time, in seconds since 1970."""

    number: CommitNumber
    name: bytes
    time_s: int


class CommitNames:
    """The names of all commits, by time."""

    def __init__(self, on_progress: Callable[[], None]) -> None:
        """*on_progress* is called now and then while many commits are read."""
        self._on_progress = on_progress
        self._index: list[int] = []  # time, first digits, number: as one integer each, sorted
        self._next, self._prunes = FIRST_ID, 0
        self._spans: BoundedCache[tuple[int, int], array[int]] = BoundedCache(_SPANS_MAX)

    def name(self, reading: Reading, number: CommitNumber) -> bytes:
        """Return the name of a commit that is here."""
        self._refresh(reading)
        return self._named(number, reading.need(b"commit", id_key(number))).name

    def named(self, database: Database, numbers: Iterable[CommitNumber]) -> Iterator[Named]:
        """Yield those of *numbers* that are here."""
        left = iter(numbers)
        while batch := list(islice(left, _NAMES_AT_A_TIME)):
            with database.reading() as reading:
                self._refresh(reading)
                found = list(self._here(reading, batch))
            yield from found

    def _here(self, reading: Reading, numbers: Iterable[CommitNumber]) -> Iterator[Named]:
        for number in numbers:
            with suppress(PrunedError):
                yield self._named(number, reading.need(b"commit", id_key(number)))

    def _named(self, number: CommitNumber, value: bytes) -> Named:
        record = CommitRecord.unpack(value)
        time_s = parent_and_time(record.raw)[1]
        lowest = _key(time_s, record.checksum, CommitNumber(0))
        first = self._index[bisect_left(self._index, lowest)]
        digits = record.checksum.hex()
        name = f"{time_text(time_s)}-{digits[:_DIGITS] if first == lowest + number else digits}"
        return Named(number, name.encode(), time_s)

    def find(self, reading: Reading, name: bytes) -> CommitNumber | None:
        """Return the commit that is called *name*."""
        match = _NAME.fullmatch(name.decode("ascii", "replace"))
        if match is None:
            return None
        self._refresh(reading)
        try:
            time_s = int(match[1][1:]) if match[1][0] == "@" else timegm(time.strptime(match[1], _TIME))
        except ValueError:
            return None
        lowest = _key(time_s, Checksum(bytes.fromhex(match[2]).ljust(32, b"\0")), CommitNumber(0))
        start, end = (bisect_left(self._index, lowest + more) for more in (0, 1 << _NUMBER_BITS))
        numbers = (CommitNumber(self._index[index] - lowest) for index in range(start, end))
        return next((number for number in numbers if self.name(reading, number) == name), None)

    def between(self, reading: Reading, start_s: int, end_s: int) -> array[int]:
        """Return the numbers of the commits from *start_s* to before *end_s*, sorted."""
        self._refresh(reading)
        found = self._spans.get((start_s, end_s))
        if found is None:
            low, high = (bisect_left(self._index, time_s << _NUMBER_BITS + _DIGIT_BITS) for time_s in (start_s, end_s))
            mask = (1 << _NUMBER_BITS) - 1
            found = array("I", sorted(key & mask for key in self._index[low:high]))
            self._spans.put((start_s, end_s), found, 1 + len(found))
        return found

    def first_from(self, reading: Reading, start_s: int) -> int | None:
        """Return the time of the first commit at *start_s* or later; None if there is none."""
        self._refresh(reading)
        at = bisect_left(self._index, start_s << _NUMBER_BITS + _DIGIT_BITS)
        return self._index[at] >> _NUMBER_BITS + _DIGIT_BITS if at < len(self._index) else None

    def _refresh(self, reading: Reading) -> None:
        following, prunes = reading.counter("commit"), reading.counter(GENERATION)
        if prunes != self._prunes:
            self._index, self._next, self._prunes = [], FIRST_ID, prunes
        elif following <= self._next:
            return
        self._spans.clear()
        for number, value in numbered(reading, b"commit", self._next):
            record = CommitRecord.unpack(value)
            time_s = parent_and_time(record.raw)[1]
            self._index.append(_key(time_s, record.checksum, CommitNumber(number)))
            if len(self._index) % PROGRESS_COMMITS == 0:
                self._on_progress()
        self._index.sort()
        self._next = following


def _key(time_s: int, checksum: Checksum, number: CommitNumber) -> int:
    digits = int.from_bytes(checksum[: _DIGITS // 2], "big")
    return (time_s << _DIGIT_BITS | digits) << _NUMBER_BITS | number
