"""A commit that is only to be had through a mounted view: its tree is read there, and every checksum made anew.

The view gives the commit object's own bytes (MNT/info/<sha256>/object) and the tree. What is read becomes file objects,
dirmetas and dirtrees, as in any commit; only if the root's two checksums are those that the commit object names is it
published. So nothing has to be believed of the view, or of the repository behind it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from fsview.locate import Located, view_of
from store.detached import DETACHED_BYTES_MAX
from store.errors import MountError, SourceError
from store.objects import Commit, checksum_from_hex, checksum_of, unpack_detached
from store.publication import Phase
from store.repository import Repository
from store.writer import Root, Writer
from tools.build import Builder
from tools.disk_source import DiskDirectory
from tools.hashing import Hasher, Job
from tools.sources import DiskOptions


def receive(
    repository: Repository, found: Located, path: str, report: Callable[[Phase, int], None] = lambda phase, done: None
) -> None:
    """Have *repository* hold the commit in which *path* lies; *found* is what that shows.

    Raises:
        MountError: the view shows a part of its repository only.
        SourceError: what it shows is not what the commit's checksum stands for, or can't be read.
        FormatError: the detached metadata are none, or they or the commit are larger than any are.
        OSError: the disk is full, or the view fails.
    """
    wanted = checksum_from_hex(found.commit)
    view = view_of(path)
    info = view / "info" / found.commit
    if not info.is_dir():
        raise MountError(
            f"the view at {view} shows one tree alone, without the commit itself; mount {found.repository} whole, and "
            f"name the path there"
        )
    raw, detached = (_read_bounded(info / name) for name in ("object", "detached"))
    if checksum_of(raw) != wanted:
        raise _lie(found, view, f"its object has the sha256 {checksum_of(raw).hex()}")
    commit = Commit.from_bytes(raw)
    if detached:
        unpack_detached(detached)
    with Writer(repository, report) as writer:
        root = _read(repository, writer, view / "commits" / found.commit, report)
        if (root.dirtree, root.dirmeta) != (commit.root_dirtree, commit.root_dirmeta):
            raise _lie(found, view, f"its root is {root.dirtree.hex()}, not {commit.root_dirtree.hex()}")
        writer.publish(lambda reading: commit, ref=None, time_s=0, message="", detached=detached or None)


def _read_bounded(path: Path) -> bytes:
    """Return what is in a file of the view, which may be anybody's work, and have no end."""
    with path.open("rb") as file:
        data = file.read(DETACHED_BYTES_MAX + 1)
    if len(data) > DETACHED_BYTES_MAX:
        raise SourceError(f"{path} is larger than {DETACHED_BYTES_MAX >> 20} MiB, as no commit is; nothing was changed")
    return data


def _lie(found: Located, view: Path, what: str) -> SourceError:
    return SourceError(
        f"what the view at {view} shows is not commit {found.commit}: {what}; nothing was changed. Either it is "
        f"damaged (its log tells), or it was mounted with options that show other owners or modes"
    )


def _read(repository: Repository, writer: Writer, top: Path, report: Callable[[Phase, int], None]) -> Root:
    options, scan_ns = DiskOptions(stat_cache=False), time.time_ns()
    with Hasher(Job(repository.path, writer.stage.path, options.recipe)) as hasher:
        directory = DiskDirectory.root(top, options, repository.database, hasher)
        builder = Builder(repository.database, writer, scan_ns, lambda: hasher.is_full, report)
        root = builder.build(directory)
    scan = directory.shared
    problems = [*scan.problems, *builder.outcome.unreadable]
    problems += [(path, "it changed or vanished") for path in (*scan.changed, *scan.vanished, *builder.outcome.changed)]
    if problems:
        path, why = min(problems)
        raise SourceError(f"{os.fsdecode(path)} can't be read: {why}; nothing was changed")
    return root
