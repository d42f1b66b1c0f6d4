"""The connection to the kernel: its first request, INIT, and a descriptor of its own for each worker.

INIT takes a way round: libfuse answers it through a socket, and what it said goes to the kernel with CACHE_SYMLINKS
added, which pyfuse3 has no way to ask for. Without that flag the kernel asks for a symlink's target each time that a
path leads through it: twice as many requests as all others in `diff refs/a refs/b`. And with the least size of a write:
nobody writes, and whoever reads requests must have room for the largest.

libfuse answers no request in a process that has not seen INIT; processes forked after it have.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from typing import Final

import pyfuse3
import trio

from fsview.mounting import DEVICE
from fsview.operations import Operations
from store.errors import MountError

_REQUEST_BYTES_MAX: Final = 1 << 16
_U32: Final = struct.Struct("=I")
_REQUEST_FLAGS_AT: Final = 52  # fuse_in_header 40; major, minor, max_readahead
_REPLY_FLAGS_AT: Final = 28  # fuse_out_header 16; major, minor, max_readahead
_REPLY_WRITE_AT: Final = 36
_WRITE_BYTES_MIN: Final = 4096
_CACHE_SYMLINKS: Final = 1 << 23
_DEV_IOC_CLONE: Final = 0x8004E500  # linux/fuse.h: _IOR(229, 0, uint32_t)


def connect(operations: Operations, device: int) -> int:
    """Let pyfuse3 answer INIT through a socket, pass that on, and put *device* in the socket's place.

    Return the descriptor that it has now, the one that pyfuse3 reads from; *device* is closed.

    Raises:
        MountError: libfuse refused.
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
        os.write(device, _amended(request, ours.recv(_REQUEST_BYTES_MAX, socket.MSG_DONTWAIT)))
    os.dup2(device, descriptor, inheritable=False)
    os.close(device)
    return descriptor


def clone(descriptor: int) -> int:
    """Return a descriptor of one's own on the connection of *descriptor*.

    What a process has read from its own and not answered fails when it dies (ECONNABORTED); read from one that it
    shares, it would wait for ever.
    """
    own = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(own, _DEV_IOC_CLONE, _U32.pack(descriptor))
    return own


def is_unmounted(descriptor: int) -> bool:
    """Whether the connection has ended."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


async def _answer_first(operations: Operations) -> None:
    """Answer one request: libfuse's part of it is done when pyfuse3 waits for the next."""
    with trio.CancelScope() as scope:
        operations.on_init = scope.cancel
        await pyfuse3.main(min_tasks=1, max_tasks=1)


def _amended(request: bytes, reply: bytes) -> bytes:
    """Return the reply to INIT with CACHE_SYMLINKS, if the kernel's request offers it, and without long writes."""
    offered: int = _U32.unpack_from(request, _REQUEST_FLAGS_AT)[0]
    wanted: int = _U32.unpack_from(reply, _REPLY_FLAGS_AT)[0]
    amended = bytearray(reply)
    _U32.pack_into(amended, _REPLY_FLAGS_AT, wanted | offered & _CACHE_SYMLINKS)
    _U32.pack_into(amended, _REPLY_WRITE_AT, _WRITE_BYTES_MIN)
    return bytes(amended)
