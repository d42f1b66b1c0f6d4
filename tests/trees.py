"""Trees on disk for tests, built from a compact description.

    spec = {
        "README": b"bytes are a plain file\n",
        "bin": {"tool": File(b"#!/bin/sh\n", mode=0o755, xattrs={"user.note": b"x"})},   # a dict is a directory
        "lib": Directory({...}, mode=0o2775, owner=(0, 42)),
        "link": Symlink("bin/tool"),
        "pipe": Special("fifo"),
    }
    build_tree(path, spec)

Owners are applied as root only, xattrs only where the file system has them; so a spec says what is wanted and
`tests.snapshots` says what is there. Modes ignore the umask.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Owner: TypeAlias = tuple[int, int]  # uid, gid
Name: TypeAlias = str | bytes
Spec: TypeAlias = Mapping[Any, "Node"]  # the keys are Names; Any, because a Mapping's key type is invariant

YEAR_2020_NS = 1_577_836_800 * 10**9


@dataclass(frozen=True, slots=True)
class File:
    """A regular file; *mtime_ns* None leaves the clock's."""

    content: bytes = b""
    mode: int = 0o644
    owner: Owner | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory with attributes of its own; a plain dict is one with mode 0755."""

    children: Spec = field(default_factory=dict)
    mode: int = 0o755
    owner: Owner | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link; the target need not exist."""

    target: Name
    owner: Owner | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Hardlink:
    """Another name of a file that stands earlier in the spec; *to* is its path from the tree's root."""

    to: Name


@dataclass(frozen=True, slots=True)
class Special:
    """What a commit can't hold. "char" and "block" need root (null and loop0 are made)."""

    kind: Literal["fifo", "socket", "char", "block"]
    mode: int = 0o600


Node: TypeAlias = bytes | Spec | File | Directory | Symlink | Hardlink | Special

ODD_NAMES: tuple[bytes, ...] = (
    b"new\nline",
    b"tab\tand\rreturn",
    b"back\\slash",
    b"quote\"and'quote",
    b"\x01\x7f",  # control characters
    b" leading and trailing ",
    b"-rf",
    b"...",
    b".hidden",
    b"*?[a]{b,c}$HOME`id`",
    b"%s%n",
    b"caf\xc3\xa9",  # composed
    b"cafe\xcc\x81",  # decomposed: another name, though it looks the same
    b"\xf0\x9f\x8c\xb3",
    b"\xe2\x80\xaegnp.exe",  # right-to-left override
    b"a" * 255,
)
NON_UTF8_NAME = b"latin-\xe9"  # OSTree refuses it


def sample_tree() -> Spec:
    """Return the spec of a small tree with everything that a commit can hold (built as root: with owners too)."""
    return {
        "README": b"A tree with one of everything.\n",
        "empty": b"",
        "large": File(bytes(range(256)) * 2000, mtime_ns=YEAR_2020_NS + 123_456_789),
        "bin": {
            "tool": File(b"#!/bin/sh\nexit 0\n", mode=0o755),
            "setuid": File(b"\x7fELF", mode=0o4755),
            "setgid": File(b"\x7fELF", mode=0o2755),
            "sh": Symlink("tool"),
        },
        "etc": {
            "shadow": File(b"root:*:1::::::\n", mode=0o640, owner=(0, 42)),
            "secret": File(b"none\n", mode=0o000),
            "noted": File(b"with xattrs\n", xattrs={"user.note": b"value", "user.empty": b"", "user.bin": b"\0\xff"}),
            "os-release": Symlink("../usr/lib/os-release"),
        },
        "links": {
            "dangling": Symlink("nowhere"),
            "absolute": Symlink("/etc/passwd"),
            "loop": Symlink("loop"),
            "long": Symlink("x/" * 500),  # XFS takes no more than 1,023 bytes
            "odd": Symlink(b"new\nline and \xc3\xa9"),
            "owned": Symlink("../README", owner=(1000, 1000)),
        },
        "odd": {name: b"named " + name for name in ODD_NAMES},
        "odd directories": {name: {"inside": b"in"} for name in ODD_NAMES},
        "twins": {"a": {"same": b"equal content\n"}, "b": {"same": b"equal content\n"}},
        "twin-modes": {"a": File(b"equal content\n", mode=0o600), "b": b"equal content\n"},
        "no-entries": {},
        "sticky": Directory({"x": b"x"}, mode=0o1777),
        "owned": Directory({"y": File(b"y", owner=(1000, 50))}, mode=0o2750, owner=(1000, 50)),
        "noted": Directory({"z": b"z"}, xattrs={"user.note": b"on a directory"}),
        "deep": {"a": {"b": {"c": {"d": {"e": {"f": b"bottom\n"}}}}}},
        "hard": Hardlink("README"),
    }


def build_tree(root: Path, spec: Spec | None = None) -> Path:
    """Create *root*, which must not exist, as *spec* says (None: `sample_tree`); return it."""
    with_xattrs = supports_xattrs(root.parent)
    _build(os.fsencode(root), os.fsencode(root), Directory(sample_tree() if spec is None else spec), with_xattrs)
    return root


def supports_xattrs(directory: Path) -> bool:
    """Tell whether the file system of *directory* holds user xattrs."""
    probe = directory / f".xattr-probe-{os.getpid()}"
    try:
        probe.touch()
        os.setxattr(probe, "user.probe", b"1")
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def _build(root: bytes, path: bytes, node: Node, with_xattrs: bool) -> None:
    match node:
        case bytes():
            return _build(root, path, File(node), with_xattrs)
        case Mapping():
            return _build(root, path, Directory(node), with_xattrs)
        case File():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as stream:
                stream.write(node.content)
        case Directory():
            os.mkdir(path, 0o700)
            for name, child in node.children.items():
                _build(root, os.path.join(path, os.fsencode(name)), child, with_xattrs)
        case Symlink():
            os.symlink(os.fsencode(node.target), path)
            _own(path, node.owner)
            _touch(path, node.mtime_ns)
            return None
        case Hardlink():
            os.link(os.path.join(root, os.fsencode(node.to)), path, follow_symlinks=False)
            return None
        case Special():
            _make_special(path, node)
            return None
    _own(path, node.owner)
    os.chmod(path, node.mode)  # after chown, which drops setuid
    if with_xattrs:
        for key, value in node.xattrs.items():
            os.setxattr(path, key, value)
    _touch(path, node.mtime_ns)
    return None


def _own(path: bytes, owner: Owner | None) -> None:
    if owner is not None and os.geteuid() == 0:
        os.chown(path, *owner, follow_symlinks=False)


def _touch(path: bytes, mtime_ns: int | None) -> None:
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def _make_special(path: bytes, node: Special) -> None:
    kind, device = {
        "fifo": (stat.S_IFIFO, 0),
        "socket": (stat.S_IFSOCK, 0),
        "char": (stat.S_IFCHR, os.makedev(1, 3)),
        "block": (stat.S_IFBLK, os.makedev(7, 0)),
    }[node.kind]
    os.mknod(path, kind | node.mode, device)
    os.chmod(path, node.mode)
