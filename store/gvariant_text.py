"""GVariant's text format, as `--add-metadata=KEY=VARIANT` takes it and `show` prints it.

    5   -0x1f   017   1.5   inf             int32, double
    uint64 5   byte 0x20   objectpath '/a'  a keyword says the type: boolean byte int16 … signature
    'text'   "it's"   b'raw'                string, bytes with a NUL at the end
    [1, 2]   (1, 'a')   ('a',)              array, tuple
    {'k': <1>}   {'k', 1}                   dictionary, dict entry
    just 5   nothing   <'a'>   @as []       maybe, variant, any type

What the text leaves open of a type is settled by what stands beside it (store/gvariant_infer.py).

>>> parse_text("[('a', uint16 1), ('b', 2)]")
Variant(signature='a(sq)', value=[('a', 1), ('b', 2)])
>>> format_text(parse_text("{'k': <just 5>}"))
"{'k': <@mi 5>}"
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

from store import gvariant, gvariant_infer
from store.errors import InvalidNameError
from store.gvariant import NESTING_MAX, Just, Variant
from store.gvariant_infer import Node

_KEYWORDS: Final = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "handle": "h",
    "int64": "x", "uint64": "t", "double": "d", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip
_PREFIXES: Final = {code: f"{word} " for word, code in _KEYWORDS.items() if code not in "bids"}
_CONSTANTS: Final = {
    "true": gvariant_infer.boolean("true"), "false": gvariant_infer.boolean("false"),
    "inf": gvariant_infer.number("inf"), "nan": gvariant_infer.number("nan"), "nothing": gvariant_infer.nothing(),
}  # fmt: skip
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[-+.0-9][-+.0-9A-Za-z]*) | (?P<bytes>b(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))
    | (?P<word>[a-z][A-Za-z0-9]*) | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | @(?P<type>[a-z(){}]+) | (?P<mark>[\[\](){}<>,:]) | (?P<end>\Z))""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_BYTE_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_LETTERS: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}
_ESCAPED: Final = {character: "\\" + letter for letter, character in _LETTERS.items() if character}
_UNPRINTABLE: Final = frozenset(("Cc", "Cf", "Cn", "Cs"))


def parse_text(text: str) -> Variant:
    """Return the value that *text* says, with its type.

    Raises:
        InvalidNameError: it says none, or leaves its type open.
    """
    parser = _Parser(text)
    node = parser.value(NESTING_MAX)
    parser.expect_end()
    variant = gvariant_infer.resolve(node)
    gvariant.pack("v", variant)  # whether numbers are in range, texts without NUL, object paths such
    return variant


def format_text(variant: Variant) -> str:
    """Return the text of a value; parse_text makes the same value of it.

    A value that is valid in no normal form (gvariant.pack refuses it) has no text.
    """
    return _format(variant.signature, variant.value, True)


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._kind, self._token = "", ""
        self._advance()

    def _advance(self) -> str:
        """Step to the next token; return the one before."""
        taken, match = self._token, _TOKEN.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            raise self._error(self._at, "no value begins so, or a string has no end")
        self._kind, self._token, self._at = match.lastgroup, match[match.lastgroup], match.end()
        return taken

    def _error(self, at: int, what: str) -> InvalidNameError:
        return InvalidNameError(f"not a GVariant text: at character {at} of {self._text!r:.200}: {what}")

    def _unexpected(self, wanted: str) -> InvalidNameError:
        return self._error(self._at - len(self._token), f"expected {wanted}, found {self._token or 'its end'!r:.80}")

    def _is_mark(self, mark: str) -> bool:
        return self._kind == "mark" and self._token == mark

    def _expect(self, mark: str) -> None:
        if not self._is_mark(mark):
            raise self._unexpected(repr(mark))
        self._advance()

    def expect_end(self) -> None:
        """Raise unless all of the text is read."""
        if self._kind != "end":
            raise self._unexpected("its end")

    def value(self, levels: int) -> Node:
        """Read a value, which may have *levels* of values within each other."""
        if levels == 0:
            raise self._unexpected(f"no more than {NESTING_MAX} values within each other")
        if self._kind == "end" or (self._kind == "mark" and self._token not in "[(<{"):
            raise self._unexpected("a value")
        if self._kind == "mark":
            return self._bracketed(levels - 1)
        kind, token = self._kind, self._advance()
        match kind:
            case "number":
                return gvariant_infer.number(token)
            case "string":
                return gvariant_infer.string(_ESCAPE.sub(_unescape, token[1:-1]))
            case "bytes":
                return gvariant_infer.bytestring(_BYTE_ESCAPE.sub(_unescape_byte, _encode(token[2:-1])))
            case "type":
                gvariant.parse_signature(token)
                return gvariant_infer.typed(token, self.value(levels - 1))
        return self._word(token, levels - 1)

    def _word(self, word: str, levels: int) -> Node:
        if word in _KEYWORDS:
            return gvariant_infer.typed(_KEYWORDS[word], self.value(levels))
        if word == "just":
            return gvariant_infer.just(self.value(levels))
        if word not in _CONSTANTS:
            raise InvalidNameError(f"not a GVariant text: unknown keyword {word!r:.80}; a text needs quotes of its own")
        return _CONSTANTS[word]

    def _bracketed(self, levels: int) -> Node:
        bracket = self._advance()
        match bracket:
            case "[":
                return gvariant_infer.array(self._items("]", levels))
            case "(":
                return self._tuple(levels)
            case "<":
                node = self.value(levels)
                self._expect(">")
                return gvariant_infer.variant(node)
        return self._dictionary(levels)

    def _items(self, close: str, levels: int) -> list[Node]:
        """Read values with commas between them, then *close*."""
        items: list[Node] = []
        while not self._is_mark(close):
            if items:
                self._expect(",")
            items.append(self.value(levels))
        self._advance()
        return items

    def _tuple(self, levels: int) -> Node:
        if self._is_mark(")"):
            return gvariant_infer.tuple_of(self._items(")", levels))
        first = self.value(levels)
        self._expect(",")  # also behind the only member
        return gvariant_infer.tuple_of([first, *self._items(")", levels)])

    def _dictionary(self, levels: int) -> Node:
        pairs: list[tuple[Node, Node]] = []
        while not self._is_mark("}"):
            if pairs:
                self._expect(",")
            key = self.value(levels)
            if not pairs and self._is_mark(","):
                self._advance()
                entry = (key, self.value(levels))
                self._expect("}")
                return gvariant_infer.dictionary([entry], is_entry=True)
            self._expect(":")
            pairs.append((key, self.value(levels)))
        self._advance()
        return gvariant_infer.dictionary(pairs)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidNameError(f"not a GVariant text, which is UTF-8: {text!r:.200}") from None


def _unescape(match: re.Match[str]) -> str:
    escape = match[1]
    if escape[0] not in "uU":
        return _LETTERS.get(escape, escape)
    code = int(escape[1:] or "0", 16)
    if not 0 < code < 0x110000 or 0xD800 <= code < 0xE000:
        raise InvalidNameError(f"not a GVariant text: {match[0]} is no character")
    return chr(code)


def _unescape_byte(match: re.Match[bytes]) -> bytes:
    escape = match[1].decode("latin-1")
    if escape[0] in "01234567":
        return bytes([int(escape, 8) & 0xFF])
    return _LETTERS.get(escape, escape).encode("latin-1")


def _format(signature: str, value: Any, is_typed: bool) -> str:
    """Return the text of a value; unless *is_typed*, its type is said by what stands before it."""
    code = signature[0]
    match code:
        case "v":
            return f"<{_format(value.signature, value.value, True)}>"
        case "s":
            return _quote(value)
        case "o" | "g":
            return f"{_PREFIXES[code] if is_typed else ''}{_quote(value)}"
        case "b":
            return "true" if value else "false"
        case "d":
            return _format_float(value)
        case "m":
            return _format_maybe(signature, value, is_typed)
        case "a":
            return _format_array(signature, value, is_typed)
        case "(" | "{":
            items = _format_members(signature, value, is_typed)
            return f"({items[0]},)" if code == "(" and len(items) == 1 else code + ", ".join(items) + signature[-1]
    return f"{_PREFIXES.get(code, '') if is_typed else ''}{f'0x{value:02x}' if code == 'y' else value}"


def _format_members(signature: str, value: tuple[Any, ...], is_typed: bool) -> list[str]:
    types = gvariant.members(signature)
    return [_format(member, item, is_typed) for member, item in zip(types, value, strict=True)]


def _format_float(value: float) -> str:
    text = f"{value:.17g}"
    return text if any(mark in text for mark in ".en") else text + ".0"


def _format_maybe(signature: str, value: Any, is_typed: bool) -> str:
    text = "nothing"
    if value is not None:
        text = _format(signature[1:], value.value if isinstance(value, Just) else value, False)
        # "just" is needed only to tell a nothing within from a nothing.
        text = "just " + text if text.endswith("nothing") else text
    return f"@{signature} {text}" if is_typed else text


_HEX_BYTES: Final = [f"0x{byte:02x}" for byte in range(256)]


def _format_array(signature: str, value: list[Any] | bytes, is_typed: bool) -> str:
    """Return the text of an array, where only the first element says its type."""
    if isinstance(value, bytes) and value.find(b"\0") == len(value) - 1 >= 0:
        return _format_bytestring(value[:-1])
    if isinstance(value, bytes):
        texts = [_HEX_BYTES[byte] for byte in value]
        texts[:1] = [_format("y", byte, is_typed) for byte in value[:1]]
        return f"{f'@{signature} ' if is_typed and not texts else ''}[{', '.join(texts)}]"
    is_dictionary = signature[1] == "{"
    texts = []
    for index, item in enumerate(value):
        is_first = is_typed and index == 0
        if is_dictionary:
            texts.append(": ".join(_format_members(signature[1:], item, is_first)))
        else:
            texts.append(_format(signature[1:], item, is_first))
    prefix = f"@{signature} " if is_typed and not texts else ""
    return f"{prefix}{{{', '.join(texts)}}}" if is_dictionary else f"{prefix}[{', '.join(texts)}]"


def _format_bytestring(raw: bytes) -> str:
    quote = '"' if b"'" in raw else "'"
    return f"b{quote}{''.join(map(_escape_byte, raw))}{quote}"


def _escape_byte(byte: int) -> str:
    character = chr(byte)
    if character in '\\"':
        return "\\" + character
    if character in _ESCAPED and character != "\a":
        return _ESCAPED[character]
    return character if 0x20 <= byte < 0x7F else f"\\{byte:03o}"


def _quote(text: str) -> str:
    quote = '"' if "'" in text else "'"
    return quote + "".join(_escape(character, quote) for character in text) + quote


def _escape(character: str, quote: str) -> str:
    if character in (quote, "\\"):
        return "\\" + character
    if unicodedata.category(character) not in _UNPRINTABLE:
        return character
    code = ord(character)
    return _ESCAPED.get(character) or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
