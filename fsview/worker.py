"""A worker: a process that answers requests until the view is unmounted or somebody kills it.

It holds nothing that another worker couldn't have, so its death costs the requests that it was answering, no more.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

import trio

from fsview.connection import clone
from fsview.counters import Row
from fsview.door import Door
from fsview.operations import Operations
from fsview.view import View
from fsview.waiting import answer_requests
from store.errors import FsviewError

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1
_IGNORED: Final = (signal.SIGINT, signal.SIGHUP)  # meant for the supervisor, sent to all of a terminal's processes


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker of a view needs, made before the fork; *open_view* opens the repository, after it."""

    descriptor: int
    operations: Operations
    open_view: Callable[[], View]


def start_worker(job: Job, row: Row) -> int:
    """Fork a worker that counts in *row*; return its process id."""
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        _run(job, row, supervisor)
    return pid


def _run(job: Job, row: Row, supervisor: int) -> NoReturn:
    """Be a worker, in the forked child; never return, whatever happens."""
    status = 1
    try:
        _end_with(supervisor)
        _reset_signals()
        _work(job, row)
        status = 0
    except (FsviewError, OSError) as error:
        _log.error("%s", error)
    except BaseException:
        _log.critical("a worker ends", exc_info=True)
    finally:
        _flush()
        os._exit(status)


def _work(job: Job, row: Row) -> None:
    row.occupy(os.getpid(), int(time.time()))
    row.begin()
    door = Door(clone(job.descriptor), job.descriptor, job.operations)
    job.operations.begin_work(job.open_view(), row, door.let_answer)
    row.ready()
    trio.run(answer_requests, door)


def _end_with(supervisor: int) -> None:
    """Have this process killed when its supervisor dies: then nobody would look after it, nor end the mount."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:  # it died before that
        os._exit(1)


def _reset_signals() -> None:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
