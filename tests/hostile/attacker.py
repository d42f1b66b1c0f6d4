"""Another user, who does something again and again while root works on a tree in which he owns a directory.

Such a test is a campaign: a long one in the torture, by the mark CAMPAIGN, and a short one in the suite.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.libc import RENAME_EXCHANGE, renameat2
from tests.users import NOBODY, User, start_as

SECRET = b"root's own\n"
CAMPAIGN = pytest.mark.parametrize(
    "runs", [pytest.param(25, id="short"), pytest.param(400, id="long", marks=pytest.mark.torture)]
)
_HANG_S = 300


@dataclass(frozen=True)
class Attack:
    """What is done again and again, from inside a directory: the way there may be closed by then."""

    inside: Path
    act: Callable[[], object]


@contextmanager
def attacking(*attacks: Attack) -> Iterator[None]:
    """Have the user nobody run *attacks* in turn, in a process each, until the end; who hangs meanwhile fails."""
    begun = os.pipe()
    pids = [_start(attack, begun[1]) for attack in attacks]
    for _ in pids:
        os.read(begun[0], 1)
    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(_HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for end in begun:
            os.close(end)


def _hangs(*_: object) -> None:
    raise AssertionError(f"nothing came of it in {_HANG_S} s")


def _start(attack: Attack, begun: int) -> int:
    parent, here = os.getpid(), os.open(attack.inside, os.O_RDONLY | os.O_DIRECTORY)

    def go_on() -> None:
        os.fchdir(here)
        os.write(begun, b"x")
        while os.getppid() == parent:
            with suppress(OSError):
                attack.act()

    try:
        return start_as(User(), go_on)
    finally:
        os.close(here)


def make_his(*paths: Path) -> None:
    """Give *paths*, and all below them, to nobody."""
    for path in paths:
        for one in (path, *path.rglob("*")):
            os.chown(one, NOBODY, NOBODY, follow_symlinks=False)


def exchanging(inside: Path, *pairs: tuple[bytes, bytes]) -> Attack:
    """Return an attack: what has the two names of each pair is exchanged, in one step each time."""

    def act() -> None:
        for one, other in pairs:
            renameat2(one, other, RENAME_EXCHANGE)

    return Attack(inside, act)


def moving_back_and_forth(one: Path, other: Path) -> Attack:
    """Return an attack: a directory is moved elsewhere, and back."""

    def act() -> None:
        os.rename(one.name, other)
        os.rename(other, one.name)

    return Attack(one.parent, act)


def moving_when_entered(directory: Path, to: Path) -> Attack:
    """Return an attack: the directory is moved as soon as it is being emptied, which its mode tells."""

    def act() -> None:
        if os.stat(directory.name).st_mode & 0o777 == 0o700:
            os.rename(directory.name, to)

    return Attack(directory.parent, act)


def make_victim(path: Path) -> Path:
    """Make a directory of root's with secrets, by the names that the attacker has for his own files, too."""
    path.mkdir(mode=0o711)
    for name in ("file", "f", "data"):
        (path / name).write_bytes(SECRET)
        (path / name).chmod(0o600)
    return path


def make_his_tree(own: Path, victim: Path, copies: int = 1) -> Attack:
    """Make a directory in which files and directories can be exchanged for what is none; return the attack for that."""
    pairs: list[tuple[bytes, bytes]] = []
    for number in range(copies):
        _make_part(own / f"{number}", victim)
        names = (("swap", "swap-link"), ("f", "f-link"), ("g", "g-fifo"), ("d/e", "e-link"))
        pairs += [(f"{number}/{one}".encode(), f"{number}/{other}".encode()) for one, other in names]
    make_his(own)
    return exchanging(own, *pairs)


def _make_part(here: Path, victim: Path) -> None:
    for name in ("swap", "d/e"):
        (here / name).mkdir(parents=True)
        (here / name / "file").write_bytes(b"his")
    for name in ("f", "g"):
        (here / name).write_bytes(b"his")
    for name, target in (("swap-link", victim), ("e-link", victim), ("f-link", victim / "f")):
        (here / name).symlink_to(target)
    os.mkfifo(here / "g-fifo")


def assert_no_secret_in(top: Path) -> None:
    """Fail if a file below *top* has the secret."""
    __tracebackhide__ = True
    for path in top.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET not in path.read_bytes(), path
