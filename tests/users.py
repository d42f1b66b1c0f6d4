"""Other users: nobody, who may do little, or one in a group; what this process's child does that has become one."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.everything import import_everything
from tools.cli import run

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")  # runs a program
Answer = TypeVar("Answer")

_CLONE_NEWNS = 0x20000
_PR_SET_DUMPABLE = 4
_OPEN_FUSE = """
mount --make-rprivate /
mknod -m 666 "$0/fuse" c 10 229; mount --bind "$0/fuse" /dev/fuse; rm "$0/fuse"
"""


@dataclass(frozen=True, slots=True)
class User:
    """A user, by numbers that need no account."""

    uid: int = NOBODY
    gid: int = NOBODY
    groups: tuple[int, ...] = ()
    umask: int = 0o022


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
    return run_as(User(), directory, *arguments)


def run_as(user: User, directory: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Said:
    """Run the command line as `run_as_nobody`, as another user, with *env* in the environment."""
    import_everything()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            _become(user, directory)
            os.environ.update(env or {})
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


def shell_as_nobody(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a program as nobody."""
    # env starts it: setpriv itself still has root's capabilities when it looks for a program.
    words = [*AS_NOBODY, "env", *command]
    return subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60, cwd="/")


def as_user(user: User, ask: Callable[[], Answer]) -> Answer:
    """Return what *ask*, called in a child of this process that has become *user*, returns: anything JSON can hold."""
    reader, writer = os.pipe()
    pid = start_as(user, lambda: os.write(writer, json.dumps(ask()).encode()))
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    found: Answer = json.loads(answer)
    return found


def try_as_nobody(act: Callable[[], object]) -> int:
    """Do something in a child of this process that has become nobody; return the errno that it failed with, or 0."""
    return try_as(User(), act)


def try_as(user: User, act: Callable[[], object]) -> int:
    """Do something as `try_as_nobody`, as another user."""
    return os.waitstatus_to_exitcode(os.waitpid(start_as(user, act), 0)[1])


def start_as(user: User, act: Callable[[], object]) -> int:
    """Start a child of this process that becomes *user*, then does something; its exit status is 0, or the errno."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    status = 99
    try:
        become(user)
        act()
        status = 0
    except OSError as error:
        status = error.errno or 98
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def become(user: User) -> None:
    """Become another user for good."""
    os.umask(user.umask)
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def _become(user: User, directory: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.environ["HOME"] = str(directory)
    become(user)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # as in a program that was started: its /proc is its own
