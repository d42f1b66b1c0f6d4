"""Commands that kill themselves: at the n-th of the calls by which they change the file system.

The calls are seen by an audit hook, so each kill is exactly between two of them, in any part of the program.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from store.database import Database, Writing
from tests.snapshots import Snapshot, differences, snapshot
from tests.sysroot.forked import fork_cli
from tests.sysroot.rig import Machine
from tools.sysroot.layout import Generation, Stateroot, Sysroot

_CHANGES = frozenset(
    ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.utime",
     "os.truncate", "os.setxattr", "os.removexattr", "subprocess.Popen", "ctypes.dlsym")
)  # fmt: skip
_OPENED_TO_CHANGE = os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY  # a directory: to make its names durable, or to fill it
_STAGES = {  # where the innermost of these is, the command is in that stage
    "sweep": "sweeping", "keeping": "keeping ref", "merging": "merging", "etc_merge": "merging", "var": "/var",
    "activate": "activating", "locking": "locking",
}  # fmt: skip


def stage_of(frame: FrameType | None, event: str, arguments: Sequence[object]) -> str:
    """Return in which stage a command is."""
    if event == "os.rename" and str(arguments[1]).endswith("/current"):
        return "at the switch"
    while frame is not None:
        name = Path(frame.f_code.co_filename).stem
        if name == "trees":
            return "etc" if frame.f_code.co_name == "write_etc" else "tree"
        if name in _STAGES:
            return _STAGES[name]
        frame = frame.f_back
    return "other"


def run_and_die(
    home: Path, words: Sequence[str | Path], number: int = 0, kill_after_s: float | None = None
) -> tuple[int, list[str]]:
    """Run a command in a child that kills itself at its change *number*, from 1 (0: never), or is killed after a time.

    Return how it ended (as waitstatus_to_exitcode), and the stages of all changes that it came to.
    """
    told = home / "stages"
    told.unlink(missing_ok=True)
    ended = fork_cli(home, words, lambda: watch(told, number), kill_after_s)
    return ended, told.read_text().splitlines() if told.exists() else []


def watch(told: Path, number: int, send: signal.Signals = signal.SIGKILL) -> None:
    """Write the stage of each change of this process to *told*, and send it a signal at its change *number*."""
    notes = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    count, own = 0, os.getpid()

    def see(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        is_open = event == "open" and isinstance(arguments[2], int) and arguments[2] & _OPENED_TO_CHANGE
        is_change = event in _CHANGES or is_open or event.endswith("a transaction")
        if is_change and os.getpid() == own:  # not of a child before its exec
            count += 1
            os.write(notes, stage_of(sys._getframe(1), event, arguments).encode() + b"\n")
            if count == number:
                os.kill(os.getpid(), send)

    written = Database.write

    def write(database: Database, body: Callable[[Writing], Any]) -> Any:
        see("before a transaction", ())
        result = written(database, body)
        see("behind a transaction", ())
        return result

    pytest.MonkeyPatch().setattr(Database, "write", write)  # for good: the process is one trial's
    sys.addaudithook(see)


@dataclass(frozen=True)
class State:
    """What is on disk that must be whole: trees of deployments by name, /var, the current generation's number.

    kept: what generations keep of /var, by their numbers.
    """

    trees: dict[str, Snapshot]
    pristine: dict[str, Snapshot]
    kept: dict[str, Snapshot]
    var: Snapshot
    current: int
    pinned: set[int]


def look(stateroot: Stateroot) -> State:
    """Return the state of a stateroot."""
    generations = stateroot.generations()
    return State(
        {one.deployment: snapshot(one.root) for one in generations},
        {one.deployment: snapshot(one.pristine_etc) for one in generations},
        {str(one.number): snapshot(path) for one in generations if (path := _kept_var(one)).is_dir()},
        snapshot(stateroot.var),
        stateroot.current_number(),
        {one.number for one in generations if one.origin.pinned},
    )


def _kept_var(generation: Generation) -> Path:
    old = generation.old_snapshot
    return old if old.is_dir() else generation.snapshot_of_var


class Stand:
    """A machine that is put back into one state again and again, always at the same place."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self._base = machine, machine.where.with_name("base")
        subprocess.run(["cp", "-a", machine.where, self._base], check=True)

    @property
    def stateroot(self) -> Stateroot:
        """The machine's stateroot."""
        return Sysroot.open(self.machine.path).stateroot()

    def put_back(self) -> None:
        """Make the machine what it was."""
        shutil.rmtree(self.machine.where)
        subprocess.run(["cp", "-a", self._base, self.machine.where], check=True)

    def run(self, words: Sequence[str], number: int = 0, kill_after_s: float | None = None) -> tuple[int, list[str]]:
        """Run a command on the sysroot, which dies at its change *number*, or after a time."""
        return run_and_die(self.machine.where, [*words, "--sysroot", self.machine.path], number, kill_after_s)

    def kept_refs(self) -> list[str]:
        """Return the deployments whose commits are kept."""
        return kept_refs(self.machine.where, self.machine.repository)


def kept_refs(home: Path, repository: Path) -> list[str]:
    """Return the deployments whose commits a repository keeps."""
    words: list[str | Path] = ["refs", "--repo", repository, "--list", "fsview"]
    assert run_and_die(home, words)[0] == 0
    return sorted(name.rpartition("/")[2] for name in (home / "out").read_text().split())


def assert_whole(stateroot: Stateroot, old: State, new: State) -> State:
    """Fail unless everything that the generations name is whole, and is what it was or what it was to become."""
    __tracebackhide__ = True
    found = look(stateroot)
    assert found.current in (old.current, new.current), found.current
    assert found.pinned >= old.pinned, found.pinned
    for kind in ("trees", "pristine", "kept"):
        for name, tree in getattr(found, kind).items():
            known = [state[name] for state in (getattr(old, kind), getattr(new, kind)) if name in state]
            assert any(not differences(tree, one) for one in known), (
                f"{kind}: {name}"
            )  # directories of a new etc are new
    for snapshot_of_var in (found.var, old.var, new.var):
        snapshot_of_var[b"."] = replace(snapshot_of_var[b"."], mtime_ns=0)  # XFS changes it when names are exchanged
    assert found.var in (old.var, new.var), f"/var: {differences(found.var, old.var, mtimes=True)}"
    return found


def assert_tidy(stateroot: Stateroot, kept_refs: list[str]) -> None:
    """Fail if anything is there that no generation names, or a ref too many or too few."""
    __tracebackhide__ = True
    generations: list[Generation] = stateroot.generations()
    names = sorted({one.deployment for one in generations})
    assert sorted(os.listdir(stateroot.generations_directory), key=int) == [str(one.number) for one in generations]
    assert sorted(os.listdir(stateroot.deployments)) == sorted([*names, *(f"{name}.etc-pristine" for name in names)])
    for one in generations:
        known = {"origin.toml", "root"} | ({"snapshot"} if one is not generations[-1] else set())
        assert known.issuperset(os.listdir(one.path)), one.path
    assert sorted(os.listdir(stateroot.path)) == ["current", "deployments", "generations", "var"]
    assert kept_refs == names
