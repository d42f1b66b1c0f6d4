"""`fsview diff`: what differs between two trees. Equal subtrees have equal ids and are not looked into."""

from __future__ import annotations

import stat
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import click

from store.database import Reading
from store.errors import NotFoundError
from store.listing import Entry
from store.repository import Repository
from store.revisions import find_place
from store.schema import TreeId
from store.tree import find, load_listing
from tools.cli import PATHS, REVISION, PathsCommand, repository_option
from tools.facts import Facts, describe_changes, facts_json, have_equal_guards, load_facts
from tools.render import count_text, json_path, print_json_lines, quote_path, size_text


class Kind(StrEnum):
    """How something changed, by git's letters; MODIFIED: contents, metadata or target."""

    ADDED = "A"
    DELETED = "D"
    MODIFIED = "M"
    TYPE = "T"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that is not the same in both trees; of a directory in both: its mode, owner or xattrs."""

    path: bytes
    old: Entry | None
    new: Entry | None

    @property
    def kind(self) -> Kind:
        """What happened to the path."""
        if self.old is None or self.new is None:
            return Kind.ADDED if self.old is None else Kind.DELETED
        return Kind.MODIFIED if stat.S_IFMT(self.old.mode) == stat.S_IFMT(self.new.mode) else Kind.TYPE


def diff_trees(
    reading: Reading, old: Entry | None, new: Entry | None, path: bytes = b"", *, whole: bool = True
) -> Iterator[Change]:
    """Yield what differs between two entries (None: nothing there), in preorder by name; paths begin with *path*.

    With whole=False as OSTree has it: nothing below a directory that is gone, or that became one or something else.
    """
    stack = [iter([(path, old, new)])]
    while stack:
        pair = next(stack[-1], None)
        if pair is None:
            stack.pop()
            continue
        change = Change(*pair)
        before, after = change.old, change.new
        are_directories = before is not None and after is not None and before.is_directory and after.is_directory
        if not are_directories or _meta_id(before) != _meta_id(after):
            yield change
        if are_directories or whole or change.kind is Kind.ADDED:
            stack.append(_different_pairs(reading, change))


def _meta_id(entry: Entry | None) -> int | None:
    return entry.meta_id if entry else None


def _different_pairs(reading: Reading, change: Change) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
    if change.old and change.new and _are_same_directory(change.old, change.new):
        return
    old, new = _entries(reading, change.old), _entries(reading, change.new)
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a is None or b is None or _identity(a) != _identity(b):
            yield change.path + b"/" + name, a, b


def _are_same_directory(a: Entry, b: Entry) -> bool:
    return a.is_directory and b.is_directory and a.id == b.id


def _identity(entry: Entry) -> tuple[bool, int, int]:
    return entry.is_directory, entry.id, entry.meta_id


def _entries(reading: Reading, entry: Entry | None) -> dict[bytes, Entry]:
    if entry is None or not entry.is_directory:
        return {}
    return {below.name: below for below in load_listing(reading, TreeId(entry.id))}


def diff_revisions(
    reading: Reading, old: str, new: str, paths: Sequence[bytes] = (), *, now_s: int, whole: bool = True
) -> Iterator[Change]:
    """Yield what differs between what "REV" or "REV:/path" name; with *paths*, only at and below these.

    Raises:
        NotFoundError: one of them, or a path in both of them, is not there.
    """
    a, b = find_place(reading, old, now_s=now_s), find_place(reading, new, now_s=now_s)
    for path in paths:
        if _find_or_none(reading, a.entry, path) is None and _find_or_none(reading, b.entry, path) is None:
            raise NotFoundError(f"{quote_path(path)} exists neither in {old} nor in {new}")
    is_one_thing = a.path == b.path or not (a.entry.is_directory and b.entry.is_directory)
    return diff_paths(reading, a.entry, b.entry, paths, b.path if is_one_thing else b"", whole=whole)


def diff_paths(
    reading: Reading,
    old: Entry | None,
    new: Entry | None,
    paths: Sequence[bytes] = (),
    base: bytes = b"",
    *,
    whole: bool = True,
) -> Iterator[Change]:
    """Yield what differs at and below *paths* (none: everywhere) in two entries; what neither has does not differ.

    The paths in the changes begin with *base*.
    """
    for path in paths or (b"",):
        before, after = _find_or_none(reading, old, path), _find_or_none(reading, new, path)
        if before is None or after is None or _identity(before) != _identity(after):
            inner = b"".join(b"/" + name for name in path.split(b"/") if name not in (b"", b"."))
            if before or after:
                yield from diff_trees(reading, before, after, base + inner, whole=whole)


def _find_or_none(reading: Reading, root: Entry | None, path: bytes) -> Entry | None:
    try:
        return None if root is None else find(reading, root, path)
    except NotFoundError:
        return None


def _both_facts(reading: Reading, change: Change) -> tuple[Facts | None, Facts | None]:
    old = load_facts(reading, change.old) if change.old else None
    return old, load_facts(reading, change.new) if change.new else None


def _content_differs(reading: Reading, change: Change) -> bool:
    old, new = change.old, change.new
    if old is None or new is None or not (stat.S_ISREG(old.mode) and stat.S_ISREG(new.mode)):
        return False
    return not have_equal_guards(reading, old, new)


def change_json(reading: Reading, change: Change) -> dict[str, object]:
    """Return a change as a JSON object: path, status, what is different, and both sides in full."""
    old, new = _both_facts(reading, change)
    changed = describe_changes(old, new) if old and new else []
    return {
        "path": json_path(change.path or b"/"),
        "status": change.kind.value,
        "changed": ["content"] * _content_differs(reading, change) + changed,
        "old": old and facts_json(change.path, old),
        "new": new and facts_json(change.path, new),
    }


def stat_line(reading: Reading, change: Change) -> str:
    """Return what --stat says of a change, without its path."""
    old, new = _both_facts(reading, change)
    if old is None or new is None:
        facts, verb = (new, "added") if old is None else (old, "deleted")
        assert facts is not None
        return f"{facts.kind} {verb}" + (f", {size_text(facts.entry.size)}" if facts.letter == "-" else "")
    parts = describe_changes(old, new)
    if old.letter == new.letter == "-" and old.entry.size != new.entry.size:
        parts.insert(0, f"{size_text(old.entry.size)} -> {size_text(new.entry.size)}")
    elif _content_differs(reading, change):
        parts.insert(0, f"{size_text(new.entry.size)}, other content")
    return "; ".join(parts)


def _bytes(entry: Entry | None) -> int:
    return entry.size if entry is not None and stat.S_ISREG(entry.mode) else 0


def _print_stat(reading: Reading, changes: Iterable[Change]) -> None:
    rows, added, removed = [], 0, 0
    for change in changes:
        grown = _bytes(change.new) - _bytes(change.old)
        added, removed = added + max(grown, 0), removed + max(-grown, 0)
        rows.append((quote_path(change.path or b"/"), stat_line(reading, change)))
    width = min(max((len(path) for path, _ in rows), default=0), 60)
    for path, text in rows:
        print(f" {path:{width}} | {text}")
    if rows:
        print(f" {count_text(len(rows), 'path')} changed, {size_text(added)} added, {size_text(removed)} removed")


def _print_names(changes: Iterable[Change], *, form: str, nul: bool) -> None:
    """Print a line for each change: "letter, tab, path" as git, or "letter, four spaces, path" as OSTree."""
    for change in changes:
        path = change.path or b"/"
        kind = change.kind
        if nul:
            sys.stdout.buffer.write(kind.encode() + b"\0" + path + b"\0")
        elif form == "name-status":
            print(f"{kind}\t{quote_path(path)}")
        else:  # OSTree has no letter for a change of kind
            print(f"{Kind.MODIFIED if kind is Kind.TYPE else kind}    {quote_path(path)}")


class _Counting:
    """Passes changes on and remembers whether there were any."""

    def __init__(self, changes: Iterator[Change]) -> None:
        self._changes, self.seen = changes, False

    def __iter__(self) -> Iterator[Change]:
        for change in self._changes:
            self.seen = True
            yield change


EXAMPLES = """
\b
Examples:
  fsview diff debian/12 debian/13               what 'ostree diff' prints
  fsview diff --stat debian/12^ debian/12 /etc  sizes, modes, owners; below /etc
  fsview diff -p debian/12:/etc debian/13:/etc  contents, as 'diff -u' shows them
  fsview diff -q main@{yesterday} main          exit status alone

\b
Letters: A added, D deleted, M modified (contents, mode, owner, xattrs, symlink target), T another kind of file (in
--name-status and --json). What is below an added directory is listed; what is below a deleted one, or one that
became another kind, is listed in all formats but the first.
"""


@click.command("diff", cls=PathsCommand, epilog=EXAMPLES)
@click.argument("old", metavar="A", type=REVISION)
@click.argument("new", metavar="B", type=REVISION)
@click.argument("path", nargs=-1)
@click.option("--name-status", "form", flag_value="name-status", help="Letter, tab, path.")
@click.option("--stat", "form", flag_value="stat", help="What changed on each path, and how many bytes in all.")
@click.option("--json", "form", flag_value="json", help="A JSON array, one object a change, with both sides in full.")
@click.option("-p", "-u", "--patch", "form", flag_value="patch", help="Changes of contents, through 'diff -u'.")
@click.option("-z", "nul", is_flag=True, help="With --name-status: end letter and path in NUL, and don't quote paths.")
@click.option("--exit-code", is_flag=True, help="Exit with status 1 if something differs.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; implies --exit-code.")
@repository_option
def diff_command(
    repository: Repository,
    old: str,
    new: str,
    path: tuple[str, ...],
    form: str | None,
    nul: bool,
    exit_code: bool,
    quiet: bool,
) -> None:
    """Show what differs between A and B, each a REVISION or REVISION:/PATH; with PATHs, only there and below."""
    context = click.get_current_context()
    if nul and form != "name-status":
        raise click.UsageError("-z goes with --name-status")
    paths = [name.encode("utf-8", "surrogateescape") for name in path + context.meta[PATHS]]
    with repository.database.reading() as reading:
        whole = form is not None and not quiet
        changes = _Counting(diff_revisions(reading, old, new, paths, now_s=int(time.time()), whole=whole))
        if quiet:
            next(iter(changes), None)
        else:
            _print_changes(repository, reading, changes, form or "ostree", nul=nul)
    if changes.seen and (exit_code or quiet):
        context.exit(1)


def _print_changes(
    repository: Repository, reading: Reading, changes: Iterable[Change], form: str, *, nul: bool
) -> None:
    if form == "json":
        print_json_lines(change_json(reading, change) for change in changes)
    elif form == "stat":
        _print_stat(reading, changes)
    elif form == "patch":
        from tools.patch import print_patch

        print_patch(repository, reading, changes)
    else:
        _print_names(changes, form=form, nul=nul)
