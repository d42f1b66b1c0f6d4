"""A process that has imported the whole program and forks at request: a command that starts so takes a tenth.

It is a program of its own (`python -m tests.prefork SOCKET`), in which no test ever ran. What it forks is as good as
what was started anew, but for the words in /proc/PID/cmdline. A request is a packet with five descriptors: the request
in JSON, the three standard streams, and a pipe. Into that go the pid of the command, and how it ended, a line each.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.everything import import_everything
from tools.cli import main

_DESCRIPTORS: Final = 5
_CHUNK_BYTES: Final = 1 << 16
_OF_THE_INTERPRETER: Final = ("PYTHON", "LANG")  # what says so is read when Python starts


class Prefork:
    """The process, as who needs commands sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._owner = os.getpid()
        self._usual = dict(environment)
        self._socket, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-m", "tests.prefork", str(end.fileno())]
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, env=environment, pass_fds=[end.fileno()], stdin=nothing, stdout=nothing
        )
        end.close()
        self.pid = self._process.pid

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.wait()

    def can(self, environment: Mapping[str, str]) -> bool:
        """Whether it can start a command: it has its own user, namespaces and settings of the interpreter."""
        names = environment.keys() | self._usual.keys()
        differ = [name for name in names if environment.get(name) != self._usual.get(name)]
        own = (os.getpid(), os.geteuid()) == (self._owner, os.getuid())
        return own and not any(name.startswith((*_OF_THE_INTERPRETER, "LC_")) for name in differ)

    def run(
        self, words: Sequence[str | bytes | Path], *, input: bytes, env: Mapping[str, str], cwd: Path, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `fsview WORDS`, as subprocess.run does."""
        texts = [os.fsdecode(word) for word in words]
        (its_input, to), *backs = [os.pipe() for _ in range(4)]  # its standard streams, and what is told of it
        request = _in_memory({"words": texts, "env": dict(env), "cwd": str(cwd), "umask": _umask()})
        theirs = [request, its_input, *(write for _, write in backs)]
        conversation = _Conversation(to, input, [read for read, _ in backs])
        try:
            socket.send_fds(self._socket, [b"x"], theirs)
            _close(theirs)
            in_time = conversation.goes_to_its_end(time.monotonic() + timeout)
        finally:
            conversation.close()
        out, err, told = (bytes(said) for said in conversation.said.values())
        if not in_time:
            os.kill(int(told.split()[0]), signal.SIGKILL)
            raise subprocess.TimeoutExpired(texts, timeout, out, err)
        return subprocess.CompletedProcess(texts, int(told.split()[1]), out, err)


def _in_memory(request: object) -> int:
    file = os.memfd_create("request")
    os.write(file, json.dumps(request).encode())
    return file


def _umask() -> int:
    os.umask(mask := os.umask(0o022))
    return mask


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Conversation:
    """What goes through the pipes to a command, and comes back."""

    def __init__(self, to: int, data: bytes, back: Sequence[int]) -> None:
        os.set_blocking(to, False)
        self._data = data
        self.said = {pipe: bytearray() for pipe in back}
        self._selector = selectors.DefaultSelector()
        self._selector.register(to, selectors.EVENT_WRITE)
        for pipe in back:
            self._selector.register(pipe, selectors.EVENT_READ)

    def goes_to_its_end(self, deadline_s: float) -> bool:
        """Go on until all pipes have ended, or it is too late for that; return which it was."""
        while self._selector.get_map():
            ready = self._selector.select(max(0.0, deadline_s - time.monotonic()))
            for key, event in ready:
                if (self._writes if event == selectors.EVENT_WRITE else self._reads)(key.fd) == 0:
                    self._end(key.fd)
            if not ready:
                return False
        return True

    def close(self) -> None:
        """Close what has not ended."""
        for key in list(self._selector.get_map().values()):
            self._end(key.fd)
        self._selector.close()

    def _writes(self, pipe: int) -> int:
        """Write some; return how much there is left to write."""
        with suppress(BrokenPipeError):
            self._data = self._data[os.write(pipe, self._data[:_CHUNK_BYTES]) :]
            return len(self._data)
        return 0

    def _reads(self, pipe: int) -> int:
        part = os.read(pipe, _CHUNK_BYTES)
        self.said[pipe] += part
        return len(part)

    def _end(self, pipe: int) -> None:
        self._selector.unregister(pipe)
        os.close(pipe)


# In the process itself


def _serve(requests: socket.socket) -> None:
    """Fork for each request; return in what is to become the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for commands need nobody who waits for them
    while True:
        packet, descriptors, *_ = socket.recv_fds(requests, 1, _DESCRIPTORS)
        if not packet:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if _is_the_command(descriptors):
                return
        _close(descriptors)


def _is_the_command(descriptors: list[int]) -> bool:
    """Fork, and return in the child; wait for it in the parent, and end."""
    request, *streams, told = descriptors
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _become(os.pread(request, os.fstat(request).st_size, 0), streams)
        return True
    _close([request, *streams])
    os.write(told, b"%d\n" % pid)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _become(request: bytes, streams: list[int]) -> None:
    asked = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        _open_stream(number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.argv = ["fsview", *asked["words"]]
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    os.umask(asked["umask"])
    os.chdir(asked["cwd"])


def _open_stream(number: int) -> None:
    """Open a standard stream as Python does where the locale is C.UTF-8."""
    mode, errors = ("w" if number else "r"), ("backslashreplace" if number == 2 else "surrogateescape")
    buffering = 1 if number == 2 else -1
    stream = os.fdopen(number, mode, buffering, encoding="utf-8", errors=errors, closefd=False)
    name = ("stdin", "stdout", "stderr")[number]
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    import_everything()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        main()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(
            int(ended.code or 0)
        )  # Python's own end takes as long as most commands: it visits all that is imported
