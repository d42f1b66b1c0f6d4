"""Trees whose databases are read: one in a repository, one on disk. Paths are relative, as b"var/lib/dpkg/status".

Symlinks are followed as a process would that has the tree as its root, and never out of it: `follow`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from store.content import CHUNK_BYTES, chunks, file_header, file_record
from store.database import Reading
from store.errors import FormatError, NotFoundError
from store.listing import Entry
from store.repository import Repository
from store.schema import FileId, TreeId
from store.tree import find, load_listing

_LINKS_MAX: Final = 40  # as the kernel
_GLOBBED_MAX: Final = 10_000
_LINE_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Node:
    """Something in a directory; size is in bytes, of a regular file."""

    name: bytes
    mode: int
    size: int


class Tree(Protocol):
    """A directory tree that can be looked at; no method follows symlinks."""

    def node(self, path: bytes) -> Node | None:
        """Return what is at *path*, if anything is."""

    def nodes(self, path: bytes) -> list[Node]:
        """Return what is in the directory at *path*."""

    def target(self, path: bytes) -> bytes:
        """Return where the symlink at *path* leads."""

    def chunks(self, path: bytes) -> Iterator[bytes]:
        """Yield the contents of the regular file at *path*."""


class StoredTree:
    """A directory of a commit; *root* is its entry."""

    def __init__(self, repository: Repository, reading: Reading, root: Entry) -> None:
        self._repository, self._reading, self._root = repository, reading, root

    def node(self, path: bytes) -> Node | None:
        """Return what is at *path*, if anything is."""
        try:
            entry = find(self._reading, self._root, path)
        except NotFoundError:
            return None
        return Node(entry.name, entry.mode, entry.size)

    def nodes(self, path: bytes) -> list[Node]:
        """Return what is in the directory at *path*."""
        listing = load_listing(self._reading, TreeId(self._entry(path).id))
        return [Node(entry.name, entry.mode, entry.size) for entry in listing]

    def target(self, path: bytes) -> bytes:
        """Return where the symlink at *path* leads."""
        return file_header(file_record(self._reading, FileId(self._entry(path).id))).symlink_target

    def chunks(self, path: bytes) -> Iterator[bytes]:
        """Yield the contents of the regular file at *path*."""
        return chunks(self._repository, self._reading, FileId(self._entry(path).id))

    def _entry(self, path: bytes) -> Entry:
        return find(self._reading, self._root, path)


class DirectoryTree:
    """A directory on disk."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)

    def node(self, path: bytes) -> Node | None:
        """Return what is at *path*, if anything is."""
        try:
            status = os.lstat(self._whole(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Node(path.rpartition(b"/")[2], status.st_mode, status.st_size)

    def nodes(self, path: bytes) -> list[Node]:
        """Return what is in the directory at *path*."""
        with os.scandir(self._whole(path)) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        return sorted((Node(name, status.st_mode, status.st_size) for name, status in found), key=lambda one: one.name)

    def target(self, path: bytes) -> bytes:
        """Return where the symlink at *path* leads."""
        return os.readlink(self._whole(path))

    def chunks(self, path: bytes) -> Iterator[bytes]:
        """Yield the contents of the regular file at *path*."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # the latter: it may be a FIFO by now
        with open(self._whole(path), "rb", opener=lambda name, _: os.open(name, flags)) as file:
            while data := file.read(CHUNK_BYTES):
                yield data

    def _whole(self, path: bytes) -> bytes:
        return os.path.join(self._root, path)


def follow(tree: Tree, path: bytes) -> bytes | None:
    """Return *path* without symlinks in it, as seen with *tree* as root; None if nothing is there."""
    pending, done, links = path.split(b"/")[::-1], list[bytes](), 0
    while pending:
        name = pending.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            del done[-1:]
            continue
        here = b"/".join([*done, name])
        node = tree.node(here)
        if node is None:
            return None
        if not stat.S_ISLNK(node.mode):
            done.append(name)
            continue
        links += 1
        if links > _LINKS_MAX:
            return None
        target = tree.target(here)
        if target.startswith(b"/"):
            done.clear()
        pending += target.split(b"/")[::-1]
    return b"/".join(done)


def find_file(tree: Tree, *paths: bytes) -> bytes | None:
    """Return the first of *paths* at which a regular file is, with its symlinks followed."""
    return next((found for path in paths if (found := _find(tree, path, stat.S_IFREG)) is not None), None)


def find_directory(tree: Tree, *paths: bytes) -> bytes | None:
    """Return the first of *paths* at which a directory is, with its symlinks followed."""
    return next((found for path in paths if (found := _find(tree, path, stat.S_IFDIR)) is not None), None)


def _find(tree: Tree, path: bytes, kind: int) -> bytes | None:
    found = follow(tree, path)
    node = None if found is None else tree.node(found)
    return found if node is not None and stat.S_IFMT(node.mode) == kind else None


def glob(tree: Tree, pattern: str) -> Iterator[bytes]:
    """Yield the directories whose paths match; "*" is within a name. Symlinks are not followed: they are seen twice.

    Raises:
        FormatError: there are very many.
    """
    found = [b""]
    for part in pattern.split("/"):
        found = list(islice((below for path in found for below in _matching(tree, path, part)), _GLOBBED_MAX + 1))
        if len(found) > _GLOBBED_MAX:
            raise FormatError(f"more than {_GLOBBED_MAX:,} directories of this tree match /{pattern}; no system's do")
    yield from found


def _matching(tree: Tree, path: bytes, part: str) -> Iterator[bytes]:
    if "*" not in part:
        below = os.path.join(path, part.encode())
        node = tree.node(below)
        nodes = [] if node is None else [(below, node)]
    else:
        nodes = [(os.path.join(path, one.name), one) for one in tree.nodes(path)]
    for below, node in nodes:
        if stat.S_ISDIR(node.mode) and fnmatchcase(os.fsdecode(below.rpartition(b"/")[2]), part):
            yield below


def bounded(tree: Tree, path: bytes, bytes_max: int) -> Iterator[bytes]:
    """Yield the contents of a file.

    Raises:
        FormatError: it has more than *bytes_max* bytes.
    """
    left = bytes_max
    for data in tree.chunks(path):
        left -= len(data)
        if left < 0:
            raise FormatError(f"/{os.fsdecode(path)} has more than {bytes_max} bytes; no package database has")
        yield data


def lines(tree: Tree, path: bytes, bytes_max: int = 256 << 20) -> Iterator[str]:
    """Yield the lines of a text file without their ends; a byte that is not UTF-8 is as PEP 383 says.

    Raises:
        FormatError: the file is too large, or a line is.
    """
    rest = b""
    for data in bounded(tree, path, bytes_max):
        *whole, rest = (rest + data).split(b"\n")
        yield from (line.decode("utf-8", "surrogateescape") for line in whole)
        if len(rest) > _LINE_BYTES_MAX:
            raise FormatError(f"/{os.fsdecode(path)} has a line of more than {_LINE_BYTES_MAX} bytes; it is no text")
    if rest:
        yield rest.decode("utf-8", "surrogateescape")
