"""A job that several processes share: all steps are done once, and no process is left, whatever happens."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from store.errors import CorruptionError, FsviewError
from tools.crew import Hand, work_together

STEPS = 5_000


def test_each_step_is_done_once(tmp_path: Path) -> None:
    def begin() -> Hand:
        done: list[int] = []

        def step(number: int) -> int:
            done.append(number)
            return number

        return Hand(step, lambda: (os.getpid(), done))

    advanced: list[int] = []
    told = work_together(STEPS, 3, begin, advanced.append)
    assert len({pid for pid, _ in told} - {os.getpid()}) == 3
    assert sorted(number for _, done in told for number in done) == list(range(STEPS))
    assert sum(advanced) == sum(range(STEPS))


@pytest.mark.parametrize(
    "error",
    [
        CorruptionError("a file", "here", "this", "that"),
        OSError(28, "No space left on device", "/x"),
        FsviewError("no"),
        ExceptionGroup("odd", [ValueError("x")]),
    ],
)
def test_what_a_step_raises_is_raised_here(error: Exception) -> None:
    def step(number: int) -> int:
        if number == 5:
            raise error
        return 0

    with pytest.raises(type(error)) as caught:
        work_together(100, 2, lambda: Hand(step, lambda: None))
    assert str(caught.value) == str(error) and vars(caught.value) == vars(error)


def test_an_exception_that_cant_travel_is_told_in_words() -> None:
    class OddError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    def begin() -> Hand:
        raise OddError(1, 2)

    with pytest.raises(FsviewError, match="OddError: 1 and 2"):
        work_together(1, 1, begin)


def test_a_process_that_is_killed_is_told_of() -> None:
    def step(number: int) -> int:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with pytest.raises(FsviewError, match="was killed"):
        work_together(100, 2, lambda: Hand(step, lambda: None))


def test_an_interrupt_ends_them_all() -> None:
    def advance(done: int) -> None:
        raise KeyboardInterrupt

    before = _children()
    with pytest.raises(KeyboardInterrupt):
        work_together(100, 2, lambda: Hand(lambda number: 1, lambda: None), advance)
    assert _children() == before


def _children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()
