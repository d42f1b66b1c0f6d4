"""What every room has: the questions that it answers, and what it makes its answers of."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

from fsview.attributes import (
    FOREVER_S,
    MOVING_NAME_S,
    READ_ONLY_DIRECTORY,
    READ_ONLY_FILE,
    STEADY_NAME_S,
    SYMLINK,
    Attributes,
    Row,
)  # fmt: skip
from fsview.commit_tree import CommitTrees
from fsview.nodeid import Ino, Link, NodeId, SiblingLink, Virtual, link_node, virtual_node
from store.database import Database, Reading
from store.errors import NotFoundError
from store.repository import Repository
from store.schema import CommitNumber

Mine = TypeVar("Mine", bound=Virtual)
Item = TypeVar("Item")
HEX_DIGITS: Final = 64  # in a checksum
_CHANGES: Final = 10**6  # transactions that are told apart by the nanoseconds of one millisecond
NAME_MAX: Final = 255  # bytes in a name that the kernel looks up
ROWS_AT_A_TIME: Final = 32  # about as many as the kernel asks for


class Ground:
    """What the rooms stand on. *uid* and *gid* own what they show; *now_s* is the clock, for "@{2 days ago}"."""

    def __init__(
        self, repository: Repository, trees: CommitTrees, uid: int, gid: int, now_s: Callable[[], int]
    ) -> None:
        """Take what a view has."""
        self.repository, self.database, self.trees = repository, repository.database, trees
        self.owner, self.now_s = (uid, gid), now_s
        self._index, self._zero_mtime = repository.database.path / "data.mdb", repository.settings.mtime == "zero"

    def mtime_ns(self) -> int:
        """Return when anything was last committed or moved: another time after each change, however quick they come.

        By it the kernel tells whether what it keeps of a directory or a file still holds.
        """
        changes = self.database.last_change() % _CHANGES
        return changes if self._zero_mtime else os.stat(self._index).st_mtime_ns // _CHANGES * _CHANGES + changes

    def directory(self, node: NodeId, name_s: float = STEADY_NAME_S) -> Attributes:
        """Return the attributes of a virtual directory."""
        return Attributes(
            node, Ino(node), READ_ONLY_DIRECTORY, *self.owner, 0, self.mtime_ns(), name_s, MOVING_NAME_S
        )  # fmt: skip

    def symlink(self, node: NodeId, size: int, mtime_ns: int, name_s: float = MOVING_NAME_S) -> Attributes:
        """Return the attributes of a symlink with a target of *size* bytes; a node has one target for good."""
        return Attributes(node, Ino(node), SYMLINK, *self.owner, size, mtime_ns, name_s)

    def commit_link(
        self, depth: int, commit: CommitNumber, name_s: float = MOVING_NAME_S, time_s: int | None = None
    ) -> Attributes:
        """Return the attributes of a symlink to a commit that stands in a directory *depth* levels below MNT.

        *time_s*: the commit's time, where the caller has it.
        """
        size = HEX_DIGITS + (3 * depth + len("commits/") if depth else 0)
        mtime_ns = self.trees.root(commit).mtime_ns if time_s is None else self.trees.commit_mtime_ns(time_s)
        return self.symlink(link_node(depth, commit), size, mtime_ns, name_s)

    def sibling_link(self, up: int, commit: CommitNumber) -> Attributes:
        """Return the attributes of a symlink to a commit's directory in the same view, *up* levels above."""
        node = virtual_node(SiblingLink(up, commit) if up else Link(0, commit))
        return self.symlink(node, HEX_DIGITS + 3 * up, self.trees.root(commit).mtime_ns)

    def file(self, node: NodeId, size: int, mtime_ns: int, attributes_s: float = FOREVER_S) -> Attributes:
        """Return the attributes of a file that is made when it is read."""
        return Attributes(node, Ino(node), READ_ONLY_FILE, *self.owner, size, mtime_ns, STEADY_NAME_S, attributes_s)


class Room(ABC, Generic[Mine]):
    """One of the view's directories with all that is in it. What a room has none of, it need not answer."""

    def __init__(self, ground: Ground) -> None:
        """Stand on *ground*."""
        self._ground, self._database = ground, ground.database

    @abstractmethod
    def attributes(self, node: Mine) -> Attributes:
        """Return the attributes of a node.

        Raises:
            StaleNodeError: it is gone.
        """

    def find(self, directory: Mine, name: bytes) -> Attributes | None:
        """Return what is called *name* in *directory*, listed or not.

        None, NotFoundError, InvalidNameError, UnicodeError: nothing is.
        """
        raise is_no("directory", directory)

    def rows(self, directory: Mine, after: int) -> Iterator[Row]:
        """Yield the rows of *directory* whose cookie is greater than *after*, in their order; not "." and ".."."""
        raise is_no("directory", directory)

    def parent(self, directory: Mine) -> Virtual:
        """Return the directory that *directory* stands in; of MNT, itself."""
        raise is_no("directory", directory)

    def target(self, node: Mine) -> bytes:
        """Return where a symlink leads."""
        raise is_no("symlink", node)

    def content(self, node: Mine) -> bytes:
        """Return the bytes of a file."""
        raise is_no("file", node)


def answered(database: Database, items: Iterable[Item], answer: Callable[[Reading, Item], Row | None]) -> Iterator[Row]:
    """Yield the row that *answer* gives for each of *items*, if it gives one: some at a time, in one look each.

    So a page of a directory costs what is on it, however much is behind.
    """
    left = iter(items)
    while some := list(islice(left, ROWS_AT_A_TIME)):
        with database.reading() as reading:
            rows = [answer(reading, item) for item in some]
        yield from (row for row in rows if row is not None)


def is_file_name(name: bytes) -> bool:
    """Whether a name can stand in a directory: the kernel refuses the whole of one that has another in it."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name and len(name) <= NAME_MAX


def is_no(kind: str, node: Virtual) -> NotFoundError:
    """Return the error for a question that a node has no answer to."""
    return NotFoundError(f"{type(node).__name__} {tuple(node)} is no {kind}")
