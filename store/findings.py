"""What a check found: one record for each thing that is wrong, or is merely left over."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from store.objects import ObjectType


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # something is lost or wrong, or soon would be
    OPEN = "open"  # others have rights by it; nothing is lost
    GARBAGE = "garbage"  # a leftover that takes space and does no harm


class Subject(NamedTuple):
    """The object that a finding is about, by its id."""

    kind: ObjectType
    id: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what and where, how to mend it, and where in commits it shows ("REV:/path")."""

    severity: Severity
    what: str
    where: str
    mend: str
    subject: Subject | None = None
    visible: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as one line."""
        shown = f"; it shows as {', '.join(self.visible)}" if self.visible else ""
        return f"{self.severity}: {self.where}: {self.what}{shown}"


RESTORE: Final = "restore the repository from a copy"


def error(what: str, where: str, mend: str = RESTORE, subject: Subject | None = None) -> Finding:
    """Return a finding that is an error."""
    return Finding(Severity.ERROR, what, where, mend, subject)


def garbage(what: str, where: str, mend: str) -> Finding:
    """Return a finding that is garbage."""
    return Finding(Severity.GARBAGE, what, where, mend)
