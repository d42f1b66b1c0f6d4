"""Children that don't outlive us: what they write is swept by the next command, which must not find them at it.

And that leave Ctrl-C to us from their first moment on: `interrupts_held` around the fork, `leave_signals_to` behind it.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_prctl: Final = ctypes.CDLL(None).prctl


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C for this thread, and for children that it forks."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to(parent: int) -> None:
    """Have this child die with *parent*, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    end_with(parent)


def end_with(parent: int) -> None:
    """Have this process killed when *parent* dies, also if it did already; it stays so over an exec."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
