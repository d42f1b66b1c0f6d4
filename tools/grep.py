"""`fsview grep`: search the files of commits. What equal files or directories hold is read and searched once."""

from __future__ import annotations

import re
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import click

from store.content import CHUNK_BYTES, Content, open_content
from store.database import Reading
from store.errors import InvalidNameError, NotFoundError
from store.listing import Entry
from store.repository import Repository
from store.revisions import Place, find_place, split_path
from store.schema import FileId, TreeId
from store.tree import find, load_listing
from tools.parameters import PATHS, REVISION, PathsCommand, RevisionType, repository_option
from tools.render import Noticing, json_path, print_json_lines, quote_path

_BINARY_SAMPLE_BYTES: Final = 8000  # as git: a NUL in these makes a file binary
_REMEMBERED_BYTES_MAX: Final = 64 << 20
# Whether a line matches can be told from the whole block only if nothing in the pattern sees where the line ends.
_LOOKS_AROUND = re.compile(rb"\(\?|\\[AZ]|[*+?}]\+")


@dataclass(frozen=True, slots=True)
class Found:
    """What matched in one content: (number, line) of each line; none of a binary file, whose lines are not told."""

    is_binary: bool
    lines: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Match:
    """A file that has matches, by the revision as it was given, and the path."""

    revision: str
    path: bytes
    found: Found


def compile_pattern(*texts: bytes, fixed: bool = False, ignore_case: bool = False) -> re.Pattern[bytes]:
    """Return the pattern for one line, of which any text may match: Python regular expressions, or *fixed* texts.

    Raises:
        InvalidNameError: one is no regular expression.
    """
    flags = re.MULTILINE | (re.IGNORECASE if ignore_case else 0)
    for text in texts:
        try:
            re.compile(re.escape(text) if fixed else text, flags)
        except re.error as error:
            shown = text.decode("utf-8", "backslashreplace")
            raise InvalidNameError(f"{shown!r} is not a regular expression: {error}; -F takes it as it is") from None
    if fixed:
        return re.compile(b"|".join(map(re.escape, texts)), flags)
    return re.compile(texts[0] if len(texts) == 1 else b"|".join(b"(?:%b)" % text for text in texts), flags)


@dataclass
class Search:
    """One search, over any number of trees; remembers what it has seen."""

    repository: Repository
    reading: Reading
    pattern: re.Pattern[bytes]
    _found: dict[int, Found | None] = field(default_factory=dict)  # by file id; None: no match
    _empty_trees: set[int] = field(default_factory=set)  # tree ids below which nothing matches
    _remembered_bytes: int = 0

    def matches(self, path: bytes, root: Entry) -> Iterator[tuple[bytes, Found]]:
        """Yield (path, what was found) of each file at and below *root* with matches, by name."""
        if not root.is_directory:
            found = self.search_file(root)
            if found:
                yield path, found
            return
        stack = [_Frame(path, root.id, self._entries(root.id))]
        while stack:
            frame = stack[-1]
            entry = next(frame.entries, None)
            if entry is None:
                self._leave(stack)
            elif not entry.is_directory:
                found = self.search_file(entry)
                if found:
                    frame.has_match = True
                    yield frame.path + b"/" + entry.name, found
            elif entry.id not in self._empty_trees:
                stack.append(_Frame(frame.path + b"/" + entry.name, entry.id, self._entries(entry.id)))

    def _entries(self, tree_id: int) -> Iterator[Entry]:
        return iter(load_listing(self.reading, TreeId(tree_id)))

    def _leave(self, stack: list[_Frame]) -> None:
        frame = stack.pop()
        if not frame.has_match:
            self._empty_trees.add(frame.tree_id)
        elif stack:
            stack[-1].has_match = True

    def search_file(self, entry: Entry) -> Found | None:
        """Return what matches in a file, which is read unless it was before; None if nothing does, or a symlink."""
        if not stat.S_ISREG(entry.mode):
            return None
        if entry.id in self._found:
            return self._found[entry.id]
        content = open_content(self.repository, self.reading, FileId(entry.id))
        try:
            found = _search_content(content, self.pattern)
        finally:
            content.close()
        size = sum(len(line) + 100 for _, line in found.lines) if found else 0
        if self._remembered_bytes + size <= _REMEMBERED_BYTES_MAX:  # else it is read again where it stands next
            self._found[entry.id], self._remembered_bytes = found, self._remembered_bytes + size
        return found


@dataclass
class _Frame:
    path: bytes
    tree_id: int
    entries: Iterator[Entry]
    has_match: bool = False


def _search_content(content: Content, pattern: re.Pattern[bytes]) -> Found | None:
    is_binary = b"\0" in content.read(0, _BINARY_SAMPLE_BYTES)
    needs_lines = _LOOKS_AROUND.search(pattern.pattern) is not None
    lines: list[tuple[int, bytes]] = []
    number = 1
    for block in _blocks(content):
        if needs_lines or pattern.search(block):
            lines += [(number + index, line) for index, line in enumerate(_lines(block)) if pattern.search(line)]
            if lines and is_binary:
                return Found(True, ())
        number += block.count(b"\n")
    return Found(False, tuple(lines)) if lines else None


def _blocks(content: Content) -> Iterator[bytes]:
    """Yield the content in blocks of whole lines."""
    rest: list[bytes] = []
    offset = 0
    while data := content.read(offset, CHUNK_BYTES):
        offset += len(data)
        at = data.rfind(b"\n") + 1
        if at:
            yield b"".join((*rest, data[:at]))
            rest = []
        rest.append(data[at:])
    if any(rest):
        yield b"".join(rest)


def _lines(block: bytes) -> list[bytes]:
    lines = block.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def grep(search: Search, places: list[tuple[str, Place]], paths: list[bytes]) -> Iterator[Match]:
    """Yield the files with matches in *places*, (revision, what was named in it); with *paths*, only below them.

    Raises:
        NotFoundError: a path is in none of the places.
    """
    starts = [
        (text, place, path, _find_or_none(search.reading, place, path)) for text, place in places for path in paths
    ]
    for path in paths:
        if all(entry is None for _, _, other, entry in starts if other == path):
            raise NotFoundError(f"{quote_path(path)} exists in none of {', '.join(text for text, _ in places)}")
    for text, place, path, entry in starts:
        if entry is not None:
            whole = b"".join(b"/" + name for name in path.split(b"/") if name not in (b"", b"."))
            for where, found in search.matches(place.path + whole, entry):
                yield Match(text, where, found)


def _find_or_none(reading: Reading, place: Place, path: bytes) -> Entry | None:
    try:
        return find(reading, place.entry, path)
    except NotFoundError:
        return None


def _print_matches(matches: Iterator[Match], *, form: str | None, numbers: bool) -> bool:
    """Print as `git grep` does; return whether there was any."""
    write, any_match = sys.stdout.buffer.write, False
    for match in matches:
        any_match = True
        name = f"{match.revision}:{quote_path(match.path)}".encode("utf-8", "surrogateescape")
        if form == "names":
            write(name + b"\n")
        elif match.found.is_binary:
            write(b"Binary file " + name + b" matches\n")
        elif form == "counts":
            write(b"%b:%d\n" % (name, len(match.found.lines)))
        else:
            for number, line in match.found.lines:
                write(b"%b:%d:%b\n" % (name, number, line) if numbers else b"%b:%b\n" % (name, line))
    return any_match


def _match_json(match: Match) -> dict[str, object]:
    lines = [{"number": number, "text": json_path(line)} for number, line in match.found.lines]
    is_binary = match.found.is_binary
    return {"revision": match.revision, "path": json_path(match.path), "binary": is_binary, "lines": lines}


EXAMPLES = """
\b
Examples:
  fsview grep root: debian/12 -- /etc             one directory of one commit
  fsview grep -l -F 10.0.0.1 main main^ main~2    which of three commits have it, and where
  fsview grep -n 'version *= *"[0-9.]+"' v1:/src  below REVISION:/PATH
  fsview grep -e -x main                          a pattern that begins with "-"

\b
PATTERN is a Python regular expression, searched for in the bytes of each line; -i knows the case of ASCII letters.
Symlinks are not searched. Exit status: 0 if something matched, 1 if nothing did.
"""


@click.command("grep", cls=PathsCommand, epilog=EXAMPLES)
@click.argument("first", metavar="PATTERN", required=False, type=RevisionType(only_with="patterns"))
@click.argument("revisions", metavar="REVISION... [-- PATH...]", nargs=-1, type=REVISION)
@click.option("-e", "patterns", multiple=True, metavar="PATTERN", is_eager=True,
              help="A pattern, of which any may match; then all arguments are revisions.")  # fmt: skip
@click.option("-i", "--ignore-case", is_flag=True, help="Take upper and lower case for the same.")
@click.option("-F", "--fixed-strings", "fixed", is_flag=True, help="PATTERN is plain text.")
@click.option("-n", "--line-number", "numbers", is_flag=True, help="Show the numbers of lines.")
@click.option("-l", "--files-with-matches", "form", flag_value="names", help="Print the names of files alone.")
@click.option("-c", "--count", "form", flag_value="counts", help="Print how many lines match in each file.")
@click.option("--json", "form", flag_value="json", help="A JSON array, one object a file.")
@repository_option
def grep_command(
    repository: Repository,
    first: str | None,
    revisions: tuple[str, ...],
    patterns: tuple[str, ...],
    ignore_case: bool,
    fixed: bool,
    numbers: bool,
    form: str | None,
) -> None:
    """Print the lines that match PATTERN in the files of REVISIONs (or REVISION:/PATH), or below PATHs in them."""
    context = click.get_current_context()
    if first is not None:
        patterns, revisions = (patterns, (first, *revisions)) if patterns else ((first,), revisions)
    if not revisions:
        raise click.UsageError("name a pattern and at least one revision: fsview grep PATTERN REVISION")
    wanted = [text.encode("utf-8", "surrogateescape") for text in patterns]
    compiled = compile_pattern(*wanted, fixed=fixed, ignore_case=ignore_case)
    paths = [name.encode("utf-8", "surrogateescape") for name in context.meta[PATHS]] or [b""]
    now_s = int(time.time())
    with repository.database.reading() as reading:
        places = [(split_path(reading, text)[0], find_place(reading, text, now_s=now_s)) for text in revisions]
        matches = grep(Search(repository, reading, compiled), places, paths)
        if form == "json":
            noticing = Noticing(matches)
            print_json_lines(map(_match_json, noticing))
            matched = noticing.seen
        else:
            matched = _print_matches(matches, form=form, numbers=numbers)
    if not matched:
        context.exit(1)
