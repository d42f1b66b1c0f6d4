"""Check everything: every invariant that the store promises, and the sha256 of every object.

    check_pages       LMDB's meta pages                                            (store/check_pages.py)
    check_index       each record parses, and agrees with those that it names      (store/check_index.py)
    check_contents    loose files, the XXH3 of blocks, the sha256 of file objects  (store/check_contents.py)
    check_leftovers   what takes space for nothing
    with_places       where in commits what is damaged shows

Damage is a Finding, never an exception. But where LMDB's pages are damaged a look-up can kill the process (a pointer
leads out of the map), so `fsview fsck` runs these in processes of their own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from store.check_contents import check_contents, check_leftovers
from store.check_index import Advance, check_index
from store.check_pages import check_pages
from store.database import Reading
from store.errors import FsviewError
from store.findings import Finding, Subject, error
from store.objects import Checksum, ObjectType
from store.refs import list_refs
from store.repository import Repository
from store.schema import CommitNumber, CommitRecord, TreeId, id_key, key_id
from store.tree import commit_record, load_listing

PLACES_MAX: Final = 3  # so many for each object
_SUBJECTS_MAX: Final = 10_000
_LEVELS_MAX: Final = 10_000
_DIGITS: Final = 8
_DAMAGE: Final = (FsviewError, ValueError, struct.error)


def check(repository: Repository, *, quick: bool = False) -> list[Finding]:
    """Return all that is wrong, errors and garbage; *quick* reads no contents."""
    with repository.lock():
        findings = [*check_structure(repository), *check_bytes(repository, quick=quick)]
        return with_places(repository, findings)


def check_structure(repository: Repository, advance: Advance = lambda step: None) -> Iterator[Finding]:
    """Yield what is wrong with the index, and leftovers; *advance* hears of each step."""
    yield from check_pages(repository.path / "index")
    yield from _unless_broken("the index", check_index(repository, advance))
    yield from _unless_broken("leftovers", check_leftovers(repository))


def check_bytes(
    repository: Repository,
    *,
    quick: bool = False,
    stripe: int = 0,
    stripes: int = 1,
    advance: Advance = lambda step: None,
) -> Iterator[Finding]:
    """Yield what is wrong with contents, of each file object whose id is *stripe* modulo *stripes*."""
    found = check_contents(repository, quick=quick, stripe=stripe, stripes=stripes, advance=advance)
    yield from _unless_broken("contents", found)


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
        search = _Search(reading, wanted)
        with suppress(*_DAMAGE):  # the index is damaged, too: what was found until here has to do
            search.run()
    places = search.places
    return [replace(one, visible=tuple(places.get(one.subject, ()))) if one.subject else one for one in unplaced]


class _Search:
    """Walks all commits for some objects; a dirtree that holds none of them is looked at once."""

    def __init__(self, reading: Reading, wanted: set[Subject]) -> None:
        self._reading, self._wanted = reading, wanted
        self._without: set[int] = set()
        self.places: dict[Subject, list[str]] = {}

    def run(self) -> None:
        names = dict(self._commits())
        for number, name in names.items():
            try:
                record = commit_record(self._reading, number)
            except _DAMAGE:
                self._note(Subject(ObjectType.COMMIT, number), name)
                continue
            self._note(Subject(ObjectType.COMMIT, number), name)
            self._note(Subject(ObjectType.DIRMETA, record.meta_id), f"{name}:/")
            self._note(Subject(ObjectType.DIRTREE, record.tree_id), f"{name}:/")
            self._walk(name, record)

    def _commits(self) -> Iterator[tuple[CommitNumber, str]]:
        """Yield the commits, first those at which refs point, by the shortest name that there is."""
        seen = set()
        for name, ref in list_refs(self._reading):
            if ref.commit not in seen:
                seen.add(ref.commit)
                yield ref.commit, name
        for key in self._reading.keys_backwards(b"commit", b""):
            number = CommitNumber(key_id(key))
            if number not in seen:
                yield number, self._checksum_text(number)

    def _checksum_text(self, number: CommitNumber) -> str:
        try:
            value = self._reading.get(b"commit", id_key(number))
        except FsviewError:
            value = None
        return Checksum(value[:32]).hex()[:_DIGITS] if value else f"commit number {number}"

    def _walk(self, name: str, commit: CommitRecord) -> None:
        """Note each place of what is wanted, in preorder; on the way back, which dirtrees are without."""
        stack = [(commit.tree_id, b"", self._rows(commit.tree_id), [False])]
        while stack:
            tree_id, path, rows, found = stack[-1]
            row = next(rows, None)
            if row is None:
                stack.pop()
                if not found[0]:
                    self._without.add(tree_id)
                elif stack:
                    stack[-1][3][0] = True
                continue
            below, kind, number, meta_id = path + b"/" + row[0], row[1], row[2], row[3]
            text = f"{name}:{below.decode('utf-8', 'backslashreplace')}"
            hits = [self._note(Subject(kind, number), text), self._note(Subject(ObjectType.DIRMETA, meta_id), text)]
            found[0] |= any(hits)
            if kind == ObjectType.DIRTREE and number not in self._without and len(stack) < _LEVELS_MAX:
                stack.append((TreeId(number), below, self._rows(TreeId(number)), [False]))

    def _rows(self, tree_id: TreeId) -> Iterator[tuple[bytes, ObjectType, int, int]]:
        """Return the entries of a listing; none if that is damaged."""
        try:
            listing: Iterable[tuple[bytes, ObjectType, int, int]] = [
                (entry.name, ObjectType.DIRTREE if entry.is_directory else ObjectType.FILE, entry.id, entry.meta_id)
                for entry in load_listing(self._reading, tree_id)
            ]
        except _DAMAGE:
            listing = ()
        return iter(listing)

    def _note(self, subject: Subject, place: str) -> bool:
        if subject not in self._wanted:
            return False
        places = self.places.setdefault(subject, [])
        if len(places) < PLACES_MAX:
            places.append(place)
        elif len(places) == PLACES_MAX:
            places.append("and more")
        return True
