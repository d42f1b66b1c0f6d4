"""The power fails in the middle of a change: what was not synced is gone; what is current is whole all the same.

The one test of the order in which a sysroot's parts are synced: a kill leaves everything in the page cache.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.checking import assert_sound
from tests.conftest import Tell
from tests.crash.image import EXT4, XFS, FileSystem, copy_image, fail_power, is_possible, make_image, mounted
from tests.running import RunFsview
from tests.sysroot.forked import start_cli
from tests.sysroot.killing import State, assert_tidy, assert_whole, kept_refs, look, watch
from tests.sysroot.rig import Machine, release
from tools.sysroot.layout import Stateroot, Sysroot

if not is_possible():
    pytest.skip("mounting images takes root, mkfs.ext4, mkfs.xfs and loop devices", allow_module_level=True)

COMMANDS = (
    ("deploy", "os/c"),
    ("switch", "os/b", "--snapshot-var"),
    ("rollback",),
    ("rollback", "--to", "1", "--restore-var"),
    ("cleanup", "--keep", "1"),
    ("undeploy", "2"),
)


class Laboratory:
    """A machine on an image, and what a power failure would have left of it."""

    def __init__(self, run_fsview: RunFsview, where: Path, kind: FileSystem) -> None:
        self._where, self._disk, self._home, self._kind = where, where / "disk", where / "home", kind
        self._home.mkdir()
        make_image(where / "clean", kind)
        with self._mounted("clean"):
            self.machine = _make_machine(run_fsview, self._disk)
        self.seen: Counter[str] = Counter()

    @property
    def stateroot(self) -> Stateroot:
        """The machine's stateroot, where it is mounted."""
        return Sysroot.open(self.machine.path).stateroot()

    def measure(self, words: Sequence[str]) -> Trial:
        """Run a command to its end, and let the power fail then: what it said that it did must be there."""
        copy_image(self._where / "clean", self._where / "image")
        with self._mounted("image") as disk:
            old, begun_s = look(self.stateroot), time.monotonic()
            assert self._run(words) == 0, (self._home / "err").read_text()
            trial = Trial(words, old, look(self.stateroot), self._stages(), time.monotonic() - begun_s)
            assert fail_power(self._where / "image", self._where / "copy", disk), "the image never held still"
        found = self._judge(trial)
        assert found.current == trial.new.current, "the change was made, and lost"
        assert found.trees.keys() == trial.new.trees.keys() or words[0] in ("cleanup", "undeploy")
        return trial

    def fail_at(self, trial: Trial, number: int) -> None:
        """Let the power fail just before the command's change *number*."""
        self._fail(trial, lambda pid: None, number)

    def fail_after(self, trial: Trial, delay_s: float) -> None:
        """Let the power fail so long after the command began."""

        def stop(pid: int) -> None:
            time.sleep(delay_s)
            os.kill(pid, signal.SIGSTOP)

        self._fail(trial, stop, 0)

    def _fail(self, trial: Trial, stop: Callable[[int], None], number: int) -> None:
        copy_image(self._where / "clean", self._where / "image")
        with self._mounted("image") as disk:
            pid = self._start(trial.words, number)
            try:
                stop(pid)
                os.waitpid(pid, os.WUNTRACED)  # it may be in the middle of a sync
                assert fail_power(self._where / "image", self._where / "copy", disk), "the image never held still"
            finally:
                _kill(pid)
        stage = (self._stages() or ["before all"])[-1]
        found = self._judge(trial)
        self.seen[f"{trial.words[0]:9} {stage:12} {'old' if found.current == trial.old.current else 'new'}"] += 1

    def _mounted(self, name: str) -> AbstractContextManager[Path]:
        return mounted(self._where / name, self._disk, self._kind)

    def _judge(self, trial: Trial) -> State:
        with self._mounted("copy"):
            found = assert_whole(self.stateroot, trial.old, trial.new)
            for words in (("cleanup", "--keep", "99"), ("rollback",), ("deploy", "os/a")):
                assert self._run(words) == 0, f"{words}: {(self._home / 'err').read_text()}"
                assert_tidy(self.stateroot, kept_refs(self._home, self.machine.repository))
            assert_sound(self.machine.repository, garbage=True)
        return found

    def _start(self, words: Sequence[str], number: int = 0) -> int:
        told = self._home / "stages"
        told.unlink(missing_ok=True)
        arguments: list[str | Path] = [*words, "--sysroot", self.machine.path]
        return start_cli(self._home, arguments, lambda: watch(told, number, signal.SIGSTOP))

    def _run(self, words: Sequence[str]) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self._start(words), 0)[1])

    def _stages(self) -> list[str]:
        told = self._home / "stages"
        return told.read_text().splitlines() if told.exists() else []


class Trial:
    """A command, and what it makes of what."""

    def __init__(self, words: Sequence[str], old: State, new: State, stages: list[str], seconds: float) -> None:
        self.words, self.old, self.new, self.stages, self.seconds = words, old, new, stages, seconds

    def choose(self, count: int, chance: random.Random) -> list[int]:
        """Return about *count* numbers of changes, the last ones of each stage among them."""
        numbers = range(1, len(self.stages) + 1)
        last = {stage: number for number, stage in enumerate(self.stages, 1)}.values()
        return sorted({*last, *chance.sample(numbers, max(0, min(count - len(last), len(numbers))))})


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # it came to its end before it was to be stopped


def _make_machine(run_fsview: RunFsview, disk: Path) -> Machine:
    shutil.rmtree(disk / "lost+found", ignore_errors=True)
    machine = Machine.make(run_fsview, disk)
    for second, ref in enumerate(("os/a", "os/b", "os/c")):
        machine.commit(ref, release(ref, {f"in-{ref[-1]}": b"x"}), second=second)
    machine.run("deploy", "os/a")
    (machine.root / "etc/hosts").write_text("mine")
    (machine.var / "data").write_text("1")
    machine.run("switch", "--snapshot-var", "os/b")
    (machine.root / "etc/added").write_text("added")
    (machine.var / "data").write_text("2")
    machine.run("switch", "os/a")
    for name in ("out", "err"):
        (disk / name).unlink()
    return machine


@pytest.fixture(params=[EXT4, pytest.param(XFS, marks=pytest.mark.torture)], ids=["ext4", "xfs"])
def laboratory(request: pytest.FixtureRequest, run_fsview: RunFsview, quick_path: Path) -> Laboratory:
    """Return a laboratory whose machine has three generations, the first with a snapshot of /var."""
    return Laboratory(run_fsview, quick_path, request.param)


def test_what_was_reported_survives(laboratory: Laboratory) -> None:
    trials = [laboratory.measure(words) for words in COMMANDS[:4]]
    for trial in trials[:2]:
        laboratory.fail_at(trial, len(trial.stages))
        laboratory.fail_at(trial, trial.stages.index("at the switch") + 1)
        laboratory.fail_at(trial, trial.stages.index("at the switch") + 2)


@pytest.mark.torture
def test_after_a_power_failure_it_is_the_old_or_the_new(laboratory: Laboratory, tell: Tell) -> None:
    chance = random.Random(8)
    for words in COMMANDS:
        trial = laboratory.measure(words)
        for number in trial.choose(30, chance):
            laboratory.fail_at(trial, number)
        for _ in range(20):
            laboratory.fail_after(trial, chance.uniform(0, 1.2 * trial.seconds))
    tell(*(f"{count:4} {what}" for what, count in sorted(laboratory.seen.items())))
    assert laboratory.seen.total() > 200
