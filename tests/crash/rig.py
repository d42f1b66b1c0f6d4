"""What the tests of crashes share: a repository with one commit, a tree to be committed on it, and the verdict."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.findings import Severity
from store.objects import Checksum
from store.publication import Phase
from store.repository import Repository
from tests.checking import check_repository
from tests.crash.driver import PHASES, REF, TIME_S, Action, Case, run_commit
from tests.readback import committed_snapshot, head
from tests.running import PROJECT, clean_environment
from tests.snapshots import Snapshot, assert_same_tree, snapshot
from tests.trees import File, Spec, Symlink, build_tree
from tools.make_commit import Message, TreeSpec, commit
from tools.sources import DiskOptions


@dataclass(frozen=True)
class Moments:
    """How one commit went when nothing happened to it: reports and seconds in each phase."""

    reports: dict[Phase, int]
    seconds: dict[Phase, float]


@dataclass(frozen=True)
class Stand:
    """A repository to be copied for each case, and the tree that is committed on its only commit."""

    base: Path
    tree: Path
    source: Snapshot = field(repr=False)
    old: Checksum
    new: Checksum
    processes: int | None

    @classmethod
    def build(cls, where: Path, *, small: int, large: int, processes: int | None = None) -> Stand:
        """Make a tree of so many *small* and *large* files (loose contents), half of them committed before."""
        where.mkdir()
        base, trial = where / "base", where / "trial"
        build_tree(where / "first", _spec(0, small // 2, large // 2))
        tree = build_tree(where / "second", {**_spec(0, small // 2, large // 2), **_spec(1, small, large)})
        with Repository.create(base) as repository:
            message = Message(REF, "first", timestamp_s=TIME_S)
            old = commit(repository, [TreeSpec("dir", str(where / "first"))], message, DiskOptions()).checksum
        shutil.copytree(base, trial)
        new = run_commit(Case(str(trial), str(tree), old.hex(), ""))
        shutil.rmtree(trial)
        return cls(base, tree, snapshot(tree), old, new, processes)

    def case(self, repository: Path, action: Action = "none", phase: str = "", number: int = 1) -> Case:
        """Return a case on a fresh copy of the repository, made at *repository*."""
        shutil.rmtree(repository, ignore_errors=True)
        shutil.copytree(self.base, repository)
        status = repository.with_name(repository.name + ".status")
        return Case(str(repository), str(self.tree), self.old.hex(), str(status), action, phase, number, self.processes)

    def assert_old_or_new(self, repository: Path, *, but: str = "nothing") -> bool:
        """Fail unless the repository opens, is sound but for garbage, and its ref old or new; True: it is new.

        *but* is in the text of a finding that is let pass.
        """
        __tracebackhide__ = True
        found = check_repository(repository)
        assert [str(one) for one in found if one.severity != Severity.GARBAGE and but not in str(one)] == []
        with Repository.open(repository) as opened:
            now = head(opened, REF)
            assert now in (self.old, self.new)
            if now == self.new:
                self._assert_whole(opened)
        return now == self.new

    def assert_mends(self, case: Case) -> None:
        """Commit again: the right commit, with the source's tree, and nothing left over."""
        __tracebackhide__ = True
        assert run_commit(case) == self.new
        repository = Path(case.repository)
        assert [str(finding) for finding in check_repository(repository)] == []
        assert list((repository / "tmp").iterdir()) == []
        with Repository.open(repository) as opened:
            assert head(opened, REF) == self.new
            self._assert_whole(opened)

    def _assert_whole(self, opened: Repository) -> None:
        assert_same_tree(self.source, committed_snapshot(opened, self.new))


def _spec(seed: int, small: int, large: int) -> Spec:
    chance = random.Random(seed)
    files = {f"small-{number}": chance.randbytes(chance.randrange(4000)) for number in range(small)}
    files |= {f"large-{number}": chance.randbytes(chance.randrange(17_000, 300_000)) for number in range(large)}
    spec: dict[str, Any] = {}
    for number, (name, content) in enumerate(files.items()):
        directory = spec.setdefault(f"{seed}-{number % 9}", {"link": Symlink(f"../{seed}")})
        directory[name] = File(content, mode=0o640 + number % 3, mtime_ns=TIME_S * 10**9 + number)
    return spec


def start(case: Case, where: Path) -> subprocess.Popen[bytes]:
    """Start the driver as the leader of a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.driver", case.to_json()],
        stdout=subprocess.PIPE,
        env=clean_environment(where),
        cwd=PROJECT,
        process_group=0,
    )


@contextmanager
def running(case: Case, where: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the driver; at the end all of it is killed that still runs, whatever it waits for."""
    with start(case, where) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def measure(stand: Stand, where: Path) -> Moments:
    """Run a commit through and return how it went."""
    with start(stand.case(where / "measured"), where) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
    assert told["checksum"] == stand.new.hex()
    moments = [(Phase(phase), at) for phase, at in told["moments"]]
    starts = {phase: next(at for one, at in moments if one == phase) for phase in PHASES}
    ends = [*list(starts.values())[1:], told["end"]]
    reports = {phase: sum(one == phase for one, _ in moments) for phase in PHASES}
    return Moments(reports, {phase: end - starts[phase] for phase, end in zip(PHASES, ends, strict=True)})


def wait_for_group(group: int, timeout_s: float = 10.0) -> None:
    """Wait until no process of the group lives; fail if one survives."""
    deadline = time.monotonic() + timeout_s
    while left := _living(group):
        assert time.monotonic() < deadline, f"processes survive the commit that started them: {left}"
        time.sleep(0.005)


def _living(group: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended
            if int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
                found.append(int(name))
    return found
