"""Whether what was not found is not there: asked a second time, of what a damaged page can't hide.

What has a dense id is missed where it is missing. A name is found by its key alone, in pages that a flipped bit can
lead astray, and then a ref seems never to have been, or a history to end. So who finds no such name asks here. The
records of ref ids tell all names of refs, and those of commits all checksums; both are counted.

What was read for that is kept (Reading.kept), as a view is asked for names that are not there all the time: of refs
until anything is written, of commits 8 bytes each, to which only new ones are added. Whoever writes keeps nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from store.database import Reading, Writing
from store.errors import CorruptionError
from store.schema import FIRST_ID, GENERATION, OBJECT_COUNTERS, CommitRecord, RefName, id_key, key_id

if TYPE_CHECKING:
    from pyroaring import BitMap64

_COUNTERS: Final = OBJECT_COUNTERS | {b"refid": "ref"}
_PREFIX_BYTES: Final = 8


def numbered(reading: Reading, table: bytes, first: int = FIRST_ID) -> Iterator[tuple[int, bytes]]:
    """Yield (id, value) of the records from id *first* on, of a table whose ids are dense.

    Raises:
        CorruptionError: one is missing that was not pruned.
    """
    expected = first
    for key, value in reading.items(table, id_key(first)):
        number = key_id(key)
        if number != expected:
            _check_gap(reading, table, expected, number)
        yield number, value
        expected = number + 1
    end = reading.counter(_COUNTERS[table])
    if expected < end:
        _check_gap(reading, table, expected, end)


def _check_gap(reading: Reading, table: bytes, start: int, end: int) -> None:
    """Refuse ids from *start* to before *end* that were given out and not pruned."""
    from store.pruned import pruned_ids  # seldom needed

    pruned = pruned_ids(reading, _COUNTERS[table]) if table in OBJECT_COUNTERS else ()
    missing = next((number for number in range(start, end) if number not in pruned), None)
    if missing is not None or end < start:
        raise _hidden(reading, f"{table.decode()} {id_key(start if missing is None else missing).hex()}")


@dataclass
class _RefNames:
    """The names that refs and directories of refs have, by what they begin with: b"debian/12/", b"origin:", b""."""

    change: int
    refs: set[bytes] = field(default_factory=set)
    directories: set[bytes] = field(default_factory=set)
    below: dict[bytes, set[bytes]] = field(default_factory=dict)


def check_no_ref(reading: Reading, name: bytes) -> None:
    """Call this when *name* was not found.

    Raises:
        CorruptionError: there is a ref of this name.
    """
    if name in _ref_names(reading).refs:
        raise _hidden(reading, f"ref {name.decode('utf-8', 'backslashreplace')}")


def check_no_refdir(reading: Reading, name: bytes) -> None:
    """Call this when no directory of refs *name* was found.

    Raises:
        CorruptionError: there is one.
    """
    if name in _ref_names(reading).directories:
        raise _hidden(reading, f"refdir {name.decode('utf-8', 'backslashreplace')}")


def names_below(reading: Reading, prefix: bytes) -> set[bytes]:
    """Return the names of refs, and directories of them, that are right below *prefix*, with it."""
    return _ref_names(reading).below.get(prefix, set())


def known_remotes(reading: Reading) -> set[bytes]:
    """Return the names of the remotes of which there are refs."""
    return {prefix[:-1] for prefix in _ref_names(reading).below if prefix.endswith(b":")}


def check_refs(reading: Reading, prefix: bytes, found: set[bytes]) -> None:
    """Call this when all refs whose names begin with *prefix* are in *found*.

    Raises:
        CorruptionError: there is another one.
    """
    check_found(reading, {name for name in _ref_names(reading).refs if name.startswith(prefix)} - found)


def check_found(reading: Reading, missing: set[bytes]) -> None:
    """Call this when all names were found but *missing*.

    Raises:
        CorruptionError: there are any.
    """
    if missing:
        raise _hidden(reading, f"ref {min(missing).decode('utf-8', 'backslashreplace')}")


def _ref_names(reading: Reading) -> _RefNames:
    kept = reading.kept.get(b"refid")
    if isinstance(kept, _RefNames) and kept.change == reading.transaction:
        return kept
    names = _RefNames(reading.transaction)
    for _, value in numbered(reading, b"refid"):
        record = RefName.unpack(value)
        if record.is_alive:
            (names.directories if record.is_directory else names.refs).add(record.name)
            names.below.setdefault(_outer(record.name), set()).add(record.name)
    if not isinstance(reading, Writing):
        reading.kept[b"refid"] = names
    return names


def _outer(name: bytes) -> bytes:
    """Return what the names of all that stands beside *name* begin with."""
    return name[: 1 + max(name.rfind(b"/"), name.rfind(b":"))]


@dataclass
class _Commits:
    """The beginnings of all commits' checksums, sorted; those below *following* are in it."""

    generation: int
    following: int = FIRST_ID
    prefixes: array[int] = field(default_factory=lambda: array("Q"))


def check_no_commit(reading: Reading, digits: str) -> None:
    """Call this when no commit was found whose checksum begins with *digits*, hexadecimal ones.

    Raises:
        CorruptionError: there is one.
    """
    prefixes = _commits(reading).prefixes
    low, high = (int((digits + fill * 2 * _PREFIX_BYTES)[: 2 * _PREFIX_BYTES], 16) for fill in "0f")
    at = bisect_left(prefixes, low)
    if at < len(prefixes) and prefixes[at] <= high:
        for _, value in numbered(reading, b"commit"):  # more digits may tell them apart
            if CommitRecord.unpack(value).checksum.hex().startswith(digits):
                raise _hidden(reading, f"the number of commit {CommitRecord.unpack(value).checksum.hex()}")


def _commits(reading: Reading) -> _Commits:
    generation, following = reading.counter(GENERATION), reading.counter("commit")
    kept = reading.kept.get(b"commit")
    if not isinstance(kept, _Commits) or kept.generation != generation:
        kept = _Commits(generation)
    if kept.following < following:
        new = (CommitRecord.unpack(value).checksum for _, value in numbered(reading, b"commit", kept.following))
        added = [int.from_bytes(checksum[:_PREFIX_BYTES], "big") for checksum in new]
        kept = _Commits(generation, following, array("Q", sorted([*kept.prefixes, *added])))
    if not isinstance(reading, Writing):
        reading.kept[b"commit"] = kept
    return kept


def _hidden(reading: Reading, what: str) -> CorruptionError:
    return CorruptionError(what, reading.where, "a record", "none")


@dataclass(frozen=True)
class _Detached:
    """The numbers of the commits that have detached metadata."""

    change: int
    numbers: BitMap64


def check_no_detached(reading: Reading, number: int) -> None:
    """Call this when a commit was found to have no detached metadata. Nothing tells who has; but LMDB counts them.

    Raises:
        CorruptionError: it has, or some that LMDB counts are not found.
    """
    kept = reading.kept.get(b"detached")
    if not isinstance(kept, _Detached) or kept.change != reading.transaction:
        from pyroaring import BitMap64  # seldom needed

        found = BitMap64(key_id(key) for key, _ in reading.items(b"detached"))
        if len(found) != reading.count(b"detached"):
            raise _hidden(reading, "one of the commits' detached metadata")
        kept = _Detached(reading.transaction, found)
        reading.kept[b"detached"] = kept
    if number in kept.numbers:
        raise _hidden(reading, f"detached {id_key(number).hex()}")
