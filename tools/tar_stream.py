"""A tar archive as a stream of members, read once: ustar, pax, and GNU's long names and sparse files.

tarfile parses the plain header of 512 bytes. All that has a size of its own is read here, by the bounds of
tools/tar_limits.py: pax headers, long names, and the lists of holes, of which GNU tar has four kinds.

    old GNU       type "S": four pieces in the header, 21 more in each block that follows it
    pax 0.0       GNU.sparse.offset and GNU.sparse.numbytes, again and again; GNU.sparse.size
    pax 0.1       GNU.sparse.map, comma-separated; GNU.sparse.size
    pax 1.0       GNU.sparse.major=1: the list stands before the data, a number a line; GNU.sparse.realsize
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO, Final

from store.stager import PIECE_BYTES
from tools.tar_limits import EXTENSIONS_MAX, Holes, check_header, check_parts

_BLOCK: Final = 512
_PAX: Final = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG: Final = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_DIGITS_MAX: Final = 20  # of 64 bits
_LENGTH_DIGITS_MAX: Final = 8
_SPARSE_NUMBER: Final = 12  # bytes of a number in an old sparse header
_Parts = list[tuple[int, int]]  # (offset, size) of what is no hole


class NotWhole(Exception):
    """A tar archive ends, or goes wrong, in the middle."""


@dataclass(slots=True)
class Member:
    """One member: *info* has its header, and pax_headers what all extended headers say of it.

    size is that of the file, parts are what of it is in the archive.
    """

    info: tarfile.TarInfo
    size: int
    parts: _Parts = field(default_factory=list)

    @property
    def holes_bytes(self) -> int:
        """How much of the file is not in the archive."""
        return self.size - sum(size for _, size in self.parts)


class Archive:
    """Iterate over the members; the contents of one can be read until the next is asked for."""

    def __init__(self, file: IO[bytes], size_bytes: int | None, *, allow_holes: bool) -> None:
        """*size_bytes* is the size of the archive, None if it is not known."""
        self._file, self._at, self._left = file, 0, 0  # bytes that were read; that the member still has
        self._size = size_bytes
        self._global: dict[str, str] = {}
        self._global_bytes = 0
        self.holes = Holes(allowed=allow_holes)

    @property
    def known_bytes(self) -> int:
        """How large the archive is, as far as it is known."""
        return self._at if self._size is None else self._size

    def __iter__(self) -> Iterator[Member]:
        """Yield the members.

        Raises:
            NotWhole: the archive is damaged or ends without a block of zeros.
            FormatError: it asks for more than it may.
        """
        while (member := self._next()) is not None:
            yield member
            self.take(self._left, keep=False)

    def take(self, size: int, *, keep: bool = True) -> bytes:
        """Return the next bytes of the member."""
        kept = []
        while size:
            data = self._file.read(min(size, PIECE_BYTES))
            if not data:
                raise NotWhole(f"it ends at byte {self._at}, in the middle")
            self._at += len(data)
            self._left -= len(data)
            size -= len(data)
            kept += [data] if keep else []
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def contents(self, member: Member) -> Contents:
        """Return the contents of a regular file.

        Raises:
            FormatError: its holes are out of proportion.
        """
        if self._size is not None:
            self.holes.add(member.info.name, member.holes_bytes, self._size)
        return Contents(self, member, counts_holes=self._size is None)

    def _next(self) -> Member | None:
        records: list[tuple[str, str]] = []
        for _ in range(EXTENSIONS_MAX):
            at, block = self._at, self.take(_BLOCK)
            if not any(block):
                return None
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise NotWhole(f"at byte {at}, {error}") from error
            if info.size < 0:
                raise NotWhole(f"at byte {at}, a size is negative")
            if info.type in _LONG:
                records.append((_LONG[info.type], _text(self._extension(info).partition(b"\0")[0])))
            elif info.type in _PAX:
                records += _parse_pax(self._extension(info))
            elif info.type == tarfile.XGLTYPE:
                self._global_bytes += info.size
                check_header(self._global_bytes)
                self._global |= _parse_pax(self._extension(info))
            else:
                return self._described(info, block, records)
        raise NotWhole(f"at byte {self._at}, more than {EXTENSIONS_MAX} headers tell of the next one")

    def _extension(self, info: tarfile.TarInfo) -> bytes:
        check_header(info.size)
        return self.take(info.size + -info.size % _BLOCK)[: info.size]

    def _described(self, info: tarfile.TarInfo, block: bytes, own: list[tuple[str, str]]) -> Member:
        records = info.pax_headers = self._global | dict(own)
        stored = _number(records["size"]) if "size" in records else info.size
        info.name = records.get("GNU.sparse.name", records.get("path", info.name))
        info.linkname = records.get("linkpath", info.linkname)
        info.uid = _number(records["uid"]) if "uid" in records else info.uid
        info.gid = _number(records["gid"]) if "gid" in records else info.gid
        member = Member(info, stored, [(0, stored)])
        is_old = info.type == tarfile.GNUTYPE_SPARSE
        if is_old:
            member.size, member.parts = self._old_sparse(block)
        has_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES  # links may say a size, and have none
        self._left = stored + -stored % _BLOCK if has_data else 0
        before = self._left
        if not is_old and info.isreg() and any(key.startswith("GNU.sparse.") for key, _ in own):
            member.size, member.parts = self._pax_sparse(own, member)
        _check_parts_fit(member, stored - (before - self._left))
        return member

    def _old_sparse(self, block: bytes) -> tuple[int, _Parts]:
        parts, more = _old_parts(block[386:482]), bool(block[482])
        size = _old_number(block[483:495])
        while more:
            check_parts(len(parts) + 1)
            block = self.take(_BLOCK)
            found, more = _old_parts(block[:504]), bool(block[504])
            if more and not found:
                raise NotWhole(f"at byte {self._at}, a list of holes goes on without any")
            parts += found
        return size, parts

    def _pax_sparse(self, own: list[tuple[str, str]], member: Member) -> tuple[int, _Parts]:
        records = dict(own)
        if records.get("GNU.sparse.major") == "1" and records.get("GNU.sparse.minor") == "0":
            return _number(records.get("GNU.sparse.realsize", "")), self._listed_parts()
        if "GNU.sparse.size" not in records:
            return member.size, member.parts
        if "GNU.sparse.map" in records:
            numbers = [_number(text) for text in records["GNU.sparse.map"].split(",") if text]
            return _number(records["GNU.sparse.size"]), _paired(numbers[::2], numbers[1::2])
        offsets, sizes = (
            [_number(text) for key, text in own if key == f"GNU.sparse.{what}"] for what in ("offset", "numbytes")
        )
        return _number(records["GNU.sparse.size"]), _paired(offsets, sizes)

    def _listed_parts(self) -> _Parts:
        """Read the list that stands before the data."""
        numbers: list[int] = []
        wanted, rest = 1, b""
        while len(numbers) < wanted:
            if len(rest) > _BLOCK or self._left < _BLOCK:
                raise NotWhole(f"at byte {self._at}, a list of holes is damaged")
            *lines, rest = (rest + self.take(_BLOCK)).split(b"\n")
            for line in lines:
                if len(numbers) < wanted:
                    numbers.append(_number(_text(line)))
                if len(numbers) == 1:
                    check_parts(numbers[0])
                    wanted = 1 + 2 * numbers[0]
        return _paired(numbers[1::2], numbers[2::2])


class Contents:
    """The bytes of a file in an archive, with zeros where it has holes."""

    def __init__(self, archive: Archive, member: Member, *, counts_holes: bool) -> None:
        self._archive, self._member, self._counts_holes = archive, member, counts_holes
        self._at = 0
        self._parts = iter([*member.parts, (member.size, 0)])
        self._part, self._size = next(self._parts)

    def read(self, most: int) -> bytes:
        """Return the next *most* bytes, fewer only at the end."""
        end = min(self._at + most, self._member.size)
        pieces = []
        while self._at < end:
            if self._at < self._part:
                pieces.append(bytes(self._hole(min(end, self._part) - self._at)))
            elif self._at < self._part + self._size:
                pieces.append(self._archive.take(min(end, self._part + self._size) - self._at))
            else:
                self._part, self._size = next(self._parts)
                continue
            self._at += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _hole(self, size: int) -> int:
        if self._counts_holes:
            self._archive.holes.add(self._member.info.name, size, self._archive.known_bytes)
        return size


def _parse_pax(data: bytes) -> list[tuple[str, str]]:
    """Return the records of a pax header, each "LENGTH KEY=VALUE" and a newline, in their order."""
    records, at = [], 0
    while at < len(data):
        space = data.find(b" ", at, at + _LENGTH_DIGITS_MAX + 1)
        length = int(data[at:space]) if space > at and data[at:space].isdigit() else 0
        end = at + length
        equals = data.find(b"=", space + 1, end)
        if end > len(data) or equals < 0 or data[end - 1] != ord("\n"):
            raise NotWhole(f"a pax header is damaged at its byte {at}")
        records.append((_text(data[space + 1 : equals]), _text(data[equals + 1 : end - 1])))
        at = end
    return records


def _check_parts_fit(member: Member, stored: int) -> None:
    """Refuse parts that overlap, or are not in the file or not in the archive."""
    check_parts(len(member.parts))
    ends = [(offset, offset + size) for offset, size in member.parts]
    is_ordered = all(end <= following for (_, end), (following, _) in pairwise(ends))
    if not is_ordered or (ends and ends[-1][1] > member.size) or member.size - member.holes_bytes > stored:
        raise NotWhole(f"the holes of the sparse file {member.info.name!r:.200} are not as they can be")


def _paired(offsets: list[int], sizes: list[int]) -> _Parts:
    if len(offsets) != len(sizes):
        raise NotWhole("a list of holes is damaged")
    return list(zip(offsets, sizes, strict=True))


def _old_parts(data: bytes) -> _Parts:
    numbers = [_old_number(data[at : at + _SPARSE_NUMBER]) for at in range(0, len(data), _SPARSE_NUMBER)]
    return [(offset, size) for offset, size in zip(numbers[::2], numbers[1::2], strict=True) if size]


def _old_number(field_: bytes) -> int:
    """Return a number of a header: octal digits, or binary if the first bit is set; an empty field is 0."""
    if field_[0] == 0x80:
        return int.from_bytes(field_[1:], "big")
    text = field_.partition(b"\0")[0].strip(b" ") or b"0"
    if not text.isdigit() or b"8" in text or b"9" in text:
        raise NotWhole(f"a number in a list of holes is {text!r:.30}")
    return int(text, 8)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS_MAX:
        raise NotWhole(f"a number in a pax header is {text!r:.30}")
    return int(text)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
