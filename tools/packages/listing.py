"""All packages of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from store.errors import FormatError
from tools.packages.apk import read_apk
from tools.packages.dpkg import read_dpkg
from tools.packages.package import Package
from tools.packages.pacman import read_pacman
from tools.packages.python import read_python
from tools.packages.rpm import read_rpm
from tools.packages.tree import Tree

_PACKAGES_MAX: Final = 250_000  # of one tree; Debian has 65,000 in all
_READERS: Final[tuple[Callable[[Tree], Iterator[Package] | None], ...]] = (read_dpkg, read_rpm, read_apk, read_pacman)
LOOKED_FOR: Final = "dpkg's, rpm's, apk's, pacman's, Python's"


def list_packages(tree: Tree, on_damage: Callable[[FormatError], object] | None = None) -> list[Package]:
    """Return the packages of *tree*, sorted, each once; none if it has no package database.

    Raises:
        FormatError: a database is damaged. With *on_damage*, that is called instead, and what could be read until then
            is in the list.
    """
    found: set[Package] = set()
    is_managed = False
    for read in _READERS:
        try:
            packages = read(tree)
            is_managed |= packages is not None
            _take(found, packages or ())
        except FormatError as error:
            if on_damage is None:
                raise
            is_managed = True
            on_damage(error)
    try:
        _take(found, read_python(tree, beside_others=is_managed))
    except FormatError as error:
        if on_damage is None:
            raise
        on_damage(error)
    return sorted(found)


def _take(found: set[Package], packages: Iterable[Package]) -> None:
    for package in packages:
        found.add(package)
        if len(found) > _PACKAGES_MAX:
            raise FormatError(f"this tree lists more than {_PACKAGES_MAX:,} packages, which is no system's list")
