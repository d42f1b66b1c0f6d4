"""Run commits in which one system call fails, under strace, which makes it fail in the kernel's place.

    strace -f -e inject=write:error=ENOSPC:when=AT python -m tests.crash.faults

strace counts calls for each process by itself, and its options stand while it runs. So this process forks a child for
each commit, and a child that is to fail at its n-th call makes AT - n calls of the same kind first, which do nothing.

    stdin     {"number": n, "case": {…}}      one line for each commit
    stdout    {"exit": 0|1|2, "text": …}      it was made; it failed with an error that has a name; with any other
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from store.errors import FsviewError
from tests.crash.driver import Case, run

AT: Final = 600  # the call that strace lets fail; more than any commit here makes
_TEXT_BYTES: Final = 4096


def main(call: str) -> None:
    """Serve until stdin ends; *call* is the system call that strace lets fail."""
    with mmap.mmap(-1, _TEXT_BYTES) as text:  # the child may be unable to write
        for line in sys.stdin:
            told = json.loads(line)
            text[:] = bytes(_TEXT_BYTES)
            pid = os.fork()
            if pid == 0:
                os._exit(_commit(Case(**told["case"]), call, AT - told["number"], text))
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(json.dumps({"exit": status, "text": text[:].rstrip(b"\0").decode()}), flush=True)


def _commit(case: Case, call: str, idle_calls: int, text: mmap.mmap) -> int:
    idle = _IDLE[call]()
    for _ in range(idle_calls):
        with suppress(OSError):
            idle()
    try:
        run(case)
        return 0
    except (FsviewError, OSError) as error:
        told = f"{type(error).__name__}: {error}".encode()[:_TEXT_BYTES]
        text[: len(told)] = told
        return 1
    except BaseException:
        told = traceback.format_exc().encode()[-_TEXT_BYTES:]
        text[: len(told)] = told
        return 2


def _on(file: int, call: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: call(file, *arguments)


def _null() -> int:
    return os.open(os.devnull, os.O_RDWR)


def _memory() -> int:
    return os.memfd_create("idle")


def _syncfs() -> Callable[[], Any]:
    return lambda: ctypes.CDLL(None).syncfs(-1)


_NOWHERE: Final = Path("/nonexistent/idle")
_IDLE: Final[dict[str, Callable[[], Callable[[], Any]]]] = {
    "write": lambda: _on(_null(), os.write, b"x"),
    "pwrite64": lambda: _on(_memory(), os.pwrite, b"x", 0),
    "pwritev": lambda: _on(_memory(), os.pwritev, [b"x", b"y"], 0),
    "fsync": lambda: _on(_memory(), os.fsync),
    "fdatasync": lambda: _on(_memory(), os.fdatasync),
    "ftruncate": lambda: _on(_memory(), os.ftruncate, 0),
    "fchmod": lambda: _on(_memory(), os.fchmod, 0o600),
    "syncfs": _syncfs,
    "rename": lambda: lambda: os.rename(_NOWHERE, _NOWHERE),
    "mkdir": lambda: lambda: os.mkdir(_NOWHERE),
    "utimensat": lambda: lambda: os.utime(_NOWHERE),
    "unlink": lambda: lambda: os.unlink(_NOWHERE),
    "unlinkat": lambda: lambda: os.unlink(_NOWHERE.name, dir_fd=-1),
    "openat": lambda: lambda: os.close(os.open(os.devnull, os.O_RDONLY)),
    "flock": lambda: _on(_memory(), fcntl.flock, fcntl.LOCK_UN),
}
CALLS: Final = tuple(_IDLE)


def request(number: int, case: Case) -> bytes:
    """Return the line that asks for a commit whose *number*-th call fails."""
    return json.dumps({"number": number, "case": asdict(case)}).encode() + b"\n"


if __name__ == "__main__":
    main(sys.argv[1])
