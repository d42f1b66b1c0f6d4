"""`fsview ls`: list what is in a commit, line by line as `ostree ls` does."""

from __future__ import annotations

import stat
import sys
import time
from collections.abc import Iterator

import click

from store.bounds import check_place
from store.database import Reading
from store.listing import Entry
from store.repository import Repository
from store.revisions import find_place
from store.schema import TreeId
from store.tree import load_listing
from tools.facts import Facts, facts_json, load_facts
from tools.parameters import REVISION, repository_option
from tools.render import print_json_lines, quote_path


def entries_below(reading: Reading, path: bytes, entry: Entry, *, recursive: bool) -> Iterator[tuple[bytes, Entry]]:
    """Yield (path, entry) of what is in a directory, as OSTree orders it: files by name, then directories by name."""
    stack = [iter([(path, entry)])]
    while stack:
        where, directory = next(stack[-1], (b"", None))
        if directory is None:
            stack.pop()
            continue
        if len(stack) > 1:
            yield where, directory
        if directory.is_directory and (recursive or len(stack) == 1):
            check_place(len(stack) - 1, where)
            stack.append(_sorted_entries(reading, where, directory))


def _sorted_entries(reading: Reading, path: bytes, directory: Entry) -> Iterator[tuple[bytes, Entry]]:
    for item in sorted(load_listing(reading, TreeId(directory.id)), key=lambda item: item.is_directory):
        yield path + b"/" + item.name, item


def ls_line(path: bytes, facts: Facts, *, checksums: bool, xattrs: bool) -> str:
    """Return the line of `ostree ls` for an entry."""
    entry = facts.entry
    size = entry.size if facts.letter == "-" else 0
    parts = [f"{facts.letter}{stat.S_IMODE(entry.mode):05o} {entry.uid} {entry.gid} {size:6}"]
    if checksums:
        parts += [checksum.hex() for checksum in facts.checksums]
    if xattrs:
        parts.append(f"{{ {xattrs_text(facts)} }}")
    parts.append(quote_path(path or b"/"))
    return " ".join(parts) + (f" -> {quote_path(facts.target)}" if facts.letter == "l" else "")


def xattrs_text(facts: Facts) -> str:
    """Return extended attributes in GVariant's text form, in which names end in a NUL."""
    from store.gvariant import Variant
    from store.gvariant_text import format_text  # only -X needs it

    return format_text(Variant("a(ayay)", [(name + b"\0", value) for name, value in facts.xattrs]))


EXAMPLES = """
\b
Examples:
  fsview ls debian/12                        the root, and what is in it
  fsview ls -R debian/12 /etc /usr/share     everything below two directories
  fsview ls -C debian/12^:/etc/passwd        one file, with its checksum
  fsview ls -Rz debian/12 | xargs -0 ...     names alone, each ended by NUL

\b
A line has: kind and mode, owner, group, size, [checksums,] [xattrs,] path [-> target]. A directory has two checksums,
of its dirtree and its dirmeta.
"""


@click.command("ls", epilog=EXAMPLES)
@click.argument("revision", type=REVISION)
@click.argument("path", nargs=-1)
@click.option("-R", "--recursive", is_flag=True, help="List directories in directories, too.")
@click.option("-d", "--dironly", is_flag=True, help="List a directory itself, not what is in it.")
@click.option("-C", "--checksum", "checksums", is_flag=True, help="Show checksums.")
@click.option("-X", "--xattrs", is_flag=True, help="Show extended attributes.")
@click.option("-z", "--nul-filenames-only", "nul", is_flag=True, help="Print paths alone, as they are, each and a NUL.")
@click.option("--json", "in_json", is_flag=True, help="A JSON array, one object an entry.")
@repository_option
def ls_command(
    repository: Repository,
    revision: str,
    path: tuple[str, ...],
    recursive: bool,
    dironly: bool,
    checksums: bool,
    xattrs: bool,
    nul: bool,
    in_json: bool,
) -> None:
    """List PATHs (else the root) in REVISION, or in REVISION:/PATH; of a directory, what is in it."""
    with repository.database.reading() as reading:
        entries = _listed(reading, revision, path, recursive=recursive, dironly=dironly)
        if in_json:
            print_json_lines(facts_json(where, load_facts(reading, entry)) for where, entry in entries)
        elif nul:
            for where, _ in entries:
                sys.stdout.buffer.write((where or b"/") + b"\0")
        else:
            for where, entry in entries:
                print(ls_line(where, load_facts(reading, entry), checksums=checksums, xattrs=xattrs))


def _listed(
    reading: Reading, revision: str, paths: tuple[str, ...], *, recursive: bool, dironly: bool
) -> Iterator[tuple[bytes, Entry]]:
    now_s = int(time.time())
    names = [path.encode("utf-8", "surrogateescape") for path in paths] or [b""]
    for place in [find_place(reading, revision, name, now_s=now_s) for name in names]:
        yield place.path, place.entry
        if place.entry.is_directory and not dironly:
            yield from entries_below(reading, place.path, place.entry, recursive=recursive)
