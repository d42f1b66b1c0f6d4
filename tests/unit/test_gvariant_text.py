"""GVariant's text format: what a text means, and what is said of one that means nothing."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from store import gvariant_infer, gvariant_text
from store.errors import InvalidNameError
from store.gvariant import Just, Variant, pack
from store.gvariant_text import format_text, parse_text


@pytest.mark.parametrize("module", [gvariant_text, gvariant_infer])
def test_documented_texts(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


# What GLib 2.74 makes of a text: type, bytes, and the text that it prints.
TEXTS = [
    ("  5 ", "i", "05000000", "5"),
    ("+5", "i", "05000000", "5"),
    ("-0", "i", "00000000", "0"),
    ("0x1e", "i", "1e000000", "30"),
    ("010", "i", "08000000", "8"),
    ("int64 0xffffffffff", "x", "ffffffffff000000", "int64 1099511627775"),
    ("handle 3", "h", "03000000", "handle 3"),
    ("@y 0x41", "y", "41", "byte 0x41"),
    ("boolean true", "b", "01", "true"),
    ("3.", "d", "0000000000000840", "3.0"),
    ("1e16", "d", "0080e03779c34143", "10000000000000000.0"),
    ("100000000000000000.0", "d", "00a0d88557347643", "1e+17"),
    ("0.1", "d", "9a9999999999b93f", "0.10000000000000001"),
    ("double 010", "d", "0000000000002440", "10.0"),
    ("-0x1e", "d", "0000000000003ec0", "-30.0"),  # an e makes it a double, as in GLib
    ("-inf", "d", "000000000000f0ff", "-inf"),
    ("nan", "d", "000000000000f87f", "nan"),
    ("'a\"b'", "s", "61226200", "'a\"b'"),
    ('"it\'s"', "s", "6974277300", '"it\'s"'),
    (r"'\x41\t\\'", "s", "783431095c00", r"'x41\t\\'"),
    (r"'\u00e9\U0001f600\u200b'", "s", "c3a9f09f9880e2808b00", r"'é😀\u200b'"),
    ("'a\\\nb'", "s", "616200", "'ab'"),
    ("objectpath '/a'", "o", "2f6100", "objectpath '/a'"),
    ("@g 'ii'", "g", "696900", "signature 'ii'"),
    ("b'raw'", "ay", "72617700", "b'raw'"),
    ("b''", "ay", "00", "b''"),
    (r"b'\377\1x'", "ay", "ff017800", r"b'\377\001x'"),
    (r"b'a\000b'", "ay", "6100", "b'a'"),
    ("b\"a'b\"", "ay", "61276200", "b\"a'b\""),
    ("[byte 1, 2]", "ay", "0102", "[byte 0x01, 0x02]"),
    ("@ay [65, 0]", "ay", "4100", "b'A'"),
    ("@as []", "as", "", "@as []"),
    ("[1, 2.5]", "ad", "000000000000f03f0000000000000440", "[1.0, 2.5]"),
    ("[@u 5, 6]", "au", "0500000006000000", "[uint32 5, 6]"),
    ("@ai [@u 5]", "ai", "05000000", "[5]"),
    ("[[], [1]]", "aai", "010000000004", "[@ai [], [1]]"),
    ("[@ay [], b'q']", "aay", "71000002", "[@ay [], b'q']"),
    ("[1, just 2]", "ami", "01000000020000000408", "[@mi 1, 2]"),
    ("[nothing, 1]", "ami", "010000000004", "[@mi nothing, 1]"),
    ("just just 5", "mmi", "0500000000", "@mmi 5"),
    ("@mmi just nothing", "mmi", "00", "@mmi just nothing"),
    ("[just nothing, nothing, just just 3]", "ammi", "000000000300000000010409", "[@mmi just nothing, nothing, 3]"),
    ("@ms 'x'", "ms", "780000", "@ms 'x'"),
    ("()", "()", "00", "()"),
    ("('a',)", "(s)", "6100", "('a',)"),
    ("('a', uint16 3, [1,2])", "(sqai)", "61000300010000000200000002", "('a', uint16 3, [1, 2])"),
    ("[(1, nothing), (just 2, '')]", "a(mims)", "010000000400000002000000000004050f",
     "[(@mi 1, @ms nothing), (2, '')]"),
    ("{'a', 1}", "{si}", "610000000100000002", "{'a', 1}"),
    ("@a{sv} {}", "a{sv}", "", "@a{sv} {}"),
    ("{int64 1: '', 2: ''}", "a{xs}", "010000000000000000000000000000000200000000000000000919", "{int64 1: '', 2: ''}"),
    ("[{'a': 1}, {}]", "aa{si}", "6100000001000000020900000a0c", "[{'a': 1}, {}]"),
    ("{'k': @as []}", "a{sas}", "6b000203", "{'k': @as []}"),
    ("<<1>>", "v", "0100000000690076", "<<1>>"),
    ("[<1>, <'x'>]", "av", "010000000069000078000073060c", "[<1>, <'x'>]"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "signature", "raw", "printed"), TEXTS)
def test_text_means_what_it_means_to_glib(text: str, signature: str, raw: str, printed: str) -> None:
    variant = parse_text(text)
    assert (variant.signature, pack(signature, variant.value).hex()) == (signature, raw)
    assert format_text(variant) == printed
    assert pack("v", parse_text(printed)) == pack("v", variant)


REFUSED = [
    ("", "expected a value"),
    ("(1)", r"at character 2 of '\(1\)': expected ','"),
    ("(1,2,)", "at character 5"),
    ("[1,]", "expected a value, found ']'"),
    ("[1 2]", "expected ','"),
    ("1 2", "expected its end"),
    ("{1:2", "expected ','"),
    ("{1 2}", "expected ':'"),
    ("<1", "expected '>'"),
    ("'x", "a string has no end"),
    ("hello", "unknown keyword 'hello'; a text needs quotes"),
    ("1_0", "character 1"),
    ("٣", "character 0"),
    ("@ 5", "character 0"),
    ("@r 5", "not a GVariant type"),
    ("just", "expected a value"),
    ("{}", "its type is open"),
    ("[]", "its type is open"),
    ("nothing", "its type is open"),
    ("0xffffffff", "no GVariant i: 4294967295"),
    ("byte 300", "no GVariant y: 300"),
    ("uint16 -1", "no GVariant q: -1"),
    ("@ay [256]", "not of type ay"),
    ("int32 99999999999999999999999999999999999999", "not of type i"),
    ("double 0x" + "f" * 500, "not of type d"),
    ("1e999", "not of type d"),
    ("1E5", "not of type i"),
    ("08", "not of type i"),
    ("@i 5.5", "5.5 is not of type i"),
    ("string 5", "5 is not of type s"),
    ("uint16 'x'", "'x' is not of type q"),
    ("@s nothing", "nothing is not of type s"),
    ("@i just 1", "not of type i"),
    ("@(ii) (1,)", "a tuple of 1 is not of type"),
    ("objectpath 'a'", "no GVariant o"),
    ("signature 'mi'", "no GVariant g"),
    (r"'\u12'", "no character"),
    (r"'\ud800'", "no character"),
    (r"'\u0000'", "no character"),
    ("'a\0b'", "no GVariant s"),
    ("b'\udcff'", "UTF-8"),
    ("'\udcff'", "no GVariant s"),
    ("{<1>: 2}", "basic type"),
    ("{'x': 1, 2: 3}", "a string and a number side by side"),
    ("[uint32 1, int32 2]", "u and i side by side"),
    ("['a', 1]", "a string and a number"),
    ("{'a': 1, 'b': 'c'}", "'c' is not of type i"),
    ("[" * 100_000, "no more than 64"),
    ("<" * 100_000, "no more than 64"),
    ("just " * 100_000, "no more than 64"),
    ("int32 " * 100_000, "no more than 64"),
    ("@" + "a" * 100_000 + "i []", "GVariant type"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text[:30] for text, _ in REFUSED])
def test_text_that_means_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidNameError, match=message) as caught:
        parse_text(text)
    assert len(str(caught.value)) < 500


def test_nested_maybes_are_told_apart() -> None:
    assert [parse_text(f"@mmi {text}").value for text in ("nothing", "just nothing", "5")] == [
        None,
        Just(None),
        Just(5),
    ]


def test_bytes_without_a_nul_at_their_end_are_printed_as_numbers() -> None:
    assert format_text(Variant("ay", b"")) == "@ay []"
    assert format_text(Variant("ay", b"a\0b\0")) == "[byte 0x61, 0x00, 0x62, 0x00]"
    assert format_text(Variant("ay", b'\n\a"\\\x7f\0')) == "b'\\n\\007\\\"\\\\\\177'"
