"""Where in commits an object shows: "REV:/path". Found by walking all commits, until enough is found."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from store.bounds import beyond
from store.database import Reading
from store.errors import FsviewError
from store.findings import Subject
from store.objects import Checksum, ObjectType
from store.refs import list_refs
from store.schema import CommitNumber, CommitRecord, TreeId, id_key, key_id
from store.tree import commit_record, load_listing

_DIGITS: Final = 8
_DAMAGE: Final = (FsviewError, ValueError, struct.error)


def find_places(
    reading: Reading, wanted: set[Subject], *, each: int, entries_max: int | None = None
) -> dict[Subject, list[str]]:
    """Return where the objects *wanted* show, up to *each* places for each.

    Commits at which refs point come first. After *entries_max* entries the search ends, with what it has.
    """
    search = _Search(reading, wanted, each, entries_max)
    with suppress(_Enough, *_DAMAGE):  # where the index is damaged, too, what was found until then has to do
        search.run()
    return search.places


class _Enough(Exception):
    """Everything was found, or enough was looked at."""


class _Search:
    """Walks all commits for some objects; a dirtree that holds none of them is looked at once."""

    def __init__(self, reading: Reading, wanted: set[Subject], each: int, entries_max: int | None) -> None:
        self._reading, self._wanted, self._each, self._left = reading, wanted, each, entries_max
        self._unfinished = len(wanted)
        self._without: set[int] = set()
        self.places: dict[Subject, list[str]] = {}

    def run(self) -> None:
        for number, name in self._commits():
            self._count(1)
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
        if commit.tree_id in self._without:
            return
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
            if kind == ObjectType.DIRTREE and number not in self._without and not beyond(len(stack), len(below)):
                stack.append((TreeId(number), below, self._rows(TreeId(number)), [False]))

    def _rows(self, tree_id: TreeId) -> Iterator[tuple[bytes, ObjectType, int, int]]:
        """Return the entries of a listing; none if that is damaged."""
        try:
            listing = load_listing(self._reading, tree_id)
            self._count(len(listing))
            rows: Iterable[tuple[bytes, ObjectType, int, int]] = [
                (entry.name, ObjectType.DIRTREE if entry.is_directory else ObjectType.FILE, entry.id, entry.meta_id)
                for entry in listing
            ]
        except _DAMAGE:
            rows = ()
        return iter(rows)

    def _count(self, entries: int) -> None:
        if self._left is not None:
            self._left -= entries
            if self._left < 0:
                raise _Enough

    def _note(self, subject: Subject, place: str) -> bool:
        if subject not in self._wanted:
            return False
        places = self.places.setdefault(subject, [])
        if len(places) < self._each:
            places.append(place)
            self._unfinished -= len(places) == self._each
            if not self._unfinished:
                raise _Enough
        return True
