"""What a package is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True, slots=True)
class Package:
    """One installed package.

    manager is "dpkg", "rpm", "apk", "pacman" or "python"; architecture is "" where the manager has none. version is
    whole, as the manager writes it: with epoch (not if it is 0) and release.
    """

    manager: str
    name: str
    architecture: str
    version: str
