"""The commits that led to a commit: what history/ and versions/ show.

A commit's parents never change, so they are cached, by commit. What may change is which of them are here: a prune takes
some away, and where a history ends for want of the next parent, that one may come. Both are looked at each time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fsview.cache import BoundedCache
from store.database import Reading
from store.errors import CorruptionError
from store.objects import Checksum
from store.schema import GENERATION, CommitNumber
from store.tree import commit_number, load_parent_and_time

PROGRESS_COMMITS: Final = 1 << 12  # about 0.1 s of reading
_COMMITS_MAX: Final = 1 << 20  # in all histories that are cached: 8 bytes each


@dataclass(frozen=True, slots=True)
class History:
    """A commit and all its parents that are here; *missing* is the next one, if there is one."""

    numbers: array[int]  # from the head on
    ordered: array[int]  # sorted
    missing: Checksum | None

    def __contains__(self, number: object) -> bool:
        """Whether a commit is one of these."""
        assert isinstance(number, int)
        index = bisect_right(self.ordered, number) - 1
        return index >= 0 and self.ordered[index] == number


class Ancestry:
    """The histories of commits."""

    def __init__(self, on_progress: Callable[[], None]) -> None:
        """*on_progress* is called now and then while a long history is read."""
        self._on_progress = on_progress
        self._histories: BoundedCache[CommitNumber, History] = BoundedCache(_COMMITS_MAX)
        self._prunes = 0

    def history(self, reading: Reading, head: CommitNumber) -> History:
        """Return the history of a commit that is here."""
        prunes = reading.counter(GENERATION)
        if prunes != self._prunes:
            self._histories.clear()
            self._prunes = prunes
        found = self._cached(reading, head)
        return found if found is not None else self._walk(reading, head)

    def _cached(self, reading: Reading, head: CommitNumber) -> History | None:
        found = self._histories.get(head)
        if found is None or found.missing is None or commit_number(reading, found.missing) is None:
            return found
        self._histories.clear()
        return None

    def _walk(self, reading: Reading, head: CommitNumber) -> History:
        numbers, missing, number = array("I"), None, head
        commits = reading.counter("commit")  # there are fewer
        while True:
            if len(numbers) > commits:
                raise CorruptionError(f"the history of commit {head}", reading.where, "its beginning", "itself again")
            numbers.append(number)
            if len(numbers) % PROGRESS_COMMITS == 0:
                self._on_progress()
            parent = load_parent_and_time(reading, number)[0]
            before = None if parent is None else commit_number(reading, parent)
            if before is None:
                missing = parent
                break
            if (known := self._cached(reading, before)) is not None:
                numbers, missing = numbers + known.numbers, known.missing
                break
            number = before
        history = History(numbers, array("I", sorted(numbers)), missing)
        self._histories.put(head, history, len(numbers))
        return history
