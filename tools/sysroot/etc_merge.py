"""The three-way merge of /etc: what the old release had, what the admin made of it, and what the new release has.

For each path, and for each aspect of it (contents; mode; owner; xattrs), whoever changed it against the old release
wins. If both did, and not in the same way, that is a conflict: it is listed, the admin's version is kept, and the new
release's is left beside it as NAME.fsview-new, unless it is only an attribute. docs/etc-merge.md has the rules as a
table. ostree's merge takes the admin's file whole, and doesn't tell.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tools.render import quote_path
from tools.sysroot.etc_changes import settled_ns
from tools.sysroot.etc_text import merge_text
from tools.sysroot.etc_tree import ACL, Attributes, Node, has_same_content, is_same_tree, opened
from tools.sysroot.etc_writing import Target, whose_is


@dataclass(slots=True)
class Conflict:
    """Where both sides changed something; *beside* has the new release's version, None if there is none to keep."""

    path: bytes
    what: str
    kept: str
    beside: bytes | None


@dataclass(slots=True)
class Merge:
    """What was carried over from the admin's etc, by paths.

    What was not: *skipped* are FIFOs, sockets and devices; *linked* are files with more names, where others may write;
    *mounted* are mount points, of which no more than the place is carried over.
    """

    modified: int = 0
    added: int = 0
    deleted: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    text_merged: list[bytes] = field(default_factory=list)
    skipped: list[bytes] = field(default_factory=list)
    linked: list[bytes] = field(default_factory=list)
    mounted: list[bytes] = field(default_factory=list)


def merge_etc(pristine: Path, admin: Path, new: Path, target: Path | None, *, text: bool = False) -> Merge:
    """Merge the admin's changes of *pristine* into *target*, which begins as a copy of *new*; None: only tell.

    *text*: text files that both sides changed are merged line by line, where their changes don't overlap.

    Raises:
        SysrootError: one of the directories is none; `git` is missing, for *text*.
        ConflictError: the admin's etc changed meanwhile; *target* is not to be used.
    """
    merger = _Merger(Target(None if target is None else os.fsencode(target)), settled_ns(pristine), text)
    with opened(pristine, admin, new) as sides:
        merger.directory(b"", *sides)
        merger.target.finish()
    return merger.result


def fingerprint(etc: Path) -> bytes:
    """Return a digest of all names, attributes and times in *etc*: any edit changes it. What is mounted has no say.

    Raises:
        SysrootError: it is no directory.
        ConflictError: something went away meanwhile.
    """
    seen = sha256()
    with opened(etc) as (top,):
        _digest(seen.update, top)
    return seen.digest()


class _Merger:
    """One merge. *old*, *own* and *new* are what the old release, the admin and the new release have at a path."""

    def __init__(self, target: Target, settled: int, text: bool) -> None:
        self.target, self._settled, self._text = target, settled, text
        self.result = Merge()
        self._changes = 0  # of the admin's, conflicts too

    def directory(self, name: bytes, old: Node | None, own: Node, new: Node | None) -> None:
        """Merge a directory that the admin has; where *new* is none, the target has an empty one."""
        if new is not None and new.is_directory and old is not None and old.is_directory:
            self._dress(name, old, own, new)
        before, ours, theirs = (node.children() if node else {} for node in (old, own, new))
        ours = {last: node for last, node in ours.items() if not _is_left_over(last, before, ours, theirs)}
        below = name + b"/" if name else b""
        names = sorted(before.keys() | ours.keys() | theirs.keys())
        taken = {below + last for last in names}
        for last in names:
            self._path(below + last, before.get(last), ours.get(last), theirs.get(last), taken)

    def _path(self, name: bytes, old: Node | None, own: Node | None, new: Node | None, taken: set[bytes]) -> None:
        if own is None:
            self._deleted(name, old, new, taken)
        elif own.is_mounted:
            self._mounted(name, own, new)
        elif own.is_special:
            self.result.skipped.append(name)
        elif own.is_linked:
            self.result.linked.append(name)
        elif old is None or old.kind != own.kind:
            self._replaced(name, old, own, new, taken)
        elif own.is_directory:
            self._changed_directory(name, old, own, new, taken)
        else:
            self._changed_file(name, old, own, new, taken)

    def _mounted(self, name: bytes, own: Node, new: Node | None) -> None:
        """What is mounted is none of the admin's changes, and what it hides can't be seen."""
        self.result.mounted.append(name)
        if new is None:
            self.target.mount_point(name, is_directory=own.is_directory)

    def _deleted(self, name: bytes, old: Node | None, new: Node | None, taken: set[bytes]) -> None:
        if old is None or new is None:
            return  # only the new release has it; or both deleted it
        self.result.deleted += 1
        if is_same_tree(old, new):
            self.target.remove(name)
        else:
            self._conflict(name, "deleted here, changed by the new release", self.target.set_aside(name, taken))

    def _replaced(self, name: bytes, old: Node | None, own: Node, new: Node | None, taken: set[bytes]) -> None:
        """What the admin added, or made another kind of thing."""
        if new is not None and own.is_directory and new.is_directory:
            if own.attributes != new.attributes:
                self._conflict(name, f"new on both sides, {_differing(own.attributes, new.attributes)}", None)
                self.target.dress(name, own.attributes)
            self.directory(name, None, own, new)
            return
        if new is not None and has_same_content(own, new):
            if own.attributes != new.attributes:
                self._conflict(name, f"the same on both sides, {_differing(own.attributes, new.attributes)}", None)
                self.target.dress(name, own.attributes)
            return
        if new is not None and not is_same_tree(old, new):
            how = "added on both sides" if old is None else f"made {own.what} here, changed by the new release"
            self._conflict(name, how, self.target.set_aside(name, taken))
        elif old is not None and new is None:
            self._conflict(name, f"made {own.what} here, removed by the new release", None)
        self._put(name, own, new, is_new=old is None)

    def _put(self, name: bytes, own: Node, new: Node | None, *, is_new: bool) -> None:
        """Take the admin's file or directory, with all that is in it."""
        self.result.added += is_new
        self.result.modified += not is_new
        self.target.put(name, own, own.attributes, shown=new)
        if own.is_directory:
            self.directory(name, None, own, None)

    def _changed_directory(self, name: bytes, old: Node, own: Node, new: Node | None, taken: set[bytes]) -> None:
        if new is not None and new.is_directory:
            self.directory(name, old, own, new)
        elif not is_same_tree(old, own):
            beside = None if new is None else self.target.set_aside(name, taken)
            how = "removed" if new is None else f"made {new.what}"
            self._conflict(name, f"changed here, {how} by the new release", beside)
            self.target.put(name, own, own.attributes)
            self.directory(name, old, own, None)

    def _changed_file(self, name: bytes, old: Node, own: Node, new: Node | None, taken: set[bytes]) -> None:
        is_mine = not has_same_content(old, own, self._settled)
        if not is_mine and old.attributes == own.attributes:
            return  # the new release's, whatever that is
        if new is None or new.kind != own.kind:
            how = "removed" if new is None else f"made {new.what}"
            beside = None if new is None else self.target.set_aside(name, taken)
            self._conflict(name, f"changed here, {how} by the new release", beside)
            self.result.modified += 1
            self.target.put(name, own, own.attributes)
            return
        self.result.modified += 1
        if own.is_ours:
            attributes = self._merged_attributes(name, old, own, new)
        else:
            attributes = self._undivided(name, old, own, new, is_mine=is_mine)
        if not is_mine or has_same_content(own, new):
            self.target.dress(name, attributes)
        elif has_same_content(old, new):
            self.target.put(name, own, attributes, shown=new)
        else:
            self._both(name, (old, own, new), attributes, taken)

    def _both(
        self, name: bytes, sides: tuple[Node, Node, Node], attributes: Attributes, taken: set[bytes]
    ) -> None:  # fmt: skip
        old, own, new = sides
        is_alike = own.is_ours or own.attributes == new.attributes  # else one side's text gets the other's attributes
        merged = merge_text(old, own, new) if self._text and is_alike else None
        if merged is not None:
            self.result.text_merged.append(name)
            self.target.write(name, merged, attributes)
            return
        beside = self.target.set_aside(name, taken)
        self._conflict(name, "changed on both sides", beside)
        self.target.put(name, own, attributes, shown=new)

    def _dress(self, name: bytes, old: Node, own: Node, new: Node) -> None:
        """Merge the attributes of a directory that all sides have."""
        if own.attributes != old.attributes:
            self.result.modified += 1
            self.target.dress(name, self._merged_attributes(name, old, own, new))

    def _merged_attributes(self, name: bytes, old: Node, own: Node, new: Node) -> Attributes:
        mode, owner = new.attributes.mode, new.attributes.owner
        before, mine, theirs = old.attributes, own.attributes, new.attributes
        contested = []
        was, now = dict(before.xattrs), dict(mine.xattrs)
        if mine.mode != before.mode or was.get(ACL) != now.get(ACL):  # a mode takes from an ACL what it doesn't permit
            contested += ["mode"] if theirs.mode not in (before.mode, mine.mode) else []
            mode = mine.mode
        if mine.owner != before.owner:
            contested += ["owner"] if theirs.owner not in (before.owner, mine.owner) else []
            owner = mine.owner
        xattrs = dict(theirs.xattrs)
        for key in was.keys() | now.keys():
            if was.get(key) != now.get(key):
                if xattrs.get(key) not in (was.get(key), now.get(key)):
                    contested.append(f"xattr {quote_path(key)}")
                xattrs.pop(key, None)
                xattrs |= {key: now[key]} if key in now else {}
        if contested:
            self._conflict(name, f"{', '.join(sorted(contested))} changed on both sides", None)
        return Attributes(mode, owner, tuple(sorted(xattrs.items())))

    def _undivided(self, name: bytes, old: Node, own: Node, new: Node, *, is_mine: bool) -> Attributes:
        """Return the attributes of the side whose contents are taken.

        Where others may write, they could lay open root's contents, linked there, by attributes of their own; or have
        their contents made setuid.
        """
        before, mine, theirs = old.attributes, own.attributes, new.attributes
        kept = mine if is_mine or theirs == before else theirs
        if theirs not in (before, mine):
            whose = "yours" if is_mine else "the new release's"
            self._conflict(name, f"{_differing(mine, theirs)}, where others may write", None, whose)
        return kept

    def _conflict(self, name: bytes, what: str, beside: bytes | None, kept: str = "yours") -> None:
        self.result.conflicts.append(Conflict(name or b".", what, kept, beside))


def _is_left_over(
    last: bytes, before: dict[bytes, Node], ours: dict[bytes, Node], theirs: dict[bytes, Node]
) -> bool:  # fmt: skip
    """Whether this is what an earlier merge left beside a name, and of no more use.

    It is that as long as the admin's version and the new release's differ, and the release's is still the same.
    """
    name = whose_is(last)
    if name is None or last in before or last in theirs or not is_same_tree(before.get(name), ours[last]):
        return False
    return not (is_same_tree(before.get(name), theirs.get(name)) and not is_same_tree(ours.get(name), theirs.get(name)))


def _differing(mine: Attributes, theirs: Attributes) -> str:
    names = [name for name in Attributes._fields if getattr(mine, name) != getattr(theirs, name)]
    return f"with another {', '.join(names)}"


def _digest(update: Callable[[bytes], object], node: Node) -> None:
    status = node.status
    update(node.path + b"\0")
    if node.is_mounted:
        return
    update(repr((status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_ino)).encode())
    update(repr((status.st_mtime_ns, status.st_ctime_ns)).encode())
    for _, child in sorted(node.children().items()):
        _digest(update, child)
