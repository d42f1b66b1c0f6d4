"""A repository seen through a mount, all that a reader can ask of it, to be compared when it is damaged.

with serving(repo, point): truth = look(point)          of the sound repository: question -> answer
with serving(repo, point): seen = compare(point, truth, seed)
                                                        of the damaged one

The server is forked off this process, which saves most of what a mount costs; questions are asked in a child, so that
one that hangs is noticed and ended.
"""

from __future__ import annotations

import errno
import json
import os
import random
import select
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from fsview.background import start
from fsview.mountinfo import mount_at
from fsview.mounting import detach
from fsview.mountpoint import server_pid
from fsview.options import MountOptions
from store.errors import FsviewError

Question: TypeAlias = tuple[str, bytes]  # what is asked, path below the mount point
Truth: TypeAlias = dict[Question, object]

_LIST, _STAT, _LINK, _READ, _XATTRS = "list", "stat", "link", "read", "xattrs"
_UNLISTED: Final = (b"refs/os/main@{1}", b"refs/os/main^", b"versions/other", b"refs/line^^", b"refs/line@{3}")
_CHANGING: Final = b".fsview"
_REFUSALS: Final = frozenset((errno.EIO,))
_DEATHS: Final = frozenset((errno.ECONNABORTED, errno.ENOTCONN))
_DEATHS_MAX: Final = 2  # a new worker is waited for longer each time
_PATIENCE_S: Final = 100  # a worker at one request is ended after 10 s
_QUESTIONS_MAX: Final = 500


@dataclass
class Seen:
    """What came of asking: refused and died count questions, wrong tells of each answer that is."""

    refused: dict[str, int] = field(default_factory=dict)
    died: int = 0
    wrong: list[str] = field(default_factory=list)

    def worst(self) -> str:
        """Return the outcome in a word or two."""
        if self.wrong:
            return "WRONG"
        if self.died:
            return "a worker died"
        kinds = (_LIST, _STAT, _LINK, _XATTRS, _READ)
        return next((f"EIO at {kind}" for kind in kinds if kind in self.refused), "unharmed")


@contextmanager
def serving(repo: Path, point: Path) -> Iterator[None]:
    """Mount with one worker; leaving unmounts, and waits for the end of the server.

    Raises:
        FsviewError: it is refused.
    """
    try:
        start(repo, point, MountOptions(workers=1), point.with_suffix(".log"))
    except FsviewError:
        assert mount_at(point) is None, "it was refused, and is mounted all the same"
        raise
    pid = server_pid(point)
    server = None if pid is None else os.pidfd_open(pid)
    try:
        yield
    finally:
        detach(str(point), lazy=True)
        if server is not None:
            ended = select.select([server], [], [], 20)[0]
            os.close(server)
            assert ended, "the server of an unmounted view goes on"


def look(point: Path) -> Truth:
    """Return the answer to every question."""
    truth: Truth = {}
    root = os.fsencode(point)
    for path in (b"", *(path for path in _UNLISTED if os.path.lexists(os.path.join(root, path)))):
        _look(root, path, truth)
    return truth


def _look(point: bytes, path: bytes, truth: Truth) -> None:
    mode = os.lstat(os.path.join(point, path)).st_mode
    kinds = [_STAT]
    if stat.S_ISDIR(mode):
        kinds += [_LIST, _XATTRS] if path else [_LIST]
    elif stat.S_ISLNK(mode):
        kinds.append(_LINK)
    else:
        kinds += [_READ, _XATTRS]
    for kind in kinds:
        truth[kind, path] = _answer(point, kind, path)
    if stat.S_ISDIR(mode):
        for name in os.listdir(os.path.join(point, path)):
            if name != _CHANGING:
                _look(point, os.path.join(path, name), truth)


def _answer(point: bytes, kind: str, path: bytes) -> object:
    full = os.path.join(point, path)
    match kind:
        case "list":
            return sorted(os.listdir(full))
        case "stat":
            status = os.lstat(full)
            is_committed = path.startswith(b"commits/") and not stat.S_ISLNK(status.st_mode)
            mtime_ns = status.st_mtime_ns if is_committed else 0  # others tell when the index was changed
            return status.st_mode, status.st_ino, status.st_uid, status.st_gid, status.st_size, mtime_ns
        case "link":
            return os.readlink(full)
        case "read":
            with open(full, "rb") as file:
                return file.read()
        case "xattrs":
            return sorted((name, os.getxattr(full, name)) for name in os.listxattr(full))
    raise AssertionError(kind)


def compare(point: Path, truth: Truth, seed: int) -> Seen:
    """Ask all, or some hundreds that *seed* chooses, in an order that it decides; in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(_ask_all(os.fsencode(point), truth, seed)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        text = stream.read() if select.select([stream], [], [], _PATIENCE_S)[0] else b""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return Seen(*json.loads(text)) if text else Seen(wrong=["a question hung, or the asker died"])


def _ask_all(point: bytes, truth: Truth, seed: int) -> tuple[dict[str, int], int, list[str]]:
    seen = Seen()
    for question in random.Random(seed).sample(list(truth), min(len(truth), _QUESTIONS_MAX)):
        _ask(seen, question, truth[question], partial(_answer, point, *question))
        if seen.died > _DEATHS_MAX:
            break
    return seen.refused, seen.died, seen.wrong[:5]


def _ask(seen: Seen, question: Question, expected: object, ask: Callable[[], object]) -> None:
    try:
        found = ask()
        if found != expected:
            seen.wrong.append(f"{question}: {str(found)[:200]} and not {str(expected)[:200]}")
    except OSError as problem:
        if problem.errno in _DEATHS:
            seen.died += 1
        elif problem.errno in _REFUSALS:
            seen.refused[question[0]] = seen.refused.get(question[0], 0) + 1
        else:
            seen.wrong.append(f"{question}: {problem}")
