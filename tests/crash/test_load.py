"""Commits, moves of refs, prunes and readers of a mount at the same time: nobody sees anything but whole trees."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checking import assert_sound
from tests.conftest import MountView, Tell
from tests.fuse.waits import wait_for
from tests.running import PROJECT, clean_environment


def run_load(repo: Path, point: Path, where: Path, *, readers: int, seconds: float) -> dict[str, dict[str, int]]:
    """Let all work for so long, and until each of them has done something; return what each process counted."""
    roles, end = ["commit", "commit", "move", "prune", *["read"] * readers], where / "end"
    processes = [
        (
            f"{role} {number}",
            subprocess.Popen(
                [sys.executable, "-m", "tests.crash.load", role, repo, point, end, where / f"enough-{number}"],
                stdout=subprocess.PIPE, env=clean_environment(where), cwd=PROJECT, text=True,
            ),
        )
        for number, role in enumerate(roles)
    ]  # fmt: skip
    try:
        time.sleep(seconds)
        wait_for(
            lambda: (
                len(list(where.glob("enough-*"))) == len(processes)
                or any(process.poll() is not None for _, process in processes)
            ),
            timeout_s=300,
        )
        end.touch()
        told = {name: (process.communicate(timeout=120)[0], process.returncode) for name, process in processes}
    finally:
        for _, process in processes:
            process.kill()
            process.wait()
    assert [name for name, (_, status) in told.items() if status != 0] == []
    return {name: json.loads(text) for name, (text, _) in told.items()}


def judge(told: dict[str, dict[str, int]], repo: Path, where: Path) -> None:
    log = "".join(path.read_text() for path in where.glob(".local/state/fsview/**/*.log*"))
    assert log and "level=error" not in log and "level=warning" not in log, log
    assert all(counts["rounds"] >= 2 for counts in told.values()), told
    assert sum(counts["right"] for name, counts in told.items() if name.startswith("read")) > 10, told
    assert_sound(repo)


@pytest.fixture
def repo(make_repo: Callable[..., Path]) -> Path:
    return make_repo()


def test_all_at_the_same_time(repo: Path, mount_view: MountView, tmp_path: Path) -> None:
    judge(run_load(repo, mount_view(repo), tmp_path, readers=6, seconds=20), repo, tmp_path)


@pytest.mark.torture
def test_all_at_the_same_time_for_long(repo: Path, mount_view: MountView, tmp_path: Path, tell: Tell) -> None:
    told = run_load(repo, mount_view(repo), tmp_path, readers=50, seconds=600)
    tell(*map(str, told.items()), f"index: {(repo / 'index/data.mdb').stat().st_size:,} bytes")
    judge(told, repo, tmp_path)
