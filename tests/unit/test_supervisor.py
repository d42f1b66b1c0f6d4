"""Who keeps the workers going, with workers that do as they are told; tests/fuse/test_workers.py has real ones."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fsview import supervisor
from fsview.counters import Counters, Row
from fsview.supervisor import Supervisor, signals_held
from store.errors import MountError

Behaviour = Callable[[Row], None]


def _sleep(row: Row) -> None:
    row.occupy(os.getpid(), int(time.time()))
    row.ready()
    time.sleep(60)


def _work_and_die(row: Row) -> None:
    row.begin()
    row.end(0)
    os._exit(3)


def _hang(row: Row) -> None:
    row.occupy(os.getpid(), int(time.time()))
    row.begin()
    time.sleep(60)


def _fail(row: Row) -> None:
    os._exit(3)


def _bus_error(row: Row) -> None:
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGBUS)


def _stop(row: Row) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)


@dataclass
class Stage:
    """A supervisor whose workers behave as listed, the last for all that follow; ended when `until` holds."""

    behaviours: list[Behaviour]
    until: Callable[[Stage], bool]
    workers: int = 1
    started: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    def start(self, row: Row) -> int:
        """Fork a worker."""
        behave = self.behaviours[min(len(self.started), len(self.behaviours) - 1)]
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            behave(row)
            os._exit(0)
        self.started.append(pid)
        self.times_s.append(time.monotonic())
        return pid

    def run(self) -> Counters:
        """Run until the end; everybody must be gone then."""
        counters = Counters(self.workers)
        give_up_s = time.monotonic() + 20

        def is_over() -> bool:
            assert time.monotonic() < give_up_s
            return self.until(self)

        with signals_held():
            try:
                Supervisor(counters, self.start, is_over, lambda: None).run()
            finally:
                left = [pid for pid in self.started if _is_running(pid)]
                signal.sigtimedwait([signal.SIGCHLD], 0)
        assert left == []
        return counters


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the supervisor impatient."""
    for name, seconds in {"_TICK_S": 0.02, "_HANGS_AFTER_S": 0.3, "_DELAY_MAX_S": 0.05, "_END_TIMEOUT_S": 0.3}.items():
        monkeypatch.setattr(supervisor, name, seconds)


def test_as_many_as_there_are_rows_until_a_signal_ends_it() -> None:
    told: list[bool] = []

    def until(stage: Stage) -> bool:
        if len(stage.started) == 3 and not told:
            told.append(True)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # what runs the tests may have a thread
        return False

    stage = Stage([_sleep], until, workers=3)
    stage.run()
    assert len(stage.started) == 3


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (_fail, "ended with status 3"),
        (_bus_error, "died of SIGBUS: the index is probably damaged"),
        (_hang, "has been at one request"),
        (_stop, "is stopped"),
    ],
)
def test_who_dies_or_hangs_is_replaced(caplog: pytest.LogCaptureFixture, behaviour: Behaviour, words: str) -> None:
    stage = Stage([behaviour, _sleep], lambda stage: len(stage.started) == 2)
    with caplog.at_level(logging.INFO):
        counters = stage.run()
    assert words in caplog.text and f"worker {stage.started[0]} " in caplog.text
    assert all(worker.pid != stage.started[0] for worker in counters.workers())


def test_who_was_stopped_and_goes_on_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_HANGS_AFTER_S", 1.5)
    awake: list[float] = []

    def until(stage: Stage) -> bool:
        if not awake and _is_stopped(stage.started[0]) and time.monotonic() - stage.times_s[0] > 0.15:
            os.kill(stage.started[0], signal.SIGCONT)
            awake.append(time.monotonic())
        return bool(awake) and time.monotonic() - awake[0] > 1.8

    stage = Stage([_stop], until)
    stage.run()
    assert len(stage.started) == 1


def test_who_fails_at_once_is_given_longer_and_longer_and_then_up(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage([_fail], lambda stage: False, workers=2)
    with pytest.raises(MountError, match="none of 2 workers can be kept alive"), caplog.at_level(logging.INFO):
        stage.run()
    assert 20 <= len(stage.started) <= 2 * 20
    assert stage.times_s[-1] - stage.times_s[0] > 8 * 0.05


def test_who_answers_anything_is_never_given_up() -> None:
    stage = Stage([_work_and_die], lambda stage: len(stage.started) >= 15)
    stage.run()


def test_one_that_works_is_enough() -> None:
    stage = Stage([_sleep, _fail], lambda stage: len(stage.started) > 30, workers=2)
    stage.run()
