"""Ranks: each directory of any tree has one, the way down finds it again, and so do node numbers."""

from __future__ import annotations

from collections.abc import Iterator
from errno import ESTALE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsview import nodeid
from fsview.nodeid import parse
from fsview.rank import EntryRank, Rank, child_entry_rank, child_rank, descend, descend_to_entry
from store.listing import Entry, Listing, pack_listing
from store.schema import FIRST_ID, MAX_COMMIT_NUMBER, MAX_FILE_ID, CommitNumber, FileId, MetaId, RefId, TreeId

DIRECTORY, FILE = 0o40755, 0o100644

# A tree is a list of its entries: None for a file, a tree for a directory. Equal trees share one listing.
Tree = tuple["Tree | None", ...]
trees: st.SearchStrategy[Tree] = st.recursive(
    st.just(()), lambda below: st.lists(st.none() | below, max_size=5).map(tuple), max_leaves=60
)


class Compiled:
    """The listings of a tree and of all below it, by id."""

    def __init__(self, tree: Tree) -> None:
        self.listings: dict[TreeId, Listing] = {}
        self._ids: dict[Tree, TreeId] = {}
        self.root = Entry(b"", self._add(tree), 0, DIRECTORY, 0, 0, 0, 0, 0, 0)

    def load(self, tree_id: TreeId) -> Listing:
        return self.listings[tree_id]

    def directories(self) -> Iterator[tuple[bytes, Rank]]:
        """Yield path and rank of every directory, in preorder."""
        yield from self._walk(b"", Rank(0), self.root)

    def _walk(self, path: bytes, rank: Rank, entry: Entry) -> Iterator[tuple[bytes, Rank]]:
        yield path, rank
        for child in self.load(TreeId(entry.id)):
            if child.is_directory:
                yield from self._walk(path + b"/" + child.name, child_rank(rank, child), child)

    def entries(self) -> Iterator[tuple[bytes, EntryRank]]:
        """Yield path and rank of everything, in preorder."""
        yield from self._walk_entries(b"", EntryRank(0), self.root)

    def _walk_entries(self, path: bytes, rank: EntryRank, entry: Entry) -> Iterator[tuple[bytes, EntryRank]]:
        yield path, rank
        for child in self.load(TreeId(entry.id)) if entry.is_directory else ():
            yield from self._walk_entries(path + b"/" + child.name, child_entry_rank(rank, child), child)

    def _add(self, tree: Tree) -> TreeId:
        if tree not in self._ids:
            rows = [self._row(b"%03d" % index, child) for index, child in enumerate(tree)]
            self._ids[tree] = TreeId(FIRST_ID + len(self._ids))
            self.listings[self._ids[tree]] = Listing(pack_listing(rows))
        return self._ids[tree]

    def _row(self, name: bytes, child: Tree | None) -> tuple[bytes, int, int, int, int, int, int, int, int, int]:
        if child is None:
            return name, FIRST_ID, 0, FILE, 0, 0, 0, 0, 0, 0
        tree_id = self._add(child)
        below = self.load(tree_id)
        return name, tree_id, FIRST_ID, DIRECTORY, 0, 0, 0, 0, below.directories, below.entries


@given(trees)
def test_rank_names_every_directory_once(tree: Tree) -> None:
    compiled = Compiled(tree)
    ranks = [rank for _, rank in compiled.directories()]
    assert ranks == list(range(compiled.load(TreeId(compiled.root.id)).directories))  # preorder, dense, from 0


@given(trees)
def test_descending_to_a_rank_finds_its_directory(tree: Tree) -> None:
    compiled = Compiled(tree)
    for path, rank in compiled.directories():
        way = descend(compiled.load, compiled.root, rank)
        assert b"/".join(entry.name for _, entry in way) == path
        assert way[-1][0] == rank
        parents = [other for other, parent in compiled.directories() if parent == way[-2][0]] if rank else []
        assert parents == ([path.rpartition(b"/")[0]] if rank else [])  # the way gives "..", too


@given(trees)
def test_entry_ranks_are_dense_and_lead_back(tree: Tree) -> None:
    compiled = Compiled(tree)
    entries = list(compiled.entries())
    assert [rank for _, rank in entries] == list(range(compiled.load(TreeId(compiled.root.id)).entries + 1))
    for path, rank in entries:
        way = descend_to_entry(compiled.load, compiled.root, rank)
        assert b"/".join(entry.name for _, entry in way) == path
        assert way[-1][0] == rank


def test_a_chain_of_directories() -> None:
    tree: Tree = ()
    for _ in range(200):
        tree = (None, tree, None)
    compiled = Compiled(tree)
    assert len(descend(compiled.load, compiled.root, Rank(200))) == 201


commits = st.integers(0, MAX_COMMIT_NUMBER).map(CommitNumber)
entry_ranks = st.integers(0, (1 << 32) - 1).map(EntryRank)
nodes = st.one_of(
    st.integers(FIRST_ID, MAX_FILE_ID).map(lambda number: nodeid.File(FileId(number))),
    st.builds(nodeid.Directory, commits, st.integers(0, (1 << 32) - 1).map(Rank)),
    st.builds(nodeid.PlacedFile, commits, entry_ranks),
    st.integers(0, (1 << 60) - 1).map(lambda number: nodeid.RefDirectory(RefId(number))),
    st.builds(nodeid.Link, st.integers(0, 255), commits),
    st.sampled_from(sorted(nodeid.FIXED_NAMES)).map(nodeid.Fixed),
    st.builds(nodeid.Versioned, commits, entry_ranks),
    st.builds(nodeid.GoneLink, commits, entry_ranks),
    st.builds(nodeid.Remote, st.integers(0, (1 << 56) - 1)),
    st.builds(nodeid.HistoryDirectory, st.integers(0, (1 << 56) - 1).map(RefId)),
    st.builds(nodeid.VersionsDirectory, st.integers(0, (1 << 56) - 1).map(RefId)),
    st.builds(nodeid.Date, st.integers(0, 9999), st.integers(0, 12), st.integers(0, 31)),
    st.builds(nodeid.Info, commits, st.integers(0, (1 << 28) - 1)),
    st.builds(nodeid.SiblingLink, st.integers(0, 255), commits),
    st.builds(nodeid.StatusFile, st.integers(0, (1 << 16) - 1)),
)


def _number(node: nodeid.Node) -> int:
    match node:
        case nodeid.File(file_id):
            return nodeid.file_node(file_id)
        case nodeid.Directory(commit, rank):
            return nodeid.directory_node(commit, rank)
        case nodeid.PlacedFile(commit, entry_rank):
            return nodeid.placed_node(commit, entry_rank)
        case _:
            return nodeid.virtual_node(node)


@given(nodes)
def test_a_number_says_what_it_stands_for(node: nodeid.Node) -> None:
    number = _number(node)
    assert 0 < number < 1 << 64
    assert parse(number) == node and type(parse(number)) is type(node)
    assert nodeid.is_in_commit(number) == isinstance(node, nodeid.Directory)


tags = st.sampled_from([0b0000, 0b0100, 0b1000, 0b1010, 0b1100, 0b1101, 0b1110, 0b1111])


@given(
    st.integers(0, (1 << 64) - 1)
    | st.builds(lambda tag, rest: tag << 60 | rest, tags, st.integers(0, (1 << 60) - 1))
    | st.builds(lambda kind, rest: 0b1110 << 60 | kind << 56 | rest, st.integers(0, 8), st.integers(0, (1 << 56) - 1))
    | st.builds(lambda kind, rest: 0b1110 << 60 | kind << 56 | rest, st.integers(0, 8), st.integers(0, (1 << 36) - 1))
)
def test_any_number_stands_for_one_node_or_is_refused(number: int) -> None:
    try:
        node = parse(number)
    except nodeid.StaleNodeError as error:
        assert error.errno == ESTALE
    else:
        assert _number(node) == number


ids = st.integers(FIRST_ID, 1 << 40)
directories = st.tuples(st.binary(max_size=40), ids.map(TreeId), ids.map(MetaId))


@given(directories, directories)
def test_st_ino_of_directories_differs_by_path_and_contents(
    one: tuple[bytes, TreeId, MetaId], two: tuple[bytes, TreeId, MetaId]
) -> None:
    secret = bytes(32)
    assert (one == two) == (nodeid.directory_ino(secret, *one) == nodeid.directory_ino(secret, *two))


@given(commits, st.integers(FIRST_ID, MAX_FILE_ID), st.binary(max_size=9))
def test_st_ino_of_roots_directories_and_files_never_meet(commit: CommitNumber, file_id: int, path: bytes) -> None:
    directory = nodeid.directory_ino(bytes(32), path, TreeId(FIRST_ID), MetaId(FIRST_ID))
    kinds = [number >> 62 for number in (nodeid.file_node(file_id), directory, nodeid.root_ino(commit))]
    kinds.append(nodeid.link_node(1, commit) >> 62)
    assert kinds == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "number",
    [
        0, 2, 15, 24, FIRST_ID - 1, 2 << 62 | MAX_COMMIT_NUMBER + 1 << 32, 10 << 60 | MAX_COMMIT_NUMBER + 1 << 32,
        1 << 62 | MAX_COMMIT_NUMBER + 1 << 32, 3 << 62 | 1 << 60 | 1 << 38, 14 << 60 | 7 << 56,
        14 << 60 | 5 << 56 | 1 << 36,
    ],
)  # fmt: skip
def test_numbers_that_stand_for_nothing(number: int) -> None:
    with pytest.raises(nodeid.StaleNodeError, match="stands for nothing"):
        parse(number)
