"""Paths in mounted views, where commands expect revisions: `fsview log MNT/refs/x/etc/passwd`.

A word is a path if it begins with "/" or ".", as no revision does. Another one with a "/" in it is a path if it leads
into a mounted view, unless it is a revision of the repository that was named. The repository is then the view's:
against FSVIEW_REPO and the current directory, which are mere defaults, but not against --repo. What looks like a
revision is none of a view that somebody else mounted, who might have put it where root is: there it takes a "./".
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from fsview.locate import Located, is_in_view, locate
from store.entrance import is_trusted
from store.errors import FsviewError, InvalidNameError
from tools.parameters import find_repository, given_repository, named_repository


class PathRevisions:
    """Turns the paths among a command's words into revisions; they must all be in views of one repository."""

    def __init__(self, ctx: click.Context) -> None:
        self._ctx = ctx
        self.repository = given_repository(ctx)
        self._said_by = "--repo"

    def take(self, word: str) -> str:
        """Return the revision that *word* stands for, or *word* if it is no path.

        Raises:
            NotFoundError, MountError: as `locate` does.
            InvalidNameError: it is in a view of another repository.
        """
        found = located(word, named_repository(self._ctx))
        if found is None:
            return word
        self.agree(found.repository, word)
        return found.revision

    def agree(self, repository: Path, word: str) -> None:
        """Note that *word* is of *repository*.

        Raises:
            InvalidNameError: something else is of another.
        """
        if self.repository is not None and not is_same(self.repository, repository):
            raise InvalidNameError(
                f"{word} is of the repository {repository}, but {self._said_by} is of {self.repository}; "
                f"one command works on one repository"
            )
        self.repository, self._said_by = repository, word

    def check(self, given: Path) -> None:
        """Refuse a repository, named apart, that is not the one of the paths.

        Raises:
            InvalidNameError: it is another.
        """
        if self.repository is not None and not is_same(self.repository, given):
            raise InvalidNameError(f"{self._said_by} is in a view of {self.repository}, not of {given}")


def located(word: str, repository: Path | None) -> Located | None:
    """Return what *word* shows if it is a path; None if it is none, or a revision of *repository* (or the default one).

    Raises:
        NotFoundError, MountError: as `locate` does.
    """
    if not word.startswith(("/", ".")) and (not is_in_view(word, is_trusted) or _is_revision(word, repository)):
        return None
    return locate(word)


def _is_revision(word: str, path: Path | None) -> bool:
    from store.repository import Repository
    from store.revisions import resolve, split_path

    try:
        with Repository.open(find_repository(path)) as repository, repository.database.reading() as reading:
            resolve(reading, split_path(reading, word)[0], now_s=int(time.time()))
    except FsviewError:
        return False
    return True


def is_same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both paths lead to one file; not if one leads nowhere."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
