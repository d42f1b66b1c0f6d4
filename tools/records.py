"""Records of the index as fields, and their keys as text, both ways: what store/schema.py says, for humans and JSON."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Final

from store.errors import InvalidNameError
from store.gvariant_text import format_text
from store.listing import Listing
from store.objects import FileHeader, ObjectType, unpack_detached
from store.pruned import PRUNED_KEYS, id_ranges
from store.schema import (
    CommitRecord,
    FileId,
    FileRecord,
    FormatRecord,
    MetaRecord,
    MtimeRecord,
    ReflogRecord,
    RefName,
    RefRecord,
    TreeRecord,
    blocks_key,
    id_key,
    key_id,
    mtime_key,
    pair_key,
)
from store.statcache import StatRecord
from tools.render import one_line, quote_path

Fields = dict[str, object]  # what JSON can hold

_UNPACK: Final[dict[str, Callable[[bytes], object]]] = {
    "file": FileRecord.unpack,
    "dirtree": TreeRecord.unpack,
    "dirmeta": MetaRecord.unpack,
    "commit": CommitRecord.unpack,
    "ref": RefRecord.unpack,
    "refid": RefName.unpack,
    "reflog": ReflogRecord.unpack,
    "mtime": MtimeRecord.unpack,
}
_TEXT_KEYS: Final = ("head", "ref", "refdir")
_PAIR_KEYS: Final[dict[str, Callable[[int, int], bytes]]] = {
    "reflog": pair_key,
    "mtime": mtime_key,
    "blocks": lambda number, group: blocks_key(FileId(number), group),
}
KINDS: Final = {kind.name.lower(): kind for kind in ObjectType}


def parse_key(name: str, text: str) -> bytes:
    """Return the key that *text* means in the table *name*, as key_text wrote it.

    Raises:
        InvalidNameError: it is none.
    """
    try:
        if name in _TEXT_KEYS:
            return text.encode()
        if name in _PAIR_KEYS:
            first, _, second = text.partition(",")
            return _PAIR_KEYS[name](int(first, 0), int(second, 0))
        if name == "object":
            kind, _, checksum = text.partition(",")
            return bytes((KINDS[kind],)) + bytes.fromhex(checksum)
        return bytes.fromhex(text) if name == "stat" else id_key(int(text, 0))
    except (ValueError, KeyError, struct.error) as error:
        raise InvalidNameError(f"{text!r} is no key of {name}; 'fsview debug record {name}' lists its keys") from error


def key_text(name: str, key: bytes) -> str:
    """Return a key for humans: a name, a number, "number,number" or hex digits."""
    if name in _TEXT_KEYS:
        return key.decode("utf-8", "backslashreplace")
    if name == "object":
        return f"{ObjectType(key[0]).name.lower()},{key[1:].hex()}"
    if name == "stat":
        return key.hex()
    first = key_id(key[:8])
    if len(key) == 8:
        return str(first)
    second = int.from_bytes(key[8:], "big") - ((1 << 63) if name == "mtime" else 0)
    return f"{first},{second}"


def record_fields(name: str, key: bytes, value: bytes) -> Fields:
    """Return what a record says, by field."""
    if name in _UNPACK:
        return dataclass_fields(_UNPACK[name](value))
    if name == "head":
        return _head_fields(key, value)
    if name in ("object", "refdir"):
        return {"id": key_id(value)}
    if name == "blocks":
        return {"xxh3": [value[at : at + 8].hex() for at in range(0, len(value), 8)]}
    if name == "listing":
        return {"entries": [dataclass_fields(entry) for entry in Listing(value)]}
    if name == "detached":
        return {key: format_text(variant) for key, variant in unpack_detached(value)}
    if name == "stat":
        record = StatRecord.unpack(value)
        ids = {text_of(name): record.ids_at(index) for index, name in enumerate(record.names)}
        return {"tree_id": record.tree_id, "ids": ids}
    return {"bytes": value.hex()}


def _head_fields(key: bytes, value: bytes) -> Fields:
    if key == b"format":
        return dataclass_fields(FormatRecord.unpack(value))
    if key == b"secret":
        return {"bytes": "(secret)"}
    if key in PRUNED_KEYS:
        return {"ids": [f"{first}-{last}" for first, last in id_ranges(value)]}
    return {"id": key_id(value)}


def dataclass_fields(record: object) -> Fields:
    """Return the fields of a record or an object."""
    assert is_dataclass(record)
    return {field.name: _value(field.name, getattr(record, field.name)) for field in fields(record)}


def _value(name: str, value: object) -> object:
    if name == "header":
        assert isinstance(value, bytes)
        return dataclass_fields(FileHeader.from_bytes(value))
    if isinstance(value, IntEnum):
        return value.name.lower()
    if name == "mode":
        return f"{value:o}"
    if isinstance(value, bytes):
        return text_of(value) if name in ("name", "symlink_target") else value.hex()
    if isinstance(value, tuple):
        return [[text_of(key), data.hex()] for key, data in value]
    return value


def field_lines(found: Fields) -> list[str]:
    """Return fields as lines; what is nested is indented."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += [f"{one_line(name)}:", *(f"    {line}" for line in field_lines(value))]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{one_line(name)}:", *(f"    {_one_line(item)}" for item in value)]
        else:
            lines.append(f"{one_line(name)}: {shown(value)}")
    return lines


def _one_line(item: Fields) -> str:
    return "  ".join(f"{name}={shown(value)}" for name, value in item.items())


def shown(value: object) -> str:
    """Return a field's value on one line; names are quoted where they have to be."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value)) or "(none)"
    return quote_path(value.encode("utf-8", "surrogateescape")) if isinstance(value, str) else str(value)


def text_of(name: bytes) -> str:
    """Return a name as JSON can hold it."""
    return name.decode("utf-8", "surrogateescape")
