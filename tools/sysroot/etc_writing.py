"""How the merge of /etc changes its target: a copy of the new release's etc, which nobody uses yet.

It is in a directory that nobody else may enter, so it is written to by paths.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Final

from store.walking.copy import copy_contents
from store.walking.remove import remove_tree
from tools.recipe import read_xattrs
from tools.sysroot.etc_tree import NO_MODE, Attributes, Node

SUFFIX: Final = b".fsview-new"
_BESIDE: Final = re.compile(rb"(.+)%s(?:\.[1-9][0-9]*)?" % re.escape(SUFFIX), re.DOTALL)
_NAME_BYTES_MAX: Final = 255
_OF_USERS: Final = (b"user.", b"system.posix_acl_")  # xattrs that an owner may set
_STEP_NS: Final = 10**9


class Target:
    """The directory that is merged into; with no *path*, only what would happen is found out."""

    def __init__(self, path: bytes | None) -> None:
        self._path, self._owns = path, os.geteuid() == 0
        self._late: list[tuple[bytes, Attributes | int]] = []  # an int is a mode

    def remove(self, name: bytes) -> None:
        """Remove a path, and what is below it."""
        if self._path is None:
            return
        at = self._writable(name)
        if not os.path.lexists(at):
            return
        if stat.S_ISDIR(os.lstat(at).st_mode):
            remove_tree(Path(os.fsdecode(at)))
        else:
            os.unlink(at)

    def set_aside(self, name: bytes, taken: set[bytes]) -> bytes:
        """Rename what the new release has at *name*; return where to. *taken*: names that others have; that, too."""
        beside = free_name(name, taken)
        taken.add(beside)  # of two long names the same may be left
        if self._path is not None:
            os.rename(self._writable(name), self._at(beside))
        return beside

    def put(self, name: bytes, node: Node, attributes: Attributes, shown: Node | None = None) -> None:
        """Write a copy of the file, symlink or directory *node* (without children) to *name*.

        *shown* is what the new release has there: where only the bytes differ, the mtime is made to differ as well.
        """
        if self._path is None:
            return
        at = self._writable(name)
        if node.is_directory:
            self.remove(name)
            os.mkdir(at, 0o700)
            self.dress(name, attributes)
            return
        self.remove(name)
        if stat.S_ISLNK(node.status.st_mode):
            os.symlink(node.target(), at)
        else:
            _copy(node, at)
        self._set(at, attributes)
        times = node.status.st_mtime_ns
        if shown is not None and (shown.status.st_size, shown.status.st_mtime_ns) == (node.status.st_size, times):
            times += _STEP_NS  # or nobody who goes by size and time, etc_changes.py neither, would see that it differs
        os.utime(at, ns=(times, times), follow_symlinks=False)

    def mount_point(self, name: bytes, *, is_directory: bool) -> None:
        """Make an empty directory or file, over which something can be mounted again."""
        if self._path is None:
            return
        mode, owner = (0o755 if is_directory else 0o644), (os.geteuid(), os.getegid())
        if is_directory:
            os.mkdir(self._writable(name), 0o700)
            self.dress(name, Attributes(mode, owner, ()))
        else:
            self.write(name, b"", Attributes(mode, owner, ()))

    def write(self, name: bytes, data: bytes, attributes: Attributes) -> None:
        """Write a file that was merged from several."""
        if self._path is None:
            return
        self.remove(name)
        at = self._writable(name)
        file = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as stream:
            stream.write(data)
        self._set(at, attributes)

    def dress(self, name: bytes, attributes: Attributes) -> None:
        """Give a path attributes; a directory gets them at the end, for its mode may forbid to write in it."""
        if self._path is None:
            return
        at = self._at(name)
        if stat.S_ISDIR(os.lstat(at).st_mode):
            self._late.append((at, attributes))
        else:
            self._set(at, attributes)

    def finish(self) -> None:
        """Do what was put off."""
        for at, attributes in reversed(self._late):
            if not os.path.lexists(at):
                continue
            if isinstance(attributes, int):
                os.chmod(at, attributes)
            else:
                self._set(at, attributes)
        self._late.clear()

    def _writable(self, name: bytes) -> bytes:
        """Return where *name* is, after making sure that something can be done there: to root no mode forbids it."""
        at = self._at(name)
        above = os.path.dirname(at)
        mode = 0o700 if self._owns else stat.S_IMODE(os.lstat(above).st_mode)
        if mode & 0o700 != 0o700:
            self._late.append((above, mode))  # what it is to have instead is there already, and set later
            os.chmod(above, 0o700)
        return at

    def _at(self, name: bytes) -> bytes:
        assert self._path is not None
        return os.path.join(self._path, name) if name else self._path

    def _set(self, at: bytes, wanted: Attributes) -> None:
        status = os.lstat(at)
        if (status.st_uid, status.st_gid) != wanted.owner:
            with nullcontext() if self._owns else suppress(PermissionError):  # a user may give a file another group
                os.chown(at, *wanted.owner, follow_symlinks=False)
        have, want = dict(read_xattrs(at)), dict(wanted.xattrs)
        for key in have.keys() - want.keys():
            os.removexattr(at, key, follow_symlinks=False)
        for key, value in want.items():
            if have.get(key) != value and (self._owns or key.startswith(_OF_USERS)):
                os.setxattr(at, key, value, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):  # which has no mode, and leads elsewhere; after chown drops setuid
            assert wanted.mode != NO_MODE, at
            os.chmod(at, wanted.mode)


def free_name(name: bytes, taken: set[bytes]) -> bytes:
    """Return a name beside *name*, of at most 255 bytes, that is none of *taken*."""
    directory, slash, last = name.rpartition(b"/")
    number = 1
    while True:
        suffix = SUFFIX if number == 1 else SUFFIX + b".%d" % number
        found = last[: _NAME_BYTES_MAX - len(suffix)] + suffix
        if found not in taken:
            return directory + slash + found
        number += 1


def whose_is(last: bytes) -> bytes | None:
    """Return the name beside which `free_name` gave this one, or None if it didn't; one of over 240 bytes was cut."""
    match = _BESIDE.fullmatch(last)
    return None if match is None else match[1]


def _copy(node: Node, at: bytes) -> None:
    """Copy a file's bytes.

    Raises:
        ConflictError: it changed meanwhile, or is something else now.
    """
    target = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with node.reading() as source:
            copy_contents(source, target, node.status.st_size)
    finally:
        os.close(target)
