"""Check everything: every invariant that the store promises, and the sha256 of every object.

    check_pages       LMDB's meta pages                                            (store/check_pages.py)
    check_index       each record parses, and agrees with those that it names      (store/check_index.py)
    check_contents    loose files, the XXH3 of blocks, the sha256 of file objects  (store/check_contents.py)
    check_leftovers   what takes space for nothing
    check_rights      what others can do, and shouldn't                            (store/exposure.py)
    with_places       where in commits what is damaged shows

Damage is a Finding, never an exception. But where LMDB's pages are damaged a look-up can kill the process (a pointer
leads out of the map), so `fsview fsck` runs these in processes of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from store.check_contents import check_contents, check_leftovers, check_noted
from store.check_index import Advance, check_index
from store.check_pages import check_pages
from store.errors import FsviewError
from store.exposure import check_rights
from store.findings import Finding, error
from store.places import find_places
from store.repository import Repository

PLACES_MAX: Final = 3  # so many for each object
_SUBJECTS_MAX: Final = 10_000


def check(repository: Repository, *, quick: bool = False) -> list[Finding]:
    """Return all that is wrong, errors and the rest; *quick* reads no contents."""
    with repository.lock():
        findings = [*check_structure(repository), *check_bytes(repository, quick=quick)]
        return with_places(repository, findings)


def check_structure(repository: Repository, advance: Advance = lambda step: None) -> Iterator[Finding]:
    """Yield what is wrong with the index, and leftovers; *advance* hears of each step."""
    yield from check_pages(repository.path / "index")
    yield from _unless_broken("the index", check_index(repository, advance))
    yield from _unless_broken("leftovers", check_leftovers(repository))
    yield from _unless_broken("rights", check_rights(repository))


def check_bytes(
    repository: Repository,
    *,
    quick: bool = False,
    stripe: int = 0,
    stripes: int = 1,
    advance: Advance = lambda step: None,
) -> Iterator[Finding]:
    """Yield what is wrong with contents, of each file object whose id is *stripe* modulo *stripes*.

    *quick* reads only what somebody found damaged before (store/damage.py).
    """
    found = check_contents(repository, quick=quick, stripe=stripe, stripes=stripes, advance=advance)
    yield from _unless_broken("contents", found)
    if stripe == 0:
        yield from _unless_broken("contents", check_noted(repository, again=quick))


def _unless_broken(what: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield *findings*; where pages of the index are so damaged that looking for more fails, a last one says so."""
    try:
        yield from findings
    except (FsviewError, OSError) as problem:
        yield error(f"the check of {what} had to stop: {problem}", "the index")


def with_places(repository: Repository, findings: Iterable[Finding]) -> list[Finding]:
    """Return *findings*, those about objects with up to PLACES_MAX places where these show ("REV:/path")."""
    unplaced = list(findings)
    wanted = {finding.subject for finding in unplaced[:_SUBJECTS_MAX] if finding.subject is not None}
    if not wanted:
        return unplaced
    with repository.database.reading() as reading:
        places = find_places(reading, wanted, each=PLACES_MAX + 1)
    return [replace(one, visible=_shown(places.get(one.subject, []))) if one.subject else one for one in unplaced]


def _shown(places: list[str]) -> tuple[str, ...]:
    return tuple(places) if len(places) <= PLACES_MAX else (*places[:PLACES_MAX], "and more")
