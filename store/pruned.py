"""Which ids were given out and deleted since: what tells a pruned object from a damaged index.

One Roaring bitmap for each counter of objects, in CRoaring's portable 64-bit format, in the database head: ids that go
together were mostly given out together, so a bitmap of millions takes some kilobytes. Nobody needs them but who misses
a record, or prunes.
"""

from __future__ import annotations

from typing import Final

from pyroaring import BitMap64

from store.database import Reading, Writing
from store.schema import FIRST_ID, OBJECT_COUNTERS

PRUNED_KEYS: Final = {b"pruned " + name.encode(): name for name in OBJECT_COUNTERS.values()}


def pruned_ids(reading: Reading, counter: str) -> BitMap64:
    """Return the ids of *counter* that were deleted."""
    value = reading.get(b"head", b"pruned " + counter.encode())
    return BitMap64() if value is None else BitMap64.deserialize(value)


def present_ids(reading: Reading, counter: str) -> BitMap64:
    """Return the ids of *counter* that were given out and not deleted."""
    ids = BitMap64()
    ids.add_range(FIRST_ID, reading.counter(counter))
    ids -= pruned_ids(reading, counter)
    return ids


def record_pruned(writing: Writing, counter: str, ids: BitMap64) -> None:
    """Note that *ids* are deleted, in the transaction that does it."""
    pruned = pruned_ids(writing, counter) | ids
    pruned.run_optimize()
    writing.put(b"head", b"pruned " + counter.encode(), pruned.serialize())


def id_ranges(value: bytes) -> list[tuple[int, int]]:
    """Return the ids that a record holds as (first, last) of each run of them."""
    runs: list[tuple[int, int]] = []
    for number in BitMap64.deserialize(value):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs
