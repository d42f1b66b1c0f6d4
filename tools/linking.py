"""How the contents of a file get into a checkout: as a reflink, as a hard link of the loose object, or as a copy.

    reflink     shares the blocks until one side is written; file systems such as btrfs and XFS have it
    neighbour   a hard link of the same file in a tree that was written before (tools/neighbours.py)
    hardlink    is the store's own file: never for empty files, nor for etc/ and var/ of a commit, which are written to;
                only where owner, mode, mtime, size and xattrs of the loose file are those that the checkout has to have
    copy        every block checked against its XXH3

A link is made without reading, so a loose file whose size or mtime is not the record's (somebody wrote through a hard
link) is copied, and the check of its blocks says what is wrong with it.
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
from functools import partial
from typing import Final, NamedTuple

from store.errors import FsviewError
from store.listing import Entry
from store.objects import Xattrs
from store.repository import Repository
from store.schema import FileRecord, Storage
from tools.neighbours import NeighbourDirectory
from tools.recipe import read_xattrs

FICLONE: Final = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_WRITTEN_TO: Final = (b"/etc/", b"/var/")
_NEVER_HERE: Final = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)
_NOT_THIS_ONE: Final = (errno.EPERM, errno.EMLINK, errno.EINVAL, errno.EACCES, errno.ETXTBSY)
_PROBE: Final = bytes(4096)


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


class Linker:
    """Decides for each file, and remembers what this file system can't do."""

    def __init__(self, repository: Repository, wanted: Link, directory: int) -> None:
        """*directory* is a descriptor of an empty directory in the file system of the checkout.

        Raises:
            FsviewError: what is wanted is impossible there.
        """
        self._repository = repository
        self._reflink = wanted in (Link.AUTO, Link.REFLINK) and can_reflink(directory)
        self._hardlink = wanted in (Link.AUTO, Link.HARDLINK)
        self._demand = wanted
        self.counts = LinkCounts()
        if wanted == Link.REFLINK and not self._reflink:
            raise FsviewError(_impossible("reflinks", "the file system of the checkout has none"))
        if wanted == Link.HARDLINK and repository.settings.is_shared:
            raise FsviewError(_impossible("hard links", "a group shares the repository"))
        if wanted == Link.HARDLINK and not self._is_same_file_system(directory):
            raise FsviewError(_impossible("hard links", "the repository is in another file system"))

    def over(self, repository: Repository) -> Linker:
        """Return the like for another process, which has opened the repository for itself; it counts for itself."""
        like = copy(self)
        like._repository, like.counts = repository, LinkCounts()
        return like

    def hardlink(self, record: FileRecord, path: bytes, attributes: Attributes, name: bytes, directory: int) -> bool:
        """Make *name* a hard link of a loose object where that is wanted, allowed and possible; *path* as committed."""
        if self._repository.settings.is_shared:  # who else commits there is nobody whose files a tree may have
            return False
        if self._reflink or not self._hardlink or record.storage != Storage.LOOSE or path.startswith(_WRITTEN_TO):
            return False
        loose = self._repository.loose_path(record.checksum)
        if not _has(os.fspath(loose), record, attributes):
            return False
        linked = self._attempt(
            Link.HARDLINK, lambda: os.link(loose, name, dst_dir_fd=directory, follow_symlinks=False)
        )  # fmt: skip
        self.counts.hardlinked += linked
        return linked

    def link_beside(
        self, neighbours: Sequence[NeighbourDirectory], entry: Entry, storage: Storage, path: bytes,
        attributes: Attributes,  directory: int,
    ) -> bool:  # fmt: skip
        """Make a hard link of a neighbour's file or symlink where that is wanted, allowed and possible.

        *path* as committed. Symlinks aren't counted.
        """
        if not neighbours or not self._hardlink or not entry.size or path.startswith(_WRITTEN_TO):
            return False
        if self._reflink and storage == Storage.LOOSE:
            return False
        owner = attributes.owner or (os.geteuid(), os.getegid())
        for neighbour in neighbours:
            if neighbour.has(entry, owner, attributes.mode, attributes.mtime_ns, attributes.xattrs):
                linked = self._attempt(Link.HARDLINK, partial(neighbour.link, entry.name, directory))
                self.counts.hardlinked += linked and not stat.S_ISLNK(entry.mode)
                return linked
        return False

    def reflink(self, record: FileRecord, target: int) -> bool:
        """Fill the new file *target* with a loose object's blocks, if that is wanted and possible."""
        if not self._reflink or record.storage != Storage.LOOSE:
            return False
        try:
            source = os.open(self._repository.loose_path(record.checksum), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
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


def _has(loose: str, record: FileRecord, attributes: Attributes) -> bool:
    """Whether a loose file is what the checkout has to have, but for its name."""
    try:
        file = os.open(loose, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(file)
        owner = attributes.owner or (os.geteuid(), os.getegid())
        return (
            _is_untouched(status, record)
            and status.st_mtime_ns == attributes.mtime_ns
            and (status.st_uid, status.st_gid) == owner
            and stat.S_IMODE(status.st_mode) == attributes.mode
            and read_xattrs(file) == attributes.xattrs
        )
    finally:
        os.close(file)


def _is_untouched(status: os.stat_result, record: FileRecord) -> bool:
    return (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns) and stat.S_ISREG(status.st_mode)


def _impossible(what: str, why: str) -> str:
    return f"{what} are impossible here: {why}; check out with --link=auto, or into the repository's file system"
