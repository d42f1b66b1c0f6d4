"""Each value has one encoding, and each encoding one value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import FormatError, InvalidNameError
from store.gvariant import Just, Variant, members, pack, unpack
from store.gvariant_text import format_text, parse_text

_RANGES = {
    "y": (0, 8),
    "n": (1, 16),
    "q": (0, 16),
    "i": (1, 32),
    "h": (1, 32),
    "u": (0, 32),
    "x": (1, 64),
    "t": (0, 64),
}
_BASIC = "bynqiuxthdsog"
_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def signatures(most: int = 6) -> st.SearchStrategy[str]:
    """Return types of at most about *most* parts."""
    entries = st.tuples(st.sampled_from(_BASIC), st.sampled_from([*_BASIC, "v", "as"])).map(
        lambda kv: f"{{{kv[0]}{kv[1]}}}"
    )
    return st.recursive(
        st.sampled_from([*_BASIC, "v", "ay", "()"]) | entries,
        lambda inner: (
            inner.map(lambda code: "a" + code)
            | inner.map(lambda code: "m" + code)
            | st.lists(inner, max_size=4).map(lambda codes: f"({''.join(codes)})")
        ),
        max_leaves=most,
    )


def values(signature: str, depth: int = 2) -> st.SearchStrategy[Any]:
    """Return values of a type."""
    code = signature[0]
    match code:
        case "b":
            return st.booleans()
        case "d":
            return st.floats(allow_nan=False)
        case "s":
            return _TEXTS
        case "o":
            return st.lists(st.text("aZ0_", min_size=1, max_size=4), max_size=3).map(
                lambda parts: "/" + "/".join(parts)
            )
        case "g":
            return st.lists(signatures(2), max_size=3).map(lambda codes: "".join(codes).replace("m", ""))
        case "v":
            return variants(depth - 1)
        case "m":
            some = values(signature[1:], depth).map(Just) if signature[1] == "m" else values(signature[1:], depth)
            return st.none() | some
        case "a":
            return st.binary(max_size=20) if signature == "ay" else st.lists(values(signature[1:], depth), max_size=5)
        case "(" | "{":
            return st.tuples(*(values(member, depth) for member in members(signature)))
    signed, bits = _RANGES[code]
    return st.integers(-signed << (bits - 1), (1 << (bits - signed)) - 1)


def variants(depth: int = 2) -> st.SearchStrategy[Variant]:
    """Return values of any type, with at most *depth* variants within each other."""
    kinds = signatures() if depth > 0 else st.sampled_from([*_BASIC, "ay"])
    return kinds.flatmap(lambda code: values(code, depth).map(lambda value: Variant(code, value)))


def check_damaged(signature: str, damaged: bytes) -> None:
    """Fail unless *damaged* is refused, or is itself the encoding of a value."""
    try:
        value = unpack(signature, damaged)
    except FormatError:
        return
    assert pack(signature, value) == damaged


@given(variants())
def test_unpack_returns_what_was_packed(variant: Variant) -> None:
    assert unpack(variant.signature, pack(variant.signature, variant.value)) == variant.value
    assert unpack("v", pack("v", variant)) == variant


@given(variants())
def test_text_says_the_same_value(variant: Variant) -> None:
    assert pack("v", parse_text(format_text(variant))) == pack("v", variant)


@settings(max_examples=60)
@given(variants())
def test_every_damaged_bit_is_refused_or_another_value(variant: Variant) -> None:
    raw = pack("v", variant)
    for bit in range(min(len(raw), 100) * 8):
        at = len(raw) - 1 - bit // 8  # the offsets and types are at the end
        check_damaged("v", raw[:at] + bytes([raw[at] ^ 1 << bit % 8]) + raw[at + 1 :])
        check_damaged(variant.signature, raw[:at] + bytes([raw[at] ^ 1 << bit % 8]) + raw[at + 1 :])


@given(variants())
def test_every_truncation_is_refused_or_another_value(variant: Variant) -> None:
    raw = pack("v", variant)
    for end in range(len(raw)):
        check_damaged("v", raw[:end])
        check_damaged(variant.signature, raw[:end])
        check_damaged(variant.signature, raw[end:])


@given(signatures(), st.binary(max_size=60))
def test_any_bytes_are_refused_or_a_value(signature: str, raw: bytes) -> None:
    check_damaged(signature, raw)


@settings(max_examples=300)
@given(st.text("abvym(){}[]<>@,:'\" 0-19.\\bnothing just", max_size=30))
def test_any_text_is_refused_or_a_value(text: str) -> None:
    try:
        variant = parse_text(text)
    except InvalidNameError:
        return
    assert pack("v", parse_text(format_text(variant))) == pack("v", variant)


@given(st.text("abvymsi(){}", max_size=12))
def test_any_signature_is_refused_or_a_type(signature: str) -> None:
    try:
        check_damaged(signature, b"")
    except InvalidNameError:
        with pytest.raises(InvalidNameError):
            pack(signature, None)
