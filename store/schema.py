"""The on-disk format: what every key and value of the index means. This is THE format document.

    REPO/fsview.toml        format version and settings (store/repository.py)
    REPO/index/             one LMDB environment: the databases below
    REPO/objects/ab/cd…     loose contents, named by the checksum of their file object
    REPO/tmp/               staging of commits under way (store/staging.py)

Every value in the index ends in 8 bytes that guard it: the XXH3-64 of the value, seeded with the XXH3-64 of its
key, which is seeded with the XXH3-64 of the database's name (store/database.py). Numbers are big-endian, so that
keys sort by number. Ids are dense, begin at FIRST_ID and are never given out twice: one below its counter that is
missing is damage, unless it is recorded as pruned.

    database  key                              value
    head      name                             b"format"; b"secret"; counters: b"next file", "next prune" and others;
                                               b"pruned file", "… tree", "… meta", "… commit": the ids that were
                                               deleted, a Roaring bitmap (store/pruned.py)
    object    type u8, checksum 32             id u64: file id, tree id, meta id or commit number, by type
    file      file id                          FileRecord: checksum, size, mtime, storage, OSTree's file header
    content   file id                          the bytes of a small file
    blocks    file id, group u32               XXH3-64 of each block of a loose file, BLOCKS_PER_GROUP of them a record
    dirtree   tree id                          TreeRecord: checksum, mtime, counts, OSTree's dirtree
    listing   tree id                          Listing (store/listing.py): a dirtree compiled for the view; derived
    dirmeta   meta id                          MetaRecord: checksum, OSTree's dirmeta
    commit    commit number                    CommitRecord: checksum, root, counts, OSTree's commit
    detached  commit number                    OSTree's detached metadata, a{sv}
    ref       name                             RefRecord: ref id, commit number
    refdir    prefix of ref names              ref id u64
    refid     ref id                           RefName: what a ref id stands for, also after it is gone
    reflog    ref id, sequence u64             ReflogRecord
    mtime     size u64, second i64 + 2^63      MtimeRecord: which content of this size has this second
    stat      blake2b-128 of directory, options   StatRecord (store/statcache.py): what the last scan saw; derived

A record, byte for byte (an empty 0644 file of root's, first seen at 2020-01-01), behind its checksum:

>>> record = FileRecord(checksum=bytes(32), size=0, mtime_ns=1577836800 * 10**9, storage=Storage.EMPTY,
...                     header=bytes.fromhex("00000012 00000000 00000000 00000000 000081a4 00000000 00 11"))
>>> record.pack()[32:].hex(" ", -8)
'0000000000000000 15e59a35b98a0000 0000000012000000 0000000000000000 00000081a4000000 000011'
>>> FileRecord.unpack(record.pack()) == record
True
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NewType

from store.errors import FormatError
from store.objects import Checksum

FileId = NewType("FileId", int)  # a file object; also its node number and st_ino in the view
TreeId = NewType("TreeId", int)  # a dirtree
MetaId = NewType("MetaId", int)  # a dirmeta
CommitNumber = NewType("CommitNumber", int)
RefId = NewType("RefId", int)  # a ref or a prefix directory of refs

FORMAT_VERSION: Final = 1
# Feature flags, as ext4 has them: a program that doesn't know a compatible one may ignore it, one that doesn't know
# a read-only-compatible one may read, one that doesn't know an incompatible one must refuse.
KNOWN_RO_COMPATIBLE: Final = 0
KNOWN_INCOMPATIBLE: Final = 0

FIRST_ID: Final = 1024  # below it are the view's fixed nodes
MAX_COMMIT_NUMBER: Final = (1 << 28) - 1  # a node number below versions/ has 28 bits for the commit …
MAX_ENTRIES: Final = (1 << 32) - 1  # … and 32 for the rank in it
MAX_FILE_ID: Final = (1 << 62) - 1

INLINE_BYTES_MAX: Final = 16 << 10  # larger contents are loose files; contents of both kinds are read, so it may change
BLOCK_BYTES: Final = 128 << 10  # the unit of the XXH3 guard; a change is a change of format
BLOCKS_PER_GROUP: Final = 4096

DATABASES: Final = (
    b"head", b"object", b"file", b"content", b"blocks", b"dirtree", b"listing", b"dirmeta",
    b"commit", b"detached", b"ref", b"refdir", b"refid", b"reflog", b"mtime", b"stat",
)  # fmt: skip

# The databases whose keys begin with the id of an object, and the counter that gives these ids out.
OBJECT_COUNTERS: Final = {
    b"file": "file", b"content": "file", b"blocks": "file", b"dirtree": "tree", b"listing": "tree",
    b"dirmeta": "meta", b"commit": "commit",
}  # fmt: skip

# The counters that give ids out, and the database that has a record for each of these, but for what was pruned.
COUNTED: Final = {
    "file": b"file", "tree": b"dirtree", "meta": b"dirmeta", "commit": b"commit", "ref": b"refid", "reflog": b"reflog",
}  # fmt: skip

GENERATION: Final = "prune"  # the counter of prunes: whoever keeps what the index said looks at it

_U64 = struct.Struct(">Q")
_U64_PAIR = struct.Struct(">QQ")
_BLOCKS_KEY = struct.Struct(">QI")


def id_key(number: int) -> bytes:
    """Return the key of the record with this id."""
    return _U64.pack(number)


def key_id(data: bytes) -> int:
    """Return the id that an 8-byte key or value holds."""
    number: int = _U64.unpack(data)[0]
    return number


def counter_key(name: str) -> bytes:
    """Return the key in "head" of a counter."""
    return b"next " + name.encode()


def pair_key(first: int, second: int) -> bytes:
    """Return the key of a reflog record (ref id, sequence)."""
    return _U64_PAIR.pack(first, second)


def blocks_key(file_id: FileId, group: int) -> bytes:
    """Return the key of a group of block guards."""
    return _BLOCKS_KEY.pack(file_id, group)


def mtime_key(size: int, second: int) -> bytes:
    """Return the key of the record for contents of *size* bytes with this mtime (seconds, may be negative)."""
    return _U64_PAIR.pack(size, second + (1 << 63))


@dataclass(frozen=True, slots=True)
class FormatRecord:
    """head/format: the version and feature flags."""

    version: int
    compatible: int
    ro_compatible: int
    incompatible: int

    _STRUCT = struct.Struct(">IQQQ")

    def pack(self) -> bytes:
        """Return the value as stored."""
        return self._STRUCT.pack(self.version, self.compatible, self.ro_compatible, self.incompatible)

    @classmethod
    def unpack(cls, data: bytes) -> FormatRecord:
        """Parse a stored value."""
        return cls(*cls._STRUCT.unpack(data))


class Storage(IntEnum):
    """Where the bytes of a file object are."""

    EMPTY = 0  # nowhere: a symlink, or an empty file
    INLINE = 1  # database content
    LOOSE = 2  # objects/


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file object: OSTree's header, and what the store knows of its contents.

    size is in bytes (of a symlink: of its target); mtime_ns is the one that the view shows, fixed for good.
    header is what OSTree hashes before the contents: length u32, zero u32, (uuuusa(ayay)).
    """

    checksum: Checksum
    size: int
    mtime_ns: int
    storage: Storage
    header: bytes

    _STRUCT = struct.Struct(">32sQqB")
    _OWNER = struct.Struct(">III")

    def pack(self) -> bytes:
        """Return the value as stored."""
        return self._STRUCT.pack(self.checksum, self.size, self.mtime_ns, self.storage) + self.header

    @classmethod
    def unpack(cls, data: bytes) -> FileRecord:
        """Parse a stored value."""
        checksum, size, mtime_ns, storage = cls._STRUCT.unpack_from(data)
        return cls(checksum, size, mtime_ns, Storage(storage), data[cls._STRUCT.size :])

    @property
    def owner_mode(self) -> tuple[int, int, int]:
        """uid, gid and full st_mode: the header's first three numbers."""
        uid, gid, mode = self._OWNER.unpack_from(self.header, 8)
        return uid, gid, mode

    @property
    def has_xattrs(self) -> bool:
        """Whether the header ends in extended attributes: only then is it longer than its other fields need.

        Fields: 8 bytes of framing, four u32, the target and its NUL, one offset (of the target's end).
        """
        _, _, mode = self.owner_mode
        target = self.size if mode & 0o170000 == 0o120000 else 0
        body = 16 + target + 1
        offset = 1 if body + 1 <= 0xFF else 2 if body + 2 <= 0xFFFF else 4
        return len(self.header) != 8 + body + offset


@dataclass(frozen=True, slots=True)
class TreeRecord:
    """A dirtree, with its own first-seen mtime and the counts over its whole subtree.

    directories counts itself too; entries counts everything below it, directories included.
    """

    checksum: Checksum
    mtime_ns: int
    directories: int
    entries: int
    raw: bytes

    _STRUCT = struct.Struct(">32sqII")

    def pack(self) -> bytes:
        """Return the value as stored."""
        return self._STRUCT.pack(self.checksum, self.mtime_ns, self.directories, self.entries) + self.raw

    @classmethod
    def unpack(cls, data: bytes) -> TreeRecord:
        """Parse a stored value."""
        checksum, mtime_ns, directories, entries = cls._STRUCT.unpack_from(data)
        return cls(checksum, mtime_ns, directories, entries, data[cls._STRUCT.size :])


@dataclass(frozen=True, slots=True)
class MetaRecord:
    """A dirmeta."""

    checksum: Checksum
    raw: bytes

    def pack(self) -> bytes:
        """Return the value as stored."""
        return self.checksum + self.raw

    @classmethod
    def unpack(cls, data: bytes) -> MetaRecord:
        """Parse a stored value."""
        return cls(Checksum(data[:32]), data[32:])


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A commit, its root's ids, and the counts of its root's dirtree."""

    checksum: Checksum
    tree_id: TreeId
    meta_id: MetaId
    directories: int
    entries: int
    raw: bytes

    _STRUCT = struct.Struct(">32sQQII")

    def pack(self) -> bytes:
        """Return the value as stored."""
        return self._STRUCT.pack(self.checksum, self.tree_id, self.meta_id, self.directories, self.entries) + self.raw

    @classmethod
    def unpack(cls, data: bytes) -> CommitRecord:
        """Parse a stored value."""
        checksum, tree_id, meta_id, directories, entries = cls._STRUCT.unpack_from(data)
        return cls(checksum, tree_id, meta_id, directories, entries, data[cls._STRUCT.size :])


@dataclass(frozen=True, slots=True)
class RefRecord:
    """Where a ref points."""

    ref_id: RefId
    commit: CommitNumber

    def pack(self) -> bytes:
        """Return the value as stored."""
        return _U64_PAIR.pack(self.ref_id, self.commit)

    @classmethod
    def unpack(cls, data: bytes) -> RefRecord:
        """Parse a stored value."""
        return cls(*_U64_PAIR.unpack(data))


@dataclass(frozen=True, slots=True)
class RefName:
    """What a ref id stands for: a ref, or a directory of refs; alive, or gone."""

    is_directory: bool
    is_alive: bool
    name: bytes

    def pack(self) -> bytes:
        """Return the value as stored."""
        return bytes((self.is_directory, self.is_alive)) + self.name

    @classmethod
    def unpack(cls, data: bytes) -> RefName:
        """Parse a stored value."""
        return cls(bool(data[0]), bool(data[1]), data[2:])


@dataclass(frozen=True, slots=True)
class ReflogRecord:
    """One move of a ref. old and new are None where the ref was made or deleted; time_s is seconds since 1970."""

    old: CommitNumber | None
    new: CommitNumber | None
    time_s: int
    message: str

    _STRUCT = struct.Struct(">QQq")

    def pack(self) -> bytes:
        """Return the value as stored; no commit is number 0, so 0 stands for None."""
        return self._STRUCT.pack(self.old or 0, self.new or 0, self.time_s) + self.message.encode()

    @classmethod
    def unpack(cls, data: bytes) -> ReflogRecord:
        """Parse a stored value."""
        old, new, time_s = cls._STRUCT.unpack_from(data)
        return cls(old or None, new or None, time_s, data[cls._STRUCT.size :].decode())


@dataclass(frozen=True, slots=True)
class MtimeRecord:
    """The content (a keyed hash of it) that has this size and second, and the last second given instead of it."""

    content: bytes
    last_given: int

    _STRUCT = struct.Struct(">16sq")

    def pack(self) -> bytes:
        """Return the value as stored."""
        return self._STRUCT.pack(self.content, self.last_given)

    @classmethod
    def unpack(cls, data: bytes) -> MtimeRecord:
        """Parse a stored value."""
        return cls(*cls._STRUCT.unpack(data))


def check_counts(directories: int, entries: int, what: str) -> None:
    """Refuse a tree that node numbers can't count.

    Raises:
        FormatError: more than MAX_ENTRIES entries.
    """
    if entries > MAX_ENTRIES or directories > MAX_ENTRIES:
        raise FormatError(
            f"{what} has more than {MAX_ENTRIES} entries, which no view can number; split it into several commits"
        )
