"""What a command in a tree gets as its input and outputs: never a descriptor of a file of the machine's.

Through such a one root inside could do more than the caller meant: write to what was opened for reading (as
/proc/self/fd/0), or make a log file a set-user-ID program. So files are passed on through pipes. What the command left
of its input stays unread, as ever: a loop in a shell may read the rest. Pipes and sockets are handed over. So is a
terminal, but for root one whose owner and mode can't be changed, lest others may listen to it.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import sys
import termios
import threading
from types import TracebackType
from typing import Final, Self

from store.errors import FsviewError
from tools.guardian import Guardian

_NAMES: Final = ("standard input", "standard output", "standard error")
_CHUNK: Final = 1 << 16  # what a pipe holds


def fill_closed() -> None:
    """Open /dev/null for what the caller has closed, before another file gets its number."""
    number = os.open(os.devnull, os.O_RDWR)
    while number < len(_NAMES):
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)


class Streams:
    """To be used in a `with`; given: the three descriptors for the command. Call `started` when it has them.

    At the end what the command wrote has been passed on.
    """

    def __init__(self, guardian: Guardian) -> None:
        self._guardian = guardian
        self._input: _Input | None = None
        self._outputs: list[_Output] = []
        self._open: list[int] = []  # ours, to be closed when the command has them
        self.given: list[int] = []

    def __enter__(self) -> Self:
        self.given = [self._for_input(), self._for_output(1), self._for_output(2)]
        return self

    def started(self) -> None:
        """Close our ends: the command has them."""
        for number in self._open:
            os.close(number)
        self._open.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.started()
        relays: list[_Input | _Output] = [*([self._input] if self._input else []), *self._outputs]
        for relay in relays:
            relay.finish()
        for relay in relays:
            if kind is None and relay.error is not None:
                raise FsviewError(f"the {_NAMES[relay.number]} of the command failed: {relay.error.strerror}")

    def _for_input(self) -> int:
        if os.isatty(0):
            return self._terminal(0)
        if _may_be_handed_over(0):
            return 0
        self._input = _Input()
        return self._input.reader

    def _for_output(self, number: int) -> int:
        if os.isatty(number):
            return self._terminal(number)
        if _may_be_handed_over(number):
            return number
        for output in self._outputs:  # 2>&1: what is written is to keep its order
            if os.path.sameopenfile(output.number, number):
                return output.writer
        output = _Output(number)
        self._outputs.append(output)
        self._open.append(output.writer)
        return output.writer

    def _terminal(self, number: int) -> int:
        point = self._guardian.bind_read_only(f"/proc/self/fd/{number}", f"terminal-{number}")
        if point is None:
            return number
        access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        self._open.append(os.open(point, access | os.O_NOCTTY))
        return self._open[-1]


def _may_be_handed_over(number: int) -> bool:
    """Whether it is a socket, or a pipe without a name."""
    status = os.fstat(number)
    return stat.S_ISSOCK(status.st_mode) or (stat.S_ISFIFO(status.st_mode) and status.st_dev == _device_of_pipes())


def _device_of_pipes() -> int:
    reader, writer = os.pipe()
    try:
        return os.fstat(reader).st_dev
    finally:
        os.close(reader)
        os.close(writer)


class _Input:
    """Passes on what is read from the standard input."""

    number = 0

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.reader, self._writer = os.pipe()
        self._stopped, self._stop = os.pipe()
        self._start = _position(self.number)
        self._sent = 0
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Stop, and put the position of a file where the command has read to."""
        os.close(self._stop)
        self._thread.join()
        if self._start is not None:
            os.lseek(self.number, self._start + self._sent - _unread(self.reader), os.SEEK_SET)
        os.close(self.reader)
        os.close(self._stopped)

    def _pass_on(self) -> None:
        try:
            while self._until_ready(self.number, select.POLLIN) and (data := self._read()):
                while data and self._until_ready(self._writer, select.POLLOUT):
                    count = os.write(self._writer, data)
                    self._sent += count
                    data = data[count:]
        except OSError as error:
            self.error = error
        finally:
            os.close(self._writer)

    def _read(self) -> bytes:
        if self._start is None:
            return os.read(self.number, _CHUNK)
        return os.pread(self.number, _CHUNK, self._start + self._sent)

    def _until_ready(self, number: int, event: int) -> bool:
        """Wait for a descriptor; return False if we are to stop."""
        poll = select.poll()
        poll.register(number, event)
        poll.register(self._stopped, select.POLLIN)
        return self._stopped not in {ready for ready, _ in poll.poll()}


class _Output:
    """Passes on what the command writes to one of its outputs, or to both."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.error: OSError | None = None
        self._reader, self.writer = os.pipe()
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until the last who could write has ended."""
        self._thread.join()

    def _pass_on(self) -> None:
        try:
            while data := os.read(self._reader, _CHUNK):
                while data:
                    data = data[self._write(data) :]
        except BrokenPipeError:
            pass  # the command will hear of that
        except OSError as error:
            self.error = error
        finally:
            os.close(self._reader)

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self.number, data)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self.number, select.POLLOUT)
            poll.poll()
            return 0


def _position(number: int) -> int | None:
    """Return where in its file a descriptor is; None if that has no positions."""
    try:
        return os.lseek(number, 0, os.SEEK_CUR)
    except OSError:
        return None


def _unread(reader: int) -> int:
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder)
