"""Where the server logs, and that it serves on when it can't."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fsview.mountpoint import server_pid
from tests.conftest import MountView, TreeFactory
from tests.fuse.waits import wait_for
from tests.leaks import unmount_lazily
from tests.marks import needs_root
from tests.running import RunFsview, clean_environment

pytestmark = pytest.mark.unchecked


@pytest.fixture
def damaged(make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory) -> Path:
    """Return a repository with a file that is damaged and one that is not."""
    repo = make_repo()
    tree = tree_factory({"large": b"x" * 200_000, "small": b"small\n"})
    run_fsview("commit", "--repo", repo, "-b", "r", tree)
    (loose,) = (path for path in (repo / "objects").rglob("*") if path.is_file())
    loose.chmod(0o600)
    loose.write_bytes(b"y" * 200_000)
    return repo


def _read_all(point: Path) -> None:
    for _ in range(20):
        with pytest.raises(OSError, match="Input/output error"):
            (point / "refs/r/large").read_bytes()
        assert (point / "refs/r/small").read_bytes() == b"small\n"


def test_each_line_has_its_form(damaged: Path, mount_view: MountView, tmp_path: Path) -> None:
    point = mount_view(damaged)
    _read_all(point)
    (log,) = (tmp_path / ".local/state/fsview").iterdir()
    lines = log.read_text().splitlines()
    form = re.compile(rf'time=\S+Z pid=\d+ level=(info|error) mount={re.escape(str(point))} text="(.*)"')
    assert len(lines) > 20 and all(form.fullmatch(line) for line in lines)
    assert any("which shows as r:/large: " in line for line in lines)


@needs_root
def test_a_full_disk(damaged: Path, tmp_path: Path, run_fsview: RunFsview) -> None:
    state, point = tmp_path / "state", tmp_path / "mnt"
    state.mkdir()
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", state], check=True)
    try:
        run_fsview("mount", damaged, point, env={"XDG_STATE_HOME": str(state)})
        (state / "filler").write_bytes(b"")
        with (state / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while file.write(b"x" * 1024):
                pass
        _read_all(point)
        (state / "filler").unlink()
        _read_all(point)
        (log,) = (state / "fsview").iterdir()
        assert log.read_text().splitlines()[-1].startswith("time=")
        run_fsview("umount", point)
    finally:
        unmount_lazily(point)
        unmount_lazily(state)


def test_a_log_whose_directory_is_gone(damaged: Path, mount_view: MountView, tmp_path: Path) -> None:
    point = mount_view(damaged)
    (tmp_path / ".local/state/fsview").rename(tmp_path / "elsewhere")
    _read_all(point)


def test_stderr_that_takes_nothing(damaged: Path, tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    command: list[str | Path] = [sys.executable, "-P", "-m", "tools", "mount", "-f", damaged, point]
    environment = clean_environment(tmp_path)
    with open("/dev/full", "w") as full, subprocess.Popen(command, env=environment, stderr=full) as process:
        try:
            wait_for(lambda: server_pid(point) is not None)
            _read_all(point)
        finally:
            process.terminate()
        assert process.wait(20) == 0


def test_stderr_that_is_the_journal_is_kept_in_the_background(damaged: Path, tmp_path: Path) -> None:
    """As a mount unit of systemd's has it."""
    point = tmp_path / "mnt"
    point.mkdir()
    command: list[str | Path] = [sys.executable, "-P", "-m", "tools", "mount", damaged, point]
    with (tmp_path / "journal").open("w") as journal:
        status = os.fstat(journal.fileno())
        environment = clean_environment(tmp_path) | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        subprocess.run(command, env=environment, stderr=journal, check=True)
    subprocess.run([*command[:4], "umount", point], env=environment, check=True)
    lines = (tmp_path / "journal").read_text().splitlines()
    assert lines[0] == f'<6>level=info mount={point} text="{damaged} is mounted at {point}"'
    assert not (tmp_path / ".local").exists()
