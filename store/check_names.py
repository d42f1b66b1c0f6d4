"""The checks of records that hold names and what is derived; each yields what is wrong, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pyroaring import BitMap64

from store.check_context import Context
from store.errors import InvalidNameError
from store.listing import Listing
from store.objects import ObjectType
from store.pruned import PRUNED_KEYS
from store.refs import check_ref_name
from store.schema import (
    COUNTED,
    FIRST_ID,
    GENERATION,
    FormatRecord,
    MtimeRecord,
    ReflogRecord,
    RefName,
    RefRecord,
    counter_key,
    id_key,
    key_id,
)
from store.statcache import IDS, STAT, StatRecord

_SECRET_BYTES: Final = 32
_COUNTERS: Final = frozenset(map(counter_key, (*COUNTED, GENERATION)))


def check_head(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """The format, the secret, the counters and what was pruned."""
    if key == b"format":
        FormatRecord.unpack(value)
    elif key == b"secret":
        if len(value) != _SECRET_BYTES:
            yield f"the secret has {len(value)} bytes, not {_SECRET_BYTES}"
    elif key in PRUNED_KEYS:
        yield from _check_pruned(context, PRUNED_KEYS[key], value)
    elif key not in _COUNTERS:
        yield "nothing of this name belongs here"
    elif key == b"next reflog":
        yield from _check_reflog_count(context, key_id(value))


def _check_pruned(context: Context, counter: str, value: bytes) -> Iterator[str]:
    ids, end = BitMap64.deserialize(value), context.counter(counter)
    if ids.serialize() != value:
        yield "it is not a Roaring bitmap as it was written"
    if ids and (ids.min() < FIRST_ID or (end is not None and ids.max() >= end)):
        yield f"it has ids that were never given out: {ids.min()} to {ids.max()}"


def _check_reflog_count(context: Context, counter: int) -> Iterator[str]:
    count, logged = context.reading.count(b"reflog"), counter - FIRST_ID
    if count != logged:
        yield f"{logged} moves of refs were logged, but there are {count}"


def check_ref(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """A ref: a valid name, below no other ref, at a commit that is here; its id stands for it."""
    name, record = key.decode(), RefRecord.unpack(value)
    try:
        check_ref_name(name)
    except InvalidNameError as problem:
        yield str(problem)
    if context.commit(record.commit) is None:
        yield f"it points at commit number {record.commit}, which is not here"
    yield from _check_name(context, record.ref_id, RefName(False, True, key))
    for prefix in _prefixes(key):
        if context.get(b"ref", prefix) is not None:
            yield f"it lies below the ref {prefix.decode()}"
        if context.get(b"refdir", prefix) is None:
            yield f"the directory {prefix.decode()} is not recorded"


def check_refdir(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """A directory of refs: its id stands for it, and there is a ref in it."""
    yield from _check_name(context, key_id(value), RefName(True, True, key))
    cursor = context.reading.keys_backwards(b"ref", key + b"/")
    if next(cursor, None) is None:
        yield "there is no ref in it"


def check_refid(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """A ref id that is alive is that of the ref, or directory, of its name."""
    record = RefName.unpack(value)
    if not record.is_alive:
        return
    found = context.get(b"refdir" if record.is_directory else b"ref", record.name)
    if found is None or found[:8] != key:
        yield f"it stands for {record.name.decode('utf-8', 'backslashreplace')}, which is gone or has another id"


def _check_name(context: Context, ref_id: int, expected: RefName) -> Iterator[str]:
    value = context.get(b"refid", id_key(ref_id))
    if value is None or RefName.unpack(value) != expected:
        yield f"its id {ref_id} does not stand for it"


def _prefixes(name: bytes) -> list[bytes]:
    """Return the directories that *name* lies in, the outermost first; one without a name is no key."""
    parts = name.split(b"/")
    return [prefix for count in range(1, len(parts)) if (prefix := b"/".join(parts[:count]))]


def check_reflog(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """A move of a ref: the ref was once here, and so were the commits, which may be pruned."""
    if len(key) != 16:
        yield f"a key has 16 bytes, not {len(key)}"
        return
    record, counter = ReflogRecord.unpack(value), context.counter("reflog")
    if counter is not None and key_id(key[8:]) >= counter:
        yield f"its number {key_id(key[8:])} was never given out"
    if context.get(b"refid", key[:8]) is None:
        yield f"it is of ref id {key_id(key[:8])}, which nothing has"
    for number in (record.old, record.new):
        gone = number is not None and context.commit(number) is None
        if gone and number is not None and not context.was_pruned(ObjectType.COMMIT, number):
            yield f"it names commit number {number}, which is not here"


def check_mtime(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """Who has a size and a second: not after that second."""
    record = MtimeRecord.unpack(value)
    if len(key) != 16:
        yield f"a key has 16 bytes, not {len(key)}"
    elif record.last_given > key_id(key[8:]) - (1 << 63):
        yield f"the second {record.last_given} was given for an earlier one"


def check_stat(context: Context, key: bytes, value: bytes) -> Iterator[str]:
    """What the stat cache knows of a directory: the same names and ids as the dirtree's listing."""
    record = StatRecord.unpack(value)
    data = context.get(b"listing", id_key(record.tree_id))
    if len(key) != 16 or len(record.stats) != STAT.size * len(record.names):
        yield "its lengths are wrong"
        return
    if data is None:
        yield f"it names tree id {record.tree_id}, which is not here"
        return
    listing = Listing(data)
    if tuple(listing.names) != record.names:
        yield f"its names are not those of tree id {record.tree_id}"
    elif any(
        pair not in ((0, 0), (entry.id, entry.meta_id))
        for entry, pair in zip(listing, IDS.iter_unpack(record.ids), strict=True)
    ):
        yield f"its ids are not those of tree id {record.tree_id}"
