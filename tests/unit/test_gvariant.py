"""GVariant's encoding: known bytes, the widths of offsets, and what is refused."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from store import gvariant, gvariant_framing
from store.errors import FormatError, InvalidNameError
from store.gvariant import Just, Variant, members, pack, parse_signature, unpack
from store.gvariant_framing import offset_width


@pytest.mark.parametrize("module", [gvariant, gvariant_framing])
def test_documented_bytes(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


# What GLib 2.74 serialises.
ENCODINGS: list[tuple[str, Any, str]] = [
    ("y", 255, "ff"),
    ("b", True, "01"),
    ("n", -2, "feff"),
    ("q", 65535, "ffff"),
    ("i", -1, "ffffffff"),
    ("h", 3, "03000000"),
    ("x", -(2**63), "0000000000000080"),
    ("t", 2**64 - 1, "ffffffffffffffff"),
    ("d", 1.5, "000000000000f83f"),
    ("s", "", "00"),
    ("s", "é", "c3a900"),
    ("o", "/a", "2f6100"),
    ("g", "a{sv}", "617b73767d00"),
    ("v", Variant("v", Variant("i", 1)), "0100000000690076"),
    ("()", (), "00"),
    ("ay", b"", ""),
    ("ay", b"raw", "726177"),
    ("as", [], ""),
    ("as", ["x", "yy", ""], "78007979000002" + "0506"),
    ("ab", [True, False], "0100"),
    ("aai", [[], [1]], "010000000004"),
    ("(qsy)", (1, "a", 2), "01006100" + "0204"),
    ("(ixy)", (1, 2, 3), "0100000000000000" + "0200000000000000" + "0300000000000000"),
    ("(say)", ("ab", b"\1"), "616200" + "01" + "03"),
    ("((si)x)", (("a", 1), 2), "6100000001000000" + "02" + "00000000000000" + "0200000000000000" + "09"),
    ("{si}", ("a", 1), "610000000100000002"),
    ("ms", None, ""),
    ("ms", "x", "780000"),
    ("mu", 9, "09000000"),
    ("mmi", Just(5), "0500000000"),
    ("mmi", Just(None), "00"),
    ("mmi", None, ""),
    ("ami", [1, 2], "01000000020000000408"),
    ("av", [Variant("i", 1), Variant("i", 2)], "0100000000690000020000000069060e"),
    ("a(si)", [("a", 1), ("bc", -2)], "610000000100000002000000" + "62630000feffffff03" + "0915"),
]


@pytest.mark.parametrize(("signature", "value", "expected"), ENCODINGS)
def test_value_has_the_bytes_of_glib(signature: str, value: Any, expected: str) -> None:
    assert pack(signature, value).hex() == expected
    assert unpack(signature, bytes.fromhex(expected)) == value


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_offsets_widen_where_the_whole_no_longer_fits(count: int) -> None:
    widths = set()
    for limit in (1 << 8, 1 << 16):
        for size in range(limit - 3 * count - 3, limit + 3):
            texts = ["s"] * (count - 1)
            texts.append("s" * (size - 2 * (count - 1) - 1))
            raw = pack("as", texts)
            width = next(width for width in (1, 2, 4) if size + width * count < 256**width)
            widths.add(width)
            assert len(raw) == size + width * count
            assert unpack("as", raw) == texts
    assert widths == {1, 2, 4}


def test_offset_width_is_the_narrowest() -> None:
    assert [offset_width(254, 1), offset_width(255, 1), offset_width(65533, 1), offset_width(65534, 1)] == [1, 2, 2, 4]
    assert [offset_width(255, 0), offset_width(256, 0), offset_width(65535, 0), offset_width(65536, 0)] == [1, 2, 2, 4]
    assert [offset_width(2**32 - 5, 1), offset_width(2**32 - 4, 1)] == [4, 8]


def _variants_within(depth: int) -> bytes:
    return b"\0\0y" + b"\0v" * depth


HOSTILE = [
    ("i", b""),
    ("i", b"\0\0\0"),
    ("i", b"\0\0\0\0\0"),
    ("b", b"\2"),
    ("s", b""),
    ("s", b"a"),
    ("s", b"a\0b\0"),
    ("s", b"\xff\0"),
    ("s", b"\xed\xa0\x80\0"),  # a surrogate
    ("s", b"\xc0\x80\0"),  # NUL, overlong
    ("o", b"a\0"),
    ("o", b"/a/\0"),
    ("g", b"mi\0"),
    ("g", b"(\0"),
    ("()", b"\1"),
    ("()", b""),
    ("()", b"\0\0"),
    ("as", b"\0"),  # ends before its table
    ("as", b"\1"),
    ("as", b"\xff"),
    ("as", b"a\0\2\2\2"),  # an element without its NUL
    ("as", b"a\0\3\2"),  # beyond the table
    ("as", b"a\0b\0\4\2\4"),  # backwards
    ("as", b"a\0" * 2 + b"\2\0\4\0"),  # offsets of two bytes where one is enough
    ("as", b"a" * 300 + b"\0" + b"\xff\xff"),
    ("ai", b"\0" * 5),
    ("aai", b"\0\0\0\0\1\4"),
    ("(si)", b"a\0\1\0\1\0\0\0\2"),  # padding
    ("(si)", b"a\0\0\0\1\0\0\0\0\2"),  # more than its members
    ("(si)", b"a\0\0\0\1\0\0\0\7"),
    ("(iy)", b"\0\0\0\0\1\0\0\1"),  # padding at the end
    ("(iy)", b"\0\0\0\0\1"),
    ("(ss)", b""),
    ("ms", b"x\0\1"),
    ("ms", b"\0"),
    ("mi", b"\0"),
    ("v", b""),
    ("v", b"\0"),
    ("v", b"\1y"),
    ("v", b"\1\0"),
    ("v", b"\1\0yy"),
    ("v", b"\1\0z"),
    ("v", b"\1\0r"),
    ("v", b"\1\0*"),
    ("v", b"\1\0\xe9"),
    ("v", b"\1\0(y"),
    ("v", b"\1\0{y}"),
    ("v", b"\1\0{vy}"),
    ("v", b"\1\0{yyy}"),
    ("v", b"\1\0a"),
    ("v", b"\0" + b"a" * 100 + b"y"),
    ("v", b"\0" + b"a" * 1_000_000 + b"y"),
    ("v", b"\0" + b"(" * 1_000_000),
    ("v", b"\0(" + b"y" * 1_000_000 + b")"),
    ("v", _variants_within(65)),
    ("v", _variants_within(1_000_000)),
    ("(a{sv}aya(say)sstayay)", b""),
    ("(a{sv}aya(say)sstayay)", b"\xff" * 1000),
    ("a(say)", b"\xff" * 100_000),
    ("aaaaaaaas", b"\1" * 100_000),
]


@pytest.mark.parametrize(("signature", "raw"), HOSTILE, ids=[f"{code}-{raw[:12].hex()}" for code, raw in HOSTILE])
def test_bytes_that_are_no_normal_form_are_refused(signature: str, raw: bytes) -> None:
    with pytest.raises(FormatError, match=r"normal form|nested"):
        unpack(signature, raw)


def test_refusal_says_where() -> None:
    with pytest.raises(FormatError, match="at byte 2: padding is zero"):
        unpack("(si)", b"a\0\1\0\1\0\0\0\2")


def test_nesting_has_a_limit_both_ways() -> None:
    value: Any = Variant("y", 0)
    for _ in range(63):
        value = Variant("v", value)
    assert unpack("v", pack("v", value)) == value
    with pytest.raises(InvalidNameError, match="nested"):
        pack("v", Variant("v", value))


MISFITS: list[tuple[str, Any]] = [
    ("y", 256),
    ("y", -1),
    ("y", True),
    ("y", 1.0),
    ("i", 2**31),
    ("t", -1),
    ("d", "1"),
    ("d", 10**400),
    ("b", 1),
    ("s", b"a"),
    ("s", "a\0b"),
    ("s", "\udc80"),
    ("o", ""),
    ("o", "/a/"),
    ("g", "mi"),
    ("v", 1),
    ("v", Variant("ii", 1)),
    ("ay", [1]),
    ("ai", (1,)),
    ("as", "ab"),
    ("(ii)", (1,)),
    ("(i)", [1]),
    ("{sv}", ("a", 1)),
    ("mmi", 5),
]


@pytest.mark.parametrize(("signature", "value"), MISFITS)
def test_value_of_another_type_is_not_packed(signature: str, value: Any) -> None:
    with pytest.raises(InvalidNameError, match="GVariant"):
        pack(signature, value)


@pytest.mark.parametrize(
    "signature", ["", "ii", "z", "a", "m", "(", "(i", "()i", "{", "{}", "{s}", "{vs}", "{sss}", "é", "a}"]
)
def test_signature_is_one_complete_type(signature: str) -> None:
    with pytest.raises(InvalidNameError, match=r"GVariant|dict entry"):
        parse_signature(signature)


def test_members_of_a_tuple_are_its_types() -> None:
    assert members("(a{sv}aya(say)sstayay)") == ["a{sv}", "ay", "a(say)", "s", "s", "t", "ay", "ay"]
    assert members("()") == []
    assert members("{s(ii)}") == ["s", "(ii)"]
