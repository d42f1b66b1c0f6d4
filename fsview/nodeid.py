"""Node numbers and the st_ino that the view reports: integers that say by themselves what they stand for.

So there is no table of inodes: a number can be answered by any process at any time. Node numbers, 64 bits:

    00 | 62: id                                        below FIRST_ID a fixed node; else a file, by its id
    01 | 30: commit number | 32: rank                  a directory of a commit
    10 | 0 | 29: commit number | 32: entry rank        a file of a commit, by its place: with -o place-inodes alone
    10 | 1 | 29: commit number | 32: entry rank        versions/: a symlink to a path that only older commits have
    11 | 00 | 60: ref id                               refs/, remotes/: a directory of refs
    11 | 01 | 22: 0 | 8: depth | 30: commit number     a symlink to a commit, from a directory so far below the root
    11 | 10 | 4: kind | 56: what this kind has         all else above the commits: see KINDS
    11 | 11 | 28: commit number | 32: entry rank       versions/: a directory, or the versions of a file

Ranks are those of fsview/rank.py. What stat shows as st_ino is the node
number, but for directories of a commit: equal directories must have equal st_ino, that is what lets `diff -r` skip
them, while the kernel takes one node under two names for a directory that was moved.

    01 | 62: keyed hash of path, dirtree, dirmeta        a directory below a commit's root
    10 | 62: commit number                               a commit's root: each its own, or cp refuses two equal ones

and with -o place-inodes=stat, for files of a commit: then a file's st_ino is its node number. (No commit has number 0,
so these and the roots' don't meet.)
"""

from __future__ import annotations

from collections.abc import Callable
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
REMOTES: Final = NodeId(18)
HISTORY: Final = NodeId(19)
BY_DATE: Final = NodeId(20)
INFO: Final = NodeId(21)
VERSIONS: Final = NodeId(22)
STATUS: Final = NodeId(23)
FIXED_NAMES: Final = {
    ROOT: b"", COMMITS: b"commits", REFS: b"refs", REMOTES: b"remotes", HISTORY: b"history", BY_DATE: b"by-date",
    INFO: b"info", VERSIONS: b"versions", STATUS: b".fsview",
}  # fmt: skip
assert max(FIXED_NAMES) < FIRST_ID

_PAYLOAD_BITS: Final = 62
_PAYLOAD: Final = (1 << _PAYLOAD_BITS) - 1
_RANK_BITS: Final = 32
_RANK: Final = (1 << _RANK_BITS) - 1
_COMMIT_BITS: Final = 30
_DEPTH_BITS: Final = 8
_SUBTAG_BITS: Final = 60
_KIND_BITS: Final = 56
_PLAIN, _DIRECTORY, _PLACED, _VIRTUAL = range(4)
_REF_DIRECTORY, _LINK, _OTHER, _VERSIONED = range(4)
_GONE: Final = 1 << _PAYLOAD_BITS - 1
_HASHED_INO, _ROOT_INO = 1, 2
assert MAX_COMMIT_NUMBER < 1 << 28 and MAX_FILE_ID <= _PAYLOAD


class StaleNodeError(NotFoundError):
    """A node number that stands for nothing: what it stood for is gone. The kernel looks the path up again."""

    errno = ESTALE

    def __init__(self, node: int) -> None:
        super().__init__(f"node {node:#x} stands for nothing in this repository")


class Fixed(NamedTuple):
    """MNT, or what always is in it."""

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
    """A directory below MNT/refs or, where its name begins with "remote:", below MNT/remotes."""

    ref_id: RefId


class Link(NamedTuple):
    """A symlink to a commit, standing in a directory *depth* levels below MNT; 0: in MNT/commits."""

    depth: int
    commit: CommitNumber


class SiblingLink(NamedTuple):
    """A symlink to a commit's directory in the same view, which is so many levels up."""

    up: int
    commit: CommitNumber


class Remote(NamedTuple):
    """MNT/remotes/<remote>, by a keyed hash of the name (`name_hash`)."""

    name_hash: int


class HistoryDirectory(NamedTuple):
    """Below MNT/history: a directory of refs, or the commits of a ref."""

    ref_id: RefId


class VersionsDirectory(NamedTuple):
    """Below MNT/versions: a directory of refs."""

    ref_id: RefId


class Date(NamedTuple):
    """A year, month or day below MNT/by-date; what is not said is 0."""

    year: int
    month: int
    day: int


class Info(NamedTuple):
    """MNT/info/<sha256>, or what is in it: fsview/rooms/info.py has the numbers."""

    commit: CommitNumber
    item: int


class StatusFile(NamedTuple):
    """A file in MNT/.fsview, by its index among the names there, which are the same as long as a view is mounted."""

    number: int


class Versioned(NamedTuple):
    """Below MNT/versions/<sha256>: a directory of the commit, or in place of anything else a directory of its versions.

    The commit's root has the entry rank 0.
    """

    commit: CommitNumber
    rank: EntryRank


class GoneLink(NamedTuple):
    """A symlink below MNT/versions/<sha256> to the versions of what only older commits have: this is the newest."""

    commit: CommitNumber
    rank: EntryRank


Other: TypeAlias = Remote | HistoryDirectory | VersionsDirectory | Date | Info | SiblingLink | StatusFile
Virtual: TypeAlias = Fixed | RefDirectory | Link | Other | Versioned | GoneLink
Node: TypeAlias = File | Directory | PlacedFile | Virtual

KINDS: Final[tuple[tuple[Callable[..., Other], tuple[int, ...]], ...]] = (  # what it is, bits of each field
    (Remote, (56,)), (HistoryDirectory, (56,)), (VersionsDirectory, (56,)), (Date, (14, 4, 5)), (Info, (28, 28)),
    (SiblingLink, (8, 28)), (StatusFile, (16,)),
)  # fmt: skip
_KIND_OF: Final = {kind: (number, widths) for number, (kind, widths) in enumerate(KINDS)}


def parse(node: int) -> Node:
    """Return what a node number stands for.

    Raises:
        StaleNodeError: nothing can have this number.
    """
    tag, payload = node >> _PAYLOAD_BITS, node & _PAYLOAD
    if tag == _PLAIN and payload >= FIRST_ID:
        return File(FileId(payload))
    if tag == _DIRECTORY:
        return Directory(_commit(node, payload >> _RANK_BITS), Rank(payload & _RANK))
    if tag == _VIRTUAL:
        return _parse_virtual(node, payload >> _SUBTAG_BITS, payload & (1 << _SUBTAG_BITS) - 1)
    if tag == _PLACED and payload & _GONE:
        return GoneLink(_commit(node, (payload & ~_GONE) >> _RANK_BITS), EntryRank(payload & _RANK))
    if tag == _PLACED:
        return PlacedFile(_commit(node, payload >> _RANK_BITS), EntryRank(payload & _RANK))
    if node in FIXED_NAMES:
        return Fixed(NodeId(node))
    raise StaleNodeError(node)


def _parse_virtual(node: int, subtag: int, payload: int) -> Virtual:
    if subtag == _REF_DIRECTORY:
        return RefDirectory(RefId(payload))
    if subtag == _LINK and payload >> _COMMIT_BITS + _DEPTH_BITS == 0:
        return Link(payload >> _COMMIT_BITS, _commit(node, payload & (1 << _COMMIT_BITS) - 1))
    if subtag == _VERSIONED:
        return Versioned(_commit(node, payload >> _RANK_BITS), EntryRank(payload & _RANK))
    if subtag == _OTHER and payload >> _KIND_BITS < len(KINDS):
        kind, widths = KINDS[payload >> _KIND_BITS]
        payload &= (1 << _KIND_BITS) - 1
        fields = []
        for width in reversed(widths):
            fields.append(payload & (1 << width) - 1)
            payload >>= width
        if not payload:
            return kind(*reversed(fields))
    raise StaleNodeError(node)


def _commit(node: int, number: int) -> CommitNumber:
    if number > MAX_COMMIT_NUMBER:
        raise StaleNodeError(node)
    return CommitNumber(number)


def is_in_commit(node: int) -> bool:
    """Whether *node* is a directory of a commit: what is in it never changes."""
    return node >> _PAYLOAD_BITS == _DIRECTORY


def file_node(file_id: int) -> NodeId:
    """Return the st_ino of a file object, which is its node number too where it has no place."""
    assert FIRST_ID <= file_id <= MAX_FILE_ID
    return NodeId(file_id)


def directory_node(commit: CommitNumber, rank: Rank) -> NodeId:
    """Return the node number of a directory of a commit."""
    return NodeId(_DIRECTORY << _PAYLOAD_BITS | _ranked(commit, rank))


def placed_node(commit: CommitNumber, rank: EntryRank) -> NodeId:
    """Return the node number of a file at its place in a commit; its st_ino is the file id all the same."""
    return NodeId(_PLACED << _PAYLOAD_BITS | _ranked(commit, rank))


def ref_directory_node(ref_id: RefId) -> NodeId:
    """Return the node number of a directory of refs, which is its st_ino too."""
    assert 0 <= ref_id < 1 << _SUBTAG_BITS
    return NodeId(_VIRTUAL << _PAYLOAD_BITS | ref_id)


def link_node(depth: int, commit: CommitNumber) -> NodeId:
    """Return the node number of a symlink to a commit, another one for another target; it is its st_ino too."""
    assert 0 <= depth < 1 << _DEPTH_BITS and 0 <= commit <= MAX_COMMIT_NUMBER
    return NodeId(_VIRTUAL << _PAYLOAD_BITS | _LINK << _SUBTAG_BITS | depth << _COMMIT_BITS | commit)


def virtual_node(node: Virtual) -> NodeId:
    """Return the node number of anything above the commits, which is its st_ino too."""
    match node:
        case Fixed(number):
            return number
        case RefDirectory(ref_id):
            return ref_directory_node(ref_id)
        case Link(depth, commit):
            return link_node(depth, commit)
        case Versioned(commit, rank):
            return NodeId((_VIRTUAL << 2 | _VERSIONED) << _SUBTAG_BITS | _ranked(commit, rank))
        case GoneLink(commit, rank):
            return NodeId(_PLACED << _PAYLOAD_BITS | _GONE | _ranked(commit, rank))
    kind, widths = _KIND_OF[type(node)]
    payload = 0
    for field, width in zip(node, widths, strict=True):
        assert 0 <= field < 1 << width
        payload = payload << width | field
    return NodeId((_VIRTUAL << 2 | _OTHER) << _SUBTAG_BITS | kind << _KIND_BITS | payload)


def _ranked(commit: CommitNumber, rank: int) -> int:
    assert 0 <= commit <= MAX_COMMIT_NUMBER and 0 <= rank < 1 << _RANK_BITS
    return commit << _RANK_BITS | rank


def name_hash(secret: bytes, name: bytes) -> int:
    """Return what stands for a remote's name in its node number and cookie: 56 bits, the highest of them 1."""
    hashed = blake2b(name, digest_size=_KIND_BITS // 8, key=secret).digest()
    return int.from_bytes(hashed, "big") | 1 << _KIND_BITS - 1


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
