"""Three sides of an /etc as nested dictionaries, and a target: what the tests of the merge share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.sysroot.etc_merge import Merge, merge_etc

Tree = Mapping[str, Any]  # name: text, or (text, mode), or {…}, or Link(…)


class Link(str):
    """A symlink's target."""


def write(top: Path, tree: Tree) -> Path:
    """Make a directory as *tree* says."""
    top.mkdir(exist_ok=True)
    for name, value in tree.items():
        at = top / name
        if isinstance(value, Link):
            at.symlink_to(value)
        elif isinstance(value, Mapping):
            write(at, value)
        else:
            text, mode = value if isinstance(value, tuple) else (value, 0o644)
            at.write_text(text)
            at.chmod(mode)
    return top


def read(top: Path) -> dict[str, Any]:
    """Return what `write` was given; modes only where they are not 0644."""
    found: dict[str, Any] = {}
    for at in sorted(top.iterdir()):
        mode = at.lstat().st_mode & 0o7777
        if at.is_symlink():
            found[at.name] = Link(os.readlink(at))
        elif at.is_dir():
            found[at.name] = read(at)
        else:
            found[at.name] = at.read_text() if mode == 0o644 else (at.read_text(), mode)
    return found


class Etc:
    """Three sides and a target in one directory."""

    def __init__(self, top: Path, old: Tree, own: Tree, new: Tree) -> None:
        self.own = write(top / "own", old)
        self.old = top / "old"
        shutil.copytree(self.own, self.old, symlinks=True)
        _become(self.own, old, own)
        self.new, self.target = write(top / "new", new), top / "target"

    def merge(self, *, text: bool = False) -> tuple[Merge, dict[str, Any]]:
        """Merge; what is only told must be what is done."""
        told = merge_etc(self.old, self.own, self.new, None, text=text)
        shutil.copytree(self.new, self.target, symlinks=True)
        done = merge_etc(self.old, self.own, self.new, self.target, text=text)
        assert told == done
        return done, read(self.target)


def _become(top: Path, old: Tree, own: Tree) -> None:
    """Change a directory from *old* to *own*, touching nothing else."""
    for name in old.keys() - own.keys():
        _remove(top / name)
    for name, value in own.items():
        before = old.get(name)
        if before == value and type(before) is type(value):
            continue
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            _become(top / name, before, value)
            continue
        if name in old:
            _remove(top / name)
        write(top, {name: value})


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def conflicts(merge: Merge) -> list[tuple[str, str | None]]:
    """Return path and what is beside, of each conflict."""
    return [(os.fsdecode(one.path), os.fsdecode(one.beside) if one.beside else None) for one in merge.conflicts]
