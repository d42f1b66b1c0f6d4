"""The admin's changes of /etc, carried from the current deployment into the one that is to follow it.

Merging happens in a copy of the new deployment's etc, in a directory that nobody else may enter: in an etc that can be
reached, who owns a directory could make it a symlink while root writes there. Then the copy takes the etc's place; the
deployment is in use by nobody yet. What the admin edits meanwhile is noticed by a fingerprint, just before the switch,
and merged again.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from store.errors import ConflictError, SysrootError
from store.walking.copy import copy_tree
from store.walking.private import make_private
from tools.render import count_text, quote_path
from tools.sysroot.completing import completing
from tools.sysroot.deploy import MergeOptions
from tools.sysroot.etc_changes import find_changes
from tools.sysroot.etc_merge import Conflict, Merge, fingerprint, merge_etc
from tools.sysroot.layout import TEMPORARY, Generation
from tools.sysroot.origin import Origin
from tools.sysroot.removing import remove

_TRIES: Final = 5
_LISTED_MAX: Final = 20


class EtcMerger:
    """Merges into one new deployment, as often as the admin's etc changes."""

    def __init__(self, current: Generation, root: Path, pristine: Path, options: MergeOptions) -> None:
        """*root* and *pristine* are of the new deployment.

        Raises:
            SysrootError: the current deployment's etc is gone.
        """
        self._current, self._root, self._pristine, self._options = current, root, pristine, options
        self._admin = current.root / "etc"
        self._was_changed, self._tries = False, 0
        self._seen = b""
        self.merge: Merge | None = None
        if not self._admin.is_dir() and any(current.pristine_etc.iterdir()):
            raise SysrootError(f"{self._admin} is gone, but was there when it was deployed; --no-merge goes without it")

    def look(self, origin: Origin) -> Origin:
        """Merge, if that is not done or the admin's etc changed since; return the origin, a new one if something was.

        Raises:
            SysrootError: there are conflicts, and options are strict.
            ConflictError: the admin's etc changes all the time.
        """
        if not self._admin.is_dir():
            return origin
        seen = fingerprint(self._admin)
        if seen == self._seen:
            return origin
        self._tries += 1
        if self._tries > _TRIES:
            raise ConflictError(f"{self._admin} changes all the time; nothing was changed: try again when it is quiet")
        self._seen = seen
        self.merge = self._merge()
        if self._options.strict:
            refuse_conflicts(self.merge.conflicts)
        return replace(origin, conflicts=len(self.merge.conflicts))

    def moved(self, root: Path, pristine: Path) -> None:
        """Note that the new deployment has its final names."""
        self._root, self._pristine = root, pristine

    def _merge(self) -> Merge:
        if not self._was_changed and not find_changes(self._current.pristine_etc, self._admin):
            return Merge()
        self._was_changed = True
        private = self._root.with_name(f"{self._root.name}.merge{TEMPORARY}")
        make_private(private)
        etc = private / "etc"
        copy_tree(self._pristine, etc, keeps_links=False)  # pristine copies may share files, an etc in use must not
        merge = merge_etc(self._current.pristine_etc, self._admin, self._pristine, etc, text=self._options.text)
        _exchange(etc, self._root)
        private.rmdir()
        return merge


def _exchange(etc: Path, root: Path) -> None:
    """Put *etc* in the place of that in *root*; both stay as they are, times and modes included."""
    with completing(root), completing(etc):  # who is not root can't move a directory that he may not write to
        if os.path.lexists(root / "etc"):
            remove(root / "etc")
        etc.rename(root / "etc")


def refuse_conflicts(conflicts: list[Conflict]) -> None:
    """Refuse what can't be merged.

    Raises:
        SysrootError: there are conflicts; they are listed.
    """
    if conflicts:
        lines = conflict_lines(conflicts)
        raise SysrootError(
            f"{count_text(len(conflicts), 'conflict')} in /etc, and --strict was given; nothing was changed:\n"
            + "\n".join(lines[:_LISTED_MAX] + (["  …"] if len(lines) > _LISTED_MAX else []))
        )


def conflict_lines(conflicts: list[Conflict]) -> list[str]:
    """Return a line for each conflict."""
    return [
        f"  {quote_path(one.path)}: {one.what}; kept: {one.kept}"
        + (f"; the new release's is {quote_path(one.beside)}" if one.beside else "")
        for one in conflicts
    ]


def merge_lines(merge: Merge) -> list[str]:
    """Return what was merged in words: the counts, then a line for each conflict and for all that was skipped."""
    lines = [_counts(merge), *conflict_lines(merge.conflicts)]
    for paths, why in (
        (merge.skipped, "a socket, device or FIFO; skipped"),
        (merge.linked, "a file with more names, in a directory where others may write; skipped"),
        (merge.mounted, "something is mounted there, which is not carried over, nor is what it hides"),
    ):
        lines += [f"  {quote_path(path)}: {why}" for path in sorted(paths)]
    return lines


def _counts(merge: Merge) -> str:
    counts = f"{merge.modified} modified, {merge.added} added, {merge.deleted} deleted"
    more = [f"{len(merge.text_merged)} merged line by line"] if merge.text_merged else []
    more += [count_text(len(merge.conflicts), "conflict")] if merge.conflicts else []
    skipped = len(merge.skipped) + len(merge.linked) + len(merge.mounted)
    more += [f"{skipped} skipped"] if skipped else []
    return f"changes of /etc carried over: {', '.join([counts, *more])}"
