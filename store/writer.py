"""The one writer: stage what is new, make it durable, publish it in ONE transaction.

    writer = Writer(repository)                     shared lock, a stage of its own
    writer.spool("0").add(StagedFile(…))            file objects, from any number of processes
    writer.add_tree(…), writer.add_meta(…)          dirtrees, children before parents; dirmetas
    writer.publish(root, make_commit, ref=…)        the commit, its ref and its reflog entry become visible together

Killed at any point, either the old state is there or the new one, plus leftovers in tmp/ and loose files that no
record names. The order that makes it so: loose contents are synced; then, inside the write transaction, they are
renamed into objects/ and those directories are synced; then LMDB's commit, the atomic step, makes the records that
name them visible. Only inside that transaction is it certain that a name in objects/ belongs to no published record.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from store.database import Reading, Writing
from store.objects import Checksum, Commit, DirMeta, pack_detached, unpack_detached
from store.publication import Phase, Publication, Report
from store.refs import ANYTHING, find_ref, set_ref
from store.repository import Repository
from store.schema import CommitNumber, id_key
from store.staging import FileSpool, Stage, StagedTree

MakeCommit = Callable[[Reading], Commit]


def _add_detached(writing: Writing, number: CommitNumber, detached: bytes) -> None:
    """Give a commit detached metadata; what an equal commit has already, such as signatures, is kept under its keys."""
    stored = writing.get(b"detached", id_key(number))
    if stored is not None:
        detached = pack_detached(tuple((dict(unpack_detached(stored)) | dict(unpack_detached(detached))).items()))
    writing.put(b"detached", id_key(number), detached)


@dataclass(frozen=True, slots=True)
class Root:
    """The root directory of a tree that is published or staged."""

    dirtree: Checksum
    dirmeta: Checksum


class Writer:
    """A commit under way. Use as a context manager: leaving it removes what was not published."""

    def __init__(self, repository: Repository, report: Report = lambda phase, done: None) -> None:
        """Begin; *report* hears of progress."""
        self._repository, self._report = repository, report
        self._metas: dict[Checksum, bytes] = {}
        self._moved: set[Checksum] = set()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._repository.lock())
            self.stage = stack.enter_context(Stage(self._repository))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def spool(self, number: str) -> FileSpool:
        """Return a new spool for file objects; close it before publishing."""
        return FileSpool(self.stage.path, number)

    def add_meta(self, meta: DirMeta) -> Checksum:
        """Stage a dirmeta; its checksum comes back."""
        checksum = meta.checksum
        self._metas.setdefault(checksum, meta.to_bytes())
        return checksum

    def add_tree(self, staged: StagedTree) -> None:
        """Stage a dirtree, after those that it names."""
        self.stage.add_tree(staged)

    def publish(
        self,
        make_commit: MakeCommit,
        *,
        ref: str | None,
        time_s: int,
        message: str,
        expected: CommitNumber | None = ANYTHING,
        detached: bytes | None = None,
    ) -> Checksum:
        """Make everything durable, then the commit and its ref visible, in one step; the checksum comes back.

        *make_commit* is called inside the transaction, so that the parent that it looks up is still the parent.

        Raises:
            ConflictError: the ref is not where *expected* says.
            FormatError: more entries than can be numbered.
        """
        self._report(Phase.SYNCING, 0)
        self.stage.sync(lambda done: self._report(Phase.SYNCING, done))

        def body(writing: Writing) -> Checksum:
            self._report(Phase.PUBLISHING, 0)
            publication = Publication(self._repository, writing, self.stage, self._moved, self._report)
            publication.run(self._metas)
            number, checksum = publication.add_commit(make_commit(writing))
            if detached is not None:
                _add_detached(writing, number, detached)
            if ref is not None:
                current = find_ref(writing, ref)
                if current is None or current.commit != number or expected not in (ANYTHING, number):
                    set_ref(writing, ref, number, time_s=time_s, message=message, expected=expected)
            self._report(Phase.PUBLISHING, publication.steps)
            return checksum

        return self._repository.database.write(body)
