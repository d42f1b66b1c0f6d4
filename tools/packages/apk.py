"""apk's database (Alpine): paragraphs of "P:name", "V:version", "A:architecture" and more in one file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tools.packages.package import Package
from tools.packages.stanzas import checked, stanzas
from tools.packages.tree import Tree, find_file

INSTALLED: Final = (b"lib/apk/db/installed", b"usr/lib/apk/db/installed")  # the second since apk 3
_FIELDS: Final = frozenset({"P", "V", "A"})


def read_apk(tree: Tree) -> Iterator[Package] | None:
    """Return the packages, or None if there is no database of apk's.

    Raises:
        FormatError: while they are read: it is damaged.
    """
    path = find_file(tree, *INSTALLED)
    return None if path is None else _read(tree, path)


def _read(tree: Tree, path: bytes) -> Iterator[Package]:
    for fields in stanzas(tree, path, _FIELDS):
        yield checked(Package("apk", *(fields.get(name, "") for name in ("P", "A", "V"))), path)
