"""Python's distributions: METADATA in *.dist-info, PKG-INFO in or as *.egg-info, where interpreters look.

Those that a distribution ships as packages of its own manager are not told twice: what is below usr/lib counts beside
such a manager only if one of Python's installers says that it put it there.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from typing import Final

from store.errors import FormatError
from tools.packages.package import Package
from tools.packages.stanzas import FIELD_MAX
from tools.packages.tree import Node, Tree, find_file, glob, lines

_SYSTEM: Final = ("usr/lib/python*/*-packages", "usr/lib64/python*/*-packages")
_OWN: Final = tuple(
    f"{prefix}/{lib}/python*/*-packages"
    for prefix in ("usr/local", "opt/*", "opt/*/*", "srv/*", "srv/*/*", "root/.local")
    for lib in ("lib", "lib64")
)
_INSTALLERS: Final = frozenset({"pip", "uv", "poetry", "pdm", "conda", "flit", "hatch"})
_NAMED: Final = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-py[0-9.]+.*)?\.(dist|egg)-info")
_METADATA_BYTES_MAX: Final = 4 << 20


def read_python(tree: Tree, *, beside_others: bool) -> Iterator[Package]:
    """Yield the distributions; *beside_others*: there is another package manager in this tree."""
    for patterns, only_installed in ((_SYSTEM, beside_others), (_OWN, False)):
        for pattern in patterns:
            for directory in glob(tree, pattern):
                if directory.endswith((b"/site-packages", b"/dist-packages")):
                    yield from _read(tree, directory, only_installed)


def _read(tree: Tree, directory: bytes, only_installed: bool) -> Iterator[Package]:
    for node in tree.nodes(directory):
        if not node.name.endswith((b".dist-info", b".egg-info")):
            continue
        where = directory + b"/" + node.name
        if only_installed and _installer(tree, where) not in _INSTALLERS:
            continue
        name, version = _said(tree, where, node) or _named(node.name)
        if name and version and max(len(name), len(version)) <= FIELD_MAX:
            yield Package("python", name, "", version)


def _installer(tree: Tree, where: bytes) -> str:
    path = find_file(tree, where + b"/INSTALLER")
    first = "" if path is None else next(lines(tree, path), "")
    return (first.split() or [""])[0].lower()


def _said(tree: Tree, where: bytes, node: Node) -> tuple[str, str] | None:
    """Return name and version as the metadata has them; None if there is none, or it can't be made out."""
    names = (where,) if stat.S_ISREG(node.mode) else (where + b"/METADATA", where + b"/PKG-INFO")
    path = find_file(tree, *names)
    if path is None:
        return None
    fields: dict[str, str] = {}
    with suppress(FormatError):  # too large: what was read until then will do
        for line in takewhile(bool, lines(tree, path, _METADATA_BYTES_MAX)):  # the description follows
            name, _, value = line.partition(":")
            fields.setdefault(name, value.strip())
    found = fields.get("Name"), fields.get("Version")
    return (found[0], found[1]) if found[0] and found[1] else None


def _named(name: bytes) -> tuple[str, str]:
    match = _NAMED.fullmatch(os.fsdecode(name))
    return (match["name"], match["version"]) if match else ("", "")
