"""Nothing outlives a test: the processes and mounts that a test left, found, ended and reported; descriptors, counted.

A process belongs to this run if its environment carries the run's token (a server that went to the background still
has it) or if it descends from this process. A mount belongs to it if it lies below the run's temporary directory.
So runs side by side on one machine leave each other alone.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOKEN_NAME = "FSVIEW_TEST_RUN"
_KEPT = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")  # Python's own, one for each run
_PF_KTHREAD = 0x200000  # linux/sched.h


@dataclass(frozen=True)
class Survey:
    """What belongs to this run at one moment."""

    processes: frozenset[int]  # pids
    mounts: frozenset[Path]


class LeakGuard:
    """Compares surveys; ends what should have ended."""

    def __init__(self, base: Path, token: str) -> None:
        self._base = base.resolve()
        self._token = f"{TOKEN_NAME}={token}".encode()
        self._known: dict[int, bool] = {}  # pid -> ours; a process does not change sides

    def survey(self) -> Survey:
        """Return the processes and mounts of this run."""
        return Survey(frozenset(self._processes()), frozenset(mounts_below(self._base)))

    def spare(self, pid: int) -> None:
        """Leave a process alone that serves all tests; what it starts is not left alone."""
        self._known[pid] = False

    def sweep(self, before: Survey, grace_s: float = 5.0) -> list[str]:
        """Wait up to *grace_s* for what is not in *before* to end, end the rest, return one line for each of it."""
        left = _since(before, self.survey())
        deadline = time.monotonic() + grace_s
        while (left.processes or left.mounts) and time.monotonic() < deadline:
            time.sleep(0.02)
            left = _since(before, self.survey())
        if not left.processes and not left.mounts:
            return []
        report = [f"process {pid} still runs: {_command_line(pid)}" for pid in sorted(left.processes)]
        report += [f"{mount} is still mounted" for mount in sorted(left.mounts)]
        for mount in sorted(left.mounts, reverse=True):  # the inner ones first
            unmount_lazily(mount)
        for pid in left.processes:
            _kill(pid)
        _wait_for(lambda: not _since(before, self.survey()).processes, 5.0)
        return report

    def _processes(self) -> set[int]:
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self._known = {pid: ours for pid, ours in self._known.items() if pid in pids}
        for pid in pids - self._known.keys():
            is_ours = self._is_ours(pid)
            if is_ours or _read(pid, "environ") or _is_of_the_kernel(pid):
                self._known[pid] = is_ours  # else it is in the middle of exec, perhaps: to be asked again
        return {pid for pid in pids if self._known.get(pid) and not _is_zombie(pid)}

    def _is_ours(self, pid: int) -> bool:
        if pid == os.getpid() or any(mark in _read(pid, "cmdline") for mark in _KEPT):
            return False
        return self._token in _read(pid, "environ").split(b"\0") or _descends_from(pid, os.getpid())


def mounts_below(directory: Path) -> set[Path]:
    """Return the mount points below *directory*, of any file system, answering or not."""
    prefix = os.fsencode(directory) + b"/"
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    points = (_unescape(line.split(b" ")[4]) for line in lines)
    return {Path(os.fsdecode(point)) for point in points if point.startswith(prefix)}


def open_descriptors() -> int:
    """Return how many descriptors this process has open, but for those that nothing in it refers to any more."""
    gc.collect()  # else what an earlier test left to the garbage collector may be closed between two counts
    return len(os.listdir("/proc/self/fd"))


def unmount_lazily(mount: Path) -> None:
    """Detach *mount* whatever its state; nothing is raised, a later survey shows what did not work."""
    for command in (["umount", "--lazy"], ["fusermount3", "-u", "-z"], ["fusermount", "-u", "-z"]):
        if shutil.which(command[0]) and subprocess.run([*command, mount], capture_output=True).returncode == 0:
            return


def _since(before: Survey, now: Survey) -> Survey:
    return Survey(now.processes - before.processes, now.mounts - before.mounts)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        _wait_for(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, 2.0)
    except ChildProcessError:
        return  # not a child of ours: its parent, or init, collects it


def _wait_for(is_done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_done() and time.monotonic() < deadline:
        time.sleep(0.01)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""


def _stat_fields(pid: int) -> list[bytes]:
    return _read(pid, "stat").rpartition(b")")[2].split()  # state, ppid, ...; the name before it may hold anything


def _is_zombie(pid: int) -> bool:
    fields = _stat_fields(pid)
    return not fields or fields[0] in (b"Z", b"X")


def _is_of_the_kernel(pid: int) -> bool:
    fields = _stat_fields(pid)
    return bool(fields) and int(fields[6]) & _PF_KTHREAD != 0


def _descends_from(pid: int, ancestor: int) -> bool:
    while pid > 1:
        fields = _stat_fields(pid)
        pid = int(fields[1]) if fields else 0
        if pid == ancestor:
            return True
    return False


def _command_line(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip() or "(ended just now)"


def _unescape(field: bytes) -> bytes:
    for escaped, plain in ((rb"\040", b" "), (rb"\011", b"\t"), (rb"\012", b"\n"), (rb"\134", b"\\")):
        field = field.replace(escaped, plain)
    return field
