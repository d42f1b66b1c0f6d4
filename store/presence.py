"""Whether what was not found is not there: asked a second time, of what a damaged page can't hide.

What has a dense id is missed where it is missing. A name is found by its key alone, in pages that a flipped bit can
lead astray, and then a ref seems never to have been, or a history to end. So who finds no such name asks here. The
records of ref ids tell all names of refs, and those of commits all checksums; both are counted.

What was read for that is kept (Reading.kept), as a view is asked for names that are not there all the time: of refs
their names, of commits 8 bytes each; only new ones are added. Whoever writes keeps nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from store.database import Reading, Writing
from store.errors import CorruptionError
from store.parsing import parsed
from store.schema import FIRST_ID, GENERATION, OBJECT_COUNTERS, CommitRecord, RefId, RefName, id_key, key_id

if TYPE_CHECKING:
    from pyroaring import BitMap64

_COUNTERS: Final = OBJECT_COUNTERS | {b"refid": "ref"}
_PREFIX_BYTES: Final = 8


def numbered(reading: Reading, table: bytes, first: int = FIRST_ID) -> Iterator[tuple[int, bytes]]:
    """Yield (id, value) of the records from id *first* on, of a table whose ids are dense.

    Raises:
        CorruptionError: one is missing that was not pruned.
    """
    expected, was_pruned = first, None
    for key, value in reading.items(table, id_key(first)):
        number = key_id(key)
        if number != expected:
            was_pruned = was_pruned or _pruned(reading, table)
            _check_gap(reading, table, expected, number, was_pruned)
        yield number, value
        expected = number + 1
    end = reading.counter(_COUNTERS[table])
    if expected < end:
        _check_gap(reading, table, expected, end, was_pruned or _pruned(reading, table))


def _pruned(reading: Reading, table: bytes) -> Callable[[int], bool]:
    """Return what tells whether an id of *table* was pruned."""
    if table not in OBJECT_COUNTERS:
        return lambda number: False
    from store.pruned import pruned_ids  # seldom needed

    return pruned_ids(reading, _COUNTERS[table]).__contains__


def _check_gap(reading: Reading, table: bytes, start: int, end: int, was_pruned: Callable[[int], bool]) -> None:
    """Refuse ids from *start* to before *end* that were given out and not pruned."""
    missing = next((number for number in range(start, end) if not was_pruned(number)), None)
    if missing is not None or end < start:
        raise _hidden(reading, f"{table.decode()} {id_key(start if missing is None else missing).hex()}")


@dataclass
class _RefNames:
    """What refs and directories of refs are called, by the records of their ids below *following*.

    Only new ids are added, so who asks all the time reads each once: any of these may be gone by now, see `_is_living`.
    below has the ids, sorted, by what the names begin with: b"debian/12/", b"origin:", b"".
    """

    following: int = FIRST_ID
    refs: dict[bytes, RefId] = field(default_factory=dict)
    directories: dict[bytes, RefId] = field(default_factory=dict)
    below: dict[bytes, list[RefId]] = field(default_factory=dict)
    remotes: dict[bytes, None] = field(default_factory=dict)

    def add(self, ref_id: RefId, name: bytes, *, is_directory: bool) -> None:
        """Add a name with an id that is greater than all before."""
        outer = name[: 1 + max(name.rfind(b"/"), name.rfind(b":"))]
        (self.directories if is_directory else self.refs)[name] = ref_id
        self.below.setdefault(outer, []).append(ref_id)
        if outer.endswith(b":"):
            self.remotes.setdefault(outer[:-1])


def check_no_ref(reading: Reading, name: bytes) -> None:
    """Call this when *name* was not found.

    Raises:
        CorruptionError: there is a ref of this name.
    """
    if _is_living(reading, _ref_names(reading).refs.get(name)):
        raise _hidden(reading, f"ref {name.decode('utf-8', 'backslashreplace')}")


def check_no_refdir(reading: Reading, name: bytes) -> None:
    """Call this when no directory of refs *name* was found.

    Raises:
        CorruptionError: there is one.
    """
    if _is_living(reading, _ref_names(reading).directories.get(name)):
        raise _hidden(reading, f"refdir {name.decode('utf-8', 'backslashreplace')}")


def _is_living(reading: Reading, ref_id: RefId | None) -> bool:
    """Whether the ref, or the directory of refs, of an id that was given out is still there."""
    return ref_id is not None and ref_id < reading.counter("ref") and _name(reading, ref_id).is_alive


def _name(reading: Reading, ref_id: RefId) -> RefName:
    return _ref_name(reading, ref_id, reading.need(b"refid", id_key(ref_id)))


def _ref_name(reading: Reading, ref_id: int, value: bytes) -> RefName:
    return parsed(f"the name of ref {ref_id}", reading.where, value, RefName.unpack)


def living_below(reading: Reading, prefix: bytes, after: int, count: int) -> list[tuple[RefId, RefName]]:
    """Return the first *count* refs, and directories of refs, right below *prefix* whose ids are greater than *after*.

    By id; fewer only at the end. It costs what is returned, and what went away since the last time.
    """
    known, following = _ref_names(reading).below.get(prefix, []), reading.counter("ref")
    start = end = bisect_right(known, after)
    living: list[tuple[RefId, RefName]] = []
    while end < len(known) and known[end] < following and len(living) < count:
        name = _name(reading, known[end])
        living += [(known[end], name)] if name.is_alive else []
        end += 1
    if len(living) < end - start and not isinstance(reading, Writing):
        known[start:end] = [ref_id for ref_id, _ in living]  # an id is never given out again
    return living


def known_remotes(reading: Reading) -> dict[bytes, None]:
    """Return the names of the remotes of which there are refs, or were; more may be added later, behind these."""
    return _ref_names(reading).remotes


def check_refs(reading: Reading, prefix: bytes, found: set[bytes]) -> None:
    """Call this when all refs whose names begin with *prefix* are in *found*.

    Raises:
        CorruptionError: there is another one.
    """
    for name, ref_id in _ref_names(reading).refs.items():
        if name.startswith(prefix) and name not in found and _is_living(reading, ref_id):
            raise _hidden(reading, f"ref {name.decode('utf-8', 'backslashreplace')}")


def _ref_names(reading: Reading) -> _RefNames:
    kept = reading.kept.get(b"refid")
    names = kept if isinstance(kept, _RefNames) else _RefNames()
    following = reading.counter("ref")
    if names.following < following:
        found = numbered(reading, b"refid", names.following)
        new = [(RefId(number), _ref_name(reading, number, value)) for number, value in found]
        for ref_id, record in new:
            if record.is_alive:
                names.add(ref_id, record.name, is_directory=record.is_directory)
        names.following = following
    if not isinstance(reading, Writing):
        reading.kept[b"refid"] = names
    return names


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
