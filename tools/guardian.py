"""A process that cleans up behind this one, even if this one is killed.

It has a directory for what must not be left behind: mounts below it are taken away, then it is removed. And it hears of
the processes in the sandbox from bubblewrap itself, and ends those first. It begins when the other end of a socket is
closed, which nobody can forget: there is one way to clean up, whatever happened.

Nobody else can get into the directory, nor put another in its place: else a mount, or what is removed, would be
elsewhere.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

from fsview import mountpoint
from fsview.mountinfo import mounts
from fsview.mounting import KIND, bind_read_only, detach
from store.errors import FsviewError, MountError, SandboxError
from store.walking.remove import remove_tree
from tools.orphans import interrupts_held

_END_TIMEOUT_MS: Final = 10_000


class Guardian:
    """To be used in a `with`; path: the directory, empty, this user's alone; status: where bubblewrap is to report."""

    def __init__(self) -> None:
        self.path = Path()
        self.status = -1
        self._socket: socket.socket | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        parent = Path(os.path.realpath(tempfile.gettempdir()))
        _check_nobody_exchanges(parent)
        self.path = Path(tempfile.mkdtemp(prefix="fsview-run-", dir=parent))
        self._socket, other = socket.socketpair()
        reader, self.status = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with interrupts_held():
            self._pid = os.fork()
            if self._pid == 0:
                _guard(self.path, other, reader)
        other.close()
        os.close(reader)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have everything cleaned up, and wait for that."""
        assert self._socket is not None
        self.close_status()
        self._socket.close()
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def bind_read_only(self, source: str, name: str) -> Path | None:
        """Return a new path below `path` where *source* can't be changed: its contents, owner and mode.

        None for who may not mount; he may not change what is root's either. What is a device can be written to.
        """
        if os.geteuid() != 0:
            return None
        point = self.path / name
        if os.path.isdir(source):
            point.mkdir()
        else:
            point.touch()
        try:
            bind_read_only(source, os.fspath(point))
        except MountError:  # root of a user namespace only
            return None
        return point

    def close_status(self) -> None:
        """Close our end of what bubblewrap reports to: when it has started."""
        if self.status >= 0:
            os.close(self.status)
            self.status = -1

    def process(self) -> int:
        """Return the process in the sandbox from which all others come; 0 if it didn't come to that."""
        assert self._socket is not None
        return int(self._socket.recv(100) or b"0")


def _check_nobody_exchanges(directory: Path) -> None:
    """Refuse a directory, a path without symlinks, on the way to which others may rename.

    Raises:
        SandboxError: they may.
    """
    trusted = _trusted_owners()
    for each in (directory, *directory.parents):
        status = os.stat(each)
        may_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if may_others or status.st_uid not in trusted:
            raise SandboxError(
                f"temporary files can't be in {directory}: other users may exchange what is in {each}; "
                f"set TMPDIR to a directory of your own, or to /tmp"
            )


def _trusted_owners() -> set[int]:
    """Return root, this user, and in a user namespace what stands for root outside."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    ranges = [(int(first), int(count)) for first, _, count in map(str.split, lines)]
    nobody = int(Path("/proc/sys/kernel/overflowuid").read_text())
    is_mapped = any(first <= nobody < first + count for first, count in ranges)
    return {0, os.geteuid()} | (set() if is_mapped else {nobody})


def _guard(path: Path, control: socket.socket, status: int) -> NoReturn:
    try:
        os.setsid()  # what the terminal tells its foreground is not for us
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        _leave(keep={control.fileno(), status})
        process = _wait(control, status)
        if process is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], _END_TIMEOUT_MS / 1000)
        clean(path)
    finally:
        os._exit(0)


def _leave(keep: set[int]) -> None:
    """Close what was inherited: whoever reads our caller's output waits for no more than for the command."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with suppress(OSError):
                os.close(int(name))


def _wait(control: socket.socket, status: int) -> int | None:
    """Wait until the other side is closed; return a pidfd of the process that bubblewrap has reported, if it has."""
    process, text, is_over = None, b"", False
    waiting: set[int] = {control.fileno(), status}
    while waiting and not (is_over and status not in waiting):
        ready, _, _ = select.select(waiting, [], [])
        if control.fileno() in ready:
            is_over = True
            waiting.discard(control.fileno())
        if status in ready:
            data = os.read(status, 4096)
            text += data
            if not data or b"}" in text:
                waiting.discard(status)
                process = _tell(control, text)
    return process


def _tell(control: socket.socket, text: bytes) -> int | None:
    try:
        first, _ = json.JSONDecoder().raw_decode(text.decode())  # a second object, the exit status, may have come, too
        pid = int(first["child-pid"])
    except (ValueError, KeyError):  # it ended before it began
        pid = 0
    with suppress(OSError):  # nobody listens any more
        control.send(str(pid).encode())
    try:
        return os.pidfd_open(pid) if pid else None
    except ProcessLookupError:  # it has ended already
        return None


def clean(path: Path) -> None:
    """Take away all mounts below *path*, the last first, then *path* itself."""
    for mount in reversed([one for one in mounts() if one.point.startswith(f"{path}/")]):
        with suppress(MountError):
            if mount.kind == KIND:
                mountpoint.unmount(Path(mount.point), lazy=True)
            else:
                detach(mount.point, lazy=True)
    if not [one for one in mounts() if one.point.startswith(f"{path}/")]:
        with suppress(OSError, FsviewError):  # nobody is left to be told
            remove_tree(path)
