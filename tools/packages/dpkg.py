"""dpkg's database: paragraphs in var/lib/dpkg/status; in distroless images one file a package in status.d."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from store.errors import FormatError
from tools.packages.package import Package
from tools.packages.stanzas import checked, stanzas
from tools.packages.tree import Tree, find_directory, find_file

STATUS: Final = b"var/lib/dpkg/status"
STATUS_D: Final = b"var/lib/dpkg/status.d"

_FIELDS: Final = frozenset({"Package", "Status", "Version", "Architecture"})
_NOT_INSTALLED: Final = {"not-installed", "config-files"}  # the rest is there, though perhaps not set up


def read_dpkg(tree: Tree) -> Iterator[Package] | None:
    """Return the packages, or None if there is no database of dpkg's.

    Raises:
        FormatError: while they are read: it is damaged.
    """
    status, directory = find_file(tree, STATUS), find_directory(tree, STATUS_D)
    if status is None and directory is None:
        return None
    return _read(tree, status, directory)


def _read(tree: Tree, status: bytes | None, directory: bytes | None) -> Iterator[Package]:
    if status is not None:
        yield from _packages(tree, status)
    if directory is not None:
        for node in tree.nodes(directory):
            if stat.S_ISREG(node.mode) and not node.name.endswith(b".md5sums"):
                path = directory + b"/" + node.name
                yield from _packages(tree, path)


def _packages(tree: Tree, path: bytes) -> Iterator[Package]:
    for fields in stanzas(tree, path, _FIELDS):
        words = fields.get("Status", "install ok installed").split()
        if len(words) != 3:
            raise FormatError(
                f"the dpkg database /{os.fsdecode(path)} is damaged: a package's state is {fields['Status'][:99]!r}"
            )
        if words[2] not in _NOT_INSTALLED:
            name, architecture, version = (fields.get(key, "") for key in ("Package", "Architecture", "Version"))
            yield checked(Package("dpkg", name, architecture, version), path)
