"""The check that every test which wrote ends with: no error in the repository, by the library function itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store import entrance
from store.check import check
from store.findings import Finding, Severity
from store.repository import Repository


def check_repository(path: Path) -> list[Finding]:
    """Return all findings in the repository at *path*."""
    with trusting(path.stat().st_uid), Repository.open(path) as repository:
        return check(repository)


@contextmanager
def trusting(uid: int) -> Iterator[None]:
    """Have this process open what belongs to the user *uid*, for a while."""
    before = entrance._Trust.uids
    entrance.trust([uid])
    try:
        yield
    finally:
        entrance._Trust.uids = before


def assert_sound(path: Path, *, garbage: bool = False) -> None:
    """Fail if anything is wrong in the repository at *path*; leftovers, too, are wrong unless *garbage* says so."""
    __tracebackhide__ = True
    wrong = [
        str(finding) for finding in check_repository(path) if not (garbage and finding.severity == Severity.GARBAGE)
    ]
    if wrong:
        raise AssertionError("\n  ".join([f"{len(wrong)} findings in {path}:", *wrong[:20]]))
