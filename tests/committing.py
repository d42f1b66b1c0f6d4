"""Commits made in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.repository import Repository
from tests.checking import assert_sound
from tools.make_commit import Committed, Message, TreeSpec, commit
from tools.sources import DiskOptions

TIME_S = 1_577_836_800  # 2020-01-01


def commit_tree(
    repository: Repository,
    tree: Path,
    ref: str | None = "main",
    *,
    options: DiskOptions | None = None,
    message: Message | None = None,
    **more: Any,
) -> Committed:
    """Commit the directory *tree* to *ref*; *more* goes to `tools.make_commit.commit`."""
    message = message or Message(ref, "a tree", timestamp_s=TIME_S)
    return commit(repository, [TreeSpec("dir", str(tree))], message, options or DiskOptions(), **more)


@contextmanager
def new_repository(path: Path, **settings: Any) -> Iterator[Repository]:
    """Make a repository at *path*, and check it at the end."""
    with Repository.create(path, **settings) as repository:
        yield repository
    assert_sound(path)
