"""The door between the kernel and libfuse: what must be quick is answered here, all else goes on to libfuse.

pyfuse3 hands read() and readdir() nothing but the file handle, and so a server must be asked to open what it is asked
to read. Here the node number takes the place of the handle. Then open() and opendir() may answer ENOSYS, once, and the
kernel never asks again: not for open, release, opendir and releasedir; and it keeps what it reads of directories, until
their mtime changes. Of a tree that was walked before, it asks nothing.

Of a tree that was not, four requests in five are reads, and half of the others ask for what is behind the last row of
a directory. These are answered at the door, with two system calls instead of six. Any other request goes to libfuse
through a socket; its answer goes straight to /dev/fuse, for the descriptor that libfuse knows is a socket while it
reads and the device while it writes.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from errno import ENODEV, ENOENT
from typing import Final, Protocol

# linux/fuse.h: fuse_in_header is length u32, opcode u32, unique u64, nodeid u64, …, 40 bytes; fuse_read_in, which
# READDIR and READDIRPLUS have too, is handle u64, offset u64, size u32, …; fuse_out_header length u32, error i32,
# unique u64.
_OPCODE: Final = struct.Struct("=I")
_OPCODE_AT: Final = 4
_READ_IN: Final = struct.Struct("=8xQQ24xQI")
_OUT: Final = struct.Struct("=IiQ")
_NODE: Final = slice(16, 24)
_HANDLE: Final = slice(40, 48)
_READ, _READDIR, _READDIRPLUS = 15, 28, 44
_FORGET, _INTERRUPT, _BATCH_FORGET = 2, 36, 42
_WITH_HANDLE: Final = frozenset((_READ, _READDIR, _READDIRPLUS))
_UNANSWERED: Final = frozenset((_FORGET, _INTERRUPT, _BATCH_FORGET))  # and nothing has to be done about them
_REQUEST_BYTES_MAX: Final = 1 << 17  # the longest is a setxattr of 64 KiB (fsview/connection.py allows no long write)
_ANSWER_BYTES_MAX: Final = 1 << 16  # of those that libfuse gives by itself: an errno


class Answers(Protocol):
    """What is answered at the door."""

    def answer_read(self, node: int, offset: int, size: int) -> tuple[int, bytes]:
        """Return 0 and the bytes of a file, or an errno and none."""

    def is_at_end(self, node: int, start: int) -> bool:
        """Whether it is known without a look that a directory has nothing behind the row with the cookie *start*."""


class Door:
    """Answers requests from *device*, or passes them on to libfuse, which knows it by the descriptor *session*."""

    def __init__(self, device: int, session: int, answers: Answers) -> None:
        """From now on *session* is the door's to point elsewhere."""
        self._device, self._session, self._answers = device, session, answers
        self._inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._outside = outside.detach()
        self._buffer = bytearray(_REQUEST_BYTES_MAX)
        self._is_answered = True

    def pass_request(self) -> bool:
        """Wait for a request and put it where libfuse reads next; False if the view is unmounted."""
        if not self._is_answered:
            self._pass_answer()
        self._is_answered = False
        os.dup2(self._outside, self._session, inheritable=False)
        buffer = self._buffer
        while True:
            try:
                size = os.readv(self._device, [buffer])
            except OSError as error:
                if error.errno == ENODEV:
                    return False
                if error.errno == ENOENT:  # who asked gave up
                    continue
                raise
            opcode = _OPCODE.unpack_from(buffer, _OPCODE_AT)[0]
            if opcode in _WITH_HANDLE:
                if self._is_answered_here(opcode):
                    continue
                buffer[_HANDLE] = buffer[_NODE]
            if opcode not in _UNANSWERED:
                break
        self._inside.send(memoryview(buffer)[:size])
        return True

    def _is_answered_here(self, opcode: int) -> bool:
        unique, node, offset, size = _READ_IN.unpack_from(self._buffer)
        number, data = 0, b""
        if opcode == _READ:
            number, data = self._answers.answer_read(node, offset, size)
        elif not self._answers.is_at_end(node, offset):
            return False
        with suppress(FileNotFoundError):  # who asked gave up
            os.writev(self._device, (_OUT.pack(_OUT.size + len(data), -number, unique), data))
        return True

    def let_answer(self) -> None:
        """Have the answer that is given next go to the kernel by itself: called by the handler of a request."""
        os.dup2(self._device, self._session, inheritable=False)
        self._is_answered = True

    def _pass_answer(self) -> None:
        """Pass on what libfuse, or a handler that doesn't know of the door, answered."""
        with suppress(BlockingIOError):
            answer = self._inside.recv(_ANSWER_BYTES_MAX, socket.MSG_DONTWAIT)
            with suppress(FileNotFoundError):  # who asked gave up
                os.write(self._device, answer)
