"""What is mounted alone, `--root REV[:/path]`: looked up once, when it is mounted, and never moved after."""

from __future__ import annotations

import os
from typing import NamedTuple

from store.errors import InvalidNameError
from store.objects import Checksum
from store.repository import Repository
from store.revisions import find_place
from store.tree import commit_record


class Pinned(NamedTuple):
    """A directory of a commit; the path is as b"/usr/share", of the commit's root b""."""

    commit: Checksum
    path: bytes

    @property
    def revision(self) -> str:
        """The same as a revision, with a path if there is one."""
        return self.commit.hex() + (f":{os.fsdecode(self.path)}" if self.path else "")


def pin(repository: Repository, text: str, *, now_s: int) -> Pinned:
    """Return the directory that "REV" or "REV:/path" names now.

    Raises:
        NotFoundError: nothing has this name.
        InvalidNameError: it is no directory.
    """
    with repository.database.reading() as reading:
        place = find_place(reading, text, now_s=now_s)
        checksum = commit_record(reading, place.commit).checksum
    if not place.entry.is_directory:
        raise InvalidNameError(f"{text} is no directory; the root of a mount must be one")
    return Pinned(checksum, place.path)
