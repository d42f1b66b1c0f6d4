"""Several processes work through the steps of one job: each takes the next one when it is done with the last.

What a process needs that must not come through a fork, such as an open index, it makes for itself when it begins.
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn

from store.errors import FsviewError
from tools.orphans import interrupts_held, leave_signals_to

_STEP: Final = struct.Struct("=Q")
_PROGRESS: Final = struct.Struct("=cQ")
_DONE, _RESULT = b"\0", b"\1"
_READ_BYTES: Final = 1 << 16


class Hand(NamedTuple):
    """What one process does: a step, which returns how far that brought the job; and what it has to tell at the end."""

    step: Callable[[int], int]
    result: Callable[[], object]


@dataclass(slots=True)
class _Process:
    pid: int
    pipe: int
    received: bytearray = field(default_factory=bytearray)

    def progress(self) -> int:
        """Return how far the job was brought by what was received and is not counted yet."""
        done = 0
        while self.received[:1] == _DONE and len(self.received) >= _PROGRESS.size:
            done += _PROGRESS.unpack_from(self.received)[1]
            del self.received[: _PROGRESS.size]
        return done

    def result(self) -> Any:
        """Return what it told at the end, when all is received.

        Raises:
            FsviewError: it died before.
            Exception: what a step raised.
        """
        if self.received[:1] != _RESULT:
            raise FsviewError("a process that wrote files was killed (by the kernel, when memory ran out?); try again")
        problem, result = pickle.loads(self.received[1:])
        if problem is not None:
            raise problem
        return result


def work_together(
    steps: int, processes: int, begin: Callable[[], Hand], advance: Callable[[int], object] = lambda step: None
) -> list[Any]:
    """Have *processes* do the steps 0, 1, … *steps* - 1; return what each had to tell at the end.

    *advance* hears of progress.

    Raises:
        FsviewError: a process was killed.
        Exception: what a step raised; the other processes are killed then.
    """
    take, give = os.pipe()  # the number of the next step goes round in it: who takes it gives the one after it
    crew: list[_Process] = []
    try:
        os.write(give, _STEP.pack(0))
        for _ in range(processes):
            crew.append(_start(take, give, steps, begin))
        return _follow(crew, advance)
    finally:
        os.close(take)
        os.close(give)
        for process in crew:
            _end(process)


def _start(take: int, give: int, steps: int, begin: Callable[[], Hand]) -> _Process:
    pipe, teller = os.pipe()
    with interrupts_held():
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            _be_one(parent, pipe, teller, _steps(take, give, steps), begin)
    os.close(teller)
    return _Process(pid, pipe)


def _be_one(parent: int, pipe: int, teller: int, steps: Iterator[int], begin: Callable[[], Hand]) -> NoReturn:
    """Be a process of the crew, in the forked child; never return."""
    try:
        os.close(pipe)
        leave_signals_to(parent)
        answer = _work(steps, teller, begin)
        with open(teller, "wb") as stream:
            stream.write(_RESULT + answer)
    finally:
        os._exit(0)


def _steps(take: int, give: int, steps: int) -> Iterator[int]:
    while True:
        (number,) = _STEP.unpack(os.read(take, _STEP.size))
        os.write(give, _STEP.pack(number + 1))
        if number >= steps:
            return
        yield number


def _work(steps: Iterator[int], teller: int, begin: Callable[[], Hand]) -> bytes:
    """Do steps until none is left; return the pickled outcome."""
    try:
        hand = begin()
        for number in steps:
            os.write(teller, _PROGRESS.pack(_DONE, hand.step(number)))
        return pickle.dumps((None, hand.result()))
    except Exception as error:
        try:
            answer = pickle.dumps((error, None))
            pickle.loads(answer)
        except Exception:
            return pickle.dumps((FsviewError(f"{type(error).__name__}: {error}"), None))
        return answer


def _follow(crew: list[_Process], advance: Callable[[int], object]) -> list[Any]:
    results = []
    with selectors.DefaultSelector() as selector:
        for process in crew:
            selector.register(process.pipe, selectors.EVENT_READ, process)
        while selector.get_map():
            for key, _ in selector.select():
                process = key.data
                data = os.read(process.pipe, _READ_BYTES)
                process.received += data
                advance(process.progress())
                if not data:
                    selector.unregister(process.pipe)
                    results.append(process.result())
    return results


def _end(process: _Process) -> None:
    os.close(process.pipe)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)  # one that told its result has nothing more to do
    os.waitpid(process.pid, 0)
