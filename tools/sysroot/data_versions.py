"""The guard of migrations: data in /var that a newer release migrated can't be read by an older one.

A commit declares the versions of the data that it writes (`fsview commit --data-version postgresql=15`, metadata
`fsview.data-versions`, a{ss}). The highest that ever was current in a stateroot, its high-water mark, is carried from
generation to generation. What declares a lower one is refused. Nothing follows from declaring nothing.

Versions are compared part by part, numbers as numbers: 9 < 15 < 15.2, 1.0a < 1.0b < 1.0.1; "~" marks what comes before
a release: 15~rc1 < 15.

>>> sorted(["15.2", "15", "9", "15~rc1", "15.10"], key=version_key)
['9', '15~rc1', '15', '15.2', '15.10']
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from store.errors import FormatError, SysrootError
from store.objects import Commit
from tools.sysroot.origin import HighWater

DATA_VERSIONS: Final = "fsview.data-versions"
DATA_VERSIONS_TYPE: Final = "a{ss}"
_PARTS: Final = re.compile(r"[0-9]+|[^\W\d_]+|~")
_TILDE, _END, _WORD, _NUMBER = range(4)


@dataclass(frozen=True, slots=True)
class Lower:
    """Data of which a tree declares a lower version than what was current before."""

    name: str
    declared: str
    mark: HighWater

    @property
    def text(self) -> str:
        """What an admin has to know."""
        when = f"{self.mark.created:%Y-%m-%d %H:%M} UTC"
        return (
            f"{self.name} is at version {self.mark.version} since {when} (by the deployment "
            f"{_short(self.mark.deployment)}), but this tree is made for {self.declared}"
        )


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return what versions are compared by."""
    parts = ((_key(part)) for part in _PARTS.findall(version))
    return (*parts, (_END, 0, ""))


def _key(part: str) -> tuple[int, int, str]:
    if part == "~":
        return (_TILDE, 0, "")
    return (_NUMBER, int(part), "") if part.isdecimal() else (_WORD, 0, part)


def declared_versions(commit: Commit) -> dict[str, str]:
    """Return the data versions that a commit declares.

    Raises:
        FormatError: what stands there is something else.
    """
    variant = dict(commit.metadata).get(DATA_VERSIONS)
    if variant is None:
        return {}
    if variant.signature != DATA_VERSIONS_TYPE:
        raise FormatError(
            f"the commit's metadata {DATA_VERSIONS} is of type {variant.signature}, not {DATA_VERSIONS_TYPE}; "
            f"commit it anew with --data-version NAME=VERSION"
        )
    return dict(variant.value)


def lower_versions(declares: Mapping[str, str], marks: Mapping[str, HighWater]) -> list[Lower]:
    """Return what of *declares* is lower than the marks."""
    return [
        Lower(name, version, marks[name])
        for name, version in sorted(declares.items())
        if name in marks and version_key(version) < version_key(marks[name].version)
    ]


def refuse_lower(lower: list[Lower]) -> None:
    """Refuse to go back behind a migration.

    Raises:
        SysrootError: there is something in *lower*.
    """
    if lower:
        raise SysrootError(
            f"data in /var was migrated, and would not be understood: {'; '.join(one.text for one in lower)}. "
            f"Nothing was changed. --accept-data-versions does it all the same; "
            f"'rollback --restore-var' puts back a /var that was kept with --snapshot-var"
        )


def raise_marks(
    marks: Mapping[str, HighWater], declares: Mapping[str, str], deployment: str, created: datetime
) -> dict[str, HighWater]:
    """Return the marks after *deployment* became current."""
    raised = dict(marks)
    for name, version in declares.items():
        if name not in marks or version_key(version) > version_key(marks[name].version):
            raised[name] = HighWater(version, deployment, created)
    return raised


def _short(deployment: str) -> str:
    commit, _, number = deployment.partition(".")
    return f"{commit[:8]}….{number}"
