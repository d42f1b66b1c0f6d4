"""The command line as another user: the user nobody, who may do little."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.everything import import_everything
from tools.cli import run

NOBODY = 65534

_CLONE_NEWNS = 0x20000
_PR_SET_DUMPABLE = 4
_OPEN_FUSE = """
mount --make-rprivate /
mknod -m 666 "$0/fuse" c 10 229; mount --bind "$0/fuse" /dev/fuse; rm "$0/fuse"
"""


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


def run_as_nobody_with_fuse(directory: Path, repo: Path, *arguments: str) -> tuple[int, str, str]:
    """Run `fsview run` as nobody, where everybody may use FUSE, as distributions have it: status, stdout, stderr."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.environ["TMPDIR"] = tempfile.tempdir = str(directory)  # what it was is known by now
            import_everything()
            assert ctypes.CDLL(None).unshare(_CLONE_NEWNS) == 0
            subprocess.run(["sh", "-ec", _OPEN_FUSE, directory], check=True)
            status = run_as_nobody(directory, "run", "--repo", repo, *arguments).status
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, (directory / "out").read_text(), (directory / "err").read_text()


def _become_nobody(directory: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.environ["HOME"] = str(directory)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # as in a program that was started: its /proc is its own
