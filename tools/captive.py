"""Run bubblewrap as a shell runs a command: the terminal is its own, signals reach it, its exit status is ours.

bubblewrap is two processes: one outside that waits, one inside that is init of the sandbox. Ctrl-C goes to all of the
foreground, and the one outside dies of it though the command may not. Then this process, as the reaper of orphans,
inherits the one inside, which ends with the command's own exit status.

Of our descriptors the command gets three (tools/streams.py). Root's bubblewrap is started from where nobody can change
it: it is /proc/1/exe in the sandbox, and root there is its owner.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import SandboxError
from tools.capabilities import with_bounds
from tools.guardian import Guardian
from tools.streams import Streams

_PR_SET_CHILD_SUBREAPER: Final = 36
_SI_KERNEL: Final = 0x80  # a signal from the terminal, which the command got, too
_PASSED_ON: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_COMMAND: Final = 2  # the command's number in the sandbox: 1 is bubblewrap, which makes no other process
_LOOK_S: Final = 0.05
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_WAITED_FOR: Final = {signal.SIGCHLD, *_PASSED_ON}


@dataclass(frozen=True, slots=True)
class Jail:
    """How a command is kept in; handed: descriptors that bubblewrap's options speak of.

    refused: a filter of system calls. bounds: the capabilities that anything in the sandbox may have; None if the
    caller isn't root, and has none.
    """

    options: Sequence[bytes]
    handed: Sequence[int]
    refused: bytes
    bounds: Collection[str] | None


def run_captive(program: str, jail: Jail, command: Sequence[str], guardian: Guardian) -> int:
    """Run *program*, which is bubblewrap, for *command*; return that's exit status, 128 + N if a signal N ended it.

    Raises:
        SandboxError: it didn't come to that.
    """
    path = shutil.which(program)
    assert path is not None  # the caller has looked
    path = str(guardian.bind_read_only(path, program) or path)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)  # before there are threads
    try:
        with Streams(guardian) as streams:
            handed = [_memory_file(b"".join(word + b"\0" for word in jail.options)), _memory_file(jail.refused)]
            words = [path, "--json-status-fd", str(guardian.status)]
            words += ["--args", str(handed[0]), "--seccomp", str(handed[1]), "--", *command]
            outside = _start(words, streams.given, {*handed, *jail.handed, guardian.status}, jail.bounds)
            for number in handed:
                os.close(number)
            streams.started()
            guardian.close_status()
            inside = guardian.process()
            status = _Captive(outside, inside).wait()
            _end(inside)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
    if not inside:
        raise SandboxError(f"{program} can't make a sandbox here, with the exit status {status}; it says why above")
    return status


def _start(words: list[str], streams: Sequence[int], inherited: Collection[int], bounds: Collection[str] | None) -> int:
    """Start bubblewrap; it gets *streams* as its first three descriptors, *inherited*, and no others."""
    for number in (int(name) for name in os.listdir("/proc/self/fd")):
        if number > 2:
            with suppress(OSError):  # that of the listing is closed by now
                os.set_inheritable(number, number in inherited)
    spare = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in streams]  # none that is overwritten too early
    actions = [(os.POSIX_SPAWN_DUP2, number, place) for place, number in enumerate(spare)]

    def start() -> int:
        return os.posix_spawn(
            words[0], words, os.environ, file_actions=actions, setsigmask=[], setsigdef=_IGNORED_BY_PYTHON
        )

    try:
        return start() if bounds is None else with_bounds(bounds, start)
    finally:
        for number in spare:
            os.close(number)


def _memory_file(data: bytes) -> int:
    """Return a file that a child can read: a root has more names than a command line has room for."""
    number = os.memfd_create("arguments", 0)
    with open(number, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(number, 0, os.SEEK_SET)
    return number


class _Captive:
    """The two processes; inside is 0 if the sandbox was never made."""

    def __init__(self, outside: int, inside: int) -> None:
        self._outside, self._inside = outside, inside
        self._is_orphan = False
        self._stopped_by = 0  # the signal that came before there was a command to get it

    def wait(self) -> int:
        """Return the exit status; pass on the signals that this process gets meanwhile."""
        while True:
            status = self._reaped()
            if status is not None:
                return 128 + self._stopped_by if self._stopped_by else status
            info = signal.sigtimedwait(_WAITED_FOR, _LOOK_S) if self._is_orphan else signal.sigwaitinfo(_WAITED_FOR)
            if info is not None and info.si_signo != signal.SIGCHLD and info.si_code != _SI_KERNEL:
                self._pass_on(info.si_signo)

    def _reaped(self) -> int | None:
        if not self._is_orphan:
            pid, status = os.waitpid(self._outside, os.WNOHANG)
            if pid == 0:
                return None
            if os.WIFEXITED(status) or not self._inside:
                return _exit_status(status)
            self._is_orphan = True
        if not self._command():
            for child in _children(self._inside):  # for all of which the one inside would wait
                _kill_child(child, self._inside, signal.SIGKILL)
        try:
            pid, status = os.waitpid(self._inside, os.WNOHANG)
        except ChildProcessError:  # it ended while the other still lived to see it
            return 128 + signal.SIGKILL
        return _exit_status(status) if pid else None

    def _pass_on(self, number: int) -> None:
        """Send a signal to the command; the one inside, as an init, would not heed it.

        If there is no command yet the sandbox ends: all these signals do that to a process that is not prepared.
        """
        command = self._command()
        if command:
            _kill_child(command, self._inside, number)
        else:
            self._stopped_by = number
            _kill(self._inside or self._outside, signal.SIGKILL)

    def _command(self) -> int:
        """Return the command's process, the first that the one inside made; 0 if it has ended."""
        return next((child for child in _children(self._inside) if _number_inside(child) == _COMMAND), 0)


def _end(inside: int) -> None:
    """End what the command left, before its outputs are waited for: the one inside would wait for that."""
    with suppress(ChildProcessError):  # it has ended
        if inside and os.waitpid(inside, os.WNOHANG) == (0, 0):
            os.kill(inside, signal.SIGKILL)
            os.waitpid(inside, 0)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []


def _number_inside(pid: int) -> int:
    """Return the number that a process has in the sandbox; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().split(b"\n")  # a name may have all else that ends lines
    except OSError:
        return 0
    return next((int(line.split()[-1]) for line in lines if line.startswith(b"NSpid:")), 0)


def _kill_child(pid: int, parent: int, number: int) -> None:
    """Send a signal to a child of *parent*, a process in the sandbox, and never to who has its number by now."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            if pid in _children(parent):
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)


def _kill(pid: int, number: int) -> None:
    """Send a signal to a child of ours, which keeps its number until we have waited for it."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
