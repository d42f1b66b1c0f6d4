"""What it takes to list a virtual directory grows as the directory does, not as its square; and so for each look in it.

The work is counted in lines of this project's code that are run, with twice as much in the directory the second time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pyroaring import BitMap64

from fsview import nodeid
from fsview.view import View
from store.database import Writing
from store.gvariant import Variant
from store.objects import Checksum, ObjectType
from store.pruned import record_pruned
from store.refs import set_ref
from store.repository import Repository
from store.schema import GENERATION, CommitNumber, CommitRecord, id_key
from tests.forge import forge
from tests.running import PROJECT

SMALL, LARGE = 60, 120
LINEAR = 2.5  # twice as much work, and some
PAGE = 5  # rows that the kernel takes at a time
YEAR_S = 31_556_952
BUILT = (str(PROJECT / "store"), str(PROJECT / "fsview"))


class Lines:
    """Counts lines."""

    def __init__(self) -> None:
        self.run = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is run in this project while this lasts."""
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        return self._line if frame.f_code.co_filename.startswith(BUILT) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        self.run += event == "line"
        return self._line


def node(view: View, path: str) -> int:
    """Return the node at a path."""
    found: int = nodeid.ROOT
    for name in path.encode().split(b"/"):
        below = view.find(found, name)
        assert below is not None, path
        found = below.node
    return found


def listed(view: View, directory: int) -> list[bytes]:
    """Read a directory by the page; return the names."""
    names: list[bytes] = []
    after = 0
    for _ in count():
        page = []
        for row in view.rows(directory, after):
            page.append(row.name)
            after = row.cookie
            if len(page) == PAGE:
                break
        names += page
        if len(page) < PAGE:
            return names
    raise AssertionError


Make = Callable[[Repository, int], None]  # of so many things
Work = Callable[[View, str], int]  # the number of things that were looked at


def listing(path: str) -> Work:
    """List the directory."""
    return lambda view, commit: len(listed(view, node(view, path.format(commit)))) - 2


def looks(path: str) -> Work:
    """Look for each name in the directory."""

    def look(view: View, commit: str) -> int:
        directory = node(view, path.format(commit))
        names = listed(view, directory)
        assert all(view.find(directory, name) is not None for name in names)
        return len(names) - 2

    return look


def all_below(path: str) -> Work:
    """List each directory in the directory."""

    def below(view: View, commit: str) -> int:
        names = [name.decode() for name in listed(view, node(view, path)) if name not in (b".", b"..")]
        assert all(len(listed(view, node(view, f"{path}/{name}"))) > 2 for name in names)
        return len(names)

    return below


def reading(path: str) -> Work:
    """Read the file by the page; it has a line for each thing."""

    def read(view: View, commit: str) -> int:
        found, lines, offset = node(view, path.format(commit)), 0, 0
        while data := view.read(found, offset, 32):
            lines, offset = lines + data.count(b"\n"), offset + len(data)
        return lines

    return read


def refs(repository: Repository, many: int, name: str = "flat/{}") -> None:
    """Make refs, all at one commit."""
    with forge(repository) as work:
        work.publish(work.tree({b"f": work.file(b"f")}), None)
    point(repository, {name.format(number): 1024 for number in range(many)})


def point(repository: Repository, where: Mapping[str, int | None]) -> None:
    """Point refs at commits by number, or delete them (None)."""

    def body(writing: Writing) -> None:
        for name, number in where.items():
            set_ref(writing, name, None if number is None else CommitNumber(number), time_s=0, message="")

    repository.database.write(body)


def gone_refs(repository: Repository, many: int) -> None:
    """Make as many refs, and others in between that are deleted."""
    refs(repository, 2 * many)
    point(repository, {f"flat/{number}": None for number in range(0, 2 * many, 2)})


def remotes(repository: Repository, many: int) -> None:
    """Make remotes with a ref each."""
    refs(repository, many, "remote{}:x")


def commits(repository: Repository, many: int, step_s: int = 1) -> None:
    """Make a history, one file of which is another one in each commit; and a ref at each commit."""
    history(repository, ({b"f": b"%d" % number} for number in range(many)), step_s)
    point(repository, {f"at/{number}": 1024 + number for number in range(many)})


def history(repository: Repository, trees: Iterable[Mapping[bytes, bytes]], step_s: int = 1) -> None:
    """Make a commit of each of *trees*, and point the ref main at the last."""
    parent: Checksum | None = None
    for number, files in enumerate(trees):
        with forge(repository) as work:
            tree = work.tree({name: work.file(content) for name, content in files.items()})
            parent = work.publish(tree, None, time_s=number * step_s + YEAR_S // 2, parent=parent)
    point(repository, {"main": 1024 + number})


def years(repository: Repository, many: int) -> None:
    """Make a commit in each of many years."""
    commits(repository, many, YEAR_S)


def metadata(repository: Repository, many: int) -> None:
    """Make a commit that has much to tell."""
    with forge(repository) as work:
        told = tuple((f"key{number:04}", Variant("s", "value")) for number in range(many))
        work.publish(work.tree(), "main", metadata=told)


def growing(repository: Repository, many: int) -> None:
    """Make a history with one more file in each commit."""
    history(repository, ({b"%d" % name: b"%d" % name for name in range(number + 1)} for number in range(many)))


def pruned(repository: Repository, many: int) -> None:
    """Make as many commits, and others in between that were pruned."""
    history(repository, ({} for _ in range(2 * many)))

    def prune(writing: Writing) -> None:
        gone = range(1024, 1024 + 2 * many, 2)
        for number in gone:
            record = CommitRecord.unpack(writing.need(b"commit", id_key(number)))
            writing.delete(b"commit", id_key(number))
            writing.delete(b"object", bytes((ObjectType.COMMIT,)) + record.checksum)
        record_pruned(writing, "commit", BitMap64(gone))
        writing.take_id(GENERATION)

    repository.database.write(prune)


CASES: dict[str, tuple[Make, Work]] = {
    "refs": (refs, listing("refs/flat")),
    "refs, looked for": (refs, looks("refs/flat")),
    "refs as directories": (refs, listing("history/flat")),
    "refs in versions": (refs, listing("versions/flat")),
    "refs, others gone": (gone_refs, listing("refs/flat")),
    "refs at the top": (lambda repository, many: refs(repository, many, "r{}"), listing("refs")),
    "directories of refs": (lambda repository, many: refs(repository, many, "d{}/x"), all_below("refs")),
    "refs of a remote": (lambda repository, many: refs(repository, many, "origin:{}"), listing("remotes/origin")),
    "remotes": (remotes, listing("remotes")),
    "remotes, looked for": (remotes, looks("remotes")),
    "remotes, each": (remotes, all_below("remotes")),
    "refs of a commit": (refs, reading("info/{}/refs")),
    "JSON of a commit with refs": (refs, reading("info/{}/commit.json")),
    "commits": (commits, listing("commits")),
    "commits in info": (commits, listing("info")),
    "info of each commit": (commits, all_below("info")),
    "pruned commits": (pruned, listing("commits")),
    "pruned commits by date": (pruned, listing("by-date/1970/07/02")),
    "history": (commits, listing("history/main")),
    "history, looked for": (commits, looks("history/main")),
    "a day": (commits, listing("by-date/1970/07/02")),
    "a day, looked for": (commits, looks("by-date/1970/07/02")),
    "years": (years, listing("by-date")),
    "metadata": (metadata, listing("info/{}/metadata")),
    "metadata, looked for": (metadata, looks("info/{}/metadata")),
    "versions of a file": (commits, listing("versions/{}/f")),
    "versions of a file, looked for": (commits, looks("versions/{}/f")),
    "files with versions": (growing, listing("versions/{}")),
    "files with versions, looked for": (growing, looks("versions/{}")),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make, int], Path]:
    """Return what makes a repository, each once."""

    @cache
    def path(make: Make, many: int) -> Path:
        where = tmp_path_factory.mktemp("work") / "repo"
        with Repository.create(where) as repository:
            make(repository, many)
        return where

    return path


def work_of(path: Path, many: int, work: Work) -> int:
    """Return how many lines it takes to do *work* on a repository."""
    lines = Lines()
    with Repository.open(path) as repository:
        with repository.database.reading() as reading:
            number = max(1024, reading.counter("commit") - 1)
            checksum = CommitRecord.unpack(reading.need(b"commit", id_key(number))).checksum
        view = View(repository, uid=0, gid=0, now_s=lambda: 0)
        with lines.counted():
            found = work(view, checksum.hex())
        assert found >= many
    return lines.run


@pytest.mark.parametrize("case", CASES)
def test_twice_as_much_takes_twice_the_work(made: Callable[[Make, int], Path], case: str) -> None:
    make, work = CASES[case]
    small, large = (work_of(made(make, many), many, work) for many in (SMALL, LARGE))
    assert large < LINEAR * small, f"{small} lines for {SMALL}, {large} for {LARGE}"
