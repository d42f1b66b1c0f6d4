"""How results look: paths, sizes, tables, JSON, progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

_ESCAPES: Final = {
    7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", ord('"'): '\\"', ord("\\"): "\\\\",
}  # fmt: skip
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def quote_path(path: bytes) -> str:
    r"""Return *path* for a human and for one line, quoted as git does where it has to be.

    >>> quote_path("/etc/é".encode()), quote_path(b"/a\nb\xff")
    ('/etc/é', '"/a\\nb\\377"')
    """
    text = path.decode("utf-8", "surrogateescape")
    if text.isprintable() and not ('"' in text or "\\" in text):
        return text
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if ord(character) in _ESCAPES:
        return _ESCAPES[ord(character)]
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def printable(text: str) -> str:
    r"""Return *text*, which may be a stranger's, without what would make a terminal do things.

    >>> printable("one\n\ttwo \x1b[31m")
    'one\n\ttwo \\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    r"""Return *text*, which may be a stranger's, on one line: so that no name looks like another line, either.

    >>> one_line("one\n\ttwo \x1b[31m é")
    'one\\n\\ttwo \\x1b[31m é'
    """
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def say(text: str) -> None:
    """Talk to the user, on stderr, beside what a command prints; no name in it can look like a message of ours."""
    first, *more = printable(text).split("\n")
    print("\n".join([f"fsview: {first}", *(f"  {line.strip()}" for line in more)]), file=sys.stderr)


def size_text(size_bytes: int) -> str:
    """Return a size for humans.

    >>> size_text(1), size_text(1023), size_text(1536), size_text(5 << 30)
    ('1 byte', '1023 bytes', '1.5 KiB', '5.0 GiB')
    """
    if size_bytes == 1:
        return "1 byte"
    size, unit = float(size_bytes), 0
    while size >= 1023.95 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size_bytes} bytes" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> count_text(1, "file"), count_text(2, "file"), count_text(0, "directory")
    ('1 file', '2 files', '0 directories')
    """
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count} {noun if count == 1 else plural}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return *rows*, all of one length, as lines with aligned columns; what is in them may be a stranger's.

    >>> print(table([("a", "1"), ("long", "2")]))
    a     1
    long  2
    """
    every = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in every)
    return "\n".join(line.rstrip() for line in lines)


def json_path(path: bytes) -> str:
    """Return *path* as a JSON string can hold it: a byte that is not UTF-8 becomes U+DC80 to U+DCFF (PEP 383)."""
    return path.decode("utf-8", "surrogateescape")


def print_json(value: object) -> None:
    """Print one JSON document, in ASCII, so that it survives every locale and every name."""
    import json  # not needed by most

    print(json.dumps(value, indent=2))


def print_json_lines(values: Iterable[object]) -> None:
    """Print a JSON array with one value a line, each as it comes."""
    import json  # not needed by most

    separator = "["
    for value in values:
        sys.stdout.write(f"{separator}\n{json.dumps(value)}")
        separator = ","
    sys.stdout.write("[]\n" if separator == "[" else "\n]\n")


@contextmanager
def progress(label: str, total: int | None = None, unit: str = "") -> Iterator[Callable[[int], object]]:
    """Show on a terminal how far something is; yield what is to be called with each step's size.

    *total* is None where it isn't known; the unit "B" counts bytes. Silent where stderr is no terminal.
    """
    if not os.isatty(2):
        yield lambda step: None
        return
    from tqdm import tqdm  # slow to import

    in_bytes = unit == "B"
    with tqdm(
        desc=label, total=total, unit=unit, unit_scale=in_bytes, unit_divisor=1024 if in_bytes else 1000, leave=False
    ) as bar:
        yield bar.update


class Noticing(Generic[Item]):
    """Passes items on, as they come, and remembers whether there were any."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items, self.seen = items, False

    def __iter__(self) -> Iterator[Item]:
        for item in self._items:
            self.seen = True
            yield item
