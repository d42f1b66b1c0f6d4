"""The upper directory of a workspace as a source: what changed is read, the rest is taken from the commit below by id.

What overlayfs leaves in an upper directory, and fuse-overlayfs where it differs:

    char device 0:0, or an empty file with the xattr "whiteout"    the name is gone       or a file .wh.NAME
    a directory with the xattr "opaque" = "y"                      nothing below counts   or a file .wh..wh..opq in it
    a directory with the xattr "redirect"                          it was renamed: below it is that directory of the
                                                                   commit: "/a/path", or a name beside its own; one
                                                                   that leads nowhere is refused
    any other directory                                            it is merged with the commit's, if that has it
    a file with the xattr "metacopy"                               its contents are below: refused, for workspaces are
                                                                   mounted without

The xattrs are in "trusted.overlay." or "user.overlay."; a commit's own of these names are escaped in the view, and so
here (fsview/overlay_xattrs.py). Those in "user." whoever owns a file may set through fuse-overlayfs: what neither
overlay writes is refused, lest something is left out without a word.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from fsview.ownership import AS_COMMITTED, Ownership
from store.errors import ConflictError, NotFoundError
from store.listing import Entry, Listing
from store.objects import DirMeta, checksum_from_hex
from store.repository import Repository
from store.schema import MetaId, TreeId
from store.stager import Stager
from store.tree import commit_number, commit_record, find, load_listing, root_entry
from store.walking.beneath import xattr_path
from tools.commit_source import CommitDirectory, CommitScan
from tools.disk_source import DiskDirectory, DiskScan, start_scan
from tools.hashing import Hasher, Recorded
from tools.sources import Directory, DiskOptions, Scanned
from tools.workspace_state import Workspace

KERNEL_NOTES: Final = (b"trusted.overlay.",)
FUSE_NOTES: Final = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.")
_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_OPAQUE_VALUES: Final = (b"y", b"x")  # x, of newer kernels: there may be whiteouts that are xattrs
_NOT_NOTED: Final = (errno.ENODATA, errno.EOPNOTSUPP)
_SET_ID_BITS: Final = 0o6000


@dataclass(frozen=True, slots=True)
class Base:
    """The commit below an upper directory; notes as in the recipe; by_names: fuse-overlayfs's .wh. files count.

    ownership: how the view below shows owners and modes.
    """

    commit: CommitScan
    root: Entry
    notes: tuple[bytes, ...]
    by_names: bool
    ownership: Ownership


def workspace_options(options: DiskOptions, workspace: Workspace) -> DiskOptions:
    """Return the options for reading a workspace's upper directory.

    The stat cache is for directories that are as they were; here, what did not change is not there at all.
    """
    notes = KERNEL_NOTES if workspace.by_kernel else FUSE_NOTES
    return replace(options, recipe=replace(options.recipe, overlay_notes=notes), stat_cache=False)


def open_workspace(
    repository: Repository, workspace: Workspace, stager: Stager, options: DiskOptions, hasher: Hasher
) -> UpperDirectory:
    """Return the root of a workspace; *options* are those of `workspace_options`.

    Raises:
        NotFoundError: the commit below it is not here.
        ConflictError: somebody put another directory in the place of its upper directory.
        OSError: its upper directory is not there.
    """
    recipe = replace(options.recipe, overlay_notes=())
    below = CommitScan(repository, stager, recipe, options.is_skipped)
    with repository.database.reading() as reading:
        number = commit_number(reading, checksum_from_hex(workspace.commit))
        if number is None:
            raise NotFoundError(f"{workspace.point} is based on the commit {workspace.commit}, which is not here")
        root = root_entry(reading, commit_record(reading, number))
    with workspace.home.opened("upper") as upper:
        scan, status = start_scan(workspace.upper, options, repository.database, hasher)
        if not os.path.samestat(status, os.fstat(upper)):
            raise ConflictError(f"{workspace.upper} was replaced meanwhile; nothing was committed")
    ownership = Ownership(status.st_uid, status.st_gid, by_mode=True) if workspace.owner_me else AS_COMMITTED
    base = Base(below, root, options.recipe.overlay_notes, not workspace.by_kernel, ownership)
    return UpperDirectory(scan, scan.root, status, base)


def _lost_set_id(mode: int, wanted: int) -> bool:
    """Return whether a mode is the one wanted but for set-ID bits, which fuse-overlayfs drops when it copies up."""
    return mode | wanted & _SET_ID_BITS == wanted


def _shown(value: bytes | None) -> str:
    return ascii((value or b"").decode("utf-8", "backslashreplace"))


class _Whole:
    """A directory of the commit that nothing was done to: nobody looks into it."""

    __slots__ = ("_directory", "path")

    def __init__(self, directory: Directory) -> None:
        assert isinstance(directory, CommitDirectory)
        self._directory, self.path = directory, directory.path

    def meta(self) -> DirMeta | MetaId:
        return self._directory.meta()

    def scan(self) -> Scanned:
        return Scanned(0, tree_id=self._directory.tree_id)


class UpperDirectory(DiskDirectory):
    """A directory of an upper directory, merged with the one below it."""

    __slots__ = ("_above", "_base", "_hidden", "_listing", "_lower")

    def __init__(
        self, scan: DiskScan, path: bytes, status: os.stat_result, base: Base, above: UpperDirectory | None = None
    ) -> None:
        """*above* is the directory that it is in; None for the root."""
        super().__init__(scan, path, status, above)
        self._base, self._above = base, above
        self._lower: Entry | None = None
        self._listing: Listing | None = None  # of the directory below
        self._hidden: set[bytes] = set()  # names below that don't count

    def scan(self) -> Scanned:
        """Return what is in it, what is left of the commit included; hand the files that are here to the hasher."""
        self._hidden.clear()
        scanned = super().scan()
        if scanned.vanished:
            return scanned
        if self._lower is not None:
            below = CommitDirectory(self._base.commit, self._lower, self.path, self._place).scan()
            scanned.files |= {name: file for name, file in below.files.items() if name not in self._hidden}
            for name, directory in below.directories.items():
                if name not in self._hidden:
                    scanned.directories[name] = _Whole(directory) if self._base.commit.as_it_is else directory
        return scanned

    @property
    def _place(self) -> bytes:
        return self.path[len(self._scan.root.rstrip(b"/")) :]

    def _wanted(self, rows: list[tuple[bytes, os.stat_result]]) -> list[tuple[bytes, os.stat_result]]:
        kept = []
        for name, status in rows:
            hidden = self._whited_out(name, status)
            self._hidden.add(hidden or name)
            if hidden is not None:
                self._refuse_odd_mark(name, status)
            if hidden is None:
                kept.append((name, status))
                self._refuse_metacopy(name, status)
        self._lower = self._find_lower()
        return super()._wanted(kept)

    def _recorded_itself(self) -> Recorded | None:
        if self._base.ownership != AS_COMMITTED:
            return self._committed(self._lower, self._status)
        mode, lower = self._status.st_mode, self._lower
        if not self._base.by_names or lower is None or mode == lower.mode or not _lost_set_id(mode, lower.mode):
            return None
        return Recorded(self._status.st_uid, self._status.st_gid, lower.mode)

    def _recorded(self, name: bytes, status: os.stat_result) -> Recorded | None:
        if self._base.ownership == AS_COMMITTED:
            return None
        if self._listing is None and self._lower is not None:
            with self._base.commit.repository.database.reading() as reading:
                self._listing = load_listing(reading, TreeId(self._lower.id))
        return self._committed(self._listing.find(name) if self._listing else None, status)

    def _committed(self, entry: Entry | None, status: os.stat_result) -> Recorded:
        """Return what has to be committed of something that the user took over with -o owner=me, and *entry* was.

        He can't have changed the owner, so that stays; so does the mode, if it is as it was shown. What is new gets
        the owner of the directory that it is in.
        """
        if entry is None or stat.S_IFMT(entry.mode) != stat.S_IFMT(status.st_mode):
            return Recorded(*self._owner(), status.st_mode)
        shown, *_ = self._base.ownership.shown(entry.mode, entry.uid, entry.gid)
        is_kept = status.st_mode == shown or (entry.is_directory and _lost_set_id(status.st_mode, shown))
        return Recorded(entry.uid, entry.gid, entry.mode if is_kept else status.st_mode)

    def _owner(self) -> tuple[int, int]:
        here = self
        while here._lower is None and here._above is not None:
            here = here._above
        entry = here._lower or self._base.root
        return entry.uid, entry.gid

    def _whited_out(self, name: bytes, status: os.stat_result) -> bytes | None:
        """Return the name that is gone, if this entry says so."""
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return name
        if self._base.by_names and name.startswith(_WHITEOUT):
            return name if name == _OPAQUE else name.removeprefix(_WHITEOUT)
        if stat.S_ISREG(status.st_mode) and not status.st_size and self._note(name, b"whiteout") is not None:
            return name
        return None

    def _refuse_odd_mark(self, name: bytes, status: os.stat_result) -> None:
        """Refuse what fuse-overlayfs would take for a mark of its own, and isn't: its contents would be left out."""
        is_mark = stat.S_ISCHR(status.st_mode) or (stat.S_ISREG(status.st_mode) and not status.st_size)
        if not is_mark or name == _WHITEOUT:
            why = "fuse-overlayfs takes it for its mark of what is gone, and hides what is in it: rename it"
            self._scan.problems.append((os.path.join(self.path, name), why))

    def _refuse_metacopy(self, name: bytes, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode) and self._note(name, b"metacopy") is not None:
            why = "its contents are not in the upper directory: mount the overlay with metacopy=off, and write to it"
            self._scan.problems.append((os.path.join(self.path, name), why))

    def _find_lower(self) -> Entry | None:
        """Return the directory of the commit that this one is merged with."""
        if self._above is None:
            return self._base.root
        if self._is_opaque():
            return None
        redirect = self._note(b"", b"redirect")
        if redirect is not None:
            return self._redirected(redirect)
        found = self._in_the_lower_above(os.path.basename(self.path))
        return found if found is not None and found.is_directory else None

    def _is_opaque(self) -> bool:
        opaque = self._note(b"", b"opaque")
        if opaque not in (None, *_OPAQUE_VALUES):
            self._refuse(f"its xattr 'opaque' is {_shown(opaque)}, which no overlay writes: remove it, or set it to y")
        return _OPAQUE in self._hidden or opaque == b"y"

    def _redirected(self, redirect: bytes) -> Entry | None:
        """Return the directory of the commit from which this one was renamed: where it leads nowhere, that is told."""
        names = redirect.removeprefix(b"/").split(b"/")
        found: Entry | None = None
        if self._base.by_names:
            self._refuse(f"its xattr 'redirect', {_shown(redirect)}, means nothing to fuse-overlayfs: remove it")
        elif {b"", b".", b".."} & set(names) or (len(names) > 1 and not redirect.startswith(b"/")):
            self._refuse(f"its xattr 'redirect' is {_shown(redirect)}, which no overlay writes: remove it")
        else:
            found = self._find(redirect) if redirect.startswith(b"/") else self._in_the_lower_above(redirect)
            if found is None or not found.is_directory:
                self._refuse(f"it was renamed from {_shown(redirect)}, which is no directory of the commit below")
                return None
        return found

    def _find(self, path: bytes) -> Entry | None:
        with self._base.commit.repository.database.reading() as reading, suppress(NotFoundError):
            return find(reading, self._base.root, path)
        return None

    def _in_the_lower_above(self, name: bytes) -> Entry | None:
        assert self._above is not None
        if self._above._lower is None:
            return None
        with self._base.commit.repository.database.reading() as reading:
            return load_listing(reading, TreeId(self._above._lower.id)).find(name)

    def _refuse(self, why: str) -> None:
        self._scan.problems.append((self.path, why))

    def _note(self, name: bytes, what: bytes) -> bytes | None:
        """Return what the overlay noted of an entry; b"": of this directory."""
        path = xattr_path(self._here, name or b".")
        for prefix in self._base.notes:
            try:
                return os.getxattr(path, prefix + what, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NOT_NOTED:
                    self._complain(os.path.join(self.path, name) if name else self.path, error)
        return None

    def _child(self, name: bytes, status: os.stat_result, meta_id: object) -> UpperDirectory:
        return UpperDirectory(self._scan, os.path.join(self.path, name), status, self._base, self)
