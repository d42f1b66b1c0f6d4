"""Delete what no commit that stays reaches, beside commits, checkouts and mounts, and so that a kill loses nothing.

1. Marking, without the lock: what the commits that stay reach (store/marking.py), in short looks at the index; and
   which loose files no record names.
2. The repository's lock, exclusively: whoever adds objects, or relies on some that are here, shares it from the first
   look to the last. So nobody has a stage now, and nobody gets one before this is done.
3. ONE write transaction: what was committed meanwhile is marked, too; all records of what is not marked go, and their
   ids are noted as pruned. LMDB's switch of its meta page is the atomic step: before it nothing is gone, behind it
   everything is.
4. Still under the lock, the loose files go: each is looked for in the index once more, and stays if a record names it.
   A process killed here leaves files that no record names, as a killed commit does: garbage that fsck names and the
   next prune removes.

The records of mtimes stay: a copy made by rsync may still have the file that had a second, and would take another of
that size and second for the same.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from pyroaring import BitMap64

from store.database import Writing
from store.errors import AccessError, PrunedError
from store.leftovers import is_named, temporary_files, unnamed_files
from store.marking import Marks, Roots, Rule
from store.object_rules import CHECKSUM_BYTES
from store.objects import Checksum
from store.prune_records import KINDS, Records, Tally, records_of
from store.pruned import record_pruned
from store.refs import COMMIT_LAG_S, TICKS_S
from store.repository import Repository
from store.schema import GENERATION, key_id
from store.walking.beneath import DIRECTORY
from store.walking.remove import remove_tree
from store.walking.walk import Walk

_AT_A_TIME: Final = 256  # dirtrees or records in one look at the index, so that what others delete can be reused


class Phase(StrEnum):
    """What a prune under way is doing."""

    MARKING = "marking"
    WAITING = "waiting for commits and checkouts under way"
    DELETING = "deleting"
    REMOVING = "removing files"


Report = Callable[[Phase, int, int], None]  # called with the steps done in this phase, and how many there are


@dataclass(slots=True)
class Pruned:
    """What went, or would go: by counter, and what had been left over before; and which commits."""

    tallies: dict[str, Tally] = field(default_factory=lambda: {counter: Tally() for counter in KINDS})
    leftovers: Tally = field(default_factory=Tally)
    commits: list[Checksum] = field(default_factory=list)
    loose: bytearray = field(default_factory=bytearray)  # the checksums of loose files, one behind the other

    @property
    def total_bytes(self) -> int:
        """All bytes."""
        return sum(tally.total_bytes for tally in (*self.tallies.values(), self.leftovers))

    def add(self, counter: str, records: Records) -> None:
        """Count an object."""
        self.tallies[counter].add(records.index_bytes, records.loose_bytes)
        if counter == "commit":
            self.commits.append(records.checksum)
        if records.is_loose:
            self.loose += records.checksum


def _silent(phase: Phase, done: int, total: int) -> None:
    pass


def prune(repository: Repository, rule: Rule, report: Report = _silent) -> Pruned:
    """Delete what no commit that *rule* keeps reaches; return when every view says so.

    Raises:
        FsviewError: a ref points at a commit that is to be deleted.
        AccessError: this user may not write the repository.
        CorruptionError: the index is damaged; nothing was deleted.
    """
    _check_access(repository)
    roots = Roots(rule)
    marks = _mark(repository, roots, report)
    unnamed = bytearray().join(unnamed_files(repository))
    report(Phase.WAITING, 0, 0)
    with repository.lock(exclusive=True):
        pruned = repository.database.write(lambda writing: _delete(writing, roots, marks, report))
        gone_s = time.monotonic()
        pruned.leftovers = _remove_loose(repository, unnamed, _silent)
        _remove_loose(repository, pruned.loose, report)
        _remove_temporary(temporary_files(repository), pruned.leftovers)
    if pruned.commits:  # the lock is free: nobody else has to wait until no kernel believes in the commits any more
        time.sleep(max(0.0, gone_s + COMMIT_LAG_S + TICKS_S - time.monotonic()))
    return pruned


def plan(repository: Repository, rule: Rule, report: Report = _silent) -> Pruned:
    """Return what `prune` would delete now; nothing is locked or written."""
    roots, pruned = Roots(rule), Pruned()
    marks = _mark(repository, roots, report)
    with repository.database.reading() as reading:
        doomed = marks.unmarked(reading)
    for counter, ids in doomed.items():
        _plan_kind(repository, counter, list(ids), pruned)
    for checksum in unnamed_files(repository):
        pruned.leftovers.add(0, _size(repository.loose_path(checksum)))
    for path in temporary_files(repository):
        pruned.leftovers.add(0, _size(path))
    return pruned


def _plan_kind(repository: Repository, counter: str, numbers: list[int], pruned: Pruned) -> None:
    for at in range(0, len(numbers), _AT_A_TIME):
        with repository.database.reading() as reading:
            for number in numbers[at : at + _AT_A_TIME]:
                with suppress(PrunedError):  # by somebody else, a moment ago
                    pruned.add(counter, records_of(reading, counter, number))


def _check_access(repository: Repository) -> None:
    paths = [repository.path / name for name in ("objects", "tmp", "lock") if (repository.path / name).exists()]
    for path in (repository.database.path / "data.mdb", *paths):
        if not os.access(path, os.W_OK):
            raise AccessError(
                f"{path} can't be written by this user, so nothing can be pruned; "
                f"run fsview prune as the owner of the repository, where it is not mounted read-only"
            )


def _mark(repository: Repository, roots: Roots, report: Report) -> Marks:
    """Mark what is reached now. Where another prune deletes what is just looked at, begin anew."""
    while True:
        generation = _generation(repository)
        try:
            return _mark_once(repository, roots, report)
        except PrunedError:
            if generation == _generation(repository):
                raise


def _mark_once(repository: Repository, roots: Roots, report: Report) -> Marks:
    marks, done, step = Marks(), 0, 1
    with repository.database.reading() as reading:
        marks.add(reading, roots.find(reading))
        total = reading.count(b"dirtree")
    while step:
        report(Phase.MARKING, done, total)
        with repository.database.reading() as reading:
            step = marks.advance(reading, _AT_A_TIME)
        done += step
    return marks


def _generation(repository: Repository) -> int:
    with repository.database.reading() as reading:
        return reading.counter(GENERATION)


def _delete(writing: Writing, roots: Roots, marks: Marks, report: Report) -> Pruned:
    """Delete the records of all that is not marked, having marked what is new; it may run again from the start."""
    pruned = Pruned()
    marks.add(writing, roots.find(writing))
    while marks.advance(writing, _AT_A_TIME):
        pass
    doomed = marks.unmarked(writing)
    done, total = 0, sum(map(len, doomed.values()))
    for counter, ids in doomed.items():
        for number in ids:
            records = records_of(writing, counter, number)
            for table, key in records.keys:
                writing.delete(table, key)
            pruned.add(counter, records)
            if done % _AT_A_TIME == 0:
                report(Phase.DELETING, done, total)
            done += 1
        if ids:
            record_pruned(writing, counter, ids)
    if doomed["tree"]:
        _forget_stats(writing, doomed["tree"])
    if total:
        writing.take_id(GENERATION)
    report(Phase.DELETING, done, total)
    return pruned


def _forget_stats(writing: Writing, trees: BitMap64) -> None:
    """Delete what the stat cache knows of directories whose dirtree goes; the others' entries all stay."""
    keys = [key for key, value in writing.items(b"stat") if key_id(value[:8]) in trees]
    for key in keys:
        writing.delete(b"stat", key)


def _remove_loose(repository: Repository, checksums: bytearray, report: Report) -> Tally:
    """Remove those of these loose files that no record names; the caller has the exclusive lock."""
    tally, total = Tally(), len(checksums) // CHECKSUM_BYTES
    for start in range(0, total, _AT_A_TIME):
        report(Phase.REMOVING, start, total)
        part = range(start, min(start + _AT_A_TIME, total))
        some = [Checksum(bytes(checksums[at * CHECKSUM_BYTES : (at + 1) * CHECKSUM_BYTES])) for at in part]
        with repository.database.reading() as reading:
            paths = [repository.loose_path(checksum) for checksum in some if not is_named(reading, checksum)]
        for path in paths:
            with suppress(FileNotFoundError):
                size = path.lstat().st_size
                path.unlink()
                tally.add(0, size)
    return tally


def _remove_temporary(paths: list[Path], tally: Tally) -> None:
    for path in paths:
        tally.add(0, _size(path))
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink()


def _size(path: Path) -> int:
    """Return how many bytes a file, or all files in a directory, have; 0 if it is gone."""
    try:
        top = os.open(path, DIRECTORY)
    except FileNotFoundError:
        return 0
    except OSError:  # no directory
        return path.lstat().st_size
    try:
        with Walk(top, os.fsencode(path), one_mount=True) as walk:
            return sum(found.status.st_size for found in walk.entries() if not stat.S_ISDIR(found.status.st_mode))
    finally:
        os.close(top)
