"""Listings: what goes in comes out, and ranks number the directories of any tree without a gap, both ways."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from store.listing import Entry, Listing, pack_listing

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
NAMES = st.binary(min_size=1, max_size=6).filter(lambda name: b"\0" not in name and b"/" not in name)
MODES = st.sampled_from((stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755))
FIELDS = st.tuples(U64, U64, MODES, U32, U32, U64, st.integers(-(2**63), 2**63 - 1))
Row = tuple[bytes, int, int, int, int, int, int, int, int, int]


@st.composite
def _rows(draw: st.DrawFn) -> list[Row]:
    rows = []
    for name in sorted(draw(st.sets(NAMES, max_size=30))):
        number, meta_id, *more = draw(FIELDS)
        is_directory = stat.S_ISDIR(more[0])
        fields = (number, (meta_id or 1) if is_directory else 0, *more)
        directories = draw(st.integers(1, 2**26)) if is_directory else 0
        entries = draw(st.integers(directories - 1, 2**26)) if is_directory else 0
        rows.append((name, *fields, directories, entries))
    return rows


@given(_rows())
def test_a_listing_gives_back_what_was_packed(
    rows: list[Row],
) -> None:
    listing = Listing(pack_listing(rows))
    directories = entries = 0
    expected = []
    for row in rows:
        *_, below_directories, below = row
        expected.append(Entry(*row[:8], directories, entries))
        directories, entries = directories + below_directories, entries + 1 + below
    assert list(listing) == expected == [listing.entry(index) for index in range(len(listing))]
    assert (listing.directories, listing.entries) == (1 + directories, entries)
    assert list(listing.subdirectories()) == [entry for entry in expected if entry.is_directory]
    assert listing.names == [row[0] for row in rows]


@given(_rows(), NAMES)
def test_a_name_is_found_exactly_if_it_is_there(rows: list[Row], other: bytes) -> None:
    listing = Listing(pack_listing(rows))
    for index, name in enumerate(listing.names):
        assert listing.find(name) == listing.entry(index)
    if other not in listing.names:
        assert listing.find(other) is None


@dataclass(frozen=True)
class Tree:
    """A directory of a tree that is not stored: its listing, and its sub-directories by name."""

    listing: Listing
    below: dict[bytes, Tree]

    @classmethod
    def of(cls, files: set[bytes], below: dict[bytes, Tree]) -> Tree:
        """Compile a directory; a name that both have is the directory's."""
        rows = [(name, 1, 0, stat.S_IFREG, 0, 0, 0, 0, 0, 0) for name in files - below.keys()]
        rows += [
            (name, 2, 3, stat.S_IFDIR, 0, 0, 0, 0, tree.listing.directories, tree.listing.entries)
            for name, tree in below.items()
        ]
        return cls(Listing(pack_listing(sorted(rows))), below)

    def walk(self, path: bytes = b"", rank: int = 0) -> Iterator[tuple[bytes, int]]:
        """Yield the path of every directory in preorder, with its rank by the sums over its siblings."""
        yield path, rank
        for entry in self.listing:
            if entry.is_directory:
                below = self.below[entry.name]
                yield from below.walk(path + b"/" + entry.name, rank + 1 + entry.directories_before)

    def path_at(self, rank: int) -> bytes:
        """Return the path of the directory with this rank: the way back."""
        tree, path = self, b""
        while rank:
            entry = tree.listing.directory_at(rank - 1)
            assert entry.is_directory
            rank -= 1 + entry.directories_before
            tree, path = tree.below[entry.name], path + b"/" + entry.name
        return path


_LEAVES = st.builds(lambda files: Tree.of(files, {}), st.sets(NAMES, max_size=3))
TREES = st.recursive(
    _LEAVES,
    lambda trees: st.builds(Tree.of, st.sets(NAMES, max_size=4), st.dictionaries(NAMES, trees, max_size=5)),
    max_leaves=25,
)


@given(TREES)
def test_ranks_number_all_directories_in_preorder(tree: Tree) -> None:
    ranks = [rank for _, rank in tree.walk()]
    assert ranks == list(range(tree.listing.directories))


@given(TREES)
def test_every_rank_leads_back_to_its_directory(tree: Tree) -> None:
    for path, rank in tree.walk():
        assert tree.path_at(rank) == path


@given(TREES)
def test_counts_are_those_of_a_walk(tree: Tree) -> None:
    def entries(tree: Tree) -> int:
        return len(tree.listing) + sum(map(entries, tree.below.values()))

    assert tree.listing.entries == entries(tree)
    assert tree.listing.directories == sum(1 for _ in tree.walk())


@given(TREES)
def test_sums_before_an_entry_number_all_entries_too(tree: Tree) -> None:
    def ranks(tree: Tree, start: int) -> Iterator[int]:
        for entry in tree.listing:
            yield start + entry.entries_before
            if entry.is_directory:
                yield from ranks(tree.below[entry.name], start + entry.entries_before + 1)

    assert list(ranks(tree, 0)) == list(range(tree.listing.entries))
