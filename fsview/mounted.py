"""The views that are mounted, and what their servers say of themselves.

Anybody may mount a file system of his own that looks like one: what it says is parsed strictly (fsview/status.py), and
only of those that somebody trusted mounted is it believed where something depends on it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from errno import EACCES, ECONNABORTED, ENOTCONN
from typing import Any
from urllib.parse import unquote

from fsview.asking import ANSWER_S, Question
from fsview.mountinfo import Mount, mounts
from fsview.mounting import KIND
from fsview.mountpoint import STATUS_MARK
from fsview.status import parse_status
from store.errors import FormatError


class State(StrEnum):
    """How it stands with a view."""

    SERVING = "serving"
    DEAD = "dead"  # its server was killed
    SILENT = "silent"  # there is no answer
    CLOSED = "closed"  # it is another user's, who lets nobody in
    STRANGE = "strange"  # what answers is no server of this program's


@dataclass(frozen=True, slots=True)
class MountedView:
    """A view in the table of mounts; status is what fsview/status.py says, of a view that answers.

    owner is the user who mounted it, by the kernel's word; -1 where that doesn't say.
    """

    point: str
    repository: str
    state: State
    status: dict[str, Any]
    owner: int


def mounted_views(answer_s: float = ANSWER_S) -> list[MountedView]:
    """Return the views that are mounted in this namespace; waits *answer_s* at most for all of them together."""
    views = [mount for mount in mounts() if mount.kind == KIND and mount.root == "/"]
    asked = [Question.ask(mount.point, STATUS_MARK) for mount in views]
    deadline_s = time.monotonic() + answer_s
    return [_view(mount, question.answer(deadline_s)) for mount, question in zip(views, asked, strict=True)]


def _view(mount: Mount, answer: bytes | int) -> MountedView:
    state, status = _understood(answer)
    repository = status.get("repository") or unquote(mount.source)
    return MountedView(mount.point, repository, state, status, -1 if mount.owner is None else mount.owner)


def _understood(answer: bytes | int) -> tuple[State, dict[str, Any]]:
    if isinstance(answer, bytes):
        try:
            return State.SERVING, parse_status(answer)
        except FormatError:
            return State.STRANGE, {}
    if answer in (ENOTCONN, ECONNABORTED):
        return State.DEAD, {}
    return (State.CLOSED if answer == EACCES else State.SILENT), {}
