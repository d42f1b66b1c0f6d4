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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.users import NOBODY

_IN = struct.Struct("=IIQQIIIHH")
_OUT = struct.Struct("=IiQ")
_ATTR = struct.Struct("=6Q10I")
_LOOKUP, _GETATTR, _STATFS, _GETXATTR, _INIT, _INTERRUPT = 1, 3, 17, 22, 26, 36
_DETACH: Final = 2
_REQUEST_BYTES: Final = 1 << 20


@contextmanager
def fake_view(point: Path, marks: Mapping[str, bytes] | None, source: str = "/srv/repo") -> Iterator[None]:
    """Mount one at *point*, with these xattrs; None: it answers no request at all."""
    library = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode={stat.S_IFDIR:o},user_id={NOBODY},group_id={NOBODY},allow_other"
    arguments = (source.encode(), os.fsencode(point), b"fuse.fsview", 6, options.encode())
    assert library.mount(*arguments) == 0, os.strerror(ctypes.get_errno())
    server = os.fork() if marks is not None else 0
    if marks is not None and server == 0:
        try:
            _serve(device, marks)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        library.umount2(os.fsencode(point), _DETACH)
        os.close(device)
        if server:
            os.waitpid(server, 0)


def _serve(device: int, marks: Mapping[str, bytes]) -> None:
    while True:
        try:
            request = os.read(device, _REQUEST_BYTES)
        except OSError:  # it was unmounted
            return
        _, opcode, unique, node, *_ = _IN.unpack_from(request)
        if opcode == _INTERRUPT:
            continue
        reply = _reply(opcode, node, request[_IN.size :], marks)
        error, data = (0, reply) if isinstance(reply, bytes) else (-reply, b"")
        os.write(device, _OUT.pack(_OUT.size + len(data), error, unique) + data)


def _reply(opcode: int, node: int, body: bytes, marks: Mapping[str, bytes]) -> bytes | int:
    """Return the answer to one request, or its errno."""
    if opcode == _INIT:
        return struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0)
    if opcode == _GETATTR:
        return struct.pack("=QII", 0, 0, 0) + _attributes(node)
    if opcode == _LOOKUP:
        below = hash(body) & 0xFFFFFFF | 2
        return struct.pack("=QQQQII", below, 0, 0, 0, 0, 0) + _attributes(below)
    if opcode == _GETXATTR:
        return _xattr(body, marks)
    return errno.ENOSYS if opcode != _STATFS else bytes(80)


def _xattr(body: bytes, marks: Mapping[str, bytes]) -> bytes | int:
    (room,) = struct.unpack_from("=I", body)
    value = marks.get(body[8:].rstrip(b"\0").decode())
    if value is None:
        return errno.ENODATA
    if room == 0:
        return struct.pack("=II", len(value), 0)
    return value if len(value) <= room else errno.ERANGE


def _attributes(node: int) -> bytes:
    now_s = int(time.time())
    return _ATTR.pack(node, 0, 0, now_s, now_s, now_s, 0, 0, 0, stat.S_IFDIR | 0o755, 2, NOBODY, NOBODY, 0, 512, 0)
