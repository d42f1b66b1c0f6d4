"""A file system that the user nobody mounted and made look like a view: it says whatever the test wants, or nothing.

A FUSE server of some forty lines. Every name in it is a directory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.users import NOBODY

_IN = struct.Struct("=IIQQIIIHH")
_OUT = struct.Struct("=IiQ")
_ATTR = struct.Struct("=6Q10I")
LOOKUP, GETATTR, GETXATTR, LISTXATTR, INIT, READDIR, STATFS = 1, 3, 22, 23, 26, 28, 17
_WITHOUT_REPLY: Final = {2, 36, 42}  # to forget, to be interrupted
_DETACH: Final = 2
_REQUEST_BYTES: Final = 1 << 20
INIT_REPLY: Final = struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0)
Answer = Callable[[int, int, bytes], bytes | int]  # of an opcode, a node and what follows: the reply, or its errno


@contextmanager
def fake_view(point: Path, marks: Mapping[str, bytes] | None, source: str = "/srv/repo") -> Iterator[None]:
    """Mount one at *point*, with these xattrs; None: it answers no request at all."""
    answer = None if marks is None else lambda opcode, node, body: _reply(opcode, node, body, marks)
    with serving(point, "fuse.fsview", source, answer):
        yield


@contextmanager
def serving(point: Path, kind: str, source: str, answer: Answer | None) -> Iterator[None]:
    """Mount a file system that gives to each request what *answer* makes of it; None: it answers none."""
    library = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode={stat.S_IFDIR:o},user_id={NOBODY},group_id={NOBODY},allow_other"
    arguments = (source.encode(), os.fsencode(point), kind.encode(), 6, options.encode())
    assert library.mount(*arguments) == 0, os.strerror(ctypes.get_errno())
    server = os.fork() if answer is not None else 0
    if answer is not None and server == 0:
        try:
            _serve(device, answer)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        library.umount2(os.fsencode(point), _DETACH)
        os.close(device)
        if server:
            os.waitpid(server, 0)


def _serve(device: int, answer: Answer) -> None:
    while True:
        try:
            request = os.read(device, _REQUEST_BYTES)
        except OSError:  # it was unmounted
            return
        _, opcode, unique, node, *_ = _IN.unpack_from(request)
        if opcode in _WITHOUT_REPLY:
            continue
        reply = answer(opcode, node, request[_IN.size :])
        error, data = (0, reply) if isinstance(reply, bytes) else (-reply, b"")
        os.write(device, _OUT.pack(_OUT.size + len(data), error, unique) + data)


def _reply(opcode: int, node: int, body: bytes, marks: Mapping[str, bytes]) -> bytes | int:
    """Return the answer to one request, or its errno."""
    if opcode == INIT:
        return INIT_REPLY
    if opcode == GETATTR:
        return struct.pack("=QII", 0, 0, 0) + attributes(node)
    if opcode == LOOKUP:
        below = hash(body) & 0xFFFFFFF | 2
        return entry_reply(below)
    if opcode == GETXATTR:
        return _xattr(body, marks)
    return errno.ENOSYS if opcode != STATFS else bytes(80)


def entry_reply(node: int, mode: int = stat.S_IFDIR | 0o755) -> bytes:
    """Return the answer to who looks a name up."""
    return struct.pack("=QQQQII", node, 0, 0, 0, 0, 0) + attributes(node, mode)


def value_reply(body: bytes, value: bytes) -> bytes | int:
    """Return the answer to who asks for an xattr, or for their names."""
    (room,) = struct.unpack_from("=I", body)
    if room == 0:
        return struct.pack("=II", len(value), 0)
    return value if len(value) <= room else errno.ERANGE


def _xattr(body: bytes, marks: Mapping[str, bytes]) -> bytes | int:
    value = marks.get(body[8:].rstrip(b"\0").decode())
    return errno.ENODATA if value is None else value_reply(body, value)


def attributes(node: int, mode: int = stat.S_IFDIR | 0o755) -> bytes:
    now_s = int(time.time())
    return _ATTR.pack(node, 0, 0, now_s, now_s, now_s, 0, 0, 0, mode, 2, NOBODY, NOBODY, 0, 512, 0)
