"""`fsview prune`: delete commits that nobody wants any more, and what only they held (store/prune.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click

from fsview.mounted import State, mounted_views
from store.entrance import is_trusted
from store.objects import checksum_from_hex
from store.repository import Repository
from store.revisions import resolve
from store.tree import commit_number
from tools.mounted import is_same
from tools.parameters import REVISION, repository_option
from tools.render import count_text, one_line, print_json, progress, say, size_text, table

if TYPE_CHECKING:
    from store.marking import Rule
    from store.prune import Phase, Pruned
    from store.schema import CommitNumber

_NAMES: Final = {"commit": "commits", "tree": "dirtrees", "meta": "dirmetas", "file": "file objects"}
_JSON_NAMES: Final = {"commit": "commits", "tree": "dirtrees", "meta": "dirmetas", "file": "files"}


def make_rule(repository: Repository, *, refs_only: bool, depth: int, delete: Sequence[str], now_s: int) -> Rule:
    """Return the rule of which commits stay; *delete* are revisions.

    Raises:
        NotFoundError: one of them is not there.
    """
    from store.marking import Rule

    with repository.database.reading() as reading:
        deleted = frozenset(resolve(reading, revision, now_s=now_s) for revision in delete)
    return Rule(refs_only, depth, deleted, _shown_alone(repository) if refs_only or deleted else {})


def _shown_alone(repository: Repository) -> dict[CommitNumber, str]:
    """Return the commits that are mounted with --root, as far as this user may know, and in words by which view."""
    shown: dict[CommitNumber, str] = {}
    believed = {repository.path.stat().st_uid}  # others could have commits kept that they don't show
    for view in mounted_views():
        if not (repository.settings.is_shared or view.owner in believed or is_trusted(view.owner)):
            continue
        if not is_same(view.repository, repository.path):
            continue
        if view.state in (State.SILENT, State.CLOSED):
            say(f"the view at {one_line(view.point)} is {view.state}: if it is of one commit, that may go")
        root = view.status.get("root")
        if root is not None:
            with repository.database.reading() as reading:
                number = commit_number(reading, checksum_from_hex(root.partition(":")[0]))
            if number is not None:
                shown[number] = f"it is mounted at {view.point}; unmount that first (fsview umount {view.point})"
    return shown


def prune_json(pruned: Pruned, *, dry_run: bool) -> dict[str, object]:
    """Return what went, or would go, as a JSON object."""
    tallies = {_JSON_NAMES[counter]: tally for counter, tally in pruned.tallies.items()}
    counts = {
        name: {"count": tally.count, "index_bytes": tally.index_bytes, "loose_bytes": tally.loose_bytes}
        for name, tally in {**tallies, "leftovers": pruned.leftovers}.items()
    }
    commits = [checksum.hex() for checksum in pruned.commits]
    return {"dry_run": dry_run, "bytes": pruned.total_bytes, **counts, "deleted_commits": commits}


def _rows(pruned: Pruned) -> Iterator[tuple[str, str, str]]:
    for counter, tally in pruned.tallies.items():
        if tally.count:
            yield _NAMES[counter], str(tally.count), _bytes_text(tally.index_bytes, tally.loose_bytes)
    if pruned.leftovers.count:
        yield "leftovers", str(pruned.leftovers.count), _bytes_text(0, pruned.leftovers.loose_bytes)


def _bytes_text(index_bytes: int, loose_bytes: int) -> str:
    parts = [f"{size_text(index_bytes)} in the index"] if index_bytes else []
    return " and ".join(parts + ([f"{size_text(loose_bytes)} in loose files"] if loose_bytes else []))


class _Bars:
    """Shows a bar for each phase of a prune; silent where stderr is no terminal."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._phase, self._done = stack, "", 0
        self._advance: Callable[[int], object] = lambda step: None

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        if phase != self._phase:
            self._stack.close()
            self._phase, self._done = phase, 0
            self._advance = self._stack.enter_context(progress(phase.value, total or None))
        self._advance(done - self._done)
        self._done = done


EXAMPLES = """
\b
Examples:
  fsview prune                          what commits and prunes that were killed left over
  fsview prune --refs-only --dry-run    which commits no ref reaches, and how many bytes they hold alone
  fsview prune --refs-only              delete them
  fsview prune --refs-only --depth=9    of each ref, keep the head and nine commits behind it
  fsview prune --delete-commit=debian/12^

\b
What is deleted is gone for good. Commits, checkouts and mounts may go on meanwhile: a prune waits until the commits
and checkouts that began before it are done, and those that begin later wait for it. Mounts wait for nothing. In them a
deleted commit is gone when this command returns; but one that is mounted with --root stays until it is unmounted.

\b
Loose files give their space back at once. The index keeps its size; later commits fill what became free in it.
"""


@click.command("prune", epilog=EXAMPLES)
@click.option("--refs-only", is_flag=True, help="Delete the commits that no ref reaches, too.")
@click.option("--depth", type=click.IntRange(min=-1), default=-1, metavar="N",
              help="With --refs-only: keep N parents behind each ref; 0: none, -1 (the default): all.")  # fmt: skip
@click.option("--delete-commit", "delete", multiple=True, type=REVISION, metavar="REVISION",
              help="Delete this commit; may be repeated. No ref may point at it.")  # fmt: skip
@click.option("-n", "--dry-run", "--no-prune", "dry_run", is_flag=True, help="Only say what would go.")
@click.option("--json", "in_json", is_flag=True, help="A JSON object with all counts and bytes.")
@repository_option
def prune_command(
    repository: Repository, refs_only: bool, depth: int, delete: tuple[str, ...], dry_run: bool, in_json: bool
) -> None:
    """Delete objects that no commit needs. Without --refs-only every commit stays that is not named."""
    from store.prune import plan, prune

    rule = make_rule(repository, refs_only=refs_only, depth=depth, delete=delete, now_s=int(time.time()))
    with ExitStack() as stack:
        pruned = (plan if dry_run else prune)(repository, rule, _Bars(stack))
    if in_json:
        print_json(prune_json(pruned, dry_run=dry_run))
        return
    for checksum in pruned.commits:
        print(f"commit {checksum.hex()}")
    rows = list(_rows(pruned))
    if rows:
        print(table(rows))
    _summarise(pruned, dry_run)


def _summarise(pruned: Pruned, dry_run: bool) -> None:
    objects = sum(tally.count for tally in pruned.tallies.values())
    if not objects and not pruned.leftovers.count:
        text = "nothing to delete"
    else:
        what = count_text(objects, "object")
        if pruned.leftovers.count:
            what += f" and {count_text(pruned.leftovers.count, 'leftover')}"
        text = f"{'would delete' if dry_run else 'deleted'} {what}, {size_text(pruned.total_bytes)}"
    say(text)
