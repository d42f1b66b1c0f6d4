"""The command line in a child of this process: what is imported needn't be imported again, so it takes a tenth.

Commands import what they need when they need it; so all of it is imported here, once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.everything import import_everything
from tests.running import clean_environment
from tools.cli import run


def fork_cli(
    home: Path, words: Sequence[str | Path], before: Callable[[], object] = lambda: None,
    kill_after_s: float | None = None,
) -> int:  # fmt: skip
    """Run `fsview WORDS` with *home* as home and directory; call *before* in the child first.

    It gets SIGKILL after *kill_after_s*, if that is given and it has not ended.

    Return how it ended (as waitstatus_to_exitcode); it wrote to *home*/out and *home*/err.
    """
    pid = start_cli(home, words, before)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start_cli(home: Path, words: Sequence[str | Path], before: Callable[[], object]) -> int:
    """Run `fsview WORDS` as `fork_cli` does; return the pid at once."""
    import_everything()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            _become_the_command(home)
            before()
            status = run([str(word) for word in words])
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    return pid


def run_forked(home: Path, *words: str | Path, status: int) -> subprocess.CompletedProcess[str]:
    """Run `fsview WORDS`; fail the test unless it exits with *status*."""
    ended = fork_cli(home, words)
    out, err = ((home / name).read_text() for name in ("out", "err"))
    if ended != status:
        shown = " ".join(map(str, words))
        pytest.fail(f"fsview {shown}: status {ended}, expected {status}\n--- stdout\n{out}\n--- stderr\n{err}", False)
    return subprocess.CompletedProcess([str(word) for word in words], ended, out, err)


def _become_the_command(home: Path) -> None:
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(home / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.environ.clear()
    os.environ.update(clean_environment(home))
    time.tzset()
    os.chdir(home)
