"""What differs between two lists of packages: upgraded, downgraded, added, removed, as `rpm-ostree db diff` tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cmp_to_key
from typing import Any

from tools.packages.package import Package
from tools.packages.versions import compare_versions


@dataclass(frozen=True, slots=True)
class Replaced:
    """One package in two versions."""

    old: Package
    new: Package


@dataclass(frozen=True, slots=True)
class PackageChanges:
    """What differs; each list is sorted by manager and name."""

    upgraded: list[Replaced] = field(default_factory=list)
    downgraded: list[Replaced] = field(default_factory=list)
    added: list[Package] = field(default_factory=list)
    removed: list[Package] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(count for count, _ in self._counts())

    def summary(self) -> str:
        """Return how many of each there are, as "12 upgraded, 3 added, 1 removed"; "" when nothing differs."""
        return ", ".join(f"{count} {what}" for count, what in self._counts() if count)

    def _counts(self) -> Iterator[tuple[int, str]]:
        for what in ("upgraded", "downgraded", "added", "removed"):
            yield len(getattr(self, what)), what


def compare(old: Iterable[Package], new: Iterable[Package]) -> PackageChanges:
    """Return what differs between two lists.

    A package is the same one if manager, name and architecture agree; of what is left over, if manager and name do: it
    went from one architecture to another. Of a package in several versions (kernels) the newest are paired.
    """
    gone, come = sorted(set(old) - set(new)), sorted(set(new) - set(old))
    pairs: list[Replaced] = []
    for key in (_with_architecture, _without_architecture):
        found, gone, come = _paired(gone, come, key)
        pairs += found
    pairs.sort(key=lambda pair: (pair.new, pair.old))
    changes = PackageChanges(added=sorted(come), removed=sorted(gone))
    for pair in pairs:
        is_older = compare_versions(pair.old.manager, pair.new.version, pair.old.version) < 0
        (changes.downgraded if is_older else changes.upgraded).append(pair)
    return changes


def _with_architecture(package: Package) -> Any:
    return package.manager, package.name, package.architecture


def _without_architecture(package: Package) -> Any:
    return package.manager, package.name


def _paired(
    gone: list[Package], come: list[Package], key: Callable[[Package], Any]
) -> tuple[list[Replaced], list[Package], list[Package]]:
    """Return the pairs of equal *key*, the newest first, and what is left of both lists."""
    waiting: dict[Any, list[Package]] = {}
    for package in sorted(gone, key=_BY_VERSION):
        waiting.setdefault(key(package), []).append(package)
    pairs, left = [], []
    for package in sorted(come, key=_BY_VERSION, reverse=True):
        olds = waiting.get(key(package))
        if olds:
            pairs.append(Replaced(olds.pop(), package))
        else:
            left.append(package)
    return pairs, [package for olds in waiting.values() for package in olds], left


def _order(one: Package, other: Package) -> int:
    if one.manager != other.manager:
        return -1 if one.manager < other.manager else 1
    return compare_versions(one.manager, one.version, other.version)


_BY_VERSION = cmp_to_key(_order)
