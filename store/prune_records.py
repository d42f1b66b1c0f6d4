"""What the index holds of an object: all of it goes when the object is pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from store.database import Reading
from store.objects import Checksum, ObjectType
from store.parsing import parsed
from store.schema import BLOCK_BYTES, BLOCKS_PER_GROUP, FileId, FileRecord, Storage, blocks_key, id_key

KINDS: Final = {  # counter: type of object, its databases, the first of which has the checksum
    "commit": (ObjectType.COMMIT, (b"commit", b"detached")),
    "tree": (ObjectType.DIRTREE, (b"dirtree", b"listing")),
    "meta": (ObjectType.DIRMETA, (b"dirmeta",)),
    "file": (ObjectType.FILE, (b"file", b"content")),
}


class Records(NamedTuple):
    """The keys of an object's records; bytes of their values, and of its loose contents; whether it has such."""

    checksum: Checksum
    keys: list[tuple[bytes, bytes]]
    index_bytes: int
    loose_bytes: int
    is_loose: bool


@dataclass(slots=True)
class Tally:
    """How many objects or files, and how many bytes they take: values of the index, loose files."""

    count: int = 0
    index_bytes: int = 0
    loose_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All bytes."""
        return self.index_bytes + self.loose_bytes

    def add(self, index_bytes: int, loose_bytes: int) -> None:
        """Count one more."""
        self.count += 1
        self.index_bytes += index_bytes
        self.loose_bytes += loose_bytes


def records_of(reading: Reading, counter: str, number: int) -> Records:
    """Return what there is of the object with this id of *counter*.

    Raises:
        CorruptionError: its record is damaged or gone.
    """
    kind, tables = KINDS[counter]
    key = id_key(number)
    value = reading.need(tables[0], key)
    checksum = Checksum(value[:32])
    keys, index_bytes, loose_bytes, is_loose = [(tables[0], key)], len(value), 0, False
    if counter == "file":
        record = parsed(f"file {number}", reading.where, value, FileRecord.unpack)
        is_loose = record.storage == Storage.LOOSE
        if is_loose:
            loose_bytes, blocks = record.size, -(-record.size // BLOCK_BYTES)
            index_bytes += 8 * blocks
            keys += [(b"blocks", blocks_key(FileId(number), group)) for group in range(-(-blocks // BLOCKS_PER_GROUP))]
        elif record.storage == Storage.INLINE:
            index_bytes += record.size
            keys.append((b"content", key))
    else:
        for table in tables[1:]:
            more = reading.get(table, key)
            if more is not None:
                index_bytes += len(more)
                keys.append((table, key))
    keys.append((b"object", bytes((kind,)) + checksum))
    return Records(checksum, keys, index_bytes, loose_bytes, is_loose)
