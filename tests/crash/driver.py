"""Run one commit, or one prune, in a process of its own, which ends, stops or tells of it in the middle.

    python -m tests.crash.driver CASE        CASE is a `Case` as JSON

The status file holds the phase last reported and how many reports it had: it outlives the process.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

from store import prune
from store.marking import Rule
from store.objects import Checksum
from store.publication import Phase, Report
from store.repository import Repository
from tools.make_commit import Message, TreeSpec, commit
from tools.sources import DiskOptions

REF = "crash/test"
TIME_S = 1_600_000_000
PHASES = tuple(Phase)
_ALL_PHASES = (*PHASES, *prune.Phase)
_STATUS = struct.Struct("<II")  # 1 + index of the phase (0: none yet, one more than all: it is done), reports in it

AnyPhase = Phase | prune.Phase
Action = Literal["none", "die", "stop", "tell"]


@dataclass(frozen=True)
class Case:
    """What is committed, or that all but the heads is pruned, and what happens at report *number* (from 1) of *phase*.

    die: SIGKILL to itself; stop: SIGSTOP to itself; tell: a line on stdout. stopping may be repeated with SIGCONT.
    """

    repository: str
    tree: str
    parent: str
    status: str
    action: Action = "none"
    phase: str = ""
    number: int = 1
    processes: int | None = None
    work: Literal["commit", "prune"] = "commit"

    def to_json(self) -> str:
        """Return it as the driver's argument."""
        return json.dumps(asdict(self))


def run_commit(case: Case, report: Report = lambda phase, done: None) -> Checksum:
    """Commit the case's tree on its parent; the same call gives the same commit."""
    message = Message(REF, "second", timestamp_s=TIME_S, parent=case.parent)
    trees = [TreeSpec("dir", case.tree)]
    with Repository.open(Path(case.repository)) as repository:
        return commit(repository, trees, message, DiskOptions(), processes=case.processes, report=report).checksum


def run_prune(case: Case, report: prune.Report = lambda phase, done, total: None) -> None:
    """Prune the case's repository, with a report at each single step."""
    with (
        Repository.open(Path(case.repository)) as repository,
        mock.patch.object(prune, "_AT_A_TIME", 1),
        mock.patch.object(prune, "COMMIT_LAG_S", 0.0),
    ):
        prune.prune(repository, Rule(refs_only=True, depth=0), report)


def run(case: Case) -> None:
    """Do the case's work."""
    if case.work == "prune":
        run_prune(case)
    else:
        run_commit(case)


def read_status(path: Path) -> tuple[AnyPhase | None, int]:
    """Return the phase in which a driver was last, None for before the first and after the last, and its reports."""
    code, count = _STATUS.unpack(path.read_bytes())
    return (_ALL_PHASES[code - 1] if 1 <= code <= len(_ALL_PHASES) else None), count


class _Reporter:
    """Writes the status, and does the case's action at its moment."""

    def __init__(self, case: Case) -> None:
        begun = Path(f"{case.status}.begun")
        begun.write_bytes(bytes(_STATUS.size))
        with begun.open("r+b") as file:
            self._status = mmap.mmap(file.fileno(), _STATUS.size)
        begun.rename(case.status)  # whoever waits for it finds it whole
        self._case = case
        self._counts = dict.fromkeys(_ALL_PHASES, 0)
        self.moments: list[tuple[str, float]] = []

    def __call__(self, phase: AnyPhase, done: int, total: int = 0) -> None:
        self._counts[phase] += 1
        _STATUS.pack_into(self._status, 0, 1 + _ALL_PHASES.index(phase), self._counts[phase])
        self.moments.append((phase, time.monotonic()))
        if (phase, self._counts[phase]) == (self._case.phase, self._case.number):
            self._act()

    def finished(self) -> None:
        _STATUS.pack_into(self._status, 0, 1 + len(_ALL_PHASES), 0)

    def _act(self) -> None:
        match self._case.action:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "tell":
                print("now", flush=True)


def main() -> None:
    """Commit or prune, then print the commit's checksum and the moments of all reports as JSON."""
    case = Case(**json.loads(sys.argv[1]))
    reporter, made = _Reporter(case), ""
    if case.work == "prune":
        run_prune(case, reporter)
    else:
        made = run_commit(case, reporter).hex()
    reporter.finished()
    print(json.dumps({"checksum": made, "moments": reporter.moments, "end": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main()
