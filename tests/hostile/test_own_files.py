"""Files that fsview writes at a path that can be foreseen: logs and settings. Nobody can lead it elsewhere."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fsview.log import LogFile
from store.own_files import own_directory
from tests.marks import needs_fuse
from tests.running import RunFsview
from tests.users import NOBODY, try_as_nobody
from tools.mount import log_path_of

VICTIM = b"of root's\n"


@pytest.fixture
def victim(open_path: Path) -> Path:
    """Return a file of root's that must not be changed."""
    path = open_path / "victim"
    path.write_bytes(VICTIM)
    path.chmod(0o640)
    return path


@pytest.fixture
def mounted(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tmp_path: Path
) -> Callable[[Path, int], subprocess.CompletedProcess[str]]:
    """Return a function that mounts, with its log in a state directory, and ends with a status; then unmounts."""
    repo, point = make_repo(), tmp_path / "mnt"
    point.mkdir()

    def mount(state: Path, status: int) -> subprocess.CompletedProcess[str]:
        try:
            return run_fsview("mount", repo, point, env={"XDG_STATE_HOME": str(state)}, status=status, timeout_s=60)
        finally:
            if os.path.ismount(point):
                run_fsview("umount", point)

    return mount


def _log(state: Path, tmp_path: Path) -> Path:
    return state / "fsview" / log_path_of(tmp_path / "mnt").name


def _symlink(log: Path, victim: Path) -> None:
    log.symlink_to(victim)


def _dangling(log: Path, victim: Path) -> None:
    log.symlink_to(victim.with_name("new"))


def _fifo(log: Path, victim: Path) -> None:
    os.mkfifo(log, 0o666)
    os.chmod(log, 0o666)


def _hard_link(log: Path, victim: Path) -> None:
    os.link(victim, log)


def _theirs(log: Path, victim: Path) -> None:
    log.touch()
    os.chown(log, NOBODY, NOBODY)


ODD = {one.__name__.strip("_"): one for one in (_symlink, _dangling, _fifo, _hard_link, _theirs)}


@needs_fuse
@pytest.mark.parametrize("how", ODD)
def test_a_log_that_somebody_put_there_is_refused(
    mounted: Callable[[Path, int], subprocess.CompletedProcess[str]],
    open_path: Path, tmp_path: Path, victim: Path, how: str,
) -> None:  # fmt: skip
    state = open_path / "state"
    log = _log(state, tmp_path)
    log.parent.mkdir(parents=True)
    log.parent.chmod(0o1777)
    ODD[how](log, victim)
    said = mounted(state, 17).stderr
    assert f"the log {log} can't be written (it " in said and "set XDG_STATE_HOME" in said
    assert victim.read_bytes() == VICTIM and not (open_path / "new").exists()
    log.unlink()
    mounted(state, 0)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@needs_fuse
def test_no_log_is_written_in_what_belongs_to_somebody_else(
    mounted: Callable[[Path, int], subprocess.CompletedProcess[str]], open_path: Path
) -> None:
    """Where the whole state directory is somebody else's, it is not even asked: test_workspaces.py."""
    elsewhere, link = open_path / "elsewhere", open_path / "state/fsview"
    elsewhere.mkdir()
    link.parent.mkdir()
    link.symlink_to(elsewhere)
    os.lchown(link, NOBODY, NOBODY)
    said = mounted(open_path / "state", 17).stderr
    assert f"on the way to it belongs to user {NOBODY}" in said
    assert list(elsewhere.iterdir()) == []


def test_a_log_that_becomes_a_symlink_is_not_followed(open_path: Path, victim: Path) -> None:
    """Not when it is opened anew, and not when it is put aside because it is full."""
    state = open_path / "state"
    state.mkdir()
    descriptor = os.open(os.devnull, os.O_WRONLY)
    log = LogFile(state / "log", descriptor)
    os.write(descriptor, b"x" * (1 << 21))
    state.rename(open_path / "old")
    (open_path / "target").mkdir()
    (open_path / "target/log").write_bytes(VICTIM)
    state.symlink_to("target")
    os.lchown(state, NOBODY, NOBODY)
    log.rotate()
    assert os.listdir(open_path / "target") == ["log"]
    state.unlink()
    (open_path / "old").rename(state)
    (state / "log").unlink()
    (state / "log").symlink_to(victim)
    log.handle(_record())
    assert victim.read_bytes() == VICTIM
    os.close(descriptor)


def _record() -> logging.LogRecord:
    return logging.LogRecord("fsview", logging.ERROR, "x.py", 1, "text", (), None)


def test_own_directories_and_symlinks_of_roots_are_followed(open_path: Path) -> None:
    (open_path / "there/a").mkdir(parents=True)
    (open_path / "link").symlink_to("there/a/../a")
    (open_path / "absolute").symlink_to(open_path / "link")
    directory = own_directory(open_path / "absolute" / "new" / "one", make=True)
    assert os.path.samestat(os.fstat(directory), (open_path / "there/a/new/one").stat())
    assert stat.S_IMODE((open_path / "there/a/new").stat().st_mode) == 0o700
    os.close(directory)
    (open_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels"):
        own_directory(open_path / "loop")


@pytest.mark.parametrize("kind", ["repository", "sysroot"])
def test_settings_are_not_written_through_a_symlink(
    run_fsview: RunFsview, open_path: Path, tmp_path: Path, victim: Path, kind: str
) -> None:
    """In an empty directory of another user, or what a killed `init` left."""
    place = open_path / "place"
    place.mkdir()
    place.chmod(0o777)
    assert try_as_nobody(lambda: (place / "fsview.toml.tmp").symlink_to(victim)) == 0
    if kind == "repository":
        run_fsview("init", place)
    else:
        run_fsview("init", tmp_path / "repo")
        run_fsview("sysroot", "init", place, "--repo", tmp_path / "repo")
    assert victim.read_bytes() == VICTIM
    shutil.rmtree(place)
