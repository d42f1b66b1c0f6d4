"""What people do without thinking: closed streams, other people's repositories, places that are not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from tests.running import PROJECT, RunFsview, clean_environment
from tests.trees import build_tree
from tests.users import run_as_nobody

# Nobody may not be able to read modules, so what these commands import late is imported before.
NEEDED = (
    "multiprocessing.connection", "multiprocessing.popen_fork", "tools.refs", "tools.fsck", "store.check",
    "store.check_contents", "store.check_index", "store.check_pages", "tqdm",
)  # fmt: skip


@pytest.fixture
def repo(make_repo: Callable[..., Path], run_fsview: RunFsview, tmp_path: Path) -> Path:
    path = make_repo()
    run_fsview("commit", "-b", "main", build_tree(tmp_path / "tree", {"a": b"one\n", "b": b"two\n"}), repo=path)
    return path


def _with_closed(stream: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", f'exec "$@" {stream}', "sh", sys.executable, "-m", "tools", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=clean_environment(home), capture_output=True, timeout=60)


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_dev_null(stream: str, repo: Path, tmp_path: Path, run_fsview: RunFsview) -> None:
    for command in (["log", "main"], ["ls", "main"], ["cat", "main", "/a"], ["fsck"]):
        done = _with_closed(stream, tmp_path, "--repo", str(repo), *command)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    done = _with_closed(stream, tmp_path, "--repo", str(repo), "commit", "-b", "other", str(tmp_path / "tree"))
    assert done.returncode == 0 and run_fsview("refs", repo=repo).stdout.split() == ["main", "other"]
    assert run_fsview("fsck", repo=repo).returncode == 0


def test_a_mount_without_output(repo: Path, tmp_path: Path, run_fsview: RunFsview) -> None:
    (tmp_path / "mnt").mkdir()
    done = _with_closed(">&-", tmp_path, "mount", str(repo), str(tmp_path / "mnt"))
    assert done.returncode == 0 and (tmp_path / "mnt/refs/main/a").read_bytes() == b"one\n"
    run_fsview("umount", tmp_path / "mnt")


def test_a_usage_error_into_a_closed_pipe_keeps_its_exit_status(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        command = [sys.executable, "-m", "tools", "checkout", "main"]
        done = subprocess.run(command, cwd=PROJECT, env=clean_environment(tmp_path), stderr=broken, timeout=60)
    assert done.returncode == 2


@pytest.mark.parametrize("closed", ["index", "lock.mdb"])
@pytest.mark.parametrize("command", [["fsck"], ["refs"]])
def test_who_may_not_is_told_so_and_not_of_damage(closed: str, command: list[str], repo: Path, nobodys: Path) -> None:
    theirs = nobodys / "repo"
    subprocess.run(["cp", "-a", repo, theirs], check=True)
    for path in (theirs, theirs / "index"):
        path.chmod(0o755)
    for path in (theirs / "index").iterdir():
        path.chmod(0o644)
    if closed == "index":
        (theirs / "index").chmod(0o700)
    for name in NEEDED:
        import_module(name)
    said = run_as_nobody(nobodys, "--repo", theirs, *command)
    assert said.status == 1 and "restore" not in said.stderr + said.stdout
    assert "as the owner of the repository" in said.stderr


def test_checkout_below_nothing_says_what_to_make(repo: Path, tmp_path: Path, run_fsview: RunFsview) -> None:
    said = run_fsview("checkout", "main", tmp_path / "not/there", repo=repo, status=1).stderr
    assert f"mkdir -p {tmp_path / 'not'}" in said and ".fsview-" not in said


def test_grep_takes_several_patterns(repo: Path, run_fsview: RunFsview) -> None:
    assert run_fsview("grep", "-e", "one", "-e", "tw.", "main", repo=repo).stdout.splitlines() == [
        "main:/a:one",
        "main:/b:two",
    ]
    assert run_fsview("grep", "-F", "-e", "one", "-e", "tw.", "main", repo=repo).stdout == "main:/a:one\n"
    assert "'('" in run_fsview("grep", "(", "main", repo=repo, status=2).stderr
