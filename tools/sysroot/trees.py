"""From a commit to a complete deployment, in a directory that nobody else may enter.

The tree's etc/ is the commit's etc (of /etc, or OSTree's /usr/etc; never both) as a copy, for the admin; beside it is
another, the pristine one, for merging. Its var/ is an empty directory: /var is the stateroot's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import ConflictError
from store.listing import Entry
from store.repository import Repository
from store.revisions import Place
from store.walking.beneath import DIRECTORY
from store.walking.private import forget_acls, make_private
from tools.checkout import check_room
from tools.filling import Written
from tools.linking import Link, LinkCounts, Linker, in_a_deployment
from tools.materialise import TreeWriter
from tools.neighbours import Neighbour
from tools.sysroot.completing import completing
from tools.sysroot.layout import PRISTINE, Stateroot
from tools.sysroot.shape import Shape
from tools.sysroot.var import VAR_NEW

ETC: Final = b"/etc"
VAR: Final = b"/var"
EMPTY_MODE: Final = 0o755  # of a var that the commit lacks


@dataclass(slots=True)
class Built:
    """A tree where nobody else gets to, and its pristine etc."""

    root: Path
    pristine: Path
    written: Written
    links: LinkCounts


def write_etc(repository: Repository, target: Path, etc: Entry | None, *, user_mode: bool) -> None:
    """Write a commit's etc to the new directory *target*: empty, if it has none. It shares no file with another."""
    descriptor = _made(target)
    try:
        os.fchmod(descriptor, 0o755)  # whatever the umask, also below
        forget_acls(descriptor)
        if etc is None:
            return
        linker = Linker(repository, Link.AUTO, descriptor)
        TreeWriter(repository, linker, user_mode, target, lambda step: None).directory(descriptor, ETC, etc)
    finally:
        os.close(descriptor)


def _made(target: Path) -> int:
    """Make a directory and open it: that one, even where somebody else owns the one above.

    Raises:
        ConflictError: somebody did.
    """
    above = os.open(target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.mkdir(target.name, 0o700, dir_fd=above)
        try:
            made = os.open(target.name, DIRECTORY, dir_fd=above)
        except OSError as error:
            raise _replaced(target) from error
        if os.fstat(made).st_uid != os.geteuid():
            os.close(made)
            raise _replaced(target)
        return made
    finally:
        os.close(above)


def _replaced(target: Path) -> ConflictError:
    return ConflictError(f"{target} was replaced while it was being written, by who owns the directory that it is in")


class TreeBuilder:
    """Writes deployments of a stateroot."""

    def __init__(
        self, stateroot: Stateroot, repository: Repository, *, user_mode: bool,
        beside: Sequence[Neighbour] = (), advance: Callable[[int], object] = lambda step: None,
    ) -> None:  # fmt: skip
        """Without owners and xattrs in *user_mode*; *beside* are other deployments, whose files can be linked."""
        self._stateroot, self._repository, self._user_mode = stateroot, repository, user_mode
        self._beside, self._advance = beside, advance

    def build(self, place: Place, shape: Shape, name: str) -> Built:
        """Write the tree of a commit; the caller holds the locks of the sysroot and of the repository."""
        make_private(self._stateroot.building)
        root, pristine = self._stateroot.building / name, self._stateroot.building / (name + PRISTINE)
        written, links = self._write(root, b"", place.root, place)
        with completing(root):
            if shape.is_usr_etc:
                write_etc(self._repository, root / "etc", shape.etc, user_mode=self._user_mode)
            if not os.path.lexists(root / "var"):
                (root / "var").mkdir()
                forget_acls(root / "var")
                (root / "var").chmod(EMPTY_MODE)
        write_etc(self._repository, pristine, shape.etc, user_mode=self._user_mode)
        return Built(root, pristine, written, links)

    def build_var(self, var: Entry) -> Path:
        """Write a commit's /var beside the stateroot's, from which it can be seeded."""
        make_private(self._stateroot.path / VAR_NEW)
        new = self._stateroot.path / VAR_NEW / self._stateroot.var.name
        self._write(new, VAR, var)
        return new

    def _write(self, target: Path, path: bytes, entry: Entry, place: Place | None = None) -> tuple[Written, LinkCounts]:
        target.mkdir(mode=0o700)
        descriptor = os.open(target, DIRECTORY)
        try:
            forget_acls(descriptor)
            if place is not None:
                check_room(self._repository, place, descriptor, target)
            linker = Linker(self._repository, Link.AUTO, descriptor, may_be_linked=in_a_deployment)
            hollow = () if path else (VAR,)
            writer = TreeWriter(
                self._repository, linker, self._user_mode, target, self._advance,
                hollow=hollow, neighbours=() if path else self._beside,
            )  # fmt: skip
            writer.directory(descriptor, path, entry)
        finally:
            os.close(descriptor)
        return writer.done, linker.counts
