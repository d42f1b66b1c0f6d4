"""pacman's database (Arch): a directory for each package, in it a file desc of paragraphs "%NAME%", value."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

from tools.packages.package import Package
from tools.packages.stanzas import checked
from tools.packages.tree import Tree, find_directory, find_file, lines

LOCAL: Final = b"var/lib/pacman/local"
_HEADINGS: Final = ("%NAME%", "%ARCH%", "%VERSION%")
_DESC_BYTES_MAX: Final = 4 << 20


def read_pacman(tree: Tree) -> Iterator[Package] | None:
    """Return the packages, or None if there is no database of pacman's.

    Raises:
        FormatError: while they are read: it is damaged.
    """
    directory = find_directory(tree, LOCAL)
    return None if directory is None else _read(tree, directory)


def _read(tree: Tree, directory: bytes) -> Iterator[Package]:
    for node in tree.nodes(directory):
        path = find_file(tree, directory + b"/" + node.name + b"/desc") if stat.S_ISDIR(node.mode) else None
        if path is not None:
            values = _values(lines(tree, path, _DESC_BYTES_MAX))
            yield checked(Package("pacman", *(values.get(heading, "") for heading in _HEADINGS)), path)


def _values(text: Iterator[str]) -> dict[str, str]:
    """Return the line below each heading that is wanted."""
    found: dict[str, str] = {}
    for line in text:
        if line in _HEADINGS and line not in found:
            found[line] = next(text, "")
    return found
