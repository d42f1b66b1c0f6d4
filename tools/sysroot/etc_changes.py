"""What the admin changed in an /etc, against the pristine copy of what was deployed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tools.sysroot.etc_tree import Node, has_same_content, opened
from tools.sysroot.layout import Generation


class Kind(StrEnum):
    """What became of a path, by the letters of `ostree admin config-diff`."""

    MODIFIED = "M"
    ADDED = "A"
    DELETED = "D"


@dataclass(frozen=True, slots=True)
class Change:
    """One path, relative to etc, which is "." itself.

    Below an added directory each path is a change, below a deleted one none is.
    """

    path: bytes
    kind: Kind


def find_changes(pristine: Path, admin: Path) -> list[Change]:
    """Return what differs in *admin* from *pristine*: contents, modes, owners, xattrs; sorted by path.

    Where something is mounted, nothing is said to differ.

    Raises:
        SysrootError: one of them is no directory.
        ConflictError: something was replaced, or went away, meanwhile.
    """
    return list(_all_changes(pristine, admin))


def is_unchanged(generation: Generation) -> bool:
    """Whether the etc of a deployment is what was committed."""
    pristine, admin = generation.pristine_etc, generation.root / "etc"
    if not admin.is_dir():
        return not any(pristine.iterdir())
    return next(_all_changes(pristine, admin), None) is None


def settled_ns(pristine: Path) -> int:
    """Return the time before which nobody could edit the etc that was deployed with *pristine*.

    It got its name after that etc was complete, and a rename sets the ctime.
    """
    return os.lstat(pristine).st_ctime_ns


def _all_changes(pristine: Path, admin: Path) -> Iterator[Change]:
    with opened(pristine, admin) as (old, new):
        if old.attributes != new.attributes:
            yield Change(b".", Kind.MODIFIED)
        yield from _changes(b"", old, new, settled_ns(pristine))


def _changes(path: bytes, old: Node, new: Node, settled: int) -> Iterator[Change]:
    before, after = old.children(), new.children()
    for name in sorted(before.keys() | after.keys()):
        yield from _change(path + name, before.get(name), after.get(name), settled)


def _change(path: bytes, old: Node | None, new: Node | None, settled: int) -> Iterator[Change]:
    if new is None:
        yield Change(path, Kind.DELETED)
        return
    if new.is_mounted:
        return
    if old is None:
        yield Change(path, Kind.ADDED)
    elif not has_same_content(old, new, settled) or old.attributes != new.attributes:
        yield Change(path, Kind.MODIFIED)
    if new.is_directory:
        if old is not None and old.is_directory:
            yield from _changes(path + b"/", old, new, settled)
        else:
            yield from (
                change
                for name, child in sorted(new.children().items())
                for change in _change(path + b"/" + name, None, child, settled)
            )
