"""The command line as another user: the user nobody, who may do little."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.everything import import_everything
from tools.cli import run

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Said:
    """What a command wrote, and its exit status."""

    status: int
    stdout: str
    stderr: str


def run_as_nobody(directory: Path, *arguments: str | Path) -> Said:
    """Run the command line in a child of this process that has become nobody; *directory* (see `nobodys`) is its home.

    A child, because nobody may not be able to read this Python's modules: what the command needs must be imported.
    """
    import_everything()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            _become_nobody(directory)
            status = run([str(argument) for argument in arguments])
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    said = [(directory / name).read_text() for name in ("out", "err")]
    return Said(os.waitstatus_to_exitcode(status), *said)


def _become_nobody(directory: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.environ["HOME"] = str(directory)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
