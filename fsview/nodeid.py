"""Node numbers and the st_ino that the view reports: integers that say by themselves what they stand for.

So there is no table of inodes: a number can be answered by any process at any time. Node numbers, 64 bits:

    00 | 62: id                                          below FIRST_ID a fixed node; else a file, by its id
    01 | 30: commit number | 32: rank                    a directory of a commit
    10 | 0 | 29: commit number | 32: entry rank          a file of a commit, by its place: with -o place-inodes alone
    11 | 00 | 60: ref id                                 a directory of refs
    11 | 01 | 22: 0 | 8: depth | 30: commit number       a symlink to a commit, from a directory so far below the root

Ranks are those of fsview/rank.py. What stat shows as st_ino is the node
number, but for directories of a commit: equal directories must have equal st_ino, that is what lets `diff -r` skip
them, while the kernel takes one node under two names for a directory that was moved.

    01 | 62: keyed hash of path, dirtree, dirmeta        a directory below a commit's root
    10 | 62: commit number                               a commit's root: each its own, or cp refuses two equal ones
"""

from __future__ import annotations

from errno import ESTALE
from hashlib import blake2b
from typing import Final, NamedTuple, NewType, TypeAlias

from fsview.rank import EntryRank, Rank
from store.errors import NotFoundError
from store.schema import FIRST_ID, MAX_COMMIT_NUMBER, MAX_FILE_ID, CommitNumber, FileId, MetaId, RefId, TreeId

NodeId = NewType("NodeId", int)  # what the kernel knows a node by
Ino = NewType("Ino", int)  # what stat shows

ROOT: Final = NodeId(1)  # FUSE's own number
COMMITS: Final = NodeId(16)
REFS: Final = NodeId(17)
assert max(COMMITS, REFS) < FIRST_ID

_PAYLOAD_BITS: Final = 62
_PAYLOAD: Final = (1 << _PAYLOAD_BITS) - 1
_RANK_BITS: Final = 32
_COMMIT_BITS: Final = 30
_DEPTH_BITS: Final = 8
_REF_BITS: Final = 60
_PLAIN, _DIRECTORY, _PLACED, _VIRTUAL = range(4)
_HASHED_INO, _ROOT_INO = 1, 2
assert MAX_COMMIT_NUMBER < 1 << _COMMIT_BITS and MAX_FILE_ID <= _PAYLOAD


class StaleNodeError(NotFoundError):
    """A node number that stands for nothing: what it stood for is gone. The kernel looks the path up again."""

    errno = ESTALE

    def __init__(self, node: int) -> None:
        super().__init__(f"node {node:#x} stands for nothing in this repository")


class Fixed(NamedTuple):
    """MNT, MNT/commits or MNT/refs."""

    node: NodeId


class File(NamedTuple):
    """A file or a symlink of any commit."""

    file_id: FileId


class Directory(NamedTuple):
    """A directory of a commit."""

    commit: CommitNumber
    rank: Rank


class PlacedFile(NamedTuple):
    """A file or a symlink of a commit, at its place: equal files have numbers of their own."""

    commit: CommitNumber
    rank: EntryRank


class RefDirectory(NamedTuple):
    """A directory below MNT/refs."""

    ref_id: RefId


class Link(NamedTuple):
    """A symlink to a commit, standing in a directory *depth* levels below MNT; 0: in MNT/commits."""

    depth: int
    commit: CommitNumber


Node: TypeAlias = Fixed | File | Directory | PlacedFile | RefDirectory | Link


def parse(node: int) -> Node:
    """Return what a node number stands for.

    Raises:
        StaleNodeError: nothing can have this number.
    """
    tag, payload = node >> _PAYLOAD_BITS, node & _PAYLOAD
    if tag == _PLAIN and payload >= FIRST_ID:
        return File(FileId(payload))
    if tag == _DIRECTORY:
        return Directory(CommitNumber(payload >> _RANK_BITS), Rank(payload & (1 << _RANK_BITS) - 1))
    if tag == _PLACED and payload >> _RANK_BITS <= MAX_COMMIT_NUMBER:
        return PlacedFile(CommitNumber(payload >> _RANK_BITS), EntryRank(payload & (1 << _RANK_BITS) - 1))
    if tag == _VIRTUAL and payload >> _REF_BITS == 0:
        return RefDirectory(RefId(payload))
    if tag == _VIRTUAL and payload >> _COMMIT_BITS + _DEPTH_BITS == 1 << _REF_BITS - _COMMIT_BITS - _DEPTH_BITS:
        depth = payload >> _COMMIT_BITS & (1 << _DEPTH_BITS) - 1
        return Link(depth, CommitNumber(payload & (1 << _COMMIT_BITS) - 1))
    if node in (ROOT, COMMITS, REFS):
        return Fixed(NodeId(node))
    raise StaleNodeError(node)


def is_in_commit(node: int) -> bool:
    """Whether *node* is a directory of a commit: what is in it never changes."""
    return node >> _PAYLOAD_BITS == _DIRECTORY


def file_node(file_id: int) -> NodeId:
    """Return the st_ino of a file object, which is its node number too where it has no place."""
    assert FIRST_ID <= file_id <= MAX_FILE_ID
    return NodeId(file_id)


def directory_node(commit: CommitNumber, rank: Rank) -> NodeId:
    """Return the node number of a directory of a commit."""
    assert 0 <= commit <= MAX_COMMIT_NUMBER and 0 <= rank < 1 << _RANK_BITS
    return NodeId(_DIRECTORY << _PAYLOAD_BITS | commit << _RANK_BITS | rank)


def placed_node(commit: CommitNumber, rank: EntryRank) -> NodeId:
    """Return the node number of a file at its place in a commit; its st_ino is the file id all the same."""
    assert 0 <= commit <= MAX_COMMIT_NUMBER and 0 <= rank < 1 << _RANK_BITS
    return NodeId(_PLACED << _PAYLOAD_BITS | commit << _RANK_BITS | rank)


def ref_directory_node(ref_id: RefId) -> NodeId:
    """Return the node number of a directory of refs, which is its st_ino too."""
    assert 0 <= ref_id < 1 << _REF_BITS
    return NodeId(_VIRTUAL << _PAYLOAD_BITS | ref_id)


def link_node(depth: int, commit: CommitNumber) -> NodeId:
    """Return the node number of a symlink to a commit, another one for another target; it is its st_ino too."""
    assert 0 <= depth < 1 << _DEPTH_BITS and 0 <= commit <= MAX_COMMIT_NUMBER
    return NodeId(_VIRTUAL << _PAYLOAD_BITS | 1 << _REF_BITS | depth << _COMMIT_BITS | commit)


def root_ino(commit: CommitNumber) -> Ino:
    """Return the st_ino of a commit's root."""
    return Ino(_ROOT_INO << _PAYLOAD_BITS | commit)


def directory_ino(secret: bytes, path: bytes, tree_id: TreeId, meta_id: MetaId) -> Ino:
    """Return the st_ino of the directory at *path* (as b"/usr/bin") in any commit where it has these contents.

    An object has one id as long as it is here, so ids do for checksums. The key keeps everybody else from making two
    directories that differ and clash.
    """
    data = tree_id.to_bytes(8, "big") + meta_id.to_bytes(8, "big") + path
    hashed = int.from_bytes(blake2b(data, digest_size=8, key=secret).digest(), "big")
    return Ino(_HASHED_INO << _PAYLOAD_BITS | hashed & _PAYLOAD)
