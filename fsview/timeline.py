"""What was at a path in the commits of a history, without looking at any dirtree twice.

A timeline has one span for each dirtree that a directory ever was, from the newest commit with it to the oldest. A
sub-directory's timeline follows from that of its directory, so to see the versions of one file over a thousand commits
takes the listings of the dirtrees on the way to it, each once. Positions are indexes in the history: 0 is the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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


Timeline = tuple[Span, ...]  # by newest


class Version(NamedTuple):
    """A file or symlink that was at a path, and the oldest commit with it."""

    entry: Entry
    commit: CommitNumber


Way = Sequence[tuple[EntryRank, Entry]]  # from a commit's root to something in it (fsview/rank.py)


class Timelines:
    """The timelines of directories."""

    def __init__(self, trees: CommitTrees, ancestry: Ancestry) -> None:
        self._trees, self._ancestry = trees, ancestry
        # A history is known by its head and its length: it ends where a parent is not here.
        self._timelines: BoundedCache[tuple[CommitNumber, int, EntryRank], Timeline] = BoundedCache(_SPANS_MAX)
        self._generation = 0

    def directory(self, reading: Reading, head: CommitNumber, way: Way) -> Timeline:
        """Return the timeline of the directory of *head* that *way* leads to."""
        generation = self._trees.renew()
        if generation != self._generation:  # a commit that was pruned and came back has dirtrees with other ids
            self._timelines.clear()
            self._generation = generation
        history = self._ancestry.history(reading, head)
        timeline: Timeline = ()
        for rank, entry in way:
            key = head, len(history.numbers), rank
            found = self._timelines.get(key)
            if found is None:
                found = self._below(timeline, entry.name) if rank else _of_roots(reading, history)
                self._timelines.put(key, found, 1 + len(found))
            timeline = found
        return timeline

    def versions(self, reading: Reading, head: CommitNumber, way: Way) -> list[Version]:
        """Return the distinct files and symlinks that were where *way* leads to, by the number of the oldest commit."""
        found: dict[int, tuple[Entry, int]] = {}
        for span in self.directory(reading, head, way[:-1]):
            entry = self._trees.listing(span.tree_id).find(way[-1][1].name)
            if entry is not None and not entry.is_directory:
                _, oldest = found.get(entry.id, (entry, 0))
                found[entry.id] = entry, max(oldest, span.oldest)
        numbers = self._ancestry.history(reading, head).numbers
        versions = [Version(entry, CommitNumber(numbers[oldest])) for entry, oldest in found.values()]
        return sorted(versions, key=lambda version: version.commit)

    def newest_with(self, reading: Reading, head: CommitNumber, way: Way, name: bytes) -> CommitNumber | None:
        """Return the newest commit that has *name* in the directory of *head* that *way* leads to."""
        for span in self.directory(reading, head, way):
            if self._trees.listing(span.tree_id).find(name) is not None:
                return CommitNumber(self._ancestry.history(reading, head).numbers[span.newest])
        return None

    def _below(self, timeline: Timeline, name: bytes) -> Timeline:
        spans: dict[TreeId, Span] = {}
        for span in timeline:
            entry = self._trees.listing(span.tree_id).find(name)
            if entry is not None and entry.is_directory:
                is_open = span.is_open and bool(entry.mode & _SEARCHABLE)
                _extend(spans, Span(TreeId(entry.id), span.newest, span.oldest, is_open))
        return tuple(spans.values())


def _of_roots(reading: Reading, history: History) -> Timeline:
    spans: dict[TreeId, Span] = {}
    modes: dict[MetaId, int] = {}
    for position, number in enumerate(history.numbers):
        record = commit_record(reading, CommitNumber(number))
        if record.meta_id not in modes:
            modes[record.meta_id] = load_dirmeta(reading, record.meta_id).mode
        _extend(spans, Span(record.tree_id, position, position, bool(modes[record.meta_id] & _SEARCHABLE)))
    return tuple(spans.values())


def _extend(spans: dict[TreeId, Span], span: Span) -> None:
    """Add what a directory was; spans come by their newest position, so it is the first that counts."""
    known = spans.setdefault(span.tree_id, span)
    if known is not span:
        oldest = max(known.oldest, span.oldest)
        spans[span.tree_id] = replace(known, oldest=oldest, is_open=known.is_open and span.is_open)
