"""MNT/by-date/2026/11/23/: every commit by its time in UTC, as a symlink with the name that it has in history/.

Years, months and days are there in which a commit was made. Their numbers say the date; cookies are the year, month or
day, behind those of "." and "..", and a commit's number. A commit's time may be no date: those are not here.
"""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Iterator
from itertools import islice
from typing import Final

from fsview.attributes import DOT_DOT_COOKIE, FOREVER_S, STEADY_NAME_S, Attributes, Row
from fsview.commit_names import END_OF_DATES_S, CommitNames, numbers_after
from fsview.nodeid import BY_DATE, ROOT, Date, Fixed, StaleNodeError, virtual_node
from fsview.rooms.room import ROWS_AT_A_TIME, Ground, Room
from store.database import Reading

_DEPTH: Final = 4
_ALL: Final = Date(0, 0, 0)
_EPOCH: Final = 1970
_LAST_YEAR: Final = 9999


class ByDate(Room[Fixed | Date]):
    """MNT/by-date."""

    def __init__(self, ground: Ground, names: CommitNames) -> None:
        """Share what is known of commits with other rooms."""
        super().__init__(ground)
        self._names = names

    def attributes(self, node: Fixed | Date) -> Attributes:
        """Return the attributes of a year, month or day with a commit in it."""
        with self._database.reading() as reading:
            if isinstance(node, Date) and not (_is_date(node) and self._has_commits(reading, node)):
                raise StaleNodeError(virtual_node(node))
        return self._ground.directory(virtual_node(node), FOREVER_S if isinstance(node, Fixed) else STEADY_NAME_S)

    def find(self, directory: Fixed | Date, name: bytes) -> Attributes | None:
        """Return a year, month, day or commit."""
        date = _date(directory)
        with self._database.reading() as reading:
            if not date.day:
                below = _below(date, name)
                there = below is not None and self._has_commits(reading, below)
                return self._directory(below) if below is not None and there else None
            number = self._names.find(reading, name) if name.startswith(_day_text(date)) else None
        if number is None:
            return None
        return self._ground.commit_link(_DEPTH, number, STEADY_NAME_S)

    def rows(self, directory: Fixed | Date, after: int) -> Iterator[Row]:
        """Return years, months, days or commits."""
        date = _date(directory)
        return self._commit_rows(date, after) if date.day else self._date_rows(date, after)

    def _date_rows(self, date: Date, after: int) -> Iterator[Row]:
        count = ROWS_AT_A_TIME
        while count == ROWS_AT_A_TIME:
            with self._database.reading() as reading:
                some = list(islice(self._parts(reading, date, after - DOT_DOT_COOKIE), ROWS_AT_A_TIME))
            yield from (Row(_name(one), self._directory(one), _cookie(one)) for one in some)
            count, after = len(some), _cookie(some[-1]) if some else after

    def _commit_rows(self, date: Date, after: int) -> Iterator[Row]:
        with self._database.reading() as reading:
            numbers = self._names.between(reading, *_span(date))
        for number, name, time_s in self._names.named(self._database, numbers_after(numbers, after)):
            yield Row(name, self._ground.commit_link(_DEPTH, number, STEADY_NAME_S, time_s), number)

    def parent(self, directory: Fixed | Date) -> Fixed | Date:
        """Return the month of a day, the year of a month."""
        if isinstance(directory, Fixed):
            return Fixed(ROOT)
        if directory.day:
            return directory._replace(day=0)
        return directory._replace(month=0) if directory.month else Fixed(BY_DATE)

    def _directory(self, date: Date) -> Attributes:
        return self._ground.directory(virtual_node(date))

    def _has_commits(self, reading: Reading, date: Date) -> bool:
        start_s, end_s = _span(date)
        first_s = self._names.first_from(reading, start_s)
        return first_s is not None and first_s < end_s

    def _parts(self, reading: Reading, date: Date, behind: int) -> Iterator[Date]:
        """Yield the years of all, the months of a year, the days of a month that have commits, *behind* a number."""
        at_s, end_s = _first_behind(date, behind), _span(date)[1]
        while (first_s := self._names.first_from(reading, at_s)) is not None and first_s < end_s:
            year, month, day = time.gmtime(first_s)[:3]
            part = Date(year, month if date.year else 0, day if date.month else 0)
            yield part
            at_s = _span(part)[1]


def _date(directory: Fixed | Date) -> Date:
    if isinstance(directory, Fixed):
        return _ALL
    if not _is_date(directory):
        raise StaleNodeError(virtual_node(directory))
    return directory


def _is_date(date: Date) -> bool:
    if not (_EPOCH <= date.year <= _LAST_YEAR and date.month <= 12 and (date.month or not date.day)):
        return False
    return not date.day or time.gmtime(_seconds(date))[:3] == date


def _seconds(date: Date) -> int:
    return timegm((date.year, date.month or 1, date.day or 1, 0, 0, 0))


def _span(date: Date) -> tuple[int, int]:
    """Return the first second of a date and the first one behind it."""
    if date == _ALL:
        return 0, END_OF_DATES_S
    start_s = _seconds(date)
    if date.day:
        return start_s, start_s + 86400
    year, month = (date.year, date.month + 1) if 0 < date.month < 12 else (date.year + 1, 1)
    return start_s, timegm((year, month, 1, 0, 0, 0)) if year <= _LAST_YEAR else END_OF_DATES_S


def _first_behind(date: Date, number: int) -> int:
    """Return the first second of *date* behind its year, month or day with this number."""
    start_s, end_s = _span(date)
    if number < (1 if date.year else _EPOCH):
        return start_s
    part = _part(date, number)
    return _span(part)[1] if _is_date(part) else end_s


def _name(date: Date) -> bytes:
    return b"%02d" % (date.day or date.month) if date.month else b"%04d" % date.year


def _day_text(date: Date) -> bytes:
    return b"%04d-%02d-%02dT" % date


def _part(date: Date, number: int) -> Date:
    """Return the year, month or day with this number."""
    if not date.year:
        return Date(number, 0, 0)
    return date._replace(day=number) if date.month else date._replace(month=number)


def _below(date: Date, name: bytes) -> Date | None:
    """Return the year, month or day that is called *name*."""
    if not (name.isdigit() and len(name) <= 4 and int(name)):
        return None
    below = _part(date, int(name))
    return below if _is_date(below) and _name(below) == name else None


def _cookie(date: Date) -> int:
    return DOT_DOT_COOKIE + (date.day or date.month or date.year)
