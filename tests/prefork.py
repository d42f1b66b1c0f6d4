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
        pipes = [os.pipe() for _ in range(4)]  # its standard streams; what is told of it
        (its_input, ours), *reading = pipes
        request = _in_memory({"words": texts, "env": dict(env), "cwd": str(cwd), "umask": _umask()})
        theirs = [request, its_input, *(write for _, write in reading)]
        try:
            socket.send_fds(self._socket, [b"x"], theirs)
        finally:
            _close(theirs)
        out, err, told = _converse(ours, input, [read for read, _ in reading], texts, timeout)
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


def _converse(ours: int, data: bytes, reading: list[int], words: list[str], timeout: float) -> list[bytes]:
    """Write *data* to *ours*, and return what comes from each of *reading* until all of them end."""
    os.set_blocking(ours, False)
    found = {read: bytearray() for read in reading}
    until = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for read in reading:
            selector.register(read, selectors.EVENT_READ)
        selector.register(ours, selectors.EVENT_WRITE)
        while selector.get_map():
            ready = selector.select(until - time.monotonic())
            if not ready and time.monotonic() > until:
                os.kill(int(found[reading[-1]].split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired(words, timeout)
            for key, _ in ready:
                data = _write(selector, ours, data) if key.fd == ours else _read(selector, key.fd, found[key.fd], data)
    return [bytes(found[read]) for read in reading]


def _write(selector: selectors.BaseSelector, ours: int, data: bytes) -> bytes:
    try:
        data = data[os.write(ours, data[:_CHUNK_BYTES]) :] if data else data
    except BrokenPipeError:
        data = b""
    if not data:
        selector.unregister(ours)
        os.close(ours)
    return data


def _read(selector: selectors.BaseSelector, descriptor: int, found: bytearray, data: bytes) -> bytes:
    part = os.read(descriptor, _CHUNK_BYTES)
    found += part
    if not part:
        selector.unregister(descriptor)
        os.close(descriptor)
    return data


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
