"""Ask a mounted view for one of its marks, without waiting for ever: anybody may mount something that answers nothing.

A server that was stopped or hangs would have whoever asks it wait for ever, and once it has taken the request not even
SIGKILL ends that. So a child asks. If there is no answer in time it is killed, and left to end when it can; it holds
nothing open that anybody could be waiting for.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import Final, Self

ANSWER_S: Final = 2.0
_ANSWER_BYTES_MAX: Final = 1 << 16  # what a pipe holds, and an xattr
_VALUE, _ERRNO = b"=", b"!"  # what an answer begins with


class Question:
    """One that is being asked."""

    def __init__(self, child: int, reader: int) -> None:
        """Use Question.ask."""
        self._child, self._reader = child, reader

    @classmethod
    def ask(cls, point: str, mark: bytes) -> Self:
        """Start to ask the view at *point* for the xattr *mark*."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            answer = _ERRNO
            try:
                _close_all_but(writer)
                answer = _VALUE + os.getxattr(point, mark)
            except OSError as error:
                answer = _ERRNO + str(error.errno).encode()
            finally:
                try:
                    os.write(writer, answer[:_ANSWER_BYTES_MAX])
                finally:
                    os._exit(0)
        os.close(writer)
        return cls(child, reader)

    def answer(self, deadline_s: float) -> bytes | int:
        """Return the value, or the errno; 0 if there is none until *deadline_s*, of time.monotonic()."""
        answer = b""
        try:
            if select.select([self._reader], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
                answer = os.read(self._reader, _ANSWER_BYTES_MAX)
        finally:
            os.close(self._reader)
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0 if answer else os.WNOHANG)
        return answer[1:] if answer.startswith(_VALUE) else int(answer[1:] or b"0")


def ask(point: str, mark: bytes, answer_s: float = ANSWER_S) -> bytes | int:
    """Return what the view at *point* has for the xattr *mark*, or the errno; 0 if there is no answer in time."""
    return Question.ask(point, mark).answer(time.monotonic() + answer_s)


def _close_all_but(keep: int) -> None:
    os.closerange(0, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
