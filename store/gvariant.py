"""GVariant's serialisation, both ways: bytes in normal form, or an error. Little-endian, as everything in the wild.

    signature               value
    y n q i u x t h   d     int   float
    b                       bool
    s o g                   str: text, an object path, a signature
    v                       Variant
    ay   aT                 bytes   list
    mT                      None or the value; where T is a maybe itself: None or Just(value)
    (…)  {KV}               tuple

A container aligns its members and ends in the end offsets of those whose size the reader can't know. The narrowest
width of offset that fits is taken, so each value has exactly one encoding, its normal form; unpack accepts no other.

>>> raw = pack("(ssu)", ("k", "ab", 1))
>>> raw.hex(" ")
'6b 00 61 62 00 00 00 00 01 00 00 00 05 02'
>>> unpack("(ssu)", raw)
('k', 'ab', 1)
>>> pack("a{sv}", [("k", Variant("u", 5))]).hex(" ", 4)
'6b000000 00000000 05000000 0075020f'
"""

from __future__ import annotations

import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, Final

from store.errors import FormatError, InvalidNameError
from store.gvariant_framing import array_ends, frame, refusal, skip_padding, tuple_ends

NESTING_MAX: Final = 64  # containers within containers, variants included

VALUES_MAX: Final = 1_000_000  # in one value that is unpacked: each takes some 100 bytes and 5 us

_NUMBERS: Final = dict(zip("bynqiuhxtd", "?BhHiIiqQd", strict=True))  # type -> struct's code
_STRINGS: Final = frozenset("sog")
_SIGNATURE_LENGTH_MAX: Final = 1 << 16
_OBJECT_PATH: Final = re.compile(r"/|(/[A-Za-z0-9_]+)+")


@dataclass(frozen=True, slots=True)
class Variant:
    """A value that carries its type."""

    signature: str
    value: Any


@dataclass(frozen=True, slots=True)
class Just:
    """A maybe of a maybe that is not nothing: tells Just(None) from None."""

    value: Any


def pack(signature: str, value: Any) -> bytes:
    """Return the normal form of *value*.

    Raises:
        InvalidNameError: the signature is none, or the value is not of its type.
    """
    return parse_signature(signature).pack(value, NESTING_MAX)


def unpack(signature: str, data: bytes) -> Any:
    """Return the value whose normal form *data* is.

    Raises:
        FormatError: it is the normal form of no such value.
        InvalidNameError: the signature is none.
    """
    _left[0] = VALUES_MAX
    return parse_signature(signature).unpack(data, 0, len(data), NESTING_MAX)


_left = [0]  # how many more values may come; a process unpacks one value at a time


def _spend(values: int) -> None:
    """Count what is unpacked: a few bytes may be many values, within each other or empty."""
    _left[0] -= values
    if _left[0] < 0:
        raise FormatError(f"a GVariant value of more than {VALUES_MAX:,} values; nothing that is one so large is read")


class Type(ABC):
    """A type, ready to pack and unpack. Its size is in bytes; 0: it varies.

    *levels* is how many containers may still open, this one included. start is a multiple of the alignment.
    """

    alignment: int = 1
    size: int = 0

    @abstractmethod
    def pack(self, value: Any, levels: int) -> bytes:
        """Return the normal form of *value*."""

    @abstractmethod
    def unpack(self, data: bytes, start: int, end: int, levels: int) -> Any:
        """Return the value at data[start:end]."""


class _Number(Type):
    def __init__(self, code: str) -> None:
        self._code, self._struct = code, struct.Struct("<" + _NUMBERS[code])
        self.size = self.alignment = self._struct.size
        self._types: tuple[type, ...] = (int, float) if code == "d" else (bool,) if code == "b" else (int,)

    def pack(self, value: Any, levels: int) -> bytes:
        if not isinstance(value, self._types) or isinstance(value, bool) != (self._code == "b"):
            raise _misfit(self._code, value)
        try:
            return self._struct.pack(value)
        except (struct.error, OverflowError):
            raise _misfit(self._code, value) from None

    def unpack(self, data: bytes, start: int, end: int, levels: int) -> Any:
        if end - start != self.size:
            raise refusal(start, f"{end - start} bytes where a number has {self.size}")
        if self._code == "b" and data[start] > 1:
            raise refusal(start, "a boolean is 0 or 1")
        return self._struct.unpack_from(data, start)[0]


class _String(Type):
    def __init__(self, code: str) -> None:
        self._code = code

    def pack(self, value: Any, levels: int) -> bytes:
        if not isinstance(value, str) or "\0" in value or not self._is_valid(value):
            raise _misfit(self._code, value)
        try:
            return value.encode() + b"\0"
        except UnicodeEncodeError:
            raise _misfit(self._code, value) from None

    def unpack(self, data: bytes, start: int, end: int, levels: int) -> str:
        if data.find(b"\0", start, end) != end - 1 or start == end:
            raise refusal(start, "a string ends in its only NUL")
        try:
            text = data[start : end - 1].decode()
        except UnicodeDecodeError as error:
            raise refusal(start + error.start, "a string is UTF-8") from None
        if not self._is_valid(text):
            raise refusal(start, "no object path" if self._code == "o" else "no signature")
        return text

    def _is_valid(self, text: str) -> bool:
        if self._code == "o":
            return _OBJECT_PATH.fullmatch(text) is not None
        return self._code == "s" or is_signature_list(text)


class _Variant(Type):
    alignment = 8

    def pack(self, value: Any, levels: int) -> bytes:
        if not isinstance(value, Variant):
            raise _misfit("v", value)
        content = parse_signature(value.signature).pack(value.value, _descend(levels, InvalidNameError))
        return content + b"\0" + value.signature.encode()

    def unpack(self, data: bytes, start: int, end: int, levels: int) -> Variant:
        split = data.rfind(b"\0", start, end)
        if split < 0:
            raise refusal(start, "a variant without a signature")
        signature = data[split + 1 : end].decode("latin-1")
        try:
            content = parse_signature(signature)
        except InvalidNameError as error:
            raise refusal(split + 1, str(error)) from None
        return Variant(signature, content.unpack(data, start, split, _descend(levels, FormatError)))


class _Bytes(Type):
    def pack(self, value: Any, levels: int) -> bytes:
        if isinstance(value, bytes):
            return value
        raise _misfit("ay", value)

    def unpack(self, data: bytes, start: int, end: int, levels: int) -> bytes:
        return data[start:end]


class _Array(Type):
    def __init__(self, element: Type) -> None:
        self._element, self.alignment = element, element.alignment

    def pack(self, value: Any, levels: int) -> bytes:
        if not isinstance(value, list):
            raise _misfit("array", value)
        levels = _descend(levels, InvalidNameError)
        body, ends = _lay_out((self._element, item, levels) for item in value)
        return bytes(body) if self._element.size else frame(body, ends)

    def unpack(self, data: bytes, start: int, end: int, levels: int) -> list[Any]:
        levels, element = _descend(levels, FormatError), self._element
        if element.size:
            if (end - start) % element.size:
                raise refusal(end, f"an array's elements have {element.size} bytes each")
            _spend((end - start) // element.size)
            return [element.unpack(data, at, at + element.size, levels) for at in range(start, end, element.size)]
        values, at = [], start
        ends = array_ends(data, start, end)
        _spend(len(ends))
        for stop in ends:
            at = skip_padding(data, at, element.alignment, stop)
            values.append(element.unpack(data, at, stop, levels))
            at = stop
        return values


class _Maybe(Type):
    def __init__(self, element: Type) -> None:
        self._element, self.alignment = element, element.alignment
        self._is_nested = isinstance(element, _Maybe)

    def pack(self, value: Any, levels: int) -> bytes:
        if value is None:
            return b""
        if self._is_nested:
            if not isinstance(value, Just):
                raise _misfit("maybe of a maybe", value)
            value = value.value
        content = self._element.pack(value, _descend(levels, InvalidNameError))
        return content if self._element.size else content + b"\0"

    def unpack(self, data: bytes, start: int, end: int, levels: int) -> Any:
        _spend(1)
        if start == end:
            return None
        if not self._element.size:
            end -= 1
            if data[end]:
                raise refusal(end, "a maybe ends in NUL")
        value = self._element.unpack(data, start, end, _descend(levels, FormatError))
        return Just(value) if self._is_nested else value


class _Tuple(Type):
    def __init__(self, members: list[Type]) -> None:
        self._members = members
        self.alignment = max((member.alignment for member in members), default=1)
        self._framed = sum(not member.size for member in members[:-1])  # members with an end offset
        if all(member.size for member in members):
            size = reduce(lambda size, member: size + -size % member.alignment + member.size, members, 0)
            self.size = size + -size % self.alignment or 1  # the empty tuple is one zero byte

    def pack(self, value: Any, levels: int) -> bytes:
        if not isinstance(value, tuple) or len(value) != len(self._members):
            raise _misfit(f"tuple of {len(self._members)}", value)
        levels = _descend(levels, InvalidNameError)
        body, ends = _lay_out((member, item, levels) for member, item in zip(self._members, value, strict=True))
        if self.size:
            return bytes(body.ljust(self.size, b"\0"))
        framed = [end for member, end in zip(self._members[:-1], ends[:-1], strict=True) if not member.size]
        return frame(body, framed[::-1])

    def unpack(self, data: bytes, start: int, end: int, levels: int) -> tuple[Any, ...]:
        levels = _descend(levels, FormatError)
        _spend(len(self._members))
        ends, table = tuple_ends(data, start, end, self._framed)
        values, at = [], start
        for index, member in enumerate(self._members, 1):
            at = skip_padding(data, at, member.alignment, table)
            stop = at + member.size if member.size else ends.pop() if index < len(self._members) else table
            if not at <= stop <= table:
                raise refusal(at, "a member ends outside of its tuple")
            values.append(member.unpack(data, at, stop, levels))
            at = stop
        if table != (start + self.size if self.size else at) or any(data[at:table]):
            raise refusal(at, "more bytes than the members of the tuple take")
        return tuple(values)


def _lay_out(members: Iterable[tuple[Type, Any, int]]) -> tuple[bytearray, list[int]]:
    """Return the members, each at its alignment, and where each ends."""
    body, ends = bytearray(), []
    for member, value, levels in members:
        body += bytes(-len(body) % member.alignment)
        body += member.pack(value, levels)
        ends.append(len(body))
    return body, ends


def _descend(levels: int, error: type[FormatError] | type[InvalidNameError]) -> int:
    if levels == 0:
        raise error(f"a GVariant value is nested more than {NESTING_MAX} deep")
    return levels - 1


def _misfit(type_name: str, value: Any) -> InvalidNameError:
    return InvalidNameError(f"a value that is no GVariant {type_name}: {value!r:.80}")


def parse_signature(signature: str) -> Type:
    """Return the one complete type that *signature* is, or raise InvalidNameError."""
    if len(signature) > _SIGNATURE_LENGTH_MAX:
        raise InvalidNameError(f"a GVariant type of {len(signature)} characters, more than {_SIGNATURE_LENGTH_MAX}")
    # Long signatures come from nowhere but a hostile object: don't remember them.
    return (_parse_remembered if len(signature) < 256 else _parse_whole)(signature)


def is_signature_list(text: str) -> bool:
    """Return whether *text* is a value of type g: any number of complete types, none of them a maybe."""
    at = 0
    try:
        while at < len(text):
            at = _parse(text, at, NESTING_MAX)[1]
    except InvalidNameError:
        return False
    return "m" not in text


def _parse_whole(signature: str) -> Type:
    parsed, end = _parse(signature, 0, NESTING_MAX)
    if end != len(signature):
        raise InvalidNameError(f"not one GVariant type: {signature!r:.80}")
    return parsed


_parse_remembered = lru_cache(maxsize=256)(_parse_whole)


def _parse(text: str, at: int, levels: int) -> tuple[Type, int]:
    """Return the type that begins at *at*, and where it ends."""
    code = text[at : at + 1]
    if code in _SIMPLE:
        return _SIMPLE[code], at + 1
    if levels == 0 or code not in ("a", "m", "(", "{"):
        raise InvalidNameError(f"not a GVariant type: {text[at:]!r:.80}")
    if code in ("a", "m"):
        element, end = _parse(text, at + 1, levels - 1)
        if code == "m":
            return _Maybe(element), end
        return _Bytes() if text[at + 1] == "y" else _Array(element), end
    return _parse_members(text, at, levels - 1)


_SIMPLE: dict[str, Type] = {"v": _Variant(), **{code: _Number(code) for code in _NUMBERS}}
_SIMPLE.update((code, _String(code)) for code in _STRINGS)


def _parse_members(text: str, at: int, levels: int) -> tuple[Type, int]:
    close, members, end = ")" if text[at] == "(" else "}", [], at + 1
    while text[end : end + 1] != close:
        member, end = _parse(text, end, levels)
        members.append(member)
    if close == "}" and (len(members) != 2 or text[at + 1] not in _NUMBERS.keys() | _STRINGS):
        raise InvalidNameError(f"not a dict entry of a basic key and a value: {text[at : end + 1]!r:.80}")
    return _Tuple(members), end + 1


def members(signature: str) -> list[str]:
    """Return the types in a tuple's or a dict entry's signature, which is valid."""
    found, at = [], 1
    while at < len(signature) - 1:
        end = _parse(signature, at, NESTING_MAX)[1]
        found.append(signature[at:end])
        at = end
    return found
