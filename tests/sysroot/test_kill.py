"""SIGKILL in the middle of a change: what is current is whole, and the next command succeeds.

Most processes kill themselves, between two calls that change something: these kills are spread over the stages of each
command, and every stage has its share, the first and the last call of it among them. Others are killed from outside
after a random time, in the middle of whatever they do.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest

from tests.checking import assert_sound
from tests.conftest import Tell
from tests.running import RunFsview
from tests.sysroot.killing import Stand, assert_tidy, assert_whole, look, run_and_die
from tests.sysroot.rig import Machine, keep_as_before, release

COMMANDS = (
    ("deploy", "os/c"),
    ("switch", "os/b", "--snapshot-var"),
    ("rollback",),
    ("rollback", "--to", "2", "--restore-var"),
    ("upgrade",),
    ("cleanup", "--keep", "1"),
    ("undeploy", "2", "3"),
    ("pin", "3"),
)
ENDED = "ended before"
AGAIN = {"undeploy": ("cleanup", "--keep", "1")}  # one of them may be gone


@pytest.fixture
def stand(run_fsview: RunFsview, quick_path: Path) -> Stand:
    """Return a machine with five generations, the first pinned; /etc and /var written to; and garbage."""
    (quick_path / "machine").mkdir()
    machine = Machine.make(run_fsview, quick_path / "machine")
    for second, ref in enumerate(("os/a", "os/b", "os/c")):
        machine.commit(ref, release(ref, {f"in-{ref[-1]}": b"x"}), second=second)
    machine.run("deploy", "os/a")
    machine.run("pin")
    (machine.root / "etc/hosts").write_text("mine")
    (machine.root / "etc/added").write_text("added")
    machine.run("switch", "os/b")
    (machine.var / "data").write_text("2")
    machine.run("switch", "--snapshot-var", "os/c")
    (machine.var / "data").write_text("3")
    machine.run("deploy", "os/c")
    machine.run("switch", "os/a")
    keep_as_before(machine.stateroot / "generations/2")
    machine.commit("os/a", release("new", {}), second=9)
    words: list[str | Path] = ["deploy", "os/b", "--sysroot", machine.path]
    run_and_die(machine.where, words, 30)  # garbage, for all that follow to sweep
    return Stand(machine)


class Campaign:
    """Kills one command at chosen places, and judges each time."""

    def __init__(self, stand: Stand, words: Sequence[str], tally: Counter[tuple[str, str, str]]) -> None:
        self._stand, self._words, self._tally = stand, words, tally
        self._old = look(stand.stateroot)
        begun_s = time.monotonic()
        status, self._stages = stand.run(words)
        self._length_s = time.monotonic() - begun_s
        assert status == 0, (stand.machine.where / "err").read_text()
        self._new = look(stand.stateroot)

    def choose(self, count: int, chance: random.Random) -> list[int]:
        """Return about *count* numbers of changes, fairly spread over the stages."""
        by_stage: dict[str, list[int]] = {}
        for number, stage in enumerate(self._stages, 1):
            by_stage.setdefault(stage, []).append(number)
        share = max(1, count // len(by_stage))
        ends = {numbers[end] for numbers in by_stage.values() for end in (0, -1)[:share]}
        inner = chain.from_iterable(
            chance.sample(numbers[1:-1], min(max(share - 2, 0), len(numbers[1:-1]))) for numbers in by_stage.values()
        )
        chosen = ends.union(inner)
        rest = [number for number in range(1, len(self._stages) + 1) if number not in chosen]
        return sorted(chosen.union(chance.sample(rest, min(max(count - len(chosen), 0), len(rest)))))

    def kill(self, number: int) -> None:
        """Kill the command at its change *number*."""
        self._stand.put_back()
        status, stages = self._stand.run(self._words, number)
        assert status == -signal.SIGKILL
        self._judge(stages[-1])

    def kill_from_outside(self, chance: random.Random) -> None:
        """Kill the command some time after it began, which may be in the middle of a call, or too late."""
        self._stand.put_back()
        status, stages = self._stand.run(self._words, kill_after_s=chance.uniform(0, self._length_s))
        assert status in (-signal.SIGKILL, 0)
        last = stages[-1] if stages else "before all"
        self._judge(f"{last}, outside" if status else ENDED)

    def _judge(self, stage: str) -> None:
        found = assert_whole(self._stand.stateroot, self._old, self._new)
        outcome = "new" if found.current != self._old.current else "old"
        self._tally[self._words[0], stage, outcome] += 1
        again = AGAIN.get(self._words[0], self._words) if outcome == "old" else ("rollback",)
        for words in (("cleanup", "--keep", "99"), again):
            status, _ = self._stand.run(words)
            assert status == 0, f"{words} after {stage}: {(self._stand.machine.where / 'err').read_text()}"
            assert_tidy(self._stand.stateroot, self._stand.kept_refs())


def _table(tally: Counter[tuple[str, str, str]]) -> str:
    rows = sorted({(verb, stage) for verb, stage, _ in tally})
    lines = [f"{'command':10}{'stage':24}{'old':>6}{'new':>6}"]
    lines += [f"{verb:10}{stage:24}{tally[verb, stage, 'old']:6}{tally[verb, stage, 'new']:6}" for verb, stage in rows]
    return "\n".join([*lines, f"{'kills':34}{_kills(tally):12}"])


def _kills(tally: Counter[tuple[str, str, str]]) -> int:
    return sum(count for (_, stage, _), count in tally.items() if stage != ENDED)


def _run(stand: Stand, total: int, outside: int, seed: int) -> Counter[tuple[str, str, str]]:
    tally: Counter[tuple[str, str, str]] = Counter()
    chance = random.Random(seed)
    for words in COMMANDS:
        stand.put_back()
        campaign = Campaign(stand, words, tally)
        for number in campaign.choose(total // len(COMMANDS), chance):
            campaign.kill(number)
        for _ in range(outside // len(COMMANDS)):
            campaign.kill_from_outside(chance)
        assert_sound(stand.machine.repository, garbage=True)
    return tally


def test_killed_anywhere_the_old_or_the_new_tree_is_current(stand: Stand, tell: Tell) -> None:
    tally = _run(stand, 126, 14, 1)
    tell(_table(tally))
    assert _kills(tally) >= 100
    assert {stage for _, stage, _ in tally} >= {
        "sweeping",
        "keeping ref",
        "tree",
        "etc",
        "merging",
        "activating",
        "/var",
    }
    assert {outcome for *_, outcome in tally} == {"old", "new"}


@pytest.mark.torture
def test_a_thousand_kills(stand: Stand, tell: Tell) -> None:
    tally: Counter[tuple[str, str, str]] = Counter()
    seed = 2
    while _kills(tally) < 1000:
        tally += _run(stand, 320, 160, seed)
        seed += 1
    tell(_table(tally))


@pytest.mark.torture
def test_kills_while_several_processes_write(run_fsview: RunFsview, quick_path: Path, tell: Tell) -> None:
    (quick_path / "machine").mkdir()
    machine = Machine.make(run_fsview, quick_path / "machine")
    large = {f"{number}": {f"{one}": f"{number} {one}".encode() for one in range(100)} for number in range(50)}
    machine.commit("os/a", release("a", {}))
    machine.commit("os/b", release("b", {}) | {"large": large}, second=1)
    machine.run("deploy", "os/a")
    tally: Counter[tuple[str, str, str]] = Counter()
    campaign, chance = Campaign(Stand(machine), ("deploy", "os/b"), tally), random.Random(3)
    while _kills(tally) < 60:
        campaign.kill_from_outside(chance)
    tell(_table(tally))
