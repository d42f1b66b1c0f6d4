"""fsview fsck: check everything that is stored (store/check.py), in processes of its own.

LMDB trusts its pages: where bits flipped, a look-up may follow a pointer out of the map, and the kernel ends the
process. So this process never opens the index. Its children do, and one that dies is a finding like others.

    totals            how much there is to check, for the progress bar
    index             LMDB's meta pages, every record, leftovers
    contents 1 … n    the sha256 of every n-th file object
    places            where in commits what is damaged shows
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final, TypeAlias

import click

from store.entrance import check_parts
from store.errors import AccessError, CorruptionError, FsviewError
from store.findings import Finding, Severity, error
from store.repository import Repository, opened_directory
from tools.parameters import REPO_OPTION, find_repository, named_repository
from tools.render import count_text, one_line, print_json, printable, progress, say

Advance: TypeAlias = Callable[[int], object]
Bar: TypeAlias = Callable[[int], AbstractContextManager[Advance]]
Job: TypeAlias = Callable[[Repository, Advance], Iterable[Finding]]

_PROCESSES_MAX: Final = 8
_STEPS_EVERY_S: Final = 0.1


@dataclass(slots=True)
class _Child:
    """A process that does one job, and what comes from it."""

    name: str
    process: ForkProcess
    messages: Connection


def fsck(path: Path, *, quick: bool = False, processes: int | None = None, bar: Bar | None = None) -> list[Finding]:
    """Check the repository at *path*; *bar* is given the number of steps and returns what hears of each.

    Raises:
        NotFoundError, FormatError: there is no repository, or one of a newer format.
        AccessError: it belongs to somebody who isn't trusted.
    """
    with opened_directory(path) as (top, settings):
        check_parts(top, path, shared=settings.is_shared)
    steps = 0

    def count(step: int) -> None:
        nonlocal steps
        steps += step

    findings = _run(path, {"the index": _totals}, lambda: nullcontext(count))
    if findings:  # it can't be opened
        return findings
    stripes = 1 if quick else processes or min(os.cpu_count() or 1, _PROCESSES_MAX)
    jobs: dict[str, Job] = {"the index": _structure}
    for stripe in range(stripes):
        jobs[f"contents ({stripe + 1} of {stripes})"] = _bytes(quick, stripe, stripes)
    findings = _run(path, jobs, (lambda: bar(steps)) if bar else _silent)
    if any(finding.subject for finding in findings):
        findings = _placed(path, findings)
    return findings


def _totals(repository: Repository, advance: Advance) -> Iterable[Finding]:
    from store.check_contents import count_files
    from store.check_index import count_records

    advance(count_records(repository.database) + count_files(repository))
    return ()


def _structure(repository: Repository, advance: Advance) -> Iterator[Finding]:
    from store.check import check_structure

    yield from check_structure(repository, advance)


def _bytes(quick: bool, stripe: int, stripes: int) -> Job:
    def job(repository: Repository, advance: Advance) -> Iterator[Finding]:
        from store.check import check_bytes

        yield from check_bytes(repository, quick=quick, stripe=stripe, stripes=stripes, advance=advance)

    return job


def _placed(path: Path, findings: list[Finding]) -> list[Finding]:
    """Return *findings* with the places where they show, or as they are if looking for these fails."""
    from store.check import with_places

    placed = _run(path, {"places": lambda repository, advance: with_places(repository, findings)}, _silent)
    return placed if len(placed) == len(findings) else findings


def _silent() -> AbstractContextManager[Advance]:
    return nullcontext(lambda step: None)


def _run(path: Path, jobs: dict[str, Job], bar: Callable[[], AbstractContextManager[Advance]]) -> list[Finding]:
    """Do each job in a process; return what they found, each finding once, errors first."""
    children = [_start(path, name, job) for name, job in jobs.items()]
    found: dict[str, list[Finding]] = {name: [] for name in jobs}
    waiting = {child.messages: child for child in children}
    try:
        with bar() as advance:  # not before the fork: a progress bar may have a thread
            while waiting:
                for messages in wait(list(waiting)):
                    assert isinstance(messages, Connection)
                    if not _receive(waiting[messages], found, advance, path):
                        del waiting[messages]
    finally:
        for child in children:
            child.process.kill()  # those that have ended don't mind
            child.process.join()
            child.messages.close()
    unique = dict.fromkeys(finding for name in jobs for finding in found[name])
    return sorted(unique, key=lambda finding: list(Severity).index(finding.severity))


def _receive(child: _Child, found: dict[str, list[Finding]], advance: Advance, path: Path) -> bool:
    """Take one message; return whether there may be more."""
    try:
        message = child.messages.recv()
    except EOFError:
        found[child.name] += _farewell(child, path)
        return False
    if isinstance(message, Exception):  # no word on the repository, but on who asks
        raise message
    if isinstance(message, Finding):
        found[child.name].append(message)
    else:
        advance(message)
    return True


def _start(path: Path, name: str, job: Job) -> _Child:
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(path, job, sender), daemon=True)
    process.start()
    sender.close()
    return _Child(name, process, receiver)


def _child(path: Path, job: Job, messages: Connection) -> None:
    """Do a job in this new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it, and ends this process
    faulthandler.disable()  # a fault becomes a finding
    steps = _Steps(messages)
    with suppress(BrokenPipeError):
        try:
            with Repository.open(path) as repository, repository.lock():
                for finding in job(repository, steps.advance):
                    messages.send(finding)
        except (AccessError, PermissionError) as problem:
            messages.send(problem)
        except CorruptionError as problem:
            messages.send(error(f"{problem.what}: expected {problem.expected}, found {problem.found}", problem.where))
        except (FsviewError, OSError) as problem:
            messages.send(error(str(problem), str(path)))
        steps.flush()


class _Steps:
    """Tells the parent of steps, not more than ten times a second."""

    def __init__(self, messages: Connection) -> None:
        self._messages, self._steps, self._told_s = messages, 0, 0.0

    def advance(self, step: int) -> None:
        self._steps += step
        if self._steps & 63 == 0 and time.monotonic() - self._told_s > _STEPS_EVERY_S:
            self.flush()

    def flush(self) -> None:
        self._messages.send(self._steps)
        self._steps, self._told_s = 0, time.monotonic()


def _farewell(child: _Child, path: Path) -> list[Finding]:
    """Say why a process ended, unless its work was done."""
    child.process.join()
    status = child.process.exitcode
    if not status:
        return []
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"failed with exit status {status}"
    return [error(f"the check of {child.name} {how}: most likely pages are damaged", str(path / "index" / "data.mdb"))]


def finding_json(finding: Finding) -> dict[str, object]:
    """Return a finding as a JSON object."""
    subject = finding.subject
    return {
        "severity": finding.severity.value,
        "what": finding.what,
        "where": finding.where,
        "mend": finding.mend,
        "object": {"type": subject.kind.name.lower(), "id": subject.id} if subject else None,
        "visible": list(finding.visible),
    }


def _print_findings(findings: list[Finding]) -> None:
    for mend, group in groupby(findings, key=lambda finding: finding.mend):
        for finding in group:
            print(one_line(str(finding)))
        print(f"  to mend: {printable(mend)}")


EXAMPLES = """
\b
Examples:
  fsview fsck --repo /srv/repo
  fsview fsck --quick                        the index and the sizes of files, without reading contents
  fsview fsck --json | jq '.findings[].visible[]'

\b
Errors are what is damaged or lost: exit status 12. What is open to others is a repository that they can enter, or a
loose file by which they have rights; 'fsview doctor --fix REPO' mends it. Garbage is what takes space and does no harm,
such as a leftover of a commit that was killed. For both the exit status is 0.
"""


@click.command("fsck", epilog=EXAMPLES)
@click.option("--quick", is_flag=True, help="Don't read contents.")
@click.option("--json", "in_json", is_flag=True, help="A JSON object with all findings.")
@REPO_OPTION
@click.pass_context
def fsck_command(ctx: click.Context, /, quick: bool, in_json: bool, **_: object) -> None:
    """Check everything that is stored: every record, every object's checksum."""
    # Not with repository_option, which opens the index: that may fail where it is damaged.
    path = find_repository(named_repository(ctx))
    findings = fsck(path, quick=quick, bar=lambda total: progress("checking", total, "records"))
    errors, rights, leftovers = (sum(one.severity == severity for one in findings) for severity in Severity)
    if in_json:
        counts = {"errors": errors, "open": rights, "garbage": leftovers}
        print_json({**counts, "findings": [finding_json(one) for one in findings]})
    else:
        _print_findings(findings)
        text = count_text(errors, "error") if errors else "no errors"
        text += f", {count_text(rights, 'thing')} open to others" if rights else ""
        text += f", {count_text(leftovers, 'piece')} of garbage" if leftovers else ""
        say(f"{path}: {text}")
    if errors:
        ctx.exit(CorruptionError.exit_status)
