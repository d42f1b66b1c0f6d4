"""The views that are mounted, and what their servers say of themselves.

A server that was stopped or hangs would have whoever asks it wait for ever, and once it has taken the request not even
SIGKILL ends that. So a child asks, for each view one. If there is no answer in time it is killed, and left to end when
it can; it holds nothing open that anybody could be waiting for.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from errno import EACCES, ECONNABORTED, ENOTCONN
from typing import Any, Final
from urllib.parse import unquote

from fsview.mountinfo import Mount, mounts
from fsview.mounting import KIND
from fsview.mountpoint import STATUS_MARK

_ANSWER_S: Final = 2.0
_ANSWER_BYTES_MAX: Final = 1 << 16  # what a pipe holds, and an xattr


class State(StrEnum):
    """How it stands with a view."""

    SERVING = "serving"
    DEAD = "dead"  # its server was killed
    SILENT = "silent"  # there is no answer
    CLOSED = "closed"  # it is another user's, who lets nobody in


@dataclass(frozen=True, slots=True)
class MountedView:
    """A view in the table of mounts; status is what fsview/status.py says, of a view that answers."""

    point: str
    repository: str
    state: State
    status: dict[str, Any]


def mounted_views(answer_s: float = _ANSWER_S) -> list[MountedView]:
    """Return the views that are mounted in this namespace; waits *answer_s* at most for all of them together."""
    views = [mount for mount in mounts() if mount.kind == KIND and mount.root == "/"]
    asked = [_ask(mount.point) for mount in views]
    deadline = time.monotonic() + answer_s
    return [_answered(mount, *child, deadline) for mount, child in zip(views, asked, strict=True)]


def _ask(point: str) -> tuple[int, int]:
    """Start a child that asks the server of a view; return its process id and where its answer comes from."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b"0"
        try:
            _close_all_but(writer)
            answer = os.getxattr(point, STATUS_MARK)
        except OSError as error:
            answer = str(error.errno).encode()
        finally:
            try:
                os.write(writer, answer)
            finally:
                os._exit(0)
    os.close(writer)
    return child, reader


def _close_all_but(keep: int) -> None:
    os.closerange(0, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _answered(mount: Mount, child: int, reader: int, deadline: float) -> MountedView:
    answer = b""
    try:
        ready = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]
        answer = os.read(reader, _ANSWER_BYTES_MAX) if ready else b""
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0 if answer else os.WNOHANG)
    state, status = _understood(answer)
    return MountedView(mount.point, status.get("repository") or unquote(mount.source), state, status)


def _understood(answer: bytes) -> tuple[State, dict[str, Any]]:
    if answer.startswith(b"{"):
        return State.SERVING, json.loads(answer)
    number = int(answer or b"0")
    if number in (ENOTCONN, ECONNABORTED):
        return State.DEAD, {}
    return (State.CLOSED if number == EACCES else State.SILENT), {}
