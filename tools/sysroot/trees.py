"""From a commit to a complete deployment under temporary names, which nobody knows of yet.

The tree's etc/ is the commit's etc (of /etc, or OSTree's /usr/etc; never both) as a copy, for the admin; beside it is
another, the pristine one, for merging. Its var/ is an empty directory: /var is the stateroot's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.listing import Entry
from store.repository import Repository
from store.revisions import Place
from store.walking.beneath import DIRECTORY
from tools.checkout import check_room
from tools.filling import Written
from tools.linking import Link, LinkCounts, Linker, in_a_deployment
from tools.materialise import TreeWriter, forget_acls
from tools.neighbours import Neighbour
from tools.sysroot.layout import PRISTINE, TEMPORARY, Stateroot
from tools.sysroot.shape import Shape
from tools.sysroot.var import VAR_NEW

ETC: Final = b"/etc"
VAR: Final = b"/var"


@dataclass(slots=True)
class Built:
    """A tree under a temporary name, and its pristine etc."""

    root: Path
    pristine: Path
    written: Written
    links: LinkCounts


def write_etc(repository: Repository, target: Path, etc: Entry | None, *, user_mode: bool) -> None:
    """Write a commit's etc to the new directory *target*: empty, if it has none. It shares no file with another."""
    target.mkdir()
    target.chmod(0o755)  # whatever the umask, also below
    if etc is None:
        return
    descriptor = os.open(target, DIRECTORY)
    try:
        forget_acls(descriptor)
        linker = Linker(repository, Link.AUTO, descriptor)
        TreeWriter(repository, linker, user_mode, target, lambda step: None).directory(descriptor, ETC, etc)
    finally:
        os.close(descriptor)


@contextmanager
def completing(directory: Path) -> Iterator[None]:
    """Let something be done in, or to, a directory that is written, whatever its mode; that and its times stay."""
    status = directory.stat()
    directory.chmod(status.st_mode | stat.S_IRWXU)
    descriptor = os.open(os.path.join(directory, "."), DIRECTORY)  # it may be moved
    try:
        yield
        os.fchmod(descriptor, status.st_mode)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(descriptor)


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
        root = self._stateroot.deployments / (name + TEMPORARY)
        pristine = self._stateroot.deployments / (name + PRISTINE + TEMPORARY)
        written, links = self._write(root, b"", place.root, place)
        with completing(root):
            if shape.is_usr_etc:
                write_etc(self._repository, root / "etc", shape.etc, user_mode=self._user_mode)
            if not os.path.lexists(root / "var"):
                (root / "var").mkdir()
                (root / "var").chmod(0o755)
        write_etc(self._repository, pristine, shape.etc, user_mode=self._user_mode)
        return Built(root, pristine, written, links)

    def build_var(self, var: Entry) -> Path:
        """Write a commit's /var beside the stateroot's, from which it can be seeded."""
        new = self._stateroot.path / VAR_NEW
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
