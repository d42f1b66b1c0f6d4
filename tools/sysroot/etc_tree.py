"""What is in an /etc, as its merge sees it: nodes with attributes and contents, never through a symlink.

Other users may own directories in it, and replace what is there at any moment. So its top is open as long as it is
looked at, and everything is reached from there, as what was seen: a node is a device and an inode. What is mounted in
it is known from the kernel's table, and not touched.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from store.errors import ConflictError, SysrootError
from store.objects import Xattrs
from store.walking.beneath import DIRECTORY, FILE, PLACE, open_same, xattr_path
from tools.recipe import read_xattrs
from tools.render import quote_path

PIECE_BYTES: Final = 1 << 20
NO_MODE: Final = -1
ACL: Final = b"system.posix_acl_access"
_KINDS: Final = {stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symlink"}
_DEPTH_MAX: Final = 100  # each level is up to four Python calls, of which 1000 may wait
_PATH_BYTES_MAX: Final = 3900  # behind /proc/self/fd/N/
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH  # of a directory with an ACL the former is the most that it permits
_ACLS: Final = "system."
_HARMLESS: Final = "system.posix_acl_default"
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_REPLACED: Final = (errno.ESTALE, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENXIO)  # … by a mount, a socket
_MOUNT_POINTS: Final = {
    is_directory: os.stat_result((kind | mode, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    for is_directory, kind, mode in ((True, stat.S_IFDIR, 0o755), (False, stat.S_IFREG, 0o644))
}


class Attributes(NamedTuple):
    """What a node has beside its contents; the mode is NO_MODE for a symlink."""

    mode: int
    owner: tuple[int, int]
    xattrs: Xattrs


class Tree(NamedTuple):
    """An /etc that is looked at: how errors call it, its open top, and what in it is a mount point, by paths.

    *way*: a path that leads there, whatever others do.
    """

    shown: bytes
    top: int
    way: bytes
    mounted: frozenset[bytes]


@dataclass(frozen=True)
class Node:
    """A file, a directory or a symlink, or what is none of these; *path* is where in the tree it was seen.

    *is_ours*: none but root and we could put it there. *stays*: nor can they put something else there, or mount it
    there, as who may write to a directory or a file can. *is_mounted*: it is a mount point; nothing is known of it.
    """

    tree: Tree
    path: bytes
    status: os.stat_result
    is_ours: bool = True
    stays: bool = True
    is_mounted: bool = False

    @property
    def kind(self) -> int:
        """The file type, as in st_mode."""
        return stat.S_IFMT(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        """Whether it has children."""
        return self.kind == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind == stat.S_IFREG

    @property
    def is_special(self) -> bool:
        """Whether it is a FIFO, a socket or a device."""
        return self.kind not in _KINDS

    @property
    def is_linked(self) -> bool:
        """Whether it has other names, perhaps elsewhere, and another user may have given it this one."""
        return self.is_file and self.status.st_nlink > 1 and not self.is_ours

    @property
    def what(self) -> str:
        """What it is, in words."""
        return _KINDS.get(self.kind, "a special file")

    @property
    def shown(self) -> str:
        """Its whole path, for messages."""
        return quote_path(os.path.join(self.tree.shown, self.path) if self.path else self.tree.shown)

    @cached_property
    def xattrs(self) -> Xattrs:
        """Its extended attributes.

        Raises:
            ConflictError: something else is there now.
        """
        if self.stays:
            return read_xattrs(self._place())
        this = self._opened(PLACE)
        try:
            return read_xattrs(b"/proc/self/fd/%d" % this, follow=True)
        finally:
            os.close(this)

    @property
    def attributes(self) -> Attributes:
        """Mode, owner and extended attributes."""
        mode = NO_MODE if self.kind == stat.S_IFLNK else stat.S_IMODE(self.status.st_mode)
        return Attributes(mode, (self.status.st_uid, self.status.st_gid), self.xattrs)

    def target(self) -> bytes:
        """Return where a symlink leads.

        Raises:
            ConflictError: something else is there now.
        """
        if self.stays:
            return os.readlink(self._place())
        this = self._opened(PLACE)
        try:
            return os.readlink(b"", dir_fd=this)
        finally:
            os.close(this)

    def children(self) -> dict[bytes, Node]:
        """Return what is in it by name; nothing if it is no directory, or a mount point.

        Raises:
            ConflictError: it is another directory now: who owns one above it may have led us elsewhere.
            SysrootError: it is too deep.
        """
        if not self.is_directory or self.is_mounted:
            return {}
        if self.path.count(b"/") >= _DEPTH_MAX:
            raise SysrootError(
                f"{self.shown} is below more than {_DEPTH_MAX} directories; remove them, or go without (--no-merge)"
            )
        here = self._opened(DIRECTORY)
        try:
            is_ours = self.stays and not _has_acl(here)
            with os.scandir(here) as entries:
                return {os.fsencode(entry.name): self._child(entry, is_ours) for entry in entries}
        finally:
            os.close(here)

    def _child(self, entry: os.DirEntry[str], is_ours: bool) -> Node:
        name = os.fsencode(entry.name)
        path = self.path + b"/" + name if self.path else name
        if path in self.tree.mounted:
            return Node(self.tree, path, _MOUNT_POINTS[entry.is_dir(follow_symlinks=False)], is_mounted=True)
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.path.join(self.tree.shown, path)) from error
        stays = is_ours and len(path) < _PATH_BYTES_MAX and not _is_others(status)
        return Node(self.tree, path, status, is_ours, stays)

    @contextmanager
    def reading(self) -> Iterator[int]:
        """Open a regular file to be read; at the end it must be what it was.

        Raises:
            ConflictError: it is not, or something else is there now.
        """
        this = self._opened(FILE)
        try:
            self._compare(os.fstat(this))
            yield this
            self._compare(os.fstat(this))
        finally:
            os.close(this)

    def _compare(self, now: os.stat_result) -> None:
        if any(getattr(now, key) != getattr(self.status, key) for key in ("st_size", "st_mtime_ns", "st_ctime_ns")):
            raise ConflictError(f"{self.shown} changed while /etc was read; try again")

    def _place(self) -> bytes:
        return b"%s/%s" % (self.tree.way, self.path or b".")

    def _opened(self, flags: int) -> int:
        """Open it, and nothing else."""
        try:
            return open_same(self.tree.top, self.path, flags, self.status, one_mount=True)
        except OSError as error:
            if error.errno in _REPLACED:
                raise ConflictError(f"{self.shown} was replaced while /etc was read; try again") from error
            raise OSError(error.errno, error.strerror, os.path.join(self.tree.shown, self.path)) from error


@contextmanager
def opened(*paths: str | os.PathLike[str]) -> Iterator[list[Node]]:
    """Yield the directories *paths* as nodes that can be looked into; each path leads to them as any does.

    Raises:
        SysrootError: one is none, perhaps a symlink to one.
        ConflictError: something went away, or was replaced, in the meantime.
    """
    with ExitStack() as stack:
        tops = [stack.enter_context(_opened(os.fsencode(path))) for path in paths]
        try:
            yield tops
        except OSError as error:
            if error.errno not in _GONE:
                raise
            raise ConflictError(f"{error.filename!r} went away while /etc was read; try again") from error


@contextmanager
def _opened(path: bytes) -> Iterator[Node]:
    try:
        descriptor = os.open(path, DIRECTORY)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        raise SysrootError(f"{quote_path(path)} {_what(path)}, where an /etc should be; nothing was merged") from error
    try:
        status = os.fstat(descriptor)
        real = os.path.realpath(path)
        tree = Tree(path, descriptor, _way(real, descriptor), _mounted_in(real))
        yield Node(tree, b"", status, stays=not _is_others(status))
    finally:
        os.close(descriptor)


def _what(path: bytes) -> str:
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return "is not there"
    return f"is {_KINDS.get(kind, 'a special file')}"


def _is_others(status: os.stat_result) -> bool:
    """Whether others may write to it, and so put something in it, or mount something over it; a symlink has neither."""
    if stat.S_ISLNK(status.st_mode):
        return False
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & _OTHERS_WRITE)


def _has_acl(directory: int | bytes) -> bool:
    """Whether a directory has an ACL, of any kind; that of new files in it has no say."""
    try:
        return any(name.startswith(_ACLS) and name != _HARMLESS for name in os.listxattr(directory))
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return False
        raise


def _way(real: bytes, directory: int) -> bytes:
    """Return a path of an open directory: its own, the quickest, if nobody else can write to those above it."""
    try:
        if _is_for_us_alone(real) and os.path.samestat(os.lstat(real), os.fstat(directory)):
            return real
    except OSError:
        pass  # those above may be none of a user's business
    return xattr_path(directory, b".")


def _is_for_us_alone(path: bytes) -> bool:
    """Whether nobody else can put something in the place of *path*."""
    while path != b"/":
        path = os.path.dirname(path)
        status = os.lstat(path)
        is_sticky = status.st_uid == 0 and status.st_mode & stat.S_ISVTX  # what is ours in it nobody else can rename
        if (_is_others(status) and not is_sticky) or _has_acl(path):
            return False
    return True


def _mounted_in(real: bytes) -> frozenset[bytes]:
    """Return what is a mount point in a directory, by paths in it."""
    from fsview.mountinfo import mounts  # seldom needed

    inside = real.rstrip(b"/") + b"/"
    points = (os.fsencode(mount.point) for mount in mounts())
    return frozenset(point.removeprefix(inside) for point in points if point.startswith(inside))


def has_same_content(one: Node, other: Node, settled_ns: int = 0) -> bool:
    """Whether two nodes are of one kind and, unless they are directories, have the same bytes or target.

    Files are not read if size and mtime agree and *other* was not touched since *settled_ns* (by its ctime): as git
    does, and with git's caution.
    """
    if one.kind != other.kind:
        return False
    if one.kind == stat.S_IFLNK:
        return one.target() == other.target()
    if not one.is_file:
        return one.is_directory or one.status.st_rdev == other.status.st_rdev
    if one.status.st_size != other.status.st_size:
        return False
    is_settled = one.status.st_mtime_ns == other.status.st_mtime_ns and other.status.st_ctime_ns < settled_ns
    return is_settled or _have_same_bytes(one, other)


def is_same_tree(one: Node | None, other: Node | None) -> bool:
    """Whether two nodes agree in everything, and all that is below them does; of a mount point that can't be said."""
    if one is None or other is None:
        return one is other
    if one.is_mounted or other.is_mounted:
        return False
    if not has_same_content(one, other) or one.attributes != other.attributes:
        return False
    ours, theirs = one.children(), other.children()
    return ours.keys() == theirs.keys() and all(is_same_tree(node, theirs[name]) for name, node in ours.items())


def _have_same_bytes(one: Node, other: Node) -> bool:
    with one.reading() as ours, other.reading() as theirs:
        while True:
            mine, its = (os.read(file, PIECE_BYTES) for file in (ours, theirs))
            if mine != its or not mine:
                return mine == its
