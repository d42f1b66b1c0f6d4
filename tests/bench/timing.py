"""Run shell commands, end them when they take too long, drop caches."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def shell(command: str, cwd: Path | None = None, ok: Sequence[int] = (0,), limit_s: float | None = None) -> str:
    """Run a shell command; return its output.

    Raises:
        AssertionError: its exit status is not one of *ok*.
        TimeoutExpired: it took longer than *limit_s*; it and all that it started were killed.
    """
    # A session of its own: what a pipeline started can be ended as a whole, and Ctrl-C comes here first.
    with subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit_s)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode in ok, f"{command}: exit status {process.returncode}: {errors.strip()[-500:]}"
    return output


def drop_caches() -> None:
    """Empty the page, dentry and inode caches (root)."""
    os.sync()
    DROP_CACHES.write_text("3\n")


def timed(
    command: str,
    *,
    runs: int = 3,
    before: Callable[[], object] = lambda: None,
    check: Callable[[str], object] = lambda output: None,
) -> float:
    """Return the median time in seconds; *before* each run, and *check* of each output, are not counted."""
    times = []
    for _ in range(runs):
        before()
        start = time.perf_counter()
        output = shell(command)
        times.append(time.perf_counter() - start)
        check(output)
    return median(times)
