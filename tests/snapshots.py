"""Trees on disk, compared completely: kinds, modes, owners, xattrs, contents, targets, and mtimes if asked.

    before = snapshot(path)
    ...
    assert_same_tree(before, path)           # a Path or a Snapshot on either side
    assert_same_tree(source, view, mtimes=True, ignore=("owner",))

Not compared, because a view need not keep them: hard links, block counts, the size of a directory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Entry:
    """All that is seen of one file, directory, link or device."""

    kind: str  # "file", "directory", "symlink", "fifo", "socket", "char", "block"
    mode: int  # permission bits, with setuid, setgid and sticky
    owner: tuple[int, int]  # uid, gid
    size: int  # bytes; 0 for directories
    content: str  # sha256 of a file, "" for others
    target: bytes  # of a symlink
    device: int
    xattrs: tuple[tuple[str, bytes], ...]  # sorted
    mtime_ns: int


Snapshot: TypeAlias = dict[bytes, Entry]  # by path from the root; the root is b"."

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


def snapshot(root: Path) -> Snapshot:
    """Return everything below *root*, each file read through; *root* may be a symlink to a directory."""
    top = os.fsencode(root.resolve(strict=True))
    return {os.path.relpath(path, top): _entry(path) for path in _walk(top)}


def _walk(top: bytes) -> Iterator[bytes]:
    yield top
    if stat.S_ISDIR(os.lstat(top).st_mode):
        for name in sorted(os.listdir(top)):
            yield from _walk(os.path.join(top, name))


def _entry(path: bytes) -> Entry:
    status = os.lstat(path)
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    try:
        keys = sorted(os.listxattr(path, follow_symlinks=False))
    except OSError:
        keys = []
    content = ""
    if kind == "file":
        with open(path, "rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        size=0 if kind == "directory" else status.st_size,
        content=content,
        target=os.readlink(path) if kind == "symlink" else b"",
        device=status.st_rdev,
        xattrs=tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in keys),
        mtime_ns=status.st_mtime_ns,
    )


def differences(
    a: Path | Snapshot, b: Path | Snapshot, *, mtimes: bool = False, ignore: tuple[str, ...] = ()
) -> list[str]:
    """Return one line for each difference; *ignore* holds names of Entry's fields, such as "owner", "xattrs"."""
    left, right = (tree if isinstance(tree, dict) else snapshot(tree) for tree in (a, b))
    names = [f.name for f in fields(Entry) if f.name not in ignore and (mtimes or f.name != "mtime_ns")]
    lines = [f"only in the first: {path!r} ({left[path].kind})" for path in sorted(left.keys() - right.keys())]
    lines += [f"only in the second: {path!r} ({right[path].kind})" for path in sorted(right.keys() - left.keys())]
    for path in sorted(left.keys() & right.keys()):
        for name in names:
            one, other = getattr(left[path], name), getattr(right[path], name)
            if one != other:
                show = oct if name == "mode" else repr
                lines.append(f"{path!r}: {name} is {show(one)} in the first, {show(other)} in the second")
    return lines


def assert_same_tree(
    a: Path | Snapshot, b: Path | Snapshot, *, mtimes: bool = False, ignore: tuple[str, ...] = ()
) -> None:
    """Fail with the first twenty `differences`, if there are any."""
    __tracebackhide__ = True
    lines = differences(a, b, mtimes=mtimes, ignore=ignore)
    if lines:
        names = [f"{len(tree)} entries" if isinstance(tree, dict) else str(tree) for tree in (a, b)]
        more = [f"and {len(lines) - 20} more"] if len(lines) > 20 else []
        raise AssertionError(
            "\n  ".join([f"{len(lines)} differences of {names[0]} and {names[1]}:", *lines[:20], *more])
        )
