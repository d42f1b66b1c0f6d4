"""The server of a view: open the repository, mount, answer, unmount.

The kernel's first request, INIT, takes a way round: libfuse answers it through a socket, and what it said goes to the
kernel with CACHE_SYMLINKS added, which pyfuse3 has no way to ask for. Without that flag the kernel asks for a
symlink's target each time that a path leads through it: twice as many requests as all others in `diff refs/a refs/b`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyfuse3
import trio

from fsview.mounting import detach, mount
from fsview.mountpoint import PID_MARK, REPOSITORY_MARK, check_machine, check_mount_point, source_name
from fsview.operations import Operations, find_ino_offset
from fsview.view import View
from fsview.waiting import answer_requests
from store.errors import MountError
from store.repository import Repository

_log = logging.getLogger(__name__)

_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_REQUEST_BYTES_MAX: Final = 1 << 16
_U32: Final = struct.Struct("=I")
_REQUEST_FLAGS_AT: Final = 52  # fuse_in_header 40; major, minor, max_readahead
_REPLY_FLAGS_AT: Final = 28  # fuse_out_header 16; major, minor, max_readahead
_CACHE_SYMLINKS: Final = 1 << 23


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What `-o` may say. overwrite_ino: write st_ino where pyfuse3 has no way to (fsview/operations.py)."""

    allow_other: bool = False
    default_permissions: bool = False
    overwrite_ino: bool = True

    def names(self) -> list[str]:
        """Return the options as the kernel takes them; who lets others in must have modes and owners checked."""
        checked = ["default_permissions"] if self.allow_other or self.default_permissions else []
        return checked + (["allow_other"] if self.allow_other else [])


def serve(repository_path: Path, point: Path, options: MountOptions, on_mounted: Callable[[], None]) -> None:
    """Mount and answer until the view is unmounted or a signal ends it; *on_mounted* is called before the first answer.

    If this raises after that, the mount stays, dead (fsview/mountpoint.py tells why).

    Raises:
        FsviewError: the repository can't be opened or the view not mounted.
    """
    repository_path, point = Path(os.path.realpath(repository_path)), Path(os.path.realpath(point))
    check_machine(allow_other=options.allow_other)
    check_mount_point(point, repository_path)
    with Repository.open(repository_path) as repository, _signals_blocked():
        view = _view(repository)
        offset = find_ino_offset() if options.overwrite_ino else None
        if offset is None:
            _log.warning("st_ino can't be set beside the node number here; each directory costs one request more")
        device = mount(str(point), source_name(repository_path), options.names())
        try:
            descriptor = _connect(Operations(view, offset), device)
            _log.info("%s is mounted at %s", repository_path, point)
            on_mounted()
        except BaseException:
            detach(str(point), lazy=True)
            raise
        trio.run(_answer)
        if not _is_unmounted(descriptor):
            detach(str(point), lazy=True)
        pyfuse3.close(unmount=False)
        view.close()
        _log.info("%s is unmounted", point)


def _view(repository: Repository) -> View:
    marks = {PID_MARK: str(os.getpid()).encode(), REPOSITORY_MARK: os.fsencode(repository.path)}
    return View(repository, uid=os.getuid(), gid=os.getgid(), now_s=lambda: int(time.time()), marks=marks)


def _connect(operations: Operations, device: int) -> int:
    """Let pyfuse3 answer INIT through a socket, pass that on, and put the device in the socket's place.

    Return the descriptor that it has now, which pyfuse3 closes; *device* is closed.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptor = theirs.detach()
    with ours:
        try:
            pyfuse3.init(operations, f"/dev/fd/{descriptor}", set())
        except RuntimeError as error:
            raise MountError(
                f"libfuse does not start: {error}; it must be 3.3 or newer: apt install libfuse3-3"
            ) from error
        request = os.read(device, _REQUEST_BYTES_MAX)
        ours.send(request)
        trio.run(_answer_first, operations)
        os.write(device, _with_cached_symlinks(request, ours.recv(_REQUEST_BYTES_MAX, socket.MSG_DONTWAIT)))
    os.dup2(device, descriptor, inheritable=False)
    os.close(device)
    return descriptor


async def _answer_first(operations: Operations) -> None:
    """Answer one request: libfuse's part of it is done when pyfuse3 waits for the next."""
    with trio.CancelScope() as scope:
        operations.on_init = scope.cancel
        await answer_requests()


def _with_cached_symlinks(request: bytes, reply: bytes) -> bytes:
    """Return the reply to INIT with CACHE_SYMLINKS, if the kernel's request offers it."""
    offered: int = _U32.unpack_from(request, _REQUEST_FLAGS_AT)[0]
    wanted: int = _U32.unpack_from(reply, _REPLY_FLAGS_AT)[0]
    changed = _U32.pack(wanted | offered & _CACHE_SYMLINKS)
    return reply[:_REPLY_FLAGS_AT] + changed + reply[_REPLY_FLAGS_AT + _U32.size :]


async def _answer() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal)
        await answer_requests()
        nursery.cancel_scope.cancel()


async def _end_on_signal() -> None:
    with trio.open_signal_receiver(*_END_SIGNALS) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
        async for number in signals:
            _log.info("%s: unmounting", signal.Signals(number).name)
            pyfuse3.terminate()


def _is_unmounted(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold back the signals that would end this process between mounting and serving."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
