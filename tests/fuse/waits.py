"""Waiting for processes that need not be children."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from errno import ENOTCONN
from pathlib import Path

from fsview.mountpoint import server_pid


def wait_for(is_true: Callable[[], bool], timeout_s: float = 20) -> None:
    """Return when *is_true* says so; fail after *timeout_s*."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process has not ended yet; a zombie has."""
    try:
        return bool(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False


def kill(pid: int, number: int) -> None:
    """Send a signal and wait for the end."""
    descriptor = os.pidfd_open(pid)
    try:
        os.kill(pid, number)
        assert select.select([descriptor], [], [], 20)[0]
    finally:
        os.close(descriptor)


def kill_server(point: Path) -> None:
    """Kill the supervisor of the view at *point*; return when its workers are gone, too."""
    pid = server_pid(point)
    assert pid is not None
    kill(pid, signal.SIGKILL)
    wait_for(lambda: is_dead(point))


def is_dead(point: Path) -> bool:
    """Whether nobody serves the view at *point* any more; before that a request may be taken along by who dies."""
    try:
        os.statvfs(point)
    except OSError as error:
        return error.errno == ENOTCONN
    return False
