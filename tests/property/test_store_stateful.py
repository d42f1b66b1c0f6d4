"""Any sequence of edits, commits, moves of refs, prunes and reopenings: the repository does as a dictionary would."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from store.check import check
from store.database import Writing
from store.errors import FsviewError, InvalidNameError, NotFoundError
from store.marking import Rule
from store.objects import Checksum
from store.prune import plan, prune
from store.refs import list_refs, set_ref
from store.repository import Repository
from store.revisions import resolve
from store.tree import commit_number, commit_record
from tests.readback import committed_snapshot
from tests.snapshots import Snapshot, assert_same_tree, snapshot
from tools.make_commit import Message, TreeSpec, commit
from tools.sources import DiskOptions

REFS = ("main", "debian/12", "debian/13/base", "origin:main", "v1")
NAMES = ("a", "b", "c.txt", "é", "-rf", "new\nline", "x" * 255)
SIZES = (0, 1, 5, 300, 16 << 10, (16 << 10) + 1, 200_000)
CHECK_EVERY = 8
_LATER_NS = 1 << 62  # for the stat cache: what was written a moment ago is old, and so remembered …
_TICK_S = 0.012  # … if nothing more is written in the same tick of the kernel's clock


@contextmanager
def pause(seconds: float) -> Iterator[None]:
    """Wait behind the block."""
    yield
    time.sleep(seconds)


@dataclass(frozen=True)
class Move:
    """One line of a ref's log."""

    old: Checksum | None
    new: Checksum | None


class StoreMachine(RuleBasedStateMachine):
    """A repository, the tree that is committed to it, and a model of both."""

    directories: Bundle[str] = Bundle("directories")  # below the tree; may be gone by now
    commits: Bundle[Checksum] = Bundle("commits")

    def __init__(self) -> None:
        super().__init__()
        self.where = Path(tempfile.mkdtemp(prefix="fsview-state-"))
        self.tree = self.where / "tree"
        self.tree.mkdir()
        self.repository = Repository.create(self.where / "repo")
        self.refs: dict[str, Checksum] = {}
        self.logs: dict[str, list[Move]] = {}  # of refs that exist; the newest last
        self.trees: dict[Checksum, Snapshot] = {}
        self.parents: dict[Checksum, Checksum | None] = {}
        self.clock = 1_000_000_000
        self.steps = 0

    def teardown(self) -> None:
        try:
            self._check()
        finally:
            self.repository.close()
            shutil.rmtree(self.where)

    def _check(self) -> None:
        assert [str(finding) for finding in check(self.repository)] == []

    @invariant()
    def is_sound(self) -> None:
        self.steps += 1
        if self.steps % CHECK_EVERY == 0:
            self._check()

    # The tree.

    @initialize(target=directories)
    def begin(self) -> str:
        return "."

    @rule(target=directories, parent=directories, name=st.sampled_from(NAMES), mode=st.sampled_from((0o755, 0o2750)))
    def make_directory(self, parent: str, name: str, mode: int) -> str | MultipleResults[str]:
        path = self.tree / parent / name
        if len(path.parts) - len(self.tree.parts) > 5 or not path.parent.is_dir() or os.path.lexists(path):
            return multiple()
        path.mkdir()
        path.chmod(mode)
        return os.path.join(parent, name)

    @rule(
        parent=directories, name=st.sampled_from(NAMES), size=st.sampled_from(SIZES), filling=st.integers(0, 3),
        mode=st.sampled_from((0o644, 0o755, 0o4755, 0)), second=st.integers(-2, 2),
    )  # fmt: skip
    def write(self, parent: str, name: str, size: int, filling: int, mode: int, second: int) -> None:
        path = self.tree / parent / name
        if not path.parent.is_dir() or path.is_dir():
            return
        path.unlink(missing_ok=True)
        path.write_bytes(bytes([filling]) * size)
        path.chmod(mode)
        os.utime(path, (second, second))

    @rule(parent=directories, name=st.sampled_from(NAMES), to=st.sampled_from((*NAMES, "/nowhere", "../b")))
    def link(self, parent: str, name: str, to: str) -> None:
        path = self.tree / parent / name
        if path.parent.is_dir() and not os.path.lexists(path):
            path.symlink_to(to)

    @rule(parent=directories, name=st.sampled_from(NAMES), mode=st.sampled_from((0o600, 0o755)))
    def change_mode(self, parent: str, name: str, mode: int) -> None:
        path = self.tree / parent / name
        if path.exists() and not path.is_symlink():
            path.chmod(mode)

    @rule(parent=directories, name=st.sampled_from(NAMES))
    def remove(self, parent: str, name: str) -> None:
        path = self.tree / parent / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True) if path.parent.is_dir() else None

    @rule(parent=directories, name=st.sampled_from(NAMES), other=directories, new_name=st.sampled_from(NAMES))
    def rename(self, parent: str, name: str, other: str, new_name: str) -> None:
        source, target = self.tree / parent / name, self.tree / other / new_name
        into_itself = not source.is_symlink() and target.parent.resolve().is_relative_to(source.resolve())
        if os.path.lexists(source) and target.parent.is_dir() and not os.path.lexists(target) and not into_itself:
            source.rename(target)

    # Commits and refs.

    @rule(target=commits, ref=st.sampled_from(REFS), cached=st.booleans())
    def commit(self, ref: str, cached: bool) -> Checksum:
        self.clock += 1
        message = Message(ref, f"at {self.clock}", timestamp_s=self.clock)
        with mock.patch("time.time_ns", lambda: _LATER_NS), pause(_TICK_S):
            done = commit(self.repository, [TreeSpec("dir", str(self.tree))], message, DiskOptions(stat_cache=cached))
        self.trees[done.checksum] = snapshot(self.tree)
        self.parents[done.checksum] = self.refs.get(ref)
        self._moved(ref, done.checksum)
        return done.checksum

    @rule(ref=st.sampled_from(REFS), to=commits)
    def move(self, ref: str, to: Checksum) -> None:
        if to in self.trees:
            self._set(ref, to)
            self._moved(ref, to)

    @rule(depth=st.integers(-1, 3), dry_run=st.booleans())
    def prune_by_refs(self, depth: int, dry_run: bool) -> None:
        kept: set[Checksum] = set()
        for head in self.refs.values():
            left, commit = depth, head
            while commit in self.trees:
                kept.add(commit)
                parent = self.parents[commit]
                if left == 0 or parent is None:
                    break
                left, commit = left - 1, parent
        self._prune(Rule(refs_only=True, depth=depth), set(self.trees) - kept, dry_run)

    @rule(commit=commits, dry_run=st.booleans())
    def delete_commit(self, commit: Checksum, dry_run: bool) -> None:
        with self.repository.database.reading() as reading:
            number = commit_number(reading, commit)
        assert (number is not None) == (commit in self.trees)
        if number is None:
            return
        rule = Rule(deleted=frozenset({number}))
        if commit in self.refs.values():
            with pytest.raises(FsviewError, match="points at it"):
                self._prune(rule, {commit}, dry_run)
        else:
            self._prune(rule, {commit}, dry_run)

    def _prune(self, rule: Rule, expected: set[Checksum], dry_run: bool) -> None:
        with mock.patch("store.prune.COMMIT_LAG_S", 0.0), mock.patch("store.prune._AT_A_TIME", 3):
            planned = plan(self.repository, rule)
            assert set(planned.commits) == expected and planned.leftovers.count == 0
            if not dry_run:
                assert prune(self.repository, rule) == planned
                for checksum in expected:
                    del self.trees[checksum]
                self._check()

    @precondition(lambda self: self.refs)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(sorted(self.refs)))
        self._set(ref, None)
        del self.refs[ref], self.logs[ref]  # made again, it has a log of its own

    def _set(self, ref: str, to: Checksum | None) -> None:
        def body(writing: Writing) -> None:
            number = None if to is None else commit_number(writing, to)
            set_ref(writing, ref, number, time_s=self.clock, message="")

        self.repository.database.write(body)

    def _moved(self, ref: str, to: Checksum) -> None:
        self.logs.setdefault(ref, []).append(Move(self.refs.get(ref), to))
        self.refs[ref] = to

    @precondition(lambda self: self.refs)
    @rule(data=st.data(), to=commits)
    def clash(self, data: st.DataObject, to: Checksum) -> None:
        if to not in self.trees:
            return
        ref = data.draw(st.sampled_from(sorted(self.refs)))
        for other in (f"{ref}/below", *([ref.rpartition("/")[0]] if "/" in ref else [])):
            with pytest.raises(InvalidNameError, match="can't be a ref"):
                self._set(other, to)

    @rule()
    def reopen(self) -> None:
        self.repository.close()
        self.repository = Repository.open(self.where / "repo")

    # What is there.

    @rule()
    def list_them(self) -> None:
        with self.repository.database.reading() as reading:
            found = {name: commit_record(reading, record.commit).checksum for name, record in list_refs(reading)}
        assert found == self.refs

    @precondition(lambda self: self.refs)
    @rule(data=st.data(), number=st.integers(0, 4))
    def look_back(self, data: st.DataObject, number: int) -> None:
        ref = data.draw(st.sampled_from(sorted(self.refs)))
        log = self.logs[ref]
        moves = [move.new for move in reversed(log)]
        expected = moves[number] if number < len(moves) and moves[number] in self.trees else None
        assert self._resolve(f"{ref}@{{{number}}}") == expected

    @precondition(lambda self: self.refs)
    @rule(data=st.data(), steps=st.integers(0, 4))
    def look_up(self, data: st.DataObject, steps: int) -> None:
        ref = data.draw(st.sampled_from(sorted(self.refs)))
        expected: Checksum | None = self.refs[ref]
        for _ in range(steps):
            expected = None if expected is None else self.parents[expected]
            expected = expected if expected in self.trees else None
        assert self._resolve(ref + "^" * steps) == expected == self._resolve(f"{ref}~{steps}")

    @rule(checksum=commits)
    def read_back(self, checksum: Checksum) -> None:
        if checksum not in self.trees:
            assert self._resolve(checksum.hex()) is None
            return
        assert self._resolve(checksum.hex()) == checksum == self._resolve(checksum.hex()[:20])
        assert_same_tree(self.trees[checksum], committed_snapshot(self.repository, checksum))

    def _resolve(self, text: str) -> Checksum | None:
        with self.repository.database.reading() as reading:
            try:
                return commit_record(reading, resolve(reading, text, now_s=self.clock)).checksum
            except NotFoundError:
                return None


StoreMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStore = StoreMachine.TestCase
