"""What is in an /etc, as its merge sees it: nodes with attributes and contents, never through a symlink."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from store.errors import ConflictError, SysrootError
from store.objects import Xattrs
from tools.recipe import read_xattrs
from tools.render import quote_path

PIECE_BYTES: Final = 1 << 20
NO_MODE: Final = -1
ACL: Final = b"system.posix_acl_access"
_KINDS: Final = {stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symlink"}


class Attributes(NamedTuple):
    """What a node has beside its contents; the mode is NO_MODE for a symlink."""

    mode: int
    owner: tuple[int, int]
    xattrs: Xattrs


@dataclass(frozen=True)
class Node:
    """A file, a directory or a symlink, or what is none of these; *path* is where it is now.

    *stays*: none but root and we could put something else there.
    """

    path: bytes
    status: os.stat_result
    stays: bool = True

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
    def what(self) -> str:
        """What it is, in words."""
        return _KINDS.get(self.kind, "a special file")

    @cached_property
    def xattrs(self) -> Xattrs:
        """Its extended attributes.

        Raises:
            ConflictError: something else is there now.
        """
        if self.stays:
            return read_xattrs(self.path)
        this = self._opened(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return read_xattrs(b"/proc/self/fd/%d" % this, follow=True)
        finally:
            os.close(this)

    @property
    def attributes(self) -> Attributes:
        """Mode, owner and extended attributes."""
        mode = NO_MODE if self.kind == stat.S_IFLNK else stat.S_IMODE(self.status.st_mode)
        return Attributes(mode, (self.status.st_uid, self.status.st_gid), self.xattrs)

    def children(self) -> dict[bytes, Node]:
        """Return what is in it by name; nothing if it is no directory.

        Raises:
            ConflictError: it is another directory now: who owns one above it may have led us elsewhere.
        """
        if not self.is_directory:
            return {}
        here = self._opened(os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with os.scandir(here) as entries:
                found = {os.fsencode(entry.name): entry.stat(follow_symlinks=False) for entry in entries}
        finally:
            os.close(here)
        stay = self.stays and self.status.st_uid in (0, os.geteuid()) and not self.status.st_mode & 0o022
        return {name: Node(os.path.join(self.path, name), status, stay) for name, status in found.items()}

    def _opened(self, flags: int) -> int:
        """Open it, and nothing else."""
        this = os.open(self.path, flags)
        if not os.path.samestat(os.fstat(this), self.status):
            os.close(this)
            raise ConflictError(f"{quote_path(self.path)} was replaced while /etc was merged; try again")
        return this

    def open(self) -> int:
        """Open a regular file, and only that."""
        return os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def look(path: bytes) -> Node | None:
    """Return what is at *path*, or None."""
    try:
        return Node(path, os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def top(path: str | os.PathLike[str]) -> Node:
    """Return the directory *path*.

    Raises:
        SysrootError: it is none, perhaps a symlink to one.
    """
    found = look(os.fsencode(path))
    if found is None or not found.is_directory:
        what = "is not there" if found is None else f"is {found.what}"
        raise SysrootError(f"{quote_path(os.fsencode(path))} {what}, where an /etc should be; nothing was merged")
    return found


def has_same_content(one: Node, other: Node, settled_ns: int = 0) -> bool:
    """Whether two nodes are of one kind and, unless they are directories, have the same bytes or target.

    Files are not read if size and mtime agree and *other* was not touched since *settled_ns* (by its ctime): as git
    does, and with git's caution.
    """
    if one.kind != other.kind:
        return False
    if one.kind == stat.S_IFLNK:
        return os.readlink(one.path) == os.readlink(other.path)
    if not one.is_file:
        return one.is_directory or one.status.st_rdev == other.status.st_rdev
    if one.status.st_size != other.status.st_size:
        return False
    is_settled = one.status.st_mtime_ns == other.status.st_mtime_ns and other.status.st_ctime_ns < settled_ns
    return is_settled or _have_same_bytes(one, other)


def is_same_tree(one: Node | None, other: Node | None) -> bool:
    """Whether two nodes agree in everything, and all that is below them does."""
    if one is None or other is None:
        return one is other
    if not has_same_content(one, other) or one.attributes != other.attributes:
        return False
    ours, theirs = one.children(), other.children()
    return ours.keys() == theirs.keys() and all(is_same_tree(node, theirs[name]) for name, node in ours.items())


def _have_same_bytes(one: Node, other: Node) -> bool:
    files = [one.open()]
    try:
        files.append(other.open())
        while True:
            ours, theirs = (os.read(file, PIECE_BYTES) for file in files)
            if ours != theirs or not ours:
                return ours == theirs
    finally:
        for file in files:
            os.close(file)
