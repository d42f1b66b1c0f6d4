"""Which commits a prune keeps, and every object that they reach.

Marks are sets of dense ids, Roaring bitmaps: a million files are marked in some hundred KiB. What a commit reaches
never changes, so marks may be gathered over many short looks at the index, and completed later with what was committed
meanwhile. Listings are read, not dirtrees: they have the ids already, and each value's guard is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyroaring import BitMap64

from store.database import Reading
from store.errors import FsviewError
from store.listing import listing_ids
from store.objects import Checksum
from store.parsing import parsed
from store.pruned import present_ids
from store.refs import list_refs
from store.schema import OBJECT_COUNTERS, CommitNumber, id_key
from store.tree import commit_number, commit_record, load_parent_and_time

EVERY_PARENT = -1


@dataclass(frozen=True, slots=True)
class Rule:
    """Which commits stay: all; or, with refs_only, those that refs reach, over at most *depth* parents (-1: any).

    Those in *deleted* go, and what only they lead to is not reached through refs any more. Those in *held* stay, but
    not their parents; the text says what holds one, and how that is mended, for whoever wants to delete it.
    """

    refs_only: bool = False
    depth: int = EVERY_PARENT
    deleted: frozenset[CommitNumber] = frozenset()
    held: Mapping[CommitNumber, str] = field(default_factory=dict)


class Roots:
    """Finds the commits that a rule keeps; again after others committed, without parsing what it knows."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._parents: dict[CommitNumber, Checksum | None] = {}

    def find(self, reading: Reading) -> BitMap64:
        """Return the numbers of the commits that stay.

        Raises:
            FsviewError: a ref points at a commit that is to be deleted, or it is held.
        """
        rule = self._rule
        heads = list(list_refs(reading))
        for number in rule.deleted & rule.held.keys():
            raise _needed(reading, number, rule.held[number])
        for name, ref in heads:
            if ref.commit in rule.deleted:
                why = f"the ref {name} points at it; move or delete the ref first (fsview refs --delete {name})"
                raise _needed(reading, ref.commit, why)
        present = present_ids(reading, "commit")
        if not rule.refs_only:
            return present - BitMap64(rule.deleted)
        left: dict[CommitNumber, int] = {}  # how many parents behind it count, at most
        for _, ref in heads:
            self._walk(reading, ref.commit, left)
        return BitMap64(left) | (present & BitMap64(rule.held))

    def _walk(self, reading: Reading, number: CommitNumber | None, left: dict[CommitNumber, int]) -> None:
        """Mark *number* and what is behind it, until where another ref led as far."""
        step = 0 if self._rule.depth == EVERY_PARENT else 1
        parents = self._rule.depth if step else 0
        while number is not None and number not in self._rule.deleted and parents > left.get(number, -1):
            left[number] = parents
            parents -= step
            number = self._parent(reading, number) if parents >= 0 else None

    def _parent(self, reading: Reading, number: CommitNumber) -> CommitNumber | None:
        """Return the parent of a commit, or None if it has none, or that is not here."""
        if number not in self._parents:
            self._parents[number] = load_parent_and_time(reading, number)[0]
        checksum = self._parents[number]
        return None if checksum is None else commit_number(reading, checksum)


def _needed(reading: Reading, number: CommitNumber, why: str) -> FsviewError:
    checksum = commit_record(reading, number).checksum.hex()
    return FsviewError(f"commit {checksum} can't be deleted, {why}; nothing was deleted")


class Marks:
    """The ids of all that the commits which were added reach, by the name of their counter."""

    def __init__(self) -> None:
        self.ids = {counter: BitMap64() for counter in OBJECT_COUNTERS.values()}
        self._waiting: list[int] = []  # dirtrees that are marked, and not yet looked into

    def add(self, reading: Reading, commits: BitMap64) -> None:
        """Begin to mark what *commits* reach."""
        for number in commits - self.ids["commit"]:
            record = commit_record(reading, CommitNumber(number))
            self.ids["meta"].add(record.meta_id)
            self._add_tree(record.tree_id)
        self.ids["commit"] |= commits

    def advance(self, reading: Reading, most: int) -> int:
        """Look into *most* dirtrees, or as many as are left; return how many."""
        done = 0
        while self._waiting and done < most:
            self._look_into(reading, self._waiting.pop())
            done += 1
        return done

    def _look_into(self, reading: Reading, tree_id: int) -> None:
        files: list[int] = []
        value = reading.need(b"listing", id_key(tree_id))
        for number, meta_id in parsed(f"listing {tree_id}", reading.where, value, listing_ids):
            if meta_id:
                self.ids["meta"].add(meta_id)
                self._add_tree(number)
            else:
                files.append(number)
        self.ids["file"].update(files)

    def _add_tree(self, tree_id: int) -> None:
        if tree_id not in self.ids["tree"]:
            self.ids["tree"].add(tree_id)
            self._waiting.append(tree_id)

    def unmarked(self, reading: Reading) -> dict[str, BitMap64]:
        """Return the ids of all that is here and not marked."""
        assert not self._waiting, "what is not looked into may lead to more"
        return {counter: present_ids(reading, counter) - marked for counter, marked in self.ids.items()}
