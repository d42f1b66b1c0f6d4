"""Several processes serve one view: what the death of one, of all, and of their supervisor costs."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fsview.mountpoint import STATUS_MARK
from tests.conftest import TreeFactory
from tests.fuse.waits import is_dead, is_running, kill, wait_for
from tests.marks import needs_root
from tests.running import PROJECT, RunFsview
from tests.trees import Spec

WORKERS = 3
READERS = 4
TREE: Spec = {f"{number:02}": {"small": b"%d\n" % number * 500, "large": os.urandom(300_000)} for number in range(12)}


@pytest.fixture
def view(make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory, point: Path) -> Path:
    """Return a mounted view with WORKERS workers and TREE on the ref r."""
    repo = make_repo()
    run_fsview("commit", "--repo", repo, "-b", "r", tree_factory(TREE))
    run_fsview("mount", "--workers", str(WORKERS), repo, point)
    wait_for(lambda: len(worker_pids(point)) == WORKERS)  # the first answers while the others begin
    return point


@pytest.fixture(autouse=True)
def unmounted(point: Path, run_fsview: RunFsview) -> Iterator[None]:
    """End the view, whatever state it is in."""
    yield
    run_fsview("umount", point)


def status(point: Path) -> dict[str, Any]:
    """Return what the view tells of itself; the one that was asked may just have been killed."""
    while True:
        try:
            told: dict[str, Any] = json.loads(os.getxattr(point, STATUS_MARK))
            return told
        except ConnectionAbortedError:
            continue


def worker_pids(point: Path) -> list[int]:
    """Return the workers that run now."""
    return [worker["pid"] for worker in status(point)["workers"] if worker["pid"]]


def _is_replaced(point: Path, pid: int) -> bool:
    pids = worker_pids(point)
    return pid not in pids and len(pids) == WORKERS


@contextmanager
def reading(point: Path, results: list[dict[str, int]], *, apart: bool = False) -> Iterator[None]:
    """Have READERS processes read the tree meanwhile; any that found something wrong fails the test.

    *apart*: each a part of its own, for whoever wants the same page as another waits with it.
    """
    program = [sys.executable, str(PROJECT / "tests/fuse/readers.py")]
    readers = [
        subprocess.Popen(
            [*program, f"{point}/refs/r/{f'{number:02}/' if apart else ''}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(READERS)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
        yield
        for reader in readers:
            out, err = reader.communicate("", timeout=60)
            assert (reader.returncode, err) == (0, "")
            results.append(json.loads(out))
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def test_all_of_them_answer(view: Path) -> None:
    pids = worker_pids(view)
    supervisor = status(view)["pid"]
    assert len(set(pids)) == WORKERS and supervisor not in pids
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    assert sorted(map(int, children)) == sorted(pids)
    before = [_cpu_ticks(pid) for pid in pids]
    with reading(view, []):
        wait_for(lambda: all(_cpu_ticks(pid) > ticks for pid, ticks in zip(pids, before, strict=True)))


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _kill_under_load(view: Path, kills: int) -> None:
    results: list[dict[str, int]] = []
    with reading(view, results):
        for number in range(kills):
            victim = worker_pids(view)[number % WORKERS]
            os.kill(victim, signal.SIGKILL)
            wait_for(partial(_is_replaced, view, victim))
            time.sleep(random.uniform(0, 0.1))
    # A worker has one request in its hands; it may be one that its reader doesn't hear of (release, read ahead).
    assert sum(result["failed"] for result in results) <= kills
    assert all(result["rounds"] for result in results)


def test_a_killed_worker_costs_its_requests_in_flight(view: Path) -> None:
    _kill_under_load(view, 2 * WORKERS)


@pytest.mark.torture
def test_many_killed_workers(view: Path) -> None:
    _kill_under_load(view, 100)


def test_all_killed_at_once(view: Path) -> None:
    pids = worker_pids(view)
    for pid in pids:
        kill(pid, signal.SIGKILL)
    assert (view / "refs/r/07/small").read_bytes() == b"7\n" * 500
    wait_for(lambda: len(worker_pids(view)) == WORKERS)


def test_a_terminated_worker_is_replaced(view: Path) -> None:
    victim = worker_pids(view)[0]
    os.kill(victim, signal.SIGTERM)
    wait_for(partial(_is_replaced, view, victim))


def test_what_is_for_the_supervisor_doesnt_end_a_worker(view: Path) -> None:
    """Ctrl-C in a terminal goes to all processes of the foreground."""
    pids = worker_pids(view)
    for pid in pids:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGHUP)
    time.sleep(0.3)
    assert worker_pids(view) == pids


def test_a_killed_supervisor_takes_its_workers_along(view: Path, point: Path, run_fsview: RunFsview) -> None:
    pids, supervisor, repo = worker_pids(view), status(view)["pid"], status(view)["repository"]
    kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not any(is_running(pid) for pid in pids) and is_dead(point))
    with pytest.raises(OSError) as caught:
        os.listdir(point)
    assert caught.value.errno == errno.ENOTCONN
    run_fsview("mount", repo, point)
    assert len(os.listdir(point / "refs/r/")) == len(TREE)


def test_a_stopped_worker_is_killed_and_the_others_go_on(view: Path) -> None:
    results: list[dict[str, int]] = []
    with reading(view, results, apart=True):
        victim = worker_pids(view)[0]
        os.kill(victim, signal.SIGSTOP)
        wait_for(partial(_is_replaced, view, victim), timeout_s=60)
    assert sum(result["failed"] for result in results) <= 1
    assert sorted(result["rounds"] for result in results)[1] > 5  # all but the one that waited for the victim


def test_commits_go_on_after_workers_were_killed(view: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    """A killed reader's slot in the index holds no pages, and what is new is seen."""
    repo, tree = status(view)["repository"], tmp_path / "new"
    tree.mkdir()
    for number in range(3):
        for pid in worker_pids(view):
            kill(pid, signal.SIGKILL)
        (tree / "n").write_text(str(number))
        run_fsview("commit", "--repo", repo, "-b", "r", tree)
        assert (view / "refs/r/n").read_text() == str(number)


@needs_root
def test_the_memory_of_a_worker_is_mostly_shared(view: Path) -> None:
    with reading(view, []):
        time.sleep(0.5)
    for pid in worker_pids(view):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        anonymous = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
        assert anonymous < 80 << 10  # kB
