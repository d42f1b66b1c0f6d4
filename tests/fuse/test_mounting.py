"""Mounting and unmounting, and everything that may be in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fsview.mountinfo import mount_at
from fsview.mountpoint import server_pid, source_name
from tests.conftest import MountView, TreeFactory
from tests.fuse.waits import is_running, kill, kill_server, wait_for
from tests.leaks import unmount_lazily
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview, clean_environment

pytestmark = needs_fuse


@pytest.fixture
def foreground(repo: Path, point: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start `fsview mount -f` of the repository; it is mounted."""
    command: list[str | Path] = [sys.executable, "-P", "-m", "tools", "mount", "-f", repo, point]
    process = subprocess.Popen(command, env=clean_environment(tmp_path), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: server_pid(point) is not None)
    try:
        yield process
    finally:
        unmount_lazily(point)
        process.communicate(timeout=20)


def test_mount_comes_back_when_the_view_answers_and_umount_when_it_is_gone(
    repo: Path, point: Path, run_fsview: RunFsview
) -> None:
    done = run_fsview("mount", repo, point)
    assert (done.stdout, done.stderr) == ("", "")
    assert (point / "refs/r/d/f").read_bytes() == b"content"
    mount = mount_at(point)
    assert mount is not None and (mount.kind, mount.source) == ("fuse.fsview", str(repo))
    pid = server_pid(point)
    assert pid is not None and os.getsid(pid) != os.getsid(0) and os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{number}").split("/")[-1] for number in (1, 2)} != {"null"}
    assert os.getxattr(point, "user.fsview.repository") == os.fsencode(repo)
    run_fsview("umount", point)
    assert mount_at(point) is None and not is_running(pid)
    assert os.listdir(point) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts(foreground: subprocess.Popen[str], point: Path, number: signal.Signals) -> None:
    foreground.send_signal(number)
    _, log = foreground.communicate(timeout=20)
    assert foreground.returncode == 0 and mount_at(point) is None
    assert f"{number.name}: unmounting" in log and "is unmounted" in log


def test_a_signal_unmounts_though_the_view_is_in_use(foreground: subprocess.Popen[str], point: Path) -> None:
    descriptor = os.open(point / "refs/r/d/f", os.O_RDONLY)
    os.chdir(point / "refs/r/d")
    foreground.send_signal(signal.SIGTERM)
    foreground.communicate(timeout=20)
    os.chdir("/")
    with suppress(OSError):  # closing asks the server, which is gone
        os.close(descriptor)
    assert foreground.returncode == 0 and mount_at(point) is None


def test_umount_ends_the_foreground(foreground: subprocess.Popen[str], point: Path, run_fsview: RunFsview) -> None:
    run_fsview("umount", point)
    foreground.communicate(timeout=20)
    assert foreground.returncode == 0


def test_a_signal_to_the_background(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    run_fsview("mount", repo, point)
    pid = server_pid(point)
    assert pid is not None
    kill(pid, signal.SIGTERM)
    assert mount_at(point) is None


def test_a_killed_server_leaves_its_mount_and_the_next_mount_mends_it(
    repo: Path, point: Path, run_fsview: RunFsview
) -> None:
    run_fsview("mount", repo, point)
    for _ in range(2):
        kill_server(point)
        with pytest.raises(OSError, match="not connected"):
            os.listdir(point)  # never an empty directory
        run_fsview("mount", repo, point)
        assert (point / "refs/r/d/f").read_bytes() == b"content"
    run_fsview("umount", point)
    assert mount_at(point) is None


def test_a_dead_mount_can_be_unmounted(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    run_fsview("mount", repo, point)
    kill_server(point)
    run_fsview("umount", point)
    assert os.listdir(point) == []


def test_umount_waits_for_who_is_about_to_let_go(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    """As a df, or a prune, which looks at all views."""
    run_fsview("mount", repo, point)
    with subprocess.Popen(["sleep", "1"], cwd=point / "refs/r/d"):
        run_fsview("umount", point)


def test_umount_of_a_view_in_use_names_who_uses_it(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    run_fsview("mount", repo, point)
    with subprocess.Popen(["sleep", "60"], cwd=point / "refs/r/d") as process:
        failed = run_fsview("umount", point, status=17, cwd=point)
        assert f"{point} is in use by process {process.pid} (sleep); end that, or" in failed.stderr  # not its own
        assert f"fsview umount -l {point}" in failed.stderr
        assert (point / "refs/r/d/f").exists()
        run_fsview("umount", "-l", point)
        assert mount_at(point) is None
        process.kill()


def test_a_path_with_every_character(tmp_path: Path, run_fsview: RunFsview, tree_factory: TreeFactory) -> None:
    repo, point = tmp_path / "a repo, of\\mine=é\n%", tmp_path / "the mount,point\\é\t%"
    point.mkdir()
    run_fsview("init", repo)
    run_fsview("commit", "--repo", repo, "-b", "r", tree_factory({"f": b"f"}))
    run_fsview("mount", repo, point)
    assert (point / "refs/r/f").read_bytes() == b"f"
    mount = mount_at(point)
    assert mount is not None and mount.source == source_name(repo) and mount.source.isascii()
    assert "already" in run_fsview("mount", repo, point, status=17).stderr
    run_fsview("umount", point)
    assert mount_at(point) is None


def test_relative_paths_and_symlinks(repo: Path, point: Path, tmp_path: Path, run_fsview: RunFsview) -> None:
    (tmp_path / "link").symlink_to("mnt")
    (tmp_path / "repolink").symlink_to(repo)
    run_fsview("mount", "repolink", "link", cwd=tmp_path)
    assert (point / "refs/r/d/f").exists()
    assert "is mounted at" in run_fsview("mount", repo, point, status=17).stderr
    run_fsview("umount", "link", cwd=tmp_path)
    assert mount_at(point) is None


def _make_file(path: Path) -> None:
    path.rmdir()
    path.touch()


IN_THE_WAY: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda point: point.rmdir(), "does not exist; make it: mkdir -p"),
    "not a directory": (_make_file, "is not a directory"),
    "not empty": (lambda point: (point / "f").touch(), "is not empty"),
}


@pytest.mark.parametrize("what", IN_THE_WAY)
@pytest.mark.parametrize("options", [[], ["-f"]])
def test_a_mount_point_that_is_none(
    repo: Path, point: Path, run_fsview: RunFsview, what: str, options: list[str]
) -> None:
    prepare, text = IN_THE_WAY[what]
    prepare(point)
    failed = run_fsview("mount", *options, repo, point, status=17)
    assert text in failed.stderr and str(point) in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_a_mount_point_that_is_taken(
    repo: Path, mount_view: MountView, make_repo: Callable[..., Path], run_fsview: RunFsview
) -> None:
    point, other = mount_view(repo), make_repo("other")
    assert f"{repo} is mounted at {point} already" in run_fsview("mount", repo, point, status=17).stderr
    assert f"a view of {repo} is mounted at {point}" in run_fsview("mount", other, point, status=17).stderr
    assert (point / "refs/r/d/f").exists()


@needs_root
def test_something_else_is_mounted_there(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    try:
        assert "of tmpfs (none)" in run_fsview("mount", repo, point, status=17).stderr
        assert "no view but tmpfs" in run_fsview("umount", point, status=17).stderr
    finally:
        subprocess.run(["umount", point], check=True)


def test_no_view_to_unmount(tmp_path: Path, run_fsview: RunFsview) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        assert f"nothing is mounted at {path}" in run_fsview("umount", path, status=17).stderr


def test_no_repository(point: Path, tmp_path: Path, run_fsview: RunFsview) -> None:
    assert "is not an fsview repository" in run_fsview("mount", tmp_path, point, status=1).stderr
    assert "is not an fsview repository" in run_fsview("mount", tmp_path / "none", point, status=1).stderr
    assert mount_at(point) is None


@pytest.mark.unchecked
def test_a_repository_of_a_newer_format(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    settings = repo / "fsview.toml"
    settings.write_text(settings.read_text().replace("format = 1", "format = 99"))
    assert "format 99" in run_fsview("mount", repo, point, status=10).stderr
    assert mount_at(point) is None


def test_a_mount_option_that_there_is_not(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    assert "no mount option 'rx'" in run_fsview("mount", "-o", "ro,rx", repo, point, status=2).stderr


def test_a_log_that_cant_be_written(repo: Path, point: Path, tmp_path: Path, run_fsview: RunFsview) -> None:
    (tmp_path / "file").touch()
    failed = run_fsview("mount", repo, point, status=17, env={"XDG_STATE_HOME": str(tmp_path / "file")})
    assert "XDG_STATE_HOME" in failed.stderr and mount_at(point) is None


def test_the_log_says_what_was_mounted(repo: Path, point: Path, tmp_path: Path, run_fsview: RunFsview) -> None:
    run_fsview("mount", repo, point, env={"XDG_STATE_HOME": "state"})
    run_fsview("umount", point)
    (log,) = (tmp_path / "state" / "fsview").iterdir()
    assert f"{repo} is mounted at {point}" in log.read_text() and f"{point} is unmounted" in log.read_text()


def _options(point: Path) -> set[str]:
    mount = mount_at(point)
    assert mount is not None
    return set(mount.options.split(","))


def test_the_other_mount_options(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    run_fsview("mount", "-o", "rw,noatime,nofail,default_permissions,noexec,x-a=b", repo, point)
    assert {"ro", "nosuid", "nodev", "noexec", "default_permissions"} <= _options(point)
    assert "allow_other" not in _options(point)
    run_fsview("umount", point)


@needs_root
def test_suid_and_dev_are_for_who_asks(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    run_fsview("mount", "-o", "suid,dev,allow_other", repo, point)
    assert {"ro", "allow_other", "default_permissions"} <= _options(point)
    assert not {"nosuid", "nodev", "noexec"} & _options(point)
    run_fsview("umount", point)


def test_the_repository_is_named_as_everywhere(
    repo: Path, point: Path, run_fsview: RunFsview, make_repo: Callable[..., Path]
) -> None:
    other = make_repo("other")
    for arguments, variable in (
        ([point], repo),
        (["--repo", repo, point], None),
        (["--repo", repo, point], other),
        ([repo, point], other),
    ):
        run_fsview("mount", *arguments, repo=variable)
        assert (point / "refs/r/d/f").exists()
        run_fsview("umount", point)
    run_fsview("mount", point, cwd=repo)
    run_fsview("umount", point)
    assert "fsview mount REPO MNT" in run_fsview("mount", status=2).stderr
    assert "no repository was named" in run_fsview("mount", point, status=1).stderr
