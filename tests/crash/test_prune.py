"""Prunes that are killed, or fail, at any moment: all commits are there or the pruned ones are gone, none by half.

And prunes beside commits that count on what the prune would delete.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.findings import Severity
from store.objects import Checksum
from store.prune import Phase
from store.publication import Phase as CommitPhase
from store.refs import set_ref
from store.repository import Repository
from store.tree import commit_number
from tests.checking import assert_sound, check_repository
from tests.committing import commit_tree
from tests.conftest import Tell
from tests.crash.driver import Action, Case, read_status, run_prune
from tests.crash.rig import Stand, running, start
from tests.crash.test_concurrency import stopped
from tests.crash.test_faults import failing
from tests.readback import committed_snapshot, head
from tests.snapshots import Snapshot, assert_same_tree
from tests.trees import Spec, build_tree

_CALLS_MAX = 400


@dataclass(frozen=True)
class Line:
    """A repository to be copied for each case: commits on one ref, of which the last is to stay."""

    base: Path
    commits: list[Checksum]
    trees: list[Snapshot]

    @classmethod
    def build(cls, where: Path, *, count: int = 4, small: int = 12, large: int = 4) -> Line:
        """Make a repository with *count* commits, each with so many files of its own, and some that all have."""
        where.mkdir()
        with Repository.create(where / "base") as repository:
            commits = [
                commit_tree(repository, build_tree(where / str(number), _spec(number, small, large))).checksum
                for number in range(count)
            ]
            return cls(where / "base", commits, [committed_snapshot(repository, one) for one in commits])

    def case(self, repository: Path, action: Action = "none", phase: str = "", number: int = 1) -> Case:
        """Return a prune of a fresh copy, made at *repository*."""
        shutil.rmtree(repository, ignore_errors=True)
        shutil.copytree(self.base, repository)
        status = str(repository.with_name(repository.name + ".status"))
        return Case(str(repository), "", "", status, action, phase, number, work="prune")

    def assert_all_or_last(self, repository: Path, *, but: str = "nothing") -> bool:
        """Fail unless the repository is sound but for garbage, with all commits whole, or the last (True)."""
        __tracebackhide__ = True
        errors = [one for one in check_repository(repository) if one.severity != Severity.GARBAGE]
        assert [str(one) for one in errors if but not in str(one)] == []
        with Repository.open(repository) as opened:
            with opened.database.reading() as reading:
                here = [commit_number(reading, one) is not None for one in self.commits]
            is_pruned = here == [False] * (len(here) - 1) + [True]
            assert is_pruned or all(here)
            for commit, tree, is_here in zip(self.commits, self.trees, here, strict=True):
                if is_here:
                    assert_same_tree(tree, committed_snapshot(opened, commit))
        return is_pruned

    def assert_mends(self, case: Case) -> None:
        """Prune again: the last commit stays, and nothing is left over."""
        __tracebackhide__ = True
        run_prune(case)
        repository = Path(case.repository)
        assert self.assert_all_or_last(repository)
        assert [str(finding) for finding in check_repository(repository)] == []


def _spec(number: int, small: int, large: int) -> Spec:
    chance = random.Random(number)
    own = {f"small{index}": chance.randbytes(500) for index in range(small)}
    own |= {f"large{index}": chance.randbytes(20_000) for index in range(large)}
    return {"all": {"small": b"all", "large": bytes(20_000)}, f"own{number}": own}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line.build(tmp_path_factory.mktemp("prune") / "line")


def reports_of(line: Line, where: Path) -> tuple[dict[str, int], dict[str, float]]:
    """Run a prune through: how many reports there are in each phase, and how many seconds it is until the end."""
    with start(line.case(where / "measured"), where) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
    moments: list[tuple[str, float]] = told["moments"]
    counts = Counter(phase for phase, _ in moments)
    return dict(counts), {phase: told["end"] - next(at for one, at in moments if one == phase) for phase in counts}


class Campaign:
    """Kills prunes, judges each, and counts (phase, what was there)."""

    def __init__(self, line: Line, where: Path, seed: int) -> None:
        self._line, self._where, self._chance = line, where, random.Random(seed)
        self.reports, self.seconds = reports_of(line, where)
        self.seen: Counter[tuple[str, str]] = Counter()

    def kill_itself(self, phase: Phase, number: int) -> None:
        """Kill at one report."""
        self._kill(phase, number)

    def kill_from_outside(self, phase: Phase) -> None:
        """Kill at a random moment after *phase* began."""
        self._kill(phase, None)

    def _kill(self, phase: Phase, number: int | None) -> None:
        repository = self._where / "repo"
        case = self._line.case(repository, "tell" if number is None else "die", phase, number or 1)
        with start(case, self._where) as process:
            assert process.stdout is not None
            if number is None:
                assert process.stdout.readline() == b"now\n"
                time.sleep(self._chance.uniform(0, self.seconds[phase]))
                process.kill()
            status = process.wait(60)
        died_in, _ = read_status(Path(case.status))
        if status == 0 or died_in is None:
            return  # it was faster than the kill
        assert status == -signal.SIGKILL
        is_pruned = self._line.assert_all_or_last(repository)
        assert is_pruned or died_in != Phase.REMOVING
        assert not is_pruned or died_in in (Phase.DELETING, Phase.REMOVING)
        self._line.assert_mends(case)
        self.seen[died_in, "gone" if is_pruned else "there"] += 1


def test_a_killed_prune_has_happened_or_not(line: Line, tmp_path: Path) -> None:
    campaign = Campaign(line, tmp_path, 1)
    for phase in Phase:
        for number in {1, campaign.reports[phase]}:
            campaign.kill_itself(phase, number)
        campaign.kill_from_outside(phase)
    assert campaign.seen.total() >= 7  # those from outside may come too late
    assert campaign.seen[Phase.REMOVING, "gone"] >= 2


@pytest.mark.torture
def test_two_hundred_kills(tmp_path: Path, tell: Tell) -> None:
    campaign = Campaign(Line.build(tmp_path / "line", small=100, large=30), tmp_path, 2)
    for phase in Phase:
        for step in range(40):
            campaign.kill_itself(phase, 1 + (campaign.reports[phase] - 1) * step // 39)
            campaign.kill_from_outside(phase)
    tell(*(f"{count:4} {what}" for what, count in sorted(campaign.seen.items())))
    assert campaign.seen.total() >= 150


def fail_each(line: Line, call: str, error: str, where: Path) -> int:
    """Let each *call* of a prune fail once; return how many there were."""
    with failing(call, error, where) as server:
        for number in range(1, _CALLS_MAX):
            case = line.case(where / "repo")
            status, text, came = server.commit(number, case)
            assert status in (0, 1), f"{call} number {number}: {text}"
            but = ": meta page" if call == "pwrite64" else "nothing"  # LMDB couldn't write its older one
            is_pruned = line.assert_all_or_last(Path(case.repository), but=but)
            assert is_pruned or status == 1, f"{call} number {number}: it did not prune, and said that it did"
            line.assert_mends(case)
            if not came:
                assert status == 0
                return number - 1
    raise AssertionError(f"a prune makes more than {_CALLS_MAX} calls of {call}")


@pytest.mark.parametrize(
    ("call", "error", "least"), [("pwrite64", "ENOSPC", 1), ("fdatasync", "EIO", 1), ("unlink", "EIO", 12)]
)
def test_a_call_that_fails_fails_the_prune(line: Line, tmp_path: Path, call: str, error: str, least: int) -> None:
    assert fail_each(line, call, error, tmp_path) >= least


@pytest.mark.torture
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EIO+"])
@pytest.mark.parametrize("call", ["pwrite64", "pwritev", "fdatasync", "unlink", "openat", "flock", "ftruncate"])
def test_any_call_that_fails(line: Line, tmp_path: Path, call: str, error: str) -> None:
    fail_each(line, call, error, tmp_path)


# Beside commits.


@pytest.mark.parametrize(
    ("phase", "number"), [(CommitPhase.HASHING, 1), (CommitPhase.STAGING, 3), (CommitPhase.PUBLISHING, 2)]
)
def test_a_prune_waits_for_a_commit_under_way(tmp_path: Path, phase: CommitPhase, number: int) -> None:
    """The commit found objects here, and staged none for them, which no ref reaches any more; commits come after."""
    stand = Stand.build(tmp_path / "stand", small=20, large=4, processes=1)
    case = stand.case(tmp_path / "repo", "stop", phase, number)
    _keep_from_refs(tmp_path / "repo", stand)
    pruning = Case(case.repository, "", "", str(tmp_path / "pruning"), work="prune")
    with stopped(case, tmp_path) as commit, running(pruning, tmp_path) as prune:
        _wait_until_it_waits(tmp_path / "pruning", prune)
        with pytest.raises(subprocess.TimeoutExpired):
            prune.wait(1)
        assert read_status(tmp_path / "pruning")[0] == Phase.WAITING
        other = Case(case.repository, case.tree, case.parent, str(tmp_path / "late"), processes=1)
        with running(other, tmp_path) as late:
            with pytest.raises(subprocess.TimeoutExpired):
                late.wait(0.5)  # the prune bars it
            commit.send_signal(signal.SIGCONT)
            assert commit.wait(30) == prune.wait(30) == late.wait(30) == 0
    with Repository.open(tmp_path / "repo") as repository:
        assert head(repository, "crash/test") == stand.new
        assert_same_tree(stand.source, committed_snapshot(repository, stand.new))
        with repository.database.reading() as reading:
            assert commit_number(reading, stand.old) is None
    assert_sound(tmp_path / "repo")


def _wait_until_it_waits(status: Path, prune: subprocess.Popen[bytes]) -> None:
    while prune.poll() is None and (not status.exists() or read_status(status)[0] != Phase.WAITING):
        time.sleep(0.002)


def _keep_from_refs(path: Path, stand: Stand) -> None:
    """Take the ref away, so that nothing but the commit under way wants what is here."""
    with Repository.open(path) as repository:
        repository.database.write(lambda writing: set_ref(writing, "crash/test", None, time_s=0, message=""))
        assert head(repository, "crash/test") is None and stand.old


def test_an_interrupted_prune_leaves_nothing_half_made(line: Line, tmp_path: Path) -> None:
    for phase in (Phase.MARKING, Phase.DELETING, Phase.REMOVING):
        case = line.case(tmp_path / "repo", "tell", phase)
        with start(case, tmp_path) as process:
            assert process.stdout is not None and process.stdout.readline() == b"now\n"
            os.kill(process.pid, signal.SIGINT)
            process.wait(30)
        line.assert_all_or_last(tmp_path / "repo")
        line.assert_mends(case)
