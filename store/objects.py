"""OSTree's objects: values <-> bytes <-> checksum. Pure: no file, no clock.

    object    bytes (GVariant types; numbers big-endian)        checksum: sha256 of
    file      u32 size, u32 0, (uuuusa(ayay)) = FileHeader       these, then the content
    dirtree   (a(say)a(sayay))                                   the bytes
    dirmeta   (uuua(ayay))                                       the bytes
    commit    (a{sv}aya(say)sstayay)                             the bytes

Every value is checked when it is made: whoever has one may rely on its names and digests. A dirtree's names are
sorted by their bytes, and no name is both a file and a directory. Bytes are accepted in normal form only, so that
from_bytes(raw).to_bytes() == raw. Building raises InvalidNameError, from_bytes FormatError.

>>> DirTree(files=(), dirs=()).to_bytes().hex()
'00'
>>> DirMeta(uid=0, gid=0, mode=0o40755).to_bytes().hex(" ", 4)
'00000000 00000000 000041ed'
>>> header = FileHeader(uid=0, gid=0, mode=0o100644)
>>> header.to_bytes().hex(" ", -4)
'00000012 00000000 00000000 00000000 000081a4 00000000 0011'
>>> hasher = header.hasher()
>>> hasher.update(b"hello world" + bytes([10]))
>>> hasher.hexdigest()[:8]
'81381808'
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NewType, Self

from store import gvariant
from store import object_rules as rules
from store.errors import FormatError, InvalidNameError
from store.gvariant import Variant
from store.gvariant_framing import array_ends, frame, offset_width, refusal, tuple_ends

if TYPE_CHECKING:
    from hashlib import _Hash

Checksum = NewType("Checksum", bytes)  # 32 raw bytes
Xattrs = tuple[tuple[bytes, bytes], ...]  # (name without NUL, value): sorted by name, unique
REF_BINDING: Final = "ostree.ref-binding"  # as: in a commit's metadata, the refs that it was made for
COLLECTION_BINDING: Final = "ostree.collection-binding"  # s: and the collection that these are in
Metadata = tuple[tuple[str, Variant], ...]  # in the order as written

_HEX = re.compile("[0-9a-f]{64}")
_THREE_U32 = struct.Struct(">III")
_HEADER = struct.Struct(">IIIIII")  # size of the variant, 0; uid, gid, mode, rdev
_PLAIN_HEADER = struct.Struct(">IIIIIIBB")  # the same, then an empty target and its end offset
_NOT_CANONICAL = 0o7022  # setuid, setgid, sticky, and what lets others write
assert _HEADER.size == 24 and _PLAIN_HEADER.size == 26


class ObjectType(IntEnum):
    """The kinds of objects, by OSTree's numbers."""

    FILE = 1
    DIRTREE = 2
    DIRMETA = 3
    COMMIT = 4


def checksum_from_hex(text: str) -> Checksum:
    """Return the checksum that *text*, 64 lower-case hex digits, names; or raise InvalidNameError."""
    if not _HEX.fullmatch(text):
        raise InvalidNameError(f"not a checksum, which has 64 lower-case hex digits: {text!r:.80}")
    return Checksum(bytes.fromhex(text))


def checksum_of(raw: bytes) -> Checksum:
    """Return the checksum of a dirtree, dirmeta or commit from its bytes."""
    return Checksum(sha256(raw).digest())


# A file in a dirtree is name, NUL, digest, then the name's end offset: for each length of name, these last bytes.
# A directory is name, NUL, two digests, then the end offsets of the first digest and of the name.
def _entry_tails(digests: int) -> tuple[bytes, ...]:
    tails = []
    for name_end in range(1, rules.NAME_BYTES_MAX + 2):
        ends = [name_end + rules.CHECKSUM_BYTES * index for index in reversed(range(digests))]
        body = bytes(name_end + rules.CHECKSUM_BYTES * digests)
        tails.append(frame(body, ends)[len(body) :])
    return tuple(tails)


_FILE_TAILS: Final = _entry_tails(1)
_DIR_TAILS: Final = _entry_tails(2)
# From the size of an entry to the length of its name.
_FILE_NAME_LENGTHS: Final = {size + 33 + len(tail): size for size, tail in enumerate(_FILE_TAILS)}
_DIR_NAME_LENGTHS: Final = {size + 65 + len(tail): size for size, tail in enumerate(_DIR_TAILS)}


@dataclass(frozen=True, slots=True)
class DirTree:
    """The names in one directory: (name, checksum) of files, (name, dirtree, dirmeta) of directories."""

    files: tuple[tuple[bytes, Checksum], ...]
    dirs: tuple[tuple[bytes, Checksum, Checksum], ...]

    def __post_init__(self) -> None:
        file_names, dir_names = list(map(itemgetter(0), self.files)), list(map(itemgetter(0), self.dirs))
        rules.check_names(file_names)
        rules.check_names(dir_names)
        both = set(file_names).intersection(dir_names)
        if both:
            raise InvalidNameError(f"a name is both a file and a directory: {min(both)!r}")
        rules.check_digests(map(itemgetter(1), self.files))
        rules.check_digests(map(itemgetter(1), self.dirs))
        rules.check_digests(map(itemgetter(2), self.dirs))

    @property
    def checksum(self) -> Checksum:
        """The sha256 of the bytes, computed at each call."""
        return checksum_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the object as OSTree stores it."""
        files = [name + b"\0" + digest + _FILE_TAILS[len(name)] for name, digest in self.files]
        dirs = [name + b"\0" + tree + meta + _DIR_TAILS[len(name)] for name, tree, meta in self.dirs]
        packed = _frame_array(files)
        return frame(packed + _frame_array(dirs), [len(packed)])

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what *data* says; raise FormatError if it is no dirtree that a commit may have."""
        (split,), table = tuple_ends(data, 0, len(data), 1)
        files = tuple(
            (data[at:end], Checksum(data[end + 1 : end + 33]))
            for at, end in _names_in(data, 0, min(split, table), _FILE_NAME_LENGTHS)
        )
        dirs = tuple(
            (data[at:end], Checksum(data[end + 1 : end + 33]), Checksum(data[end + 33 : end + 65]))
            for at, end in _names_in(data, min(split, table), table, _DIR_NAME_LENGTHS)
        )
        try:
            tree = cls(files, dirs)
        except InvalidNameError as error:
            raise FormatError(f"a dirtree is not valid: {error}") from error
        if tree.to_bytes() != data:
            raise FormatError("a dirtree is not in normal form")
        return tree


@dataclass(frozen=True, slots=True)
class DirMeta:
    """A directory's owner, mode (with S_IFDIR) and xattrs."""

    uid: int
    gid: int
    mode: int
    xattrs: Xattrs = ()

    def __post_init__(self) -> None:
        if self.mode & ~rules.PERMISSION_BITS != stat.S_IFDIR:
            raise InvalidNameError(f"not the mode of a directory: {self.mode:#o}")
        rules.check_owner(self.uid, self.gid)
        if self.xattrs:
            rules.check_xattrs(self.xattrs)

    @property
    def checksum(self) -> Checksum:
        """The sha256 of the bytes, computed at each call."""
        return checksum_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the object as OSTree stores it."""
        return _THREE_U32.pack(self.uid, self.gid, self.mode) + _pack_xattrs(self.xattrs)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what *data* says; raise FormatError if it is no dirmeta."""
        if len(data) < _THREE_U32.size:
            raise FormatError(f"a dirmeta has 12 bytes at least, not {len(data)}")
        uid, gid, mode = _THREE_U32.unpack_from(data)
        xattrs = _unpack_xattrs(gvariant.unpack("a(ayay)", data[12:]))
        try:
            return cls(uid, gid, mode, xattrs)
        except InvalidNameError as error:
            raise FormatError(f"a dirmeta is not valid: {error}") from error

    def canonical(self) -> Self:
        """Return what --canonical-permissions makes of it."""
        return type(self)(0, 0, self.mode & ~_NOT_CANONICAL)


@dataclass(frozen=True, slots=True)
class FileHeader:
    """A file object without its content: owner, mode (with S_IFREG or S_IFLNK), xattrs and symlink target."""

    uid: int
    gid: int
    mode: int
    xattrs: Xattrs = ()
    symlink_target: bytes = b""  # not empty exactly when it is a symlink

    def __post_init__(self) -> None:
        if self.mode & ~rules.PERMISSION_BITS != stat.S_IFREG or self.symlink_target:
            rules.check_target(self.mode, self.symlink_target)
        rules.check_owner(self.uid, self.gid)
        if self.xattrs:
            rules.check_xattrs(self.xattrs)

    def to_bytes(self) -> bytes:
        """Return what is hashed before the content: the size of the variant, padding, the variant."""
        if not self.xattrs and not self.symlink_target:
            return _PLAIN_HEADER.pack(18, 0, self.uid, self.gid, self.mode, 0, 0, 17)
        target_end = 17 + len(self.symlink_target)
        xattrs = _pack_xattrs(self.xattrs)
        width = offset_width(target_end + len(xattrs), 1)
        fixed = _HEADER.pack(target_end + len(xattrs) + width, 0, self.uid, self.gid, self.mode, 0)
        return b"".join((fixed, self.symlink_target, b"\0", xattrs, target_end.to_bytes(width, "little")))

    def hasher(self) -> _Hash:
        """Return a sha256 that has taken the header; feed it the content, and it is the checksum."""
        return sha256(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what *data*, as to_bytes makes it, says; raise FormatError if it is no file header."""
        if len(data) < 26:
            raise FormatError(f"a file header has 26 bytes at least, not {len(data)}")
        size, zero, uid, gid, mode, rdev = _HEADER.unpack_from(data)
        if size != len(data) - 8 or zero or rdev:
            raise FormatError(f"a file header's size is {size} of {len(data) - 8}, its padding {zero}, its rdev {rdev}")
        target, xattrs = _target_and_xattrs(data)
        try:
            return cls(uid, gid, mode, xattrs, target)
        except InvalidNameError as error:
            raise FormatError(f"a file header is not valid: {error}") from error

    def canonical(self) -> Self:
        """Return what --canonical-permissions makes of it."""
        if stat.S_ISLNK(self.mode):
            return type(self)(0, 0, self.mode, (), self.symlink_target)
        return type(self)(0, 0, self.mode & ~_NOT_CANONICAL)


@dataclass(frozen=True, slots=True)
class Commit:
    """A tree at a time, with what its author said of it. The metadata keep their order; timestamp_s is since 1970."""

    metadata: Metadata
    parent: Checksum | None
    subject: str
    body: str
    timestamp_s: int
    root_dirtree: Checksum
    root_dirmeta: Checksum
    related: tuple[tuple[str, Checksum], ...] = ()

    def __post_init__(self) -> None:
        rules.check_keys(self.metadata)
        parent = (self.root_dirtree if self.parent is None else self.parent,)
        rules.check_digests((*parent, self.root_dirtree, self.root_dirmeta, *(digest for _, digest in self.related)))
        if not 0 <= self.timestamp_s < 2**64:
            raise InvalidNameError(f"a commit's time has 64 bits of seconds since 1970, not {self.timestamp_s}")

    @property
    def checksum(self) -> Checksum:
        """The sha256 of the bytes, computed at each call."""
        return checksum_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the object as OSTree stores it.

        Raises:
            InvalidNameError: a text is none (NUL, a lone surrogate), a metadata value is not of its type, or all
                together is too large.
        """
        parent, related = self.parent or b"", list(self.related)
        fields = (list(self.metadata), parent, related, self.subject, self.body, _swap_u64(self.timestamp_s))
        raw = gvariant.pack(_COMMIT, (*fields, self.root_dirtree, self.root_dirmeta))
        rules.check_metadata_size("a commit's texts and metadata", len(raw))
        return raw

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what *data* says; raise FormatError if it is no commit."""
        _check_readable("a commit", data)
        metadata, parent, related, subject, body, time, dirtree, dirmeta = gvariant.unpack(_COMMIT, data)
        try:
            return cls(
                tuple(metadata), parent or None, subject, body, _swap_u64(time), dirtree, dirmeta, tuple(related)
            )
        except InvalidNameError as error:
            raise FormatError(f"a commit is not valid: {error}") from error


_COMMIT: Final = "(a{sv}aya(say)sstayay)"


def parent_and_time(raw: bytes) -> tuple[Checksum | None, int]:
    """Return what is wanted of each of many commits, a tenth of the work of `Commit.from_bytes`.

    *raw* must be a commit: as such it came into the store, where it is guarded.
    """
    (_, body, _, _, parent, metadata), _ = tuple_ends(raw, 0, len(raw), 6)  # where these end
    time_at = body + -body % 8
    return Checksum(raw[metadata:parent]) or None, int.from_bytes(raw[time_at : time_at + 8], "big")


def content_checksum(commit: Commit) -> Checksum:
    """Return what commits of equal trees have in common, whatever else they say (`ostree show`: ContentChecksum)."""
    return checksum_of(commit.root_dirtree + commit.root_dirmeta)


def pack_detached(entries: Metadata) -> bytes:
    """Return a commit's detached metadata as OSTree stores them."""
    rules.check_keys(entries)
    return gvariant.pack("a{sv}", list(entries))


def unpack_detached(data: bytes) -> Metadata:
    """Return a commit's detached metadata in their order; raise FormatError if they are none."""
    _check_readable("detached metadata", data)
    entries: Metadata = tuple(gvariant.unpack("a{sv}", data))
    try:
        rules.check_keys(entries)
    except InvalidNameError as error:
        raise FormatError(f"detached metadata are not valid: {error}") from error
    return entries


def _check_readable(what: str, data: bytes) -> None:
    try:
        rules.check_metadata_size(what, len(data))
    except InvalidNameError as error:
        raise FormatError(str(error)) from error


def _swap_u64(number: int) -> int:
    return int.from_bytes(number.to_bytes(8, "big"), "little")


def _names_in(data: bytes, start: int, end: int, name_lengths: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Yield where each name in one array of a dirtree begins and ends; what else is in it is not looked at."""
    at = start
    for stop in array_ends(data, start, end):
        name_length = name_lengths.get(stop - at)
        if name_length is None:
            raise refusal(at, f"no entry of a dirtree has {stop - at} bytes")
        yield at, at + name_length
        at = stop


def _frame_array(elements: Sequence[bytes]) -> bytes:
    """Return an array of elements of varying size that need no padding."""
    return frame(b"".join(elements), list(accumulate(map(len, elements))))


def _pack_xattrs(xattrs: Xattrs) -> bytes:
    return _frame_array([frame(name + b"\0" + value, [len(name) + 1]) for name, value in xattrs])


def _unpack_xattrs(pairs: list[tuple[bytes, bytes]]) -> Xattrs:
    if any(name[-1:] != b"\0" for name, _ in pairs):
        raise FormatError("an xattr's name does not end in NUL")
    return tuple((name[:-1], value) for name, value in pairs)


def _target_and_xattrs(data: bytes) -> tuple[bytes, Xattrs]:
    """Return the last two fields of a file header."""
    if len(data) < 264 and data[-1] == len(data) - 9 and data[-2] == 0:  # no xattrs: the offset is behind the target
        return data[24:-2], ()
    *_, target, pairs = gvariant.unpack("(uuuusa(ayay))", data[8:])
    return target.encode(), _unpack_xattrs(pairs)
