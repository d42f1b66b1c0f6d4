"""Databases that are texts: paragraphs of "Key: value", one for each package, as dpkg, apk and Python have them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from typing import Final

from store.errors import FormatError
from tools.packages.package import Package
from tools.packages.tree import Tree, lines

FIELD_MAX: Final = 1000  # characters; of names and versions none is as long


def stanzas(tree: Tree, path: bytes, wanted: frozenset[str]) -> Iterator[dict[str, str]]:
    """Yield the fields *wanted* of each paragraph, by their names; of a field that is there twice, the first.

    A line that begins with a space continues another; no field that is wanted has such.

    Raises:
        FormatError: there is text, but no such paragraph in it.
    """
    found, some, has_text = dict[str, str](), False, False
    for line in chain(lines(tree, path), ("",)):
        name, colon, value = line.partition(":")
        if colon and name in wanted:
            found.setdefault(name, value.strip())
        if line.strip():
            has_text = True
        elif found:
            yield found
            found, some = {}, True
    if has_text and not some:
        raise FormatError(f"/{os.fsdecode(path)} is no package database: it has no paragraph that names a package")


def checked(package: Package, database: bytes) -> Package:
    """Return *package*, if it may be one.

    Raises:
        FormatError: it has no name or no version, or one that is endless.
    """
    where = f"the {package.manager} database /{os.fsdecode(database)}"
    if not package.name:
        raise FormatError(f"{where} is damaged: it has a package without a name")
    if not package.version:
        raise FormatError(f"{where} is damaged: the package {package.name[:FIELD_MAX]!r} has no version")
    if max(map(len, (package.name, package.architecture, package.version))) > FIELD_MAX:
        raise FormatError(f"{where} is damaged: a package's name or version has more than {FIELD_MAX} characters")
    return package
