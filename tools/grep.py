"""`fsview grep`: search the files of commits. What equal files or directories hold is read and searched once."""

from __future__ import annotations

import re
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import click

from store.bounds import check_place
from store.content import open_content
from store.database import Reading
from store.errors import NotFoundError
from store.listing import Entry
from store.repository import Repository
from store.revisions import Place, find_place, split_path
from store.schema import FileId, TreeId
from store.tree import find, load_listing
from tools.parameters import PATHS, REVISION, PathsCommand, RevisionType, repository_option
from tools.render import Noticing, json_path, quote_path, size_text
from tools.searching import BINARY, LINE_BYTES_MAX, Line, compile_pattern, matching_lines

_REMEMBERED_BYTES_MAX: Final = 64 << 20
_HELD_BYTES_MAX: Final = 16 << 20  # of the lines of one file; of more, the rest is read when it is asked for
_LINE_BYTES: Final = 100  # what a line takes beside its text
_TOO_LONG: Final = f"(a line of more than {size_text(LINE_BYTES_MAX)}, too large to be shown)"


@dataclass(frozen=True, slots=True)
class Found:
    """What matched in one content; of a binary file no lines are told.

    The lines are a tuple, unless they are very many: then they can be iterated over once.
    """

    is_binary: bool
    lines: Iterable[Line]


@dataclass(frozen=True, slots=True)
class Match:
    """A file that has matches, by the revision as it was given, and the path."""

    revision: str
    path: bytes
    found: Found


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
                check_place(len(stack), frame.path + b"/" + entry.name)
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
        lines = self._lines(FileId(entry.id))
        held: list[Line] = []
        size = 0
        for line in lines:
            held.append(line)
            size += _LINE_BYTES + len(line.text or b"")
            if size > _HELD_BYTES_MAX:
                return Found(False, chain(held, lines))
        found = (Found(True, ()) if held == [BINARY] else Found(False, tuple(held))) if held else None
        if self._remembered_bytes + size <= _REMEMBERED_BYTES_MAX:  # else it is read again where it stands next
            self._found[entry.id], self._remembered_bytes = found, self._remembered_bytes + size
        return found

    def _lines(self, file_id: FileId) -> Iterator[Line]:
        content = open_content(self.repository, self.reading, file_id)
        try:
            yield from matching_lines(content, self.pattern)
        finally:
            content.close()


@dataclass
class _Frame:
    path: bytes
    tree_id: int
    entries: Iterator[Entry]
    has_match: bool = False


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
            write(b"%b:%d\n" % (name, sum(1 for _ in match.found.lines)))
        else:
            for number, text in match.found.lines:
                line = _TOO_LONG.encode() if text is None else text
                write(b"%b:%d:%b\n" % (name, number, line) if numbers else b"%b:%b\n" % (name, line))
    return any_match


def _print_json(matches: Iterable[Match]) -> None:
    """Print a JSON array, an object a line; the lines of one file as they come, for they may be very many."""
    import json  # not needed by most

    write, separator = sys.stdout.write, "["
    for match in matches:
        about = {"revision": match.revision, "path": json_path(match.path), "binary": match.found.is_binary}
        write(f'{separator}\n{json.dumps(about)[:-1]}, "lines": [')
        for index, line in enumerate(match.found.lines):
            text = None if line.text is None else json_path(line.text)
            write((", " if index else "") + json.dumps({"number": line.number, "text": text}))
        write("]}")
        separator = ","
    write("[]\n" if separator == "[" else "\n]\n")


EXAMPLES = """
\b
Examples:
  fsview grep root: debian/12 -- /etc             one directory of one commit
  fsview grep -l -F 10.0.0.1 main main^ main~2    which of three commits have it, and where
  fsview grep -n 'version *= *"[0-9.]+"' v1:/src  below REVISION:/PATH
  fsview grep -e -x main                          a pattern that begins with "-"

\b
PATTERN is a Python regular expression, searched for in the bytes of each line; -i knows the case of ASCII letters.
A line of more than 8 MiB is searched, but not shown (in JSON: "text" is null); what is found in it has up to 1 MiB.
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
            _print_json(noticing)
            matched = noticing.seen
        else:
            matched = _print_matches(matches, form=form, numbers=numbers)
    if not matched:
        context.exit(1)
