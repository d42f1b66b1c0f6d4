"""The supervisor of a view's workers: starts them, restarts those that die, ends those that hang.

It answers no request itself and never opens the index, so that nothing that a request finds can harm it.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from fsview.counters import Counters, Row
from store.errors import MountError

_log = logging.getLogger(__name__)

END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAITED_FOR: Final = (*END_SIGNALS, signal.SIGCHLD)
_DAMAGE_SIGNALS: Final = (signal.SIGBUS, signal.SIGSEGV)
_TICK_S: Final = 1.0
_HANGS_AFTER_S: Final = 10.0  # a request takes microseconds; listing the largest directories, a second
_LIVED_S: Final = 1.0  # who dies sooner is followed later
_DELAY_MAX_S: Final = 5.0
_FIRST_DELAY_S: Final = 0.1
_FAILURES_MAX: Final = 10
_END_TIMEOUT_S: Final = 2.0


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back the signals that a supervisor waits for: they stay, until it does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(slots=True)
class _Post:
    """A worker's place: who has it, if anybody, and when it is filled again."""

    row: Row
    pid: int = 0
    started_s: float = 0.0
    quick_deaths: int = 0  # in a row
    failures: int = 0  # in a row, of workers that died before they had answered anything
    due_s: float = 0.0
    stopped_s: float | None = None
    condemned: bool = False


@dataclass(slots=True)
class Supervisor:
    """Keeps as many workers as *counters* has rows; to be used with signals held."""

    counters: Counters
    start: Callable[[Row], int]  # fork a worker, return its pid
    is_unmounted: Callable[[], bool]
    on_tick: Callable[[], None]
    _posts: list[_Post] = field(default_factory=list)

    def run(self) -> None:
        """Keep the workers going until the view is unmounted or a signal ends it; then end them.

        Raises:
            MountError: none of them can be kept alive.
        """
        self._posts = [_Post(self.counters.row(index)) for index in range(len(self.counters.workers()))]
        try:
            while self._keep_going():
                self._look_after()
        finally:
            self._end()

    def _keep_going(self) -> bool:
        """Fill empty posts, wait for news; False if it is time to end."""
        now_s = time.monotonic()
        for post in self._posts:
            if not post.pid and post.due_s <= now_s:
                self._fill(post)
        due_s = min((post.due_s for post in self._posts if not post.pid), default=now_s + _TICK_S)
        news = signal.sigtimedwait(_WAITED_FOR, max(0.0, min(due_s - now_s, _TICK_S)))
        if news is not None and news.si_signo in END_SIGNALS:
            _log.info("%s: unmounting", signal.Signals(news.si_signo).name)
            return False
        return not self.is_unmounted()

    def _look_after(self) -> None:
        self.on_tick()
        for post in self._posts:
            if post.pid:
                self._ask_after(post)
            if post.pid and not post.condemned:
                self._end_if_hanging(post)
        if all(post.failures >= _FAILURES_MAX for post in self._posts):
            raise MountError(
                f"none of {len(self._posts)} workers can be kept alive; see the log, then 'fsview fsck REPO'"
            )

    def _fill(self, post: _Post) -> None:
        post.pid = self.start(post.row)
        post.started_s, post.stopped_s, post.condemned = time.monotonic(), None, False

    def _ask_after(self, post: _Post) -> None:
        """Take note of what became of a worker since it was last asked after."""
        pid, status = os.waitpid(post.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            post.stopped_s = time.monotonic()
        elif os.WIFCONTINUED(status):
            post.stopped_s = None
        else:
            self._bury(post, status)

    def _bury(self, post: _Post, status: int) -> None:
        now_s = time.monotonic()
        post.failures = 0 if post.row.is_proven else post.failures + 1
        post.quick_deaths = 0 if now_s - post.started_s >= _LIVED_S else post.quick_deaths + 1
        # One that ran well is followed at once; else each time twice as long is waited.
        delay_s = 0.0 if post.quick_deaths <= 1 else min(_DELAY_MAX_S, _FIRST_DELAY_S * 2 ** (post.quick_deaths - 2))
        post.due_s = now_s + delay_s
        post.row.occupy(0, 0)
        if not self.is_unmounted():
            _log.warning("worker %d %s; a new one starts in %.1f s", post.pid, _how(status), delay_s)
        post.pid = 0

    def _end_if_hanging(self, post: _Post) -> None:
        now_s = time.monotonic()
        stopped_s = now_s - post.stopped_s if post.stopped_s is not None else 0.0
        busy_since_ns = post.row.busy_since_ns
        busy_s = now_s - busy_since_ns / 1e9 if busy_since_ns else 0.0
        if max(stopped_s, busy_s) < _HANGS_AFTER_S:
            return
        what = "is stopped" if stopped_s >= _HANGS_AFTER_S else "has been at one request"
        _log.error("worker %d %s for %.0f s: killed; that request fails", post.pid, what, max(stopped_s, busy_s))
        os.kill(post.pid, signal.SIGKILL)
        post.condemned = True

    def _end(self) -> None:
        """End all workers: those of a view that is unmounted do so by themselves."""
        if not self.is_unmounted():
            self._kill(signal.SIGKILL)
        give_up_s = time.monotonic() + _END_TIMEOUT_S
        while any(post.pid for post in self._posts):
            for post in self._posts:
                if post.pid and os.waitpid(post.pid, os.WNOHANG)[0]:
                    post.pid = 0
            if time.monotonic() > give_up_s:
                self._kill(signal.SIGKILL)
            signal.sigtimedwait([signal.SIGCHLD], 0.1)

    def _kill(self, number: signal.Signals) -> None:
        for post in self._posts:
            if post.pid:
                with suppress(ProcessLookupError):
                    os.kill(post.pid, number)


def _how(status: int) -> str:
    """Return how a process ended, from its wait status."""
    if not os.WIFSIGNALED(status):
        return f"ended with status {os.waitstatus_to_exitcode(status)}"
    number = signal.Signals(os.WTERMSIG(status))
    if number in _DAMAGE_SIGNALS:
        return f"died of {number.name}: the index is probably damaged, 'fsview fsck REPO' tells"
    return f"was killed by {number.name}"
