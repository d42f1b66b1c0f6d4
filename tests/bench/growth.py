"""Make large repositories without large directories: files in many directories, or many commits.

    python -m tests.bench.growth files REPO 5       a million files in 100,000 directories (10 to the power of 5)
    python -m tests.bench.growth commits REPO 10000

Both go through store/, so that what stands in the index is what commits of real directories would leave; but all in
one transaction, and with contents of a few bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final

from store.database import Writing
from store.objects import Checksum, Commit
from store.publication import Publication
from store.refs import find_ref, set_ref
from store.repository import Repository
from store.tree import commit_record
from tests.forge import META, Forge, forge

REF: Final = "bench"
FAN_OUT: Final = 10
LEVELS: Final = 5  # of directories, below the root
_START_S: Final = 1_600_000_000
_APART_S: Final = 600
_COMMITTED_AT_ONCE: Final = 10_000


def make_files(path: Path, wide_levels: int) -> None:
    """Make a repository with FAN_OUT files in each of FAN_OUT ** wide_levels directories.

    It has LEVELS levels of directories however few they are, the first of them of one directory each: so a path costs
    the same look-ups in a small tree and in a large one, and what differs is the size.
    """
    with Repository.create(path) as repository, forge(repository) as work:
        work.publish(_tree(work, _fan_outs(wide_levels), b""), REF, time_s=_START_S)


def _fan_outs(wide_levels: int) -> tuple[int, ...]:
    return (1,) * (LEVELS - wide_levels) + (FAN_OUT,) * wide_levels


def _tree(work: Forge, fan_outs: tuple[int, ...], place: bytes) -> Checksum:
    if not fan_outs:
        return work.tree({b"file-%d" % at: work.file(b"%s/%d\n" % (place, at)) for at in range(FAN_OUT)})
    below = {b"dir-%d" % at: _tree(work, fan_outs[1:], b"%s/%d" % (place, at)) for at in range(fan_outs[0])}
    return work.tree({}, below)


def directories(wide_levels: int) -> Iterator[list[str]]:
    """Yield the directories that hold files, those of one parent together."""
    for parent in product(*(range(count) for count in _fan_outs(wide_levels)[:-1])):
        path = "/".join(f"dir-{at}" for at in parent)
        yield [f"{path}/dir-{at}" for at in range(FAN_OUT)]


def make_commits(path: Path, count: int) -> None:
    """Make a repository with *count* commits of one ref, each of which changed one file of a small tree."""
    with Repository.create(path) as repository:
        for begin in range(0, count, _COMMITTED_AT_ONCE):
            _commit_many(repository, range(begin, min(count, begin + _COMMITTED_AT_ONCE)))


def _commit_many(repository: Repository, numbers: range) -> None:
    with forge(repository) as work:
        same = work.tree({b"file-%d" % at: work.file(b"%d\n" % at) for at in range(FAN_OUT)})
        roots = [work.tree({b"changes": work.file(b"%d\n" % number)}, {b"same": same}) for number in numbers]
        work.stager.flush()
        repository.database.write(lambda writing: _publish(repository, writing, work, numbers, roots))


def _publish(repository: Repository, writing: Writing, work: Forge, numbers: range, roots: list[Checksum]) -> None:
    publication = Publication(repository, writing, work.writer.stage, set(), lambda phase, done: None)
    publication.run({work.meta: META.to_bytes()})
    head = find_ref(writing, REF)
    parent = None if head is None else commit_record(writing, head.commit).checksum
    for number, root in zip(numbers, roots, strict=True):
        time_s = _START_S + number * _APART_S
        commit = Commit((), parent, f"change {number}", "", time_s, root, work.meta)
        commit_number, parent = publication.add_commit(commit)
        set_ref(writing, REF, commit_number, time_s=time_s, message=f"change {number}")


def main() -> None:
    """Make what the command line says."""
    kind, path, size = sys.argv[1:]
    {"files": make_files, "commits": make_commits}[kind](Path(path), int(size))


if __name__ == "__main__":
    main()
