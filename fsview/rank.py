"""Ranks: an index in the preorder of a commit, of its directories or of all its entries, and the way back to a path.

    rank(root) = 0
    rank(child) = rank(parent) + 1 + directories in the siblings before it              directories alone
    entry rank(child) = entry rank(parent) + 1 + entries in the siblings before it      entries of all kinds

The sums stand in the listings (store/listing.py), so that descending from the root to a rank is a matter of bisection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NewType, TypeAlias

from store.listing import Entry, Listing
from store.schema import TreeId

Rank = NewType("Rank", int)  # index of a directory among its commit's directories, not a count
EntryRank = NewType("EntryRank", int)  # index of anything among its commit's entries; the root is 0

LoadListing: TypeAlias = Callable[[TreeId], Listing]


def child_rank(parent: Rank, child: Entry) -> Rank:
    """Return the rank of a directory from its parent's rank and its entry there."""
    return Rank(parent + 1 + child.directories_before)


def descend(load: LoadListing, root: Entry, rank: Rank) -> list[tuple[Rank, Entry]]:
    """Return the directories from the root to the one of *rank*, each with its rank.

    *rank* must be less than the count of directories in the commit.
    """
    way = [(Rank(0), root)]
    while (here := way[-1])[0] != rank:
        child = load(TreeId(here[1].id)).directory_at(rank - here[0] - 1)
        way.append((child_rank(here[0], child), child))
    return way


def child_entry_rank(parent: EntryRank, child: Entry) -> EntryRank:
    """Return the entry rank of anything from its directory's entry rank and its entry there."""
    return EntryRank(parent + 1 + child.entries_before)


def descend_to_entry(load: LoadListing, root: Entry, rank: EntryRank) -> list[tuple[EntryRank, Entry]]:
    """Return what is on the way from the root to the entry of *rank*, both included, each with its entry rank.

    *rank* must be at most the count of entries in the commit.
    """
    way = [(EntryRank(0), root)]
    while (here := way[-1])[0] != rank:
        child = load(TreeId(here[1].id)).entry_at(rank - here[0] - 1)
        way.append((child_entry_rank(here[0], child), child))
    return way
