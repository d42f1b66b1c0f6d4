"""MNT/history/<ref>/: the commits of a local ref, its head and all parents that are here, as symlinks.

Their names sort by time and never change (fsview/commit_names.py); a row's cookie is the commit's number.
"""

from __future__ import annotations

from collections.abc import Iterator

from fsview.ancestry import Ancestry
from fsview.attributes import Attributes, Row
from fsview.commit_names import CommitNames, numbers_after
from fsview.nodeid import HISTORY, ROOT, Fixed, HistoryDirectory, Virtual, virtual_node
from fsview.rooms.refs import RefTree, directory_prefix, outer_directory, ref_name
from fsview.rooms.room import Ground
from store.database import Reading
from store.refs import find_ref
from store.schema import CommitNumber, RefId


class HistoryView(RefTree[Fixed | HistoryDirectory]):
    """MNT/history."""

    def __init__(self, ground: Ground, ancestry: Ancestry, names: CommitNames) -> None:
        """Share what is known of commits with other rooms."""
        super().__init__(ground)
        self._ancestry, self._names = ancestry, names

    def prefix(self, reading: Reading, directory: Fixed | HistoryDirectory) -> bytes:
        """Return what the names of the refs in *directory* begin with."""
        return b"" if isinstance(directory, Fixed) else directory_prefix(reading, directory)

    def directory_of(self, ref_id: RefId) -> HistoryDirectory:
        """Return a directory of refs."""
        return HistoryDirectory(ref_id)

    def of_ref(self, prefix: bytes, ref_id: RefId, commit: CommitNumber) -> Attributes:
        """Return the directory of a ref's commits."""
        return self._ground.directory(virtual_node(HistoryDirectory(ref_id)))

    def of_revision(self, prefix: bytes, commit: CommitNumber) -> None:
        """Return None: a directory has one name."""

    def attributes(self, node: Fixed | HistoryDirectory) -> Attributes:
        """Return the attributes of a directory of refs, or of commits."""
        if isinstance(node, Fixed):
            return super().attributes(node)
        with self._database.reading() as reading:
            ref_name(reading, node)
        return self._ground.directory(virtual_node(node))

    def find(self, directory: Fixed | HistoryDirectory, name: bytes) -> Attributes | None:
        """Return a directory, or a symlink to a commit."""
        with self._database.reading() as reading:
            ref = self._ref(reading, directory)
            if ref is None:
                return super().find(directory, name)
            full, head = ref
            number = self._names.find(reading, name)
            if number is None or number not in self._ancestry.history(reading, head):
                return None
        return self._ground.commit_link(_depth(full), number)

    def rows(self, directory: Fixed | HistoryDirectory, after: int) -> Iterator[Row]:
        """Yield directories, or symlinks to commits."""
        with self._database.reading() as reading:
            ref = self._ref(reading, directory)
            history = None if ref is None else self._ancestry.history(reading, ref[1])
        if ref is None or history is None:
            yield from super().rows(directory, after)
            return
        depth = _depth(ref[0])
        for number, name, time_s in self._names.named(self._database, numbers_after(history.ordered, after)):
            yield Row(name, self._ground.commit_link(depth, number, time_s=time_s), number)

    def parent(self, directory: Fixed | HistoryDirectory) -> Virtual:
        """Return the directory that a directory lies in."""
        if isinstance(directory, Fixed):
            return Fixed(ROOT)
        with self._database.reading() as reading:
            outer = outer_directory(reading, ref_name(reading, directory).name)
        return Fixed(HISTORY) if outer is None else HistoryDirectory(outer)

    def _ref(self, reading: Reading, directory: Fixed | HistoryDirectory) -> tuple[bytes, CommitNumber] | None:
        """Return the ref whose commits are in *directory*: its name, and where it points."""
        if isinstance(directory, Fixed):
            return None
        name = ref_name(reading, directory)
        ref = None if name.is_directory else find_ref(reading, name.name.decode())
        return None if ref is None else (name.name, ref.commit)


def _depth(ref: bytes) -> int:
    """Return how far below MNT the directory of a ref's commits is."""
    return 2 + ref.count(b"/")
