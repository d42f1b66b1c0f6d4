"""`fsview log`: the commits that led to a revision, the newest first."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import click

from store.commit_facts import LogEntry, commit_entry_json, commit_version, log_entry
from store.database import Reading
from store.errors import NotFoundError
from store.objects import Checksum, Commit, content_checksum
from store.refs import list_refs
from store.repository import Repository
from store.revisions import abbreviate, format_time, resolve, split_path
from store.schema import CommitNumber
from store.tree import commit_record, find, load_parent_and_time, root_entry
from tools.parameters import PATHS, REVISION, PathsCommand, repository_option
from tools.render import one_line, print_json_lines, printable

CUT_TEXT = "<< History beyond this commit not fetched >>"


def history(reading: Reading, starts: Iterable[CommitNumber], paths: Sequence[bytes] = ()) -> Iterator[LogEntry]:
    """Yield *starts* and all before them, the newest first, a parent never before its child of one line.

    With *paths*, only the commits where something at one of them is not what it was in the parent: told by ids, which
    are equal exactly if the checksums are.
    """
    heap: list[tuple[int, CommitNumber]] = []
    seen: set[CommitNumber] = set()
    for number in starts:
        _push(reading, heap, seen, number)
    while heap:
        entry = log_entry(reading, heapq.heappop(heap)[1])
        if entry.parent is not None:
            _push(reading, heap, seen, entry.parent)
        if not paths or _ids_at(reading, entry.number, paths) != _ids_at(reading, entry.parent, paths):
            yield entry


def _push(
    reading: Reading, heap: list[tuple[int, CommitNumber]], seen: set[CommitNumber], number: CommitNumber
) -> None:
    if number not in seen:
        seen.add(number)
        heapq.heappush(heap, (-load_parent_and_time(reading, number)[1], number))


def _ids_at(
    reading: Reading, number: CommitNumber | None, paths: Sequence[bytes]
) -> list[tuple[bool, int, int] | None]:
    """Return what is at each path: whether a directory, id and meta id; None where nothing is."""
    if number is None:
        return [None] * len(paths)
    root = root_entry(reading, commit_record(reading, number))
    ids: list[tuple[bool, int, int] | None] = []
    for path in paths:
        try:
            entry = find(reading, root, path)
            ids.append((entry.is_directory, entry.id, entry.meta_id))
        except NotFoundError:
            ids.append(None)
    return ids


def heading(checksum: Checksum, commit: Commit) -> list[str]:
    """Return the lines that `ostree log` begins a commit with."""
    lines = [f"commit {checksum.hex()}"]
    if commit.parent is not None:
        lines.append(f"Parent:  {commit.parent.hex()}")
    lines.append(f"ContentChecksum:  {content_checksum(commit).hex()}")
    lines.append(f"Date:  {format_time(commit.timestamp_s)}")
    version = commit_version(commit)
    return lines + ([f"Version: {one_line(version)}"] if version else [])


def message(commit: Commit) -> list[str]:
    """Return the lines in which `ostree log` shows subject and body."""
    if not commit.subject:
        return ["(no subject)", ""]
    lines = ["", *_indented(commit.subject)]
    return [*lines, *(["", *_indented(commit.body)] if commit.body else []), ""]


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in printable(text).removesuffix("\n").split("\n")]


def _print_entry(reading: Reading, entry: LogEntry, *, oneline: bool) -> None:
    if oneline:
        print(abbreviate(reading, entry.checksum), one_line(entry.commit.subject) or "(no subject)")
    else:
        print("\n".join([*heading(entry.checksum, entry.commit), *message(entry.commit)]))


def _print_patch(repository: Repository, reading: Reading, entry: LogEntry, paths: Sequence[bytes]) -> None:
    from tools.changes import diff_paths
    from tools.patch import print_patch

    old = None if entry.parent is None else root_entry(reading, commit_record(reading, entry.parent))
    new = root_entry(reading, commit_record(reading, entry.number))
    if not entry.is_cut:
        print_patch(repository, reading, diff_paths(reading, old, new, paths))
        print()


def _starts(reading: Reading, revision: str | None, now_s: int) -> list[CommitNumber]:
    if revision is not None:
        return [resolve(reading, revision, now_s=now_s)]
    starts = [record.commit for _, record in list_refs(reading)]
    if not starts:
        raise NotFoundError("this repository has no refs yet; make a commit with 'fsview commit -b REF DIR'")
    return starts


EXAMPLES = """
\b
Examples:
  fsview log debian/12/amd64/base             from where the ref is now
  fsview log --oneline -n 5 debian/12^        five before the last one
  fsview log debian/12 -- /etc/passwd         who changed this file, and when
  fsview log -p -n 1 debian/12:/etc           what the last change in /etc was

Without REVISION: the commits of all refs. PATH is a path in the tree; REVISION:/PATH is the same for one. Files of more
than 64 MiB or a million lines are too large for -p: that they differ is said.
"""


@click.command("log", cls=PathsCommand, epilog=EXAMPLES)
@click.argument("revision", type=REVISION, required=False)
@click.argument("path", nargs=-1)
@click.option("--oneline", is_flag=True, help="One line a commit: abbreviated checksum, subject.")
@click.option("-n", "--max-count", type=click.IntRange(min=0), metavar="N", help="Not more than N commits.")
@click.option("-p", "--patch", is_flag=True, help="With each commit, what it changed, as 'diff -u' shows it.")
@click.option("--json", "in_json", is_flag=True, help="A JSON array, one object a commit.")
@repository_option
def log_command(
    repository: Repository,
    revision: str | None,
    path: tuple[str, ...],
    oneline: bool,
    max_count: int | None,
    patch: bool,
    in_json: bool,
) -> None:
    """Show the commits that led to REVISION, the newest first; with PATHs, those that changed something there."""
    context = click.get_current_context()
    if in_json and (oneline or patch):
        raise click.UsageError("--json goes with neither --oneline nor --patch")
    paths = [name.encode("utf-8", "surrogateescape") for name in path + context.meta[PATHS]]
    with repository.database.reading() as reading:
        if revision is not None:
            revision, inner = split_path(reading, revision)
            paths += [inner] if inner is not None else []
        starts = _starts(reading, revision, int(time.time()))
        entries = islice(history(reading, starts, paths), max_count)
        if in_json:
            print_json_lines(map(commit_entry_json, entries))
            return
        for entry in entries:
            _print_entry(reading, entry, oneline=oneline)
            if patch:
                _print_patch(repository, reading, entry, paths)
            if entry.is_cut:
                print(CUT_TEXT)
