"""How the contents of a file get into a checkout: as a reflink, as a hard link, or as a copy.

    reflink     shares the blocks until one side is written; file systems such as btrfs and XFS have it
    hardlink    is the store's own file: only where size, owner, mode, mtime and xattrs of the loose file are those that
                the checkout has to have, and the same as in the commit; never for empty files
    neighbour   a hard link of the same file in a tree that was written before (tools/neighbours.py), its bytes compared
    copy        every block checked against its XXH3

A hard link is the same file in the repository, in deployments and checkouts: who can write to one writes to all, and
can set the mtime back. So only what nobody but root and this user can write is linked (tools/safe_links.py), a checkout
links only what is asked for, and a deployment only below /usr, where programs are; all else is a copy.

A link of a loose file is made without reading. So one whose size or mtime is not the record's (somebody wrote through
a hard link) is copied, and the check of its blocks says what is wrong with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from store.errors import FsviewError
from store.listing import Entry
from store.objects import Xattrs
from store.repository import Repository
from store.schema import FileRecord, Storage
from tools.neighbours import NeighbourDirectory
from tools.recipe import read_xattrs
from tools.safe_links import is_closed, is_closed_directory, is_written_to, link_opened, may_link

FICLONE: Final = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_NEVER_HERE: Final = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)
_NOT_THIS_ONE: Final = (errno.EPERM, errno.EMLINK, errno.EINVAL, errno.EACCES, errno.ETXTBSY, errno.ENOENT)
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PROBE: Final = bytes(4096)

MayBeLinked = Callable[[bytes], bool]  # (path in the commit): whether a hard link may be there at all


class Link(StrEnum):
    """What --link asks for."""

    AUTO = "auto"
    REFLINK = "reflink"
    HARDLINK = "hardlink"
    COPY = "copy"


class Attributes(NamedTuple):
    """What a file or directory of the checkout has to have; owner is None where it is just the user's."""

    owner: tuple[int, int] | None
    mode: int
    mtime_ns: int
    xattrs: Xattrs


@dataclass(slots=True)
class LinkCounts:
    """How the contents of files came; empty files count as copied."""

    reflinked: int = 0
    hardlinked: int = 0
    copied: int = 0

    def add(self, other: LinkCounts) -> None:
        """Count what another process did, too."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def in_a_checkout(path: bytes) -> bool:
    """Where a checkout may have hard links, if they are asked for: not where even programs of the system write."""
    return not path.startswith((b"/etc/", b"/var/"))


def in_a_deployment(path: bytes) -> bool:
    """Where a deployment may have hard links: what the system's packages bring, and nobody edits."""
    return path.startswith(b"/usr/") and not path.startswith(b"/usr/local/")


class Linker:
    """Decides for each file, and remembers what this file system can't do."""

    def __init__(
        self, repository: Repository, wanted: Link, directory: int, *, may_be_linked: MayBeLinked | None = None
    ) -> None:
        """*directory* is a descriptor of an empty directory in the file system of the checkout.

        *may_be_linked* says where hard links may be; without it there are such only if they are wanted.

        Raises:
            FsviewError: what is wanted is impossible there.
        """
        self._repository = repository
        self._reflink = wanted in (Link.AUTO, Link.REFLINK) and can_reflink(directory)
        self._may_be_linked = may_be_linked or (in_a_checkout if wanted == Link.HARDLINK else None)
        self._hardlink = self._may_be_linked is not None and is_closed_directory(repository.path, "objects")
        self._closed: dict[Path, bool] = {}  # directories of loose files
        self._demand = wanted
        self.counts = LinkCounts()
        if wanted == Link.REFLINK and not self._reflink:
            raise FsviewError(_impossible("reflinks", "the file system of the checkout has none"))
        if wanted == Link.HARDLINK and repository.settings.is_shared:
            raise FsviewError(_impossible("hard links", "a group shares the repository"))
        if wanted == Link.HARDLINK and not self._is_same_file_system(directory):
            raise FsviewError(_impossible("hard links", "the repository is in another file system"))
        if wanted == Link.HARDLINK and not self._hardlink:
            raise FsviewError(_impossible("hard links", "others than root and this user can write to the repository"))

    def over(self, repository: Repository) -> Linker:
        """Return the like for another process, which has opened the repository for itself; it counts for itself."""
        like = copy(self)
        like._repository, like.counts, like._closed = repository, LinkCounts(), {}
        return like

    def hardlink(self, record: FileRecord, path: bytes, attributes: Attributes, name: bytes, directory: int) -> bool:
        """Make *name* a hard link of a loose object where that is wanted, allowed and possible; *path* as committed."""
        if not self._hardlink or record.storage != Storage.LOOSE:
            return False
        loose = self._repository.loose_path(record.checksum)
        if not self._is_wanted(path, stat.S_IFREG, attributes, record.storage) or not self._is_closed(loose.parent):
            return False
        try:
            file = os.open(loose, _LOOK)
        except OSError:
            return False  # the copy will tell
        try:
            linked = _has(file, record, attributes) and self._attempt(
                Link.HARDLINK, lambda: link_opened(file, name, directory)
            )
        finally:
            os.close(file)
        self.counts.hardlinked += linked
        return linked

    def link_beside(
        self, neighbours: Sequence[NeighbourDirectory], entry: Entry, storage: Storage, path: bytes,
        attributes: Attributes, directory: int, is_same: Callable[[int], bool],
    ) -> bool:  # fmt: skip
        """Make a hard link of a neighbour's file or symlink where that is wanted, allowed and possible.

        *path* as committed; *is_same* says whether an open file has the contents. Symlinks aren't counted.
        """
        if not neighbours or not entry.size or not self._is_wanted(path, entry.mode, attributes, storage):
            return False
        owner = attributes.owner or (os.geteuid(), os.getegid())
        for neighbour in neighbours:
            try:
                linked = neighbour.link(
                    entry, owner, attributes.mode, attributes.mtime_ns, attributes.xattrs, is_same, directory
                )  # fmt: skip
            except OSError as error:
                if error.errno not in (*_NEVER_HERE, *_NOT_THIS_ONE):
                    raise
                continue
            if linked:
                self.counts.hardlinked += not stat.S_ISLNK(entry.mode)
                return True
        return False

    def reflink(self, record: FileRecord, target: int) -> bool:
        """Fill the new file *target* with a loose object's blocks, if that is wanted and possible."""
        if not self._reflink or record.storage != Storage.LOOSE:
            return False
        try:
            source = os.open(self._repository.loose_path(record.checksum), _LOOK)
        except OSError:
            return False  # the copy will tell
        try:
            cloned = _is_untouched(os.fstat(source), record) and self._attempt(
                Link.REFLINK, lambda: fcntl.ioctl(target, FICLONE, source)
            )
        finally:
            os.close(source)
        self.counts.reflinked += cloned
        return cloned

    def _is_wanted(self, path: bytes, mode: int, attributes: Attributes, storage: Storage) -> bool:
        """Whether a hard link may be at *path*, and is what one would want there."""
        if self._may_be_linked is None or (self._reflink and storage == Storage.LOOSE):
            return False
        return self._may_be_linked(path) and may_link(stat.S_IFMT(mode) | attributes.mode, attributes.xattrs)

    def _is_closed(self, directory: Path) -> bool:
        """Whether nobody else could have put another file of root's into a directory of loose files."""
        if directory not in self._closed:
            self._closed[directory] = is_closed_directory(directory)
        return self._closed[directory]

    def _attempt(self, kind: Link, link: Callable[[], object]) -> bool:
        try:
            link()
        except OSError as error:
            if error.errno in _NEVER_HERE:
                if self._demand == kind:
                    raise FsviewError(_impossible(f"{kind}s", error.strerror or str(error))) from error
                self._reflink, self._hardlink = self._reflink and kind != Link.REFLINK, kind != Link.HARDLINK
            elif error.errno not in _NOT_THIS_ONE:
                raise
            return False
        return True

    def _is_same_file_system(self, directory: int) -> bool:
        return os.fstat(directory).st_dev == os.stat(self._repository.path / "objects").st_dev


def can_reflink(directory: int) -> bool:
    """Try whether one file can share another's blocks in this directory; nothing is left behind."""
    names = [f".reflink-{os.getpid()}-{number}" for number in range(2)]
    try:
        files = [os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
                 for name in names]  # fmt: skip
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    try:
        os.write(files[0], _PROBE)
        fcntl.ioctl(files[1], FICLONE, files[0])
    except OSError:
        return False
    finally:
        for file, name in zip(files, names, strict=True):
            os.close(file)
            os.unlink(name, dir_fd=directory)
    return True


def _has(file: int, record: FileRecord, attributes: Attributes) -> bool:
    """Whether an open loose file is what the checkout has to have, but for its name, and nobody else can write it."""
    status = os.fstat(file)
    owner = attributes.owner or (os.geteuid(), os.getegid())
    return (
        _is_untouched(status, record)
        and status.st_mtime_ns == attributes.mtime_ns
        and (status.st_uid, status.st_gid) == owner
        and stat.S_IMODE(status.st_mode) == attributes.mode
        and is_closed(status)
        and read_xattrs(file) == attributes.xattrs
        and not is_written_to(file)
    )


def _is_untouched(status: os.stat_result, record: FileRecord) -> bool:
    return (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns) and stat.S_ISREG(status.st_mode)


def _impossible(what: str, why: str) -> str:
    return f"{what} are impossible here: {why}; check out with --link=auto, or into the repository's file system"
