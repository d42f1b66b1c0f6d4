"""Commits made in this process, and the check that every test which wrote ends with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.repository import Repository
from tools.commit import Committed, Message, TreeSpec, commit
from tools.fsck import fsck
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
    """Commit the directory *tree* to *ref*; *more* goes to `tools.commit.commit`."""
    message = message or Message(ref, "a tree", timestamp_s=TIME_S)
    return commit(repository, [TreeSpec("dir", str(tree))], message, options or DiskOptions(), **more)


def assert_sound(path: Path) -> None:
    """Fail unless fsck finds neither errors nor garbage in the repository at *path*."""
    __tracebackhide__ = True
    findings = fsck(path, processes=1)
    assert findings == [], "\n".join(map(str, findings))
    left = list((path / "tmp").iterdir())
    assert left == [], "leftovers in tmp/"


@contextmanager
def new_repository(path: Path, **settings: Any) -> Iterator[Repository]:
    """Make a repository at *path*, and check it at the end."""
    with Repository.create(path, **settings) as repository:
        yield repository
    assert_sound(path)
