"""One of the processes that work on a mounted repository at the same time, until a file is there:

    python -m tests.crash.load commit|move|prune|read REPO MOUNT END ENOUGH

A commit's tree says by itself whether it was read right: all of it follows from the number in the file "number". A
reader prints {"right": commits that were read whole, "gone": how often one was gone meanwhile}, and ends with an error
at anything else: other bytes, fewer, an error that doesn't say that something is gone.

Each makes the file ENOUGH when it has gone round twice, and read two commits right if it is a reader: END comes then.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from store.errors import FsviewError
from store.marking import Rule
from store.prune import prune
from store.repository import Repository
from tests.forge import forge
from tools.refs import create_ref

REFS = ("load/a", "load/b")
_COMMON = 5  # numbers modulo this share their files
_GONE = (errno.ENOENT, errno.ESTALE)


def files_of(number: int) -> dict[bytes, bytes]:
    """Return the files of the tree with this number; some of them other trees have, too."""
    shared = b"%d," % (number % _COMMON)
    return {b"inline": shared * 300, b"large": shared * 30_000, b"own": b"%d;" % number * 10_000, b"empty": b""}


def commit(repository: Repository, mount: Path, chance: random.Random) -> None:
    """Commit the next tree to one of the refs."""
    number = time.monotonic_ns()
    with forge(repository) as work:
        below = work.tree({name: work.file(content) for name, content in files_of(number).items()})
        root = work.tree({b"number": work.file(b"%d" % number)}, {b"below": below})
        work.publish(root, chance.choice(REFS), time_s=number)


def move(repository: Repository, mount: Path, chance: random.Random) -> None:
    """Point one ref where the other is."""
    try:
        create_ref(repository, *chance.sample(REFS, 2), force=True, message="", now_s=0)
    except FsviewError:
        time.sleep(0.01)  # there is none yet
    time.sleep(chance.uniform(0, 0.1))


def sweep(repository: Repository, mount: Path, chance: random.Random) -> None:
    """Prune all but the heads; most times without waiting until no kernel believes in them any more."""
    with mock.patch("store.prune.COMMIT_LAG_S", chance.choice((0.0, 0.1, 0.3, 1.0))):
        prune(repository, Rule(refs_only=True, depth=0))


class Reader:
    """Reads commits through the mount."""

    def __init__(self) -> None:
        self.counts = {"right": 0, "gone": 0}

    def read(self, repository: Repository, mount: Path, chance: random.Random) -> None:
        """Read one commit, by a ref or from the list."""
        try:
            names = os.listdir(mount / "commits")
            root = mount / "refs" / chance.choice(REFS) if chance.random() < 0.7 or not names else None
            here = os.open(root or mount / "commits" / chance.choice(names), os.O_RDONLY | os.O_DIRECTORY)
            try:
                _check(here)
            finally:
                os.close(here)
            self.counts["right"] += 1
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.counts["gone"] += 1


def _check(here: int) -> None:
    number = int(_read(here, "number"))
    below = os.open("below", os.O_RDONLY, dir_fd=here)
    try:
        expected = files_of(number)
        assert sorted(map(os.fsencode, os.listdir(below))) == sorted(expected), number
        for name, content in expected.items():
            found = _read(below, name)
            assert found == content, (number, name, len(found), len(content))
    finally:
        os.close(below)


def _read(directory: int, name: str | bytes) -> bytes:
    with open(os.open(name, os.O_RDONLY, dir_fd=directory), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read()
        assert len(data) == size, (name, len(data), size)
        return data


def main(role: str, repository_path: Path, mount: Path, end: Path, enough: Path) -> None:
    """Do one thing again and again."""
    chance, reader, rounds = random.Random(os.getpid()), Reader(), 0
    works: dict[str, Callable[[Repository, Path, random.Random], None]] = {
        "commit": commit, "move": move, "prune": sweep, "read": reader.read,
    }  # fmt: skip
    with Repository.open(repository_path) as repository:
        while not end.exists():
            works[role](repository, mount, chance)
            rounds += 1
            if rounds >= 2 and (role != "read" or reader.counts["right"] >= 2) and not enough.exists():
                enough.touch()
    print(json.dumps(reader.counts | {"rounds": rounds}))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
