"""The view above the commits: where names come and go. Which room answers for which node.

    MNT/commits, refs, remotes, history, by-date, info, versions, .fsview     see fsview/rooms/

Every directory has one name; all other names of a commit are symlinks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fsview import nodeid
from fsview.ancestry import Ancestry
from fsview.attributes import DOT_COOKIE, DOT_DOT_COOKIE, Attributes, Row
from fsview.commit_names import CommitNames
from fsview.commit_tree import CommitTrees
from fsview.nodeid import Fixed, StaleNodeError, Virtual
from fsview.rooms.by_date import ByDate
from fsview.rooms.commits import Commits, Links, Top
from fsview.rooms.history import HistoryView
from fsview.rooms.info import InfoView
from fsview.rooms.refs import Refs, RemoteNames, Remotes
from fsview.rooms.room import Ground, Room
from fsview.rooms.status import Status
from fsview.rooms.versions import VersionedTree, VersionsTop
from store.errors import InvalidNameError, NotFoundError
from store.repository import Repository


class Names:
    """The virtual directories, symlinks and files of a view."""

    def __init__(
        self,
        repository: Repository,
        trees: CommitTrees,
        uid: int,
        gid: int,
        now_s: Callable[[], int],
        status: Mapping[bytes, Callable[[], bytes]],
        on_progress: Callable[[], None],
    ) -> None:
        """*uid* and *gid* own what is shown here; *now_s* is the clock; *status* makes the files in .fsview/.

        *on_progress* is called now and then in an answer that takes long.
        """
        ground = Ground(repository, trees, uid, gid, now_s)
        ancestry, names = Ancestry(on_progress), CommitNames(on_progress)
        remotes = RemoteNames(repository.secret)
        refs, history, links = Refs(ground, remotes), HistoryView(ground, ancestry, names), Links(ground)
        by_date, info, files = ByDate(ground, names), InfoView(ground), Status(ground, status)
        tree = VersionedTree(ground, ancestry, names)
        versions = VersionsTop(ground, tree)
        self._fixed: dict[int, Room[Any]] = {
            nodeid.ROOT: Top(ground), nodeid.COMMITS: Commits(ground), nodeid.REFS: refs,
            nodeid.REMOTES: Remotes(ground, remotes), nodeid.HISTORY: history, nodeid.BY_DATE: by_date,
            nodeid.INFO: info, nodeid.VERSIONS: versions, nodeid.STATUS: files,
        }  # fmt: skip
        self._rooms: dict[type[Virtual], Room[Any]] = {
            nodeid.RefDirectory: refs, nodeid.Remote: refs, nodeid.Link: links, nodeid.SiblingLink: links,
            nodeid.HistoryDirectory: history, nodeid.Date: by_date, nodeid.Info: info,
            nodeid.VersionsDirectory: versions, nodeid.Versioned: tree, nodeid.GoneLink: tree,
            nodeid.StatusFile: files,
        }  # fmt: skip

    def attributes(self, node: Virtual) -> Attributes:
        """Return the attributes of a node.

        Raises:
            StaleNodeError: it is gone.
        """
        return self._room(node).attributes(node)

    def find(self, directory: Virtual, name: bytes) -> Attributes | None:
        """Return what is called *name* in *directory*, listed or not; None if nothing is."""
        try:
            return self._room(directory).find(directory, name)
        except StaleNodeError:
            raise
        except (NotFoundError, InvalidNameError, UnicodeError):
            return None

    def rows(self, directory: Virtual, after: int) -> Iterator[Row]:
        """Yield the rows of *directory* whose cookie is greater than *after*."""
        room = self._room(directory)
        if after < DOT_COOKIE:
            yield Row(b".", room.attributes(directory), DOT_COOKIE)
        if after < DOT_DOT_COOKIE:
            yield Row(b"..", self.attributes(room.parent(directory)), DOT_DOT_COOKIE)
        yield from room.rows(directory, max(after, DOT_DOT_COOKIE))

    def parent(self, directory: Virtual) -> Virtual:
        """Return the directory that *directory* stands in; of the root, itself."""
        return self._room(directory).parent(directory)

    def target(self, node: Virtual) -> bytes:
        """Return where a symlink leads."""
        return self._room(node).target(node)

    def content(self, node: Virtual) -> bytes:
        """Return the bytes of a file, as they are now."""
        return self._room(node).content(node)

    def _room(self, node: Virtual) -> Room[Any]:
        return self._fixed[node.node] if isinstance(node, Fixed) else self._rooms[type(node)]
