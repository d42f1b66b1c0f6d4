"""Lines that match, in contents of any size: what is in memory of one is a block and a line, however long both are.

A line of up to LINE_BYTES_MAX is looked at whole. A longer one is searched in pieces that overlap: what matches in it
is found if it has up to PIECE_BYTES. It is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from store.content import CHUNK_BYTES, Content
from store.errors import InvalidNameError

BINARY_SAMPLE_BYTES: Final = 8000  # as git: a NUL in these makes a file binary
LINE_BYTES_MAX: Final = 8 << 20
PIECE_BYTES: Final = 1 << 20  # how much of a long line is searched again with what follows
# Whether a line matches can be told from the whole block only if nothing in the pattern sees where the line ends.
_LOOKS_AROUND = re.compile(rb"\(\?|\\[AZ]|[*+?}]\+")


class Line(NamedTuple):
    """A line that matches; the text is None if it is too long to be shown."""

    number: int
    text: bytes | None


BINARY: Final = Line(0, None)


def compile_pattern(*texts: bytes, fixed: bool = False, ignore_case: bool = False) -> re.Pattern[bytes]:
    """Return the pattern for one line, of which any text may match: Python regular expressions, or *fixed* texts.

    Raises:
        InvalidNameError: one is no regular expression.
    """
    flags = re.MULTILINE | (re.IGNORECASE if ignore_case else 0)
    for text in texts:
        try:
            re.compile(re.escape(text) if fixed else text, flags)
        except (re.error, OverflowError, RecursionError) as error:
            shown = text.decode("utf-8", "backslashreplace")
            raise InvalidNameError(
                f"{shown!r:.200} is not a regular expression: {error}; -F takes it as it is"
            ) from None
    if fixed:
        return re.compile(b"|".join(map(re.escape, texts)), flags)
    return re.compile(texts[0] if len(texts) == 1 else b"|".join(b"(?:%b)" % text for text in texts), flags)


def is_binary(content: Content) -> bool:
    """Whether contents are no text."""
    return b"\0" in content.read(0, BINARY_SAMPLE_BYTES)


def matching_lines(content: Content, pattern: re.Pattern[bytes]) -> Iterator[Line]:
    """Yield the lines that match, as they are found; of a binary file that has one BINARY, and no more."""
    lines = _matching_lines(content, pattern)
    if is_binary(content):
        yield from (BINARY for _ in islice(lines, 1))
    else:
        yield from lines


def _matching_lines(content: Content, pattern: re.Pattern[bytes]) -> Iterator[Line]:
    needs_lines = _LOOKS_AROUND.search(pattern.pattern) is not None
    number, long_line = 1, None
    for block, is_whole in _blocks(content):
        if not is_whole or long_line is not None:
            long_line = long_line or _LongLine(pattern)
            if long_line.matches(block, is_last=is_whole):
                yield Line(number, None)
            long_line = None if is_whole else long_line
        elif needs_lines or pattern.search(block):
            for index, line in enumerate(_lines(block)):
                if pattern.search(line):
                    yield Line(number + index, line)
        number += block.count(b"\n")


class _LongLine:
    """A line that comes in pieces."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern, self._rest, self._is_first, self._is_found = pattern, b"", True, False

    def matches(self, data: bytes, *, is_last: bool) -> bool:
        """Take the next piece; return whether the line matches, and was not said to before.

        What matches up to the end of what is here is searched again with the next piece: "$" would match there, too.
        """
        if self._is_found:
            return False
        piece = self._rest + data.removesuffix(b"\n")
        match = self._pattern.search(piece, 0 if self._is_first else 1)  # so that "^" doesn't match where it begins
        is_sure = match is not None and (is_last or match.end() < len(piece))
        self._is_found = is_sure or (match is not None and len(piece) - match.start() > LINE_BYTES_MAX)
        keep = max(len(piece) - PIECE_BYTES, 0)
        if match is not None:
            keep = max(min(keep, match.start() - 1), 0)
        self._rest, self._is_first = piece[keep:], self._is_first and keep == 0
        return self._is_found


def _blocks(content: Content) -> Iterator[tuple[bytes, bool]]:
    """Yield the contents in blocks of whole lines; or, with False, in pieces of a line that is too long.

    The rest of such a line is a block of its own, with True: that ends it.
    """
    rest: list[bytes] = []
    offset = size = 0
    is_long = False
    while data := content.read(offset, CHUNK_BYTES):
        offset += len(data)
        at = data.find(b"\n") + 1 if is_long else data.rfind(b"\n") + 1
        if at:
            yield b"".join((*rest, data[:at])), True
            rest, size = [], 0
            if is_long:  # there may be more lines in this chunk
                is_long = False
                data = data[at:]
                at = data.rfind(b"\n") + 1
                if at:
                    yield data[:at], True
        rest.append(data[at:])
        size += len(data) - at
        if is_long or size > LINE_BYTES_MAX:
            is_long = True
            yield b"".join(rest), False
            rest, size = [], 0
    if any(rest) or is_long:
        yield b"".join(rest), True


def _lines(block: bytes) -> list[bytes]:
    lines = block.split(b"\n")
    return lines if lines[-1] else lines[:-1]
