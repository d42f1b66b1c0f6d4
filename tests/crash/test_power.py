"""The power fails in the middle of a commit: what was not synced is gone, and still it is old or new, and sound.

The one test of the order in which things are synced: a kill leaves everything that was written in the page cache.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from store.publication import Phase
from store.repository import Repository
from tests.checking import assert_sound
from tests.conftest import Tell
from tests.crash.driver import PHASES, Action, Case, read_status
from tests.crash.image import copy_image, fail_power, is_possible, make_image, mounted
from tests.crash.rig import Moments, Stand, measure, start

if not is_possible():
    pytest.skip("mounting images takes root, mkfs.ext4, mkfs.xfs and loop devices", allow_module_level=True)


class Laboratory:
    """Commits on an image, and looks at what a power failure would have left of it."""

    def __init__(self, stand: Stand, where: Path) -> None:
        self.stand, self._where = stand, where
        with mounted(make_image(where / "clean"), where / "disk") as disk:
            shutil.copytree(stand.base, disk / "repo")
        self.moments: Moments = measure(stand, where)
        self.seen: Counter[str] = Counter()

    def stop_at(self, phase: Phase, number: int) -> None:
        """Fail the power at the *number*-th report of *phase*."""
        self._run("stop", phase, number, None)

    def stop_after(self, phase: Phase, delay_s: float) -> None:
        """Fail the power so long after *phase* began."""
        self._run("tell", phase, 1, delay_s)

    def fail_at_end(self) -> None:
        """Fail the power when the commit was reported as made: it must be there."""
        with self._disk() as (image, case):
            with start(case, self._where) as process:
                assert process.wait(60) == 0
            assert self._judge(image, case), "the commit was made, and lost"

    def _run(self, action: Action, phase: Phase, number: int, delay_s: float | None) -> None:
        with self._disk() as (image, case):
            case = replace(case, action=action, phase=phase, number=number)
            with start(case, self._where) as process:
                try:
                    self._wait(process, delay_s)
                    self._judge(image, case)
                finally:
                    with suppress(ProcessLookupError):  # it was done before it was to be stopped
                        os.killpg(process.pid, signal.SIGKILL)

    def _wait(self, process: subprocess.Popen[bytes], delay_s: float | None) -> None:
        if delay_s is not None:
            assert process.stdout is not None and process.stdout.readline() == b"now\n"
            time.sleep(delay_s)
            os.killpg(process.pid, signal.SIGSTOP)
        while process.poll() is None and _state(process.pid) not in "TZ":  # it may be in the middle of a sync
            time.sleep(0.002)

    def _judge(self, image: Path, case: Case) -> bool:
        copy = self._where / "copy"
        assert fail_power(image, copy, self._where / "disk"), "the image never held still"
        with mounted(copy, self._where / "after") as after:
            is_new = self.stand.assert_old_or_new(after / "repo")
            self.stand.assert_mends(replace(case, repository=str(after / "repo"), action="none"))
        phase, _ = read_status(Path(case.status))
        self.seen[f"{phase or 'done'}, {'new' if is_new else 'old'}"] += 1
        return is_new

    def _disk(self) -> _Disk:
        return _Disk(self.stand, self._where)


class _Disk:
    """A fresh image, mounted, with the repository on it."""

    def __init__(self, stand: Stand, where: Path) -> None:
        self._stand, self._where = stand, where

    def __enter__(self) -> tuple[Path, Case]:
        image = self._where / "image"
        copy_image(self._where / "clean", image)
        self._mount = mounted(image, self._where / "disk")
        disk = self._mount.__enter__()
        stand = self._stand
        status = self._where / "status"
        return image, Case(str(disk / "repo"), str(stand.tree), stand.old.hex(), str(status), processes=stand.processes)

    def __exit__(self, *_: object) -> None:
        self._mount.__exit__(None, None, None)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()


@pytest.fixture(params=["fsync", "syncfs"])
def laboratory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Laboratory]:
    large = 5 if request.param == "fsync" else 40
    yield Laboratory(Stand.build(tmp_path / "stand", small=100, large=large, processes=1), tmp_path)


def test_a_repository_that_was_made_survives(tmp_path: Path) -> None:
    image, copy = make_image(tmp_path / "image"), tmp_path / "copy"
    with mounted(image, tmp_path / "disk") as disk:
        Repository.create(disk / "repo").close()
        assert fail_power(image, copy, disk)
    with mounted(copy, tmp_path / "after") as after:
        assert_sound(after / "repo")


def test_a_commit_that_was_made_survives(laboratory: Laboratory) -> None:
    laboratory.fail_at_end()
    laboratory.stop_at(Phase.PUBLISHING, laboratory.moments.reports[Phase.PUBLISHING])


@pytest.mark.torture
def test_after_a_power_failure_it_is_old_or_new(laboratory: Laboratory, tell: Tell) -> None:
    chance = random.Random(5)
    laboratory.fail_at_end()
    for phase in (Phase.STAGING, Phase.SYNCING, Phase.PUBLISHING):
        reports = laboratory.moments.reports[phase]
        for number in sorted({1, reports, *(chance.randrange(1, reports + 1) for _ in range(8))}):
            laboratory.stop_at(phase, number)
    for phase in PHASES[1:]:
        for _ in range(8):
            laboratory.stop_after(phase, chance.uniform(0, 1.2 * laboratory.moments.seconds[phase]))
    tell(*(f"{count:4} {what}" for what, count in sorted(laboratory.seen.items())))
    assert laboratory.seen.total() > 30
