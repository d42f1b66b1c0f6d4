"""SIGKILL in the middle of a commit: the old commit or the new one, and a second try mends all.

Half of the kills are the process's own, at a report of its progress; half come from outside, at a random moment after
a phase began. What counts is the phase in which the process was when it died.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from store.publication import Phase
from tests.conftest import MountView, Tell
from tests.crash.driver import PHASES, REF, read_status
from tests.crash.rig import Moments, Stand, measure, start, wait_for_group
from tests.snapshots import assert_same_tree

_EACH, _ALL = 50, 200


class Tally:
    """How many died in which phase, by whose hand, and what was there afterwards."""

    def __init__(self) -> None:
        self.kills: Counter[tuple[Phase, str]] = Counter()
        self.outcomes: Counter[tuple[Phase, str]] = Counter()

    @property
    def total(self) -> int:
        """All kills."""
        return self.kills.total()

    def of(self, phase: Phase) -> int:
        """Return how many died in this phase."""
        return sum(count for (one, _), count in self.kills.items() if one == phase)

    def table(self) -> str:
        """Return the distribution as text."""
        columns = ("itself", "outside")
        lines = [f"{'phase':12}" + "".join(f"{name:>10}" for name in (*columns, "together", "old", "new"))]
        for phase in PHASES:
            numbers = [*(self.kills[phase, column] for column in columns), self.of(phase)]
            numbers += [self.outcomes[phase, "old"], self.outcomes[phase, "new"]]
            lines.append(f"{phase:12}" + "".join(f"{number:10}" for number in numbers))
        return "\n".join([*lines, f"{'all':12}" + f"{self.total:30}"])


class Campaign:
    """Kills commits, judges each, and counts."""

    def __init__(self, stand: Stand, where: Path, seed: int, tally: Tally) -> None:
        self._stand, self._where, self._chance, self._tally = stand, where, random.Random(seed), tally
        self._moments: Moments = measure(stand, where)

    def kill_itself(self, phase: Phase, step: int, steps: int) -> None:
        """Kill at one of *steps* reports that are spread over the phase; the last is the phase's last."""
        count = self._moments.reports[phase]
        self._kill("itself", phase, 1 + (count - 1) * (step + 1) // steps)

    def kill_from_outside(self, phase: Phase) -> None:
        """Kill at a random moment after *phase* began."""
        self._kill("outside", phase, None)

    def assert_view_is_the_source(self, mount_view: MountView) -> None:
        """Mount what the last kill and its second try left, and compare."""
        assert_same_tree(self._stand.source, mount_view(self._where / "repo") / "refs" / REF)

    def _kill(self, who: str, phase: Phase, number: int | None) -> None:
        repository = self._where / "repo"
        case = self._stand.case(repository, "tell" if number is None else "die", phase, number or 1)
        with start(case, self._where) as process:
            assert process.stdout is not None
            if number is None:
                assert process.stdout.readline() == b"now\n"
                time.sleep(self._chance.uniform(0, self._moments.seconds[phase]))
                process.kill()
            status = process.wait(60)
        wait_for_group(process.pid)
        died_in, _ = read_status(Path(case.status))
        if status == 0 or not isinstance(died_in, Phase):
            return  # it was faster than the kill
        assert status == -signal.SIGKILL
        is_new = self._stand.assert_old_or_new(repository)
        assert not is_new or died_in == Phase.PUBLISHING
        self._stand.assert_mends(case)
        self._tally.kills[died_in, who] += 1
        self._tally.outcomes[died_in, "new" if is_new else "old"] += 1


def test_a_killed_commit_is_old_or_new_and_can_be_repeated(tmp_path: Path, mount_view: MountView) -> None:
    tally = Tally()
    campaign = Campaign(Stand.build(tmp_path / "stand", small=140, large=8), tmp_path, 1, tally)
    for phase in PHASES:
        campaign.kill_itself(phase, 0, 2)
        campaign.kill_itself(phase, 1, 2)
        campaign.kill_from_outside(phase)
    assert tally.total >= 8  # those from outside may come too late
    campaign.assert_view_is_the_source(mount_view)


@pytest.mark.torture
def test_two_hundred_kills(tmp_path: Path, tell: Tell, mount_view: MountView) -> None:
    tally = Tally()
    campaigns = [
        Campaign(Stand.build(tmp_path / "few", small=300, large=12), tmp_path, 2, tally),
        Campaign(Stand.build(tmp_path / "many", small=1200, large=60), tmp_path, 3, tally),  # syncfs instead of fsync
    ]
    for phase in PHASES:
        for step in range(13):
            for campaign in campaigns:
                campaign.kill_itself(phase, step, 13)
        for _ in range(100):
            if tally.of(phase) < _EACH:
                for campaign in campaigns:
                    campaign.kill_from_outside(phase)
    while tally.total < _ALL:
        campaigns[tally.total % 2].kill_from_outside(Phase.HASHING)
    tell(tally.table())
    campaigns[-1].kill_from_outside(Phase.PUBLISHING)
    campaigns[-1].assert_view_is_the_source(mount_view)
    assert all(tally.of(phase) >= 30 for phase in PHASES)
