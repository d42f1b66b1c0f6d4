"""MNT itself, MNT/commits, and the symlinks to commits that stand anywhere.

MNT/commits/<sha256>           a commit's root, the only directory with this tree in it
MNT/commits/<abbreviation…>    unlisted: symlink to <sha256>; also <abbreviation>^ and ~2
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

from fsview.attributes import FOREVER_S, Attributes, Row
from fsview.nodeid import FIXED_NAMES, ROOT, Fixed, Link, SiblingLink, StaleNodeError
from fsview.rooms.room import Ground, Room
from store.database import Reading
from store.errors import PrunedError
from store.objects import Checksum
from store.presence import numbered
from store.revisions import resolve, resolve_abbreviation
from store.schema import FIRST_ID, CommitNumber, CommitRecord
from store.tree import commit_number, commit_record

_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_ABBREVIATION = re.compile(r"([0-9a-f]{1,64})((?:\^|~[0-9]*)*)")
_COMMITS_AT_A_TIME: Final = 32  # about as many as the kernel asks for


class Top(Room[Fixed]):
    """MNT."""

    def __init__(self, ground: Ground) -> None:
        """List what is always there."""
        super().__init__(ground)
        self._below = {name: node for node, name in FIXED_NAMES.items() if node != ROOT}

    def attributes(self, node: Fixed) -> Attributes:
        """Return its attributes."""
        return self._ground.directory(node.node, FOREVER_S)

    def find(self, directory: Fixed, name: bytes) -> Attributes | None:
        """Return one of the views."""
        return self._ground.directory(self._below[name], FOREVER_S) if name in self._below else None

    def rows(self, directory: Fixed, after: int) -> Iterator[Row]:
        """Yield the views; a row's cookie is its node number."""
        for name, node in self._below.items():
            if node > after:
                yield Row(name, self._ground.directory(node, FOREVER_S), node)

    def parent(self, directory: Fixed) -> Fixed:
        """Return MNT."""
        return Fixed(ROOT)


class Commits(Room[Fixed]):
    """MNT/commits. A row's cookie is the commit's number."""

    def attributes(self, node: Fixed) -> Attributes:
        """Return its attributes."""
        return self._ground.directory(node.node, FOREVER_S)

    def find(self, directory: Fixed, name: bytes) -> Attributes | None:
        """Return a commit's root, or a symlink to it."""
        with self._database.reading() as reading:
            number = find_commit(reading, name)
            if number is None:
                number = find_abbreviated(reading, name, self._ground.now_s())
                return None if number is None else self._ground.commit_link(0, number)
        return self._ground.trees.root(number)

    def rows(self, directory: Fixed, after: int) -> Iterator[Row]:
        """Yield all commits."""
        for number, checksum in commits_after(self._ground, after):
            with suppress(PrunedError):  # a moment ago
                yield Row(checksum.hex().encode(), self._ground.trees.root(number), number)

    def parent(self, directory: Fixed) -> Fixed:
        """Return MNT."""
        return Fixed(ROOT)


class Links(Room[Link | SiblingLink]):
    """The symlinks to commits; where they stand is in their numbers."""

    def attributes(self, node: Link | SiblingLink) -> Attributes:
        """Return its attributes."""
        if isinstance(node, Link):
            return self._ground.commit_link(node.depth, node.commit)
        return self._ground.sibling_link(node.up, node.commit)

    def target(self, node: Link | SiblingLink) -> bytes:
        """Return the way to the commit."""
        with self._database.reading() as reading:
            if node.commit >= reading.counter("commit"):
                raise StaleNodeError(self.attributes(node).node)
            checksum = commit_record(reading, node.commit).checksum.hex().encode()
        if isinstance(node, Link):
            return (b"../" * node.depth + b"commits/" if node.depth else b"") + checksum
        return b"../" * node.up + checksum


def find_commit(reading: Reading, name: bytes) -> CommitNumber | None:
    """Return the commit whose checksum *name* is."""
    text = name.decode()
    return commit_number(reading, Checksum(bytes.fromhex(text))) if _CHECKSUM.fullmatch(text) else None


def find_abbreviated(reading: Reading, name: bytes, now_s: int) -> CommitNumber | None:
    """Return the commit that an abbreviation names, or a checksum or abbreviation with steps behind it; no ref.

    Raises:
        NotFoundError, UnicodeDecodeError: there is none.
    """
    match = _ABBREVIATION.fullmatch(name.decode())
    if match is None or _CHECKSUM.fullmatch(match[0]):
        return None
    number = resolve_abbreviation(reading, match[1])
    if number is None or not match[2]:
        return number
    return resolve(reading, commit_record(reading, number).checksum.hex() + match[2], now_s=now_s)


def commits_after(ground: Ground, after: int) -> Iterator[tuple[CommitNumber, Checksum]]:
    """Yield the commits whose number is greater than *after*, by number."""
    while True:
        with ground.database.reading() as reading:
            found = [
                (CommitNumber(number), CommitRecord.unpack(value).checksum)
                for number, value in islice(numbered(reading, b"commit", max(FIRST_ID, after + 1)), _COMMITS_AT_A_TIME)
            ]
        if not found:
            return
        yield from found
        after = found[-1][0]
