"""`fsview diff`: what differs between two trees. Equal subtrees have equal ids and are not looked into."""

from __future__ import annotations

import stat
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Final

import click

from store.database import Reading
from store.listing import Entry
from store.repository import Repository
from tools.changes import Change, Kind, diff_revisions
from tools.facts import Facts, describe_changes, facts_json, have_equal_guards, load_facts
from tools.parameters import PATHS, REVISION, PathsCommand, repository_option
from tools.render import Noticing, count_text, json_path, print_json_lines, quote_path, size_text

_ALIGNED_MAX: Final = 1000  # rows of --stat that are held to align them; of more, the rest as these


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
    count, added, removed = 0, 0, 0

    def rows() -> Iterator[tuple[str, str]]:
        nonlocal count, added, removed
        for change in changes:
            grown = _bytes(change.new) - _bytes(change.old)
            count, added, removed = count + 1, added + max(grown, 0), removed + max(-grown, 0)
            yield quote_path(change.path or b"/"), stat_line(reading, change)

    waiting = rows()
    first = list(islice(waiting, _ALIGNED_MAX))
    width = min(max((len(path) for path, _ in first), default=0), 60)
    for path, text in chain(first, waiting):
        print(f" {path:{width}} | {text}")
    if count:
        print(f" {count_text(count, 'path')} changed, {size_text(added)} added, {size_text(removed)} removed")


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
became another kind, is listed in all formats but the first. Files of more than 64 MiB or a million lines are too large
for -p: that they differ is said.
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
        changes = Noticing(diff_revisions(reading, old, new, paths, now_s=int(time.time()), whole=whole))
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
        from tools.patch import print_patch  # which starts a process: seldom wanted

        print_patch(repository, reading, changes)
    else:
        _print_names(changes, form=form, nul=nul)
