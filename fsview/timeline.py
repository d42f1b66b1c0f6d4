"""What was at a path in the commits of a history, without looking at any dirtree twice.

A timeline has one span for each dirtree that a directory ever was, from the newest commit with it to the oldest. A
sub-directory's timeline follows from that of its directory, so to see the versions of one file over a thousand commits
takes the listings of the dirtrees on the way to it, each once. Positions are indexes in the history: 0 is the head.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final, NamedTuple

from fsview.ancestry import Ancestry, History
from fsview.cache import BoundedCache
from fsview.commit_tree import CommitTrees
from fsview.rank import EntryRank
from store.database import Reading
from store.listing import Entry
from store.schema import CommitNumber, MetaId, TreeId
from store.tree import commit_record, load_dirmeta

_SPANS_MAX: Final = 1 << 16  # about 15 MB
_SEARCHABLE: Final = 0o001


@dataclass(frozen=True, slots=True)
class Span:
    """A dirtree that a directory was: its newest and oldest position; whether all users could always get to it."""

    tree_id: TreeId
    newest: int
    oldest: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that a directory was, by the newest; whether all users could always get to what is in it."""

    spans: tuple[Span, ...] = ()
    is_open: bool = True


class Version(NamedTuple):
    """A file or symlink that was at a path, and the oldest commit with it."""

    entry: Entry
    commit: CommitNumber


Versions = Sequence[Version]  # by the commit's number
_NUMBER: Final = attrgetter("commit")


def version_of(versions: Versions, commit: CommitNumber) -> Version | None:
    """Return the version whose oldest commit this is."""
    index = bisect_left(versions, commit, key=_NUMBER)
    return versions[index] if index < len(versions) and versions[index].commit == commit else None


def versions_after(versions: Versions, number: int) -> Iterator[Version]:
    """Yield the versions whose commits have greater numbers."""
    for index in range(bisect_right(versions, number, key=_NUMBER), len(versions)):
        yield versions[index]


Way = Sequence[tuple[EntryRank, Entry]]  # from a commit's root to something in it (fsview/rank.py)


class Timelines:
    """The timelines of directories."""

    def __init__(self, trees: CommitTrees, ancestry: Ancestry) -> None:
        self._trees, self._ancestry = trees, ancestry
        # A history is known by its head and its length: it ends where a parent is not here.
        self._timelines: BoundedCache[tuple[CommitNumber, int, EntryRank], Timeline] = BoundedCache(_SPANS_MAX)
        self._versions: BoundedCache[tuple[CommitNumber, int, EntryRank], Versions] = BoundedCache(_SPANS_MAX)
        self._generation = 0

    def directory(self, reading: Reading, head: CommitNumber, way: Way) -> Timeline:
        """Return the timeline of the directory of *head* that *way* leads to."""
        generation = self._trees.renew()
        if generation != self._generation:  # a commit that was pruned and came back has dirtrees with other ids
            self._timelines.clear()
            self._versions.clear()
            self._generation = generation
        history = self._ancestry.history(reading, head)
        timeline = Timeline()
        for rank, entry in way:
            key = head, len(history.numbers), rank
            found = self._timelines.get(key)
            if found is None:
                found = self._below(timeline, entry.name) if rank else _of_roots(reading, history)
                self._timelines.put(key, found, 1 + len(found.spans))
            timeline = found
        return timeline

    def versions(self, reading: Reading, head: CommitNumber, way: Way) -> Versions:
        """Return the distinct files and symlinks that were where *way* leads to, by the number of the oldest commit."""
        timeline, numbers = self.directory(reading, head, way[:-1]), self._ancestry.history(reading, head).numbers
        key = head, len(numbers), way[-1][0]
        versions = self._versions.get(key)
        if versions is None:
            versions = self._versions_in(timeline, numbers, way[-1][1].name)
            self._versions.put(key, versions, 1 + len(versions))
        return versions

    def _versions_in(self, timeline: Timeline, numbers: Sequence[int], name: bytes) -> Versions:
        found: dict[int, tuple[Entry, int]] = {}
        for span in timeline.spans:
            entry = self._trees.listing(span.tree_id).find(name)
            if entry is not None and not entry.is_directory:
                _, oldest = found.get(entry.id, (entry, 0))
                found[entry.id] = entry, max(oldest, span.oldest)
        versions = [Version(entry, CommitNumber(numbers[oldest])) for entry, oldest in found.values()]
        return sorted(versions, key=lambda version: version.commit)

    def newest_with(self, reading: Reading, head: CommitNumber, way: Way, name: bytes) -> CommitNumber | None:
        """Return the newest commit that has *name* in the directory of *head* that *way* leads to."""
        for span in self.directory(reading, head, way).spans:
            if self._trees.listing(span.tree_id).find(name) is not None:
                return CommitNumber(self._ancestry.history(reading, head).numbers[span.newest])
        return None

    def _below(self, timeline: Timeline, name: bytes) -> Timeline:
        spans: dict[TreeId, Span] = {}
        for span in timeline.spans:
            entry = self._trees.listing(span.tree_id).find(name)
            if entry is not None and entry.is_directory:
                is_open = span.is_open and bool(entry.mode & _SEARCHABLE)
                _extend(spans, Span(TreeId(entry.id), span.newest, span.oldest, is_open))
        return _timeline(spans)


def _of_roots(reading: Reading, history: History) -> Timeline:
    spans: dict[TreeId, Span] = {}
    modes: dict[MetaId, int] = {}
    for position, number in enumerate(history.numbers):
        record = commit_record(reading, CommitNumber(number))
        if record.meta_id not in modes:
            modes[record.meta_id] = load_dirmeta(reading, record.meta_id).mode
        _extend(spans, Span(record.tree_id, position, position, bool(modes[record.meta_id] & _SEARCHABLE)))
    return _timeline(spans)


def _timeline(spans: dict[TreeId, Span]) -> Timeline:
    return Timeline(tuple(spans.values()), all(span.is_open for span in spans.values()))


def _extend(spans: dict[TreeId, Span], span: Span) -> None:
    """Add what a directory was; spans come by their newest position, so it is the first that counts."""
    known = spans.setdefault(span.tree_id, span)
    if known is not span:
        oldest = max(known.oldest, span.oldest)
        spans[span.tree_id] = replace(known, oldest=oldest, is_open=known.is_open and span.is_open)
