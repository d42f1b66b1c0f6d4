"""Values of GVariant's text format while their type is still open, and how it is settled.

A pattern is a signature that also has N for some number, S for some string, * for any type, and M for "or a maybe of"
before what follows. What stands together in an array must have one pattern:

>>> common([number("1"), typed("q", number("2"))]).pattern
'q'
>>> resolve(array([number("1"), just(number("2"))]))
Variant(signature='ami', value=[1, 2])

What is open in the end is an int32, a string, not a maybe; an open * is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from store import gvariant
from store.errors import InvalidNameError
from store.gvariant import Just, Variant

_NUMERIC: Final = frozenset("ynqiuxthd")
_STRINGS: Final = frozenset("sog")
_KEYS: Final = frozenset("bNS") | _NUMERIC | _STRINGS
_INTEGER = re.compile(r"(-?)\+?(?:0[xX]([0-9a-fA-F]+)|0([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Node:
    """A value: the pattern of its type, and what it is, given a type that fits."""

    pattern: str
    build: Callable[[str], Any]


def resolve(node: Node) -> Variant:
    """Return the value of the type that is the default for its pattern."""
    if "*" in node.pattern:
        raise InvalidNameError("not a GVariant text: its type is open; say it, as in '@as []'")
    signature = node.pattern.translate({ord("M"): None, ord("N"): "i", ord("S"): "s"})
    return Variant(signature, _build(node, signature))


def _build(node: Node, signature: str) -> Any:
    """Return the value of type *signature*; where that is a maybe, a plain value is just that."""
    if signature[0] == "m" and node.pattern[0] == "M":
        return _wrap(signature, _build(node, signature[1:]))
    return node.build(signature)


def _wrap(signature: str, value: Any) -> Any:
    return Just(value) if signature[1] == "m" else value


def _require(fits: bool, signature: str, text: str) -> None:
    if not fits:
        raise InvalidNameError(f"not a GVariant text: {text:.200} is not of type {signature}")


def common(nodes: Sequence[Node]) -> Node:
    """Return the node with the pattern that all *nodes* fit; its value is the first one's."""
    pattern = nodes[0].pattern
    for node in nodes:
        unified = _unify(pattern, node.pattern)
        if unified is None:
            found = f"{_describe(pattern)} and {_describe(node.pattern)}"
            raise InvalidNameError(f"not a GVariant text: {found} side by side have no type in common")
        pattern = unified
    return Node(pattern, nodes[0].build)


def _describe(pattern: str) -> str:
    bare = pattern.replace("M", "")
    return {"N": "a number", "S": "a string"}.get(bare, bare.translate({ord("N"): "i", ord("S"): "s"}))


def _unify(left: str, right: str) -> str | None:
    """Return the pattern of what fits both, or None."""
    if left == right:
        return left
    unified = ""
    while left and right:
        if left[0] == right[0]:
            step = left[0], left[1:], right[1:]
        elif forward := _yield(left, right):
            step = forward
        elif backward := _yield(right, left):
            step = backward[0], backward[2], backward[1]
        else:
            return None
        unified += step[0]
        left, right = step[1:]
    return None if left or right else unified


def _yield(open_pattern: str, other: str) -> tuple[str, str, str] | None:
    """Return what the begin of *open_pattern* becomes beside *other*, and the rest of each; None if it does not fit."""
    first, beside = open_pattern[0], other[0]
    if first == "*" and beside not in ")}":
        end = _first_type_end(other)
        return other[:end], open_pattern[1:], other[end:]
    if first == "M":
        return ("m", open_pattern, other[1:]) if beside == "m" else ("", open_pattern[1:], other)
    if (first == "N" and beside in _NUMERIC) or (first == "S" and beside in _STRINGS):
        return beside, open_pattern[1:], other[1:]
    return None


def _first_type_end(pattern: str) -> int:
    end, depth = len(pattern) - len(pattern.lstrip("amM")), 0
    while True:
        depth += (pattern[end] in "({") - (pattern[end] in ")}")
        end += 1
        if depth == 0:
            return end


def number(token: str) -> Node:
    """Return an integer (in C's notation) or a floating point number."""

    def build(signature: str) -> int | float:
        if signature == "d" and _FLOAT.fullmatch(token):
            _require(isfinite(float(token)) or token[-1] in "fny", signature, token)
            return float(token)
        match = _INTEGER.fullmatch(token)
        size = _magnitude(match) if match else -1
        _require(0 <= size < 1 << 64 and signature in _NUMERIC, signature, token)
        return (float if signature == "d" else int)(-size if token[0] == "-" else size)

    is_float = "." in token or ("e" in token and not token.startswith("0x")) or token[-3:] in ("inf", "nan", "ity")
    return Node("Md" if is_float else "MN", build)


def _magnitude(match: re.Match[str]) -> int:
    _, hexadecimal, octal, decimal = match.groups()
    return int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal[:30])


def boolean(token: str) -> Node:
    """Return true or false."""

    def build(signature: str) -> bool:
        _require(signature == "b", signature, token)
        return token == "true"

    return Node("Mb", build)


def string(text: str) -> Node:
    """Return a text, which may turn out to be an object path or a signature."""

    def build(signature: str) -> str:
        _require(signature in _STRINGS, signature, repr(text))
        return text

    return Node("MS", build)


def bytestring(raw: bytes) -> Node:
    """Return bytes up to their first NUL, and a NUL."""

    def build(signature: str) -> bytes:
        _require(signature == "ay", signature, repr(raw))
        return raw.partition(b"\0")[0] + b"\0"

    return Node("May", build)


def typed(signature: str, node: Node) -> Node:
    """Return a value whose type was said."""
    return Node(signature, lambda wanted: _build(node, wanted))


def just(node: Node) -> Node:
    """Return a maybe that is not nothing."""

    def build(signature: str) -> Any:
        _require(signature[0] == "m", signature, "just …")
        return _wrap(signature, _build(node, signature[1:]))

    return Node("m" + node.pattern, build)


def nothing() -> Node:
    """Return the maybe that is nothing."""
    return Node("m*", lambda signature: _require(signature[0] == "m", signature, "nothing"))


def variant(node: Node) -> Node:
    """Return a variant: what is in it settles its type alone."""

    def build(signature: str) -> Variant:
        _require(signature == "v", signature, "<…>")
        return resolve(node)

    return Node("Mv", build)


def array(items: Sequence[Node]) -> Node:
    """Return an array."""

    def build(signature: str) -> list[Any] | bytes:
        _require(signature[0] == "a" and signature[1] != "{", signature, "[…]")
        values = [_build(item, signature[1:]) for item in items]
        if signature != "ay":
            return values
        _require(all(0 <= value < 256 for value in values), signature, "[…]")
        return bytes(values)

    return Node("Ma" + (common(items).pattern if items else "*"), build)


def tuple_of(items: Sequence[Node]) -> Node:
    """Return a tuple."""

    def build(signature: str) -> tuple[Any, ...]:
        _require(signature[0] == "(", signature, "(…)")
        types = gvariant.members(signature)
        _require(len(types) == len(items), signature, f"a tuple of {len(items)}")
        return tuple(_build(item, member) for item, member in zip(items, types, strict=True))

    return Node(f"M({''.join(item.pattern for item in items)})", build)


def dictionary(pairs: Sequence[tuple[Node, Node]], is_entry: bool = False) -> Node:
    """Return an array of entries, or one entry. As in GLib, the first value alone says what all values are."""

    def build(signature: str) -> Any:
        _require(signature.startswith("{" if is_entry else "a{"), signature, "{…}")
        key_type, value_type = gvariant.members(signature[signature.index("{") :])
        entries = [(_build(key, key_type), _build(value, value_type)) for key, value in pairs]
        return entries[0] if is_entry else entries

    if not pairs:
        return Node("Ma{**}", build)
    key_pattern = common([key for key, _ in pairs]).pattern.removeprefix("M")
    if key_pattern not in _KEYS:
        raise InvalidNameError("not a GVariant text: a dictionary's keys are of a basic type")
    return Node(f"M{'' if is_entry else 'a'}{{{key_pattern}{pairs[0][1].pattern}}}", build)
