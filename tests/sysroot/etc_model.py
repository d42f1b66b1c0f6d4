"""An /etc as plain values, and what merging three of them has to give by docs/etc-merge.md: no code of tools/sysroot.

The one is written from the other's documentation, so that a mistake would have to be made twice.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

Aspect = TypeVar("Aspect")
SUFFIX = ".fsview-new"
NOTE = "user.note"


@dataclass(frozen=True)
class Node:
    """A file with *text*, or a directory (None); *note* is an xattr."""

    text: str | None = None
    mode: int = 0o755
    note: str | None = None
    children: Mapping[str, Node] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        """Whether it has children."""
        return self.text is None

    @property
    def attributes(self) -> tuple[int, str | None]:
        """All but what is in it."""
        return self.mode, self.note


NOTHING = Node()  # of a commit without any etc: an empty directory


def write_node(path: Path, node: Node, *, mtime_ns: int | None = None) -> None:
    """Write a node where nothing is."""
    if node.text is None:
        path.mkdir()
        for name, child in node.children.items():
            write_node(path / name, child, mtime_ns=mtime_ns)
    else:
        path.write_text(node.text)
    dress_path(path, node)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def dress_path(path: Path, node: Node) -> None:
    """Give a path a node's attributes."""
    path.chmod(node.mode)
    if node.note is not None:
        os.setxattr(path, NOTE, node.note.encode())
    elif NOTE in os.listxattr(path):
        os.removexattr(path, NOTE)


def read_node(path: Path) -> Node | None:
    """Return what is at a path."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    notes = os.listxattr(path)
    assert notes in ([], [NOTE])
    note = os.getxattr(path, NOTE).decode() if notes else None
    if stat.S_ISREG(status.st_mode):
        return Node(path.read_text(), stat.S_IMODE(status.st_mode), note)
    assert stat.S_ISDIR(status.st_mode)
    below = {name: read_node(path / name) for name in sorted(os.listdir(path))}
    children = {name: node for name, node in below.items() if node is not None}
    return Node(None, stat.S_IMODE(status.st_mode), note, children)


def remove_path(path: Path) -> None:
    """Remove a file or a directory."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def changed(top: Node, path: str, node: Node | None) -> Node:
    """Return *top* with another node, or none, at *path*; directories above it are there."""
    if not path:
        assert node is not None
        return node
    name, _, rest = path.partition("/")
    below = dict(top.children)
    found = changed(below[name], rest, node) if rest else node
    below.pop(name, None)
    return replace(top, children=below | ({name: found} if found is not None else {}))


def at(top: Node | None, path: str) -> Node | None:
    """Return the node at a path."""
    for name in path.split("/") if path else []:
        top = top.children.get(name) if top is not None else None
    return top


def merge(old: Node, own: Node, new: Node) -> tuple[Node, set[str]]:
    """Return the merged directory, and the paths of conflicts."""
    merger = _Merger()
    return merger.directory("", old, own, new), merger.conflicts


class _Merger:
    def __init__(self) -> None:
        self.conflicts: set[str] = set()

    def directory(self, path: str, old: Node | None, own: Node, new: Node | None) -> Node:
        """Merge a directory of the admin's; the others have one there, or none."""
        mode, note = own.attributes if old is None or new is None else self._attributes(path, old, own, new)
        before, theirs = (dict(node.children) if node is not None else {} for node in (old, new))
        ours = {name: node for name, node in own.children.items() if not _is_left_over(name, before, own, theirs)}
        names = {*before, *ours, *theirs}
        result: dict[str, Node] = {}
        for name in names:
            where = f"{path}/{name}" if path else name
            kept, beside = self._path(where, before.get(name), ours.get(name), theirs.get(name))
            result |= {name: kept} if kept is not None else {}
            result |= {_free(name, names): beside} if beside is not None else {}
        return Node(None, mode, note, result)

    def _path(self, path: str, old: Node | None, own: Node | None, new: Node | None) -> tuple[Node | None, Node | None]:
        """Return what has the name afterwards, and what is left beside it."""
        if own == old:
            return new, None  # whoever changed it
        if own is None:
            return self._conflict(path, None, new) if new is not None and new != old else (None, None)
        if new is not None and new.is_directory and own.is_directory:
            base = old if old is not None and old.is_directory else None
            if base is None and own.attributes != new.attributes:
                self._conflict(path, None, None)
            return self.directory(path, base, own, new), None
        if own.is_directory:
            return self._directory_of_mine(path, old, own, new)
        if new is not None and not new.is_directory and old is not None and not old.is_directory:
            return self._file(path, old, own, new)
        if new is not None and new.text == own.text:
            return self._conflict(path, own, None) if new.attributes != own.attributes else (own, None)
        if new == old:
            return own, None
        return self._conflict(path, own, new)

    def _directory_of_mine(self, path: str, old: Node | None, own: Node, new: Node | None) -> tuple[Node, Node | None]:
        was_directory = old is not None and old.is_directory
        if was_directory or new != old:
            self._conflict(path, None, None)
        return self.directory(path, old if was_directory else None, own, None), new if new != old else None

    def _file(self, path: str, old: Node, own: Node, new: Node) -> tuple[Node, Node | None]:
        mode, note = self._attributes(path, old, own, new)
        if own.text in (old.text, new.text):
            return Node(new.text, mode, note), None
        if new.text != old.text:
            self._conflict(path, None, None)
        return Node(own.text, mode, note), new if new.text != old.text else None

    def _attributes(self, path: str, old: Node, own: Node, new: Node) -> tuple[int, str | None]:
        return self._aspect(path, old.mode, own.mode, new.mode), self._aspect(path, old.note, own.note, new.note)

    def _aspect(self, path: str, old: Aspect, own: Aspect, new: Aspect) -> Aspect:
        if old != own != new != old:
            self._conflict(path, None, None)
        return new if own == old else own

    def _conflict(self, path: str, kept: Node | None, beside: Node | None) -> tuple[Node | None, Node | None]:
        self.conflicts.add(path)
        return kept, beside


def _is_left_over(last: str, before: Mapping[str, Node], own: Node, theirs: Mapping[str, Node]) -> bool:
    """Whether it is an earlier merge's, and not of use any more."""
    name = re.sub(r"\.fsview-new(\.\d+)?$", "", last)
    if name == last or last in before or last in theirs or before.get(name) != own.children[last]:
        return False
    return before.get(name) != theirs.get(name) or own.children.get(name) == theirs.get(name)


def _free(name: str, taken: set[str]) -> str:
    found, number = name + SUFFIX, 1
    while found in taken:
        number += 1
        found = f"{name}{SUFFIX}.{number}"
    return found
