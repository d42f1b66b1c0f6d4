"""A view as a part of the system: mount(8) and fstab, a service of systemd's, the list of what is mounted, handles."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsview.mounted import MountedView, State, mounted_views
from fsview.mountpoint import server_pid
from tests.conftest import MountView
from tests.fuse.conftest import Sample, drop_caches
from tests.fuse.waits import kill_server, wait_for
from tests.marks import needs_root
from tests.running import PROJECT, RunFsview, clean_environment
from tools.mount_helper import run as run_helper

HELPER = """
sbin=$(readlink -f /sbin)
mount -t tmpfs none "$sbin"
cat > "$sbin/mount.fuse.fsview" << END
#!/bin/sh
exec "$PYTHON" -P -c 'from tools.mount_helper import main; main()' "\\$@"
END
chmod +x "$sbin/mount.fuse.fsview"
"""


def _as_root_of_a_namespace(script: str, *arguments: Path, home: Path) -> str:
    """Run a shell script with mounts that nobody else sees, and mount(8) finding the helper; return what it wrote."""
    environment = clean_environment(home) | {"PYTHON": sys.executable, "HOME": str(home)}
    command: list[str | Path] = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", HELPER + script, "sh"]
    command += arguments
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@needs_root
def test_mount_and_umount_of_the_system(repo: Path, point: Path, tmp_path: Path) -> None:
    script = """
    mount -t fuse.fsview "$1" "$2" -o rw,noatime,nofail,workers=1
    cat "$2/refs/r/d/f"; echo
    findmnt -n -o FSTYPE,SOURCE "$2" | tr -s ' '
    umount "$2"
    mount -t fuse.fsview "$1" "$2" -o root=r:/d
    ls "$2"
    umount "$2"
    mount -t fuse.fsview "$1" "$2" -o frobnicate 2> "$3/told" || echo $?
    mount -t fuse.fsview "$1/none" "$2" 2>> "$3/told" || echo $?
    """
    written = _as_root_of_a_namespace(script, repo, point, tmp_path, home=tmp_path)
    assert written.splitlines() == ["content", f"fuse.fsview {repo}", "f", "1", "32"]
    told = (tmp_path / "told").read_text()
    assert "there is no mount option 'frobnicate'" in told and "is not an fsview repository" in told


@needs_root
def test_fstab(repo: Path, point: Path, tmp_path: Path) -> None:
    """The example, with the paths of this test."""
    text = (PROJECT / "examples/fstab").read_text()
    (tmp_path / "usr").mkdir()
    for name, path in (("/srv/releases", repo), ("/mnt/releases", point), ("/mnt/usr", tmp_path / "usr")):
        text = text.replace(f"{name} ", f"{path} ")
    (tmp_path / "fstab").write_text(text.replace("root=debian/12:/usr,noauto", "root=r:/d"))
    script = """
    mount -a -T "$3/fstab"
    cat "$2/refs/r/d/f" "$3/usr/f"; echo
    grep -c "$2 fuse.fsview.*allow_other" /proc/self/mounts
    umount "$2" "$3/usr"
    """
    written = _as_root_of_a_namespace(script, repo, point, tmp_path, home=tmp_path)
    assert written.splitlines() == ["contentcontent", "1"]


def test_how_the_helper_is_called(
    repo: Path, point: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ([], [str(repo)], [str(repo), str(point), "-x"], [str(repo), str(point), "too many"]):
        assert run_helper(wrong) == 1
        assert "usage: mount.fuse.fsview REPO MNT" in capfd.readouterr().err
    calls: list[list[str]] = []

    def called(arguments: list[str]) -> int:
        calls.append(arguments)
        return len(calls) - 1

    monkeypatch.setattr("tools.cli.run", called)
    arguments = ["/r", "/m", "-sn", "-v", "-t", "fuse.fsview", "-o", "rw,user=a", "-o", "dev", "-N", "/proc/1/ns/mnt"]
    assert [run_helper(arguments), run_helper(["-f", *arguments]), run_helper(arguments)] == [0, 0, 32]
    assert calls == [["mount", "-o", "rw,user=a", "-o", "dev", "--", "/r", "/m"]] * 2


@contextmanager
def _listening(path: Path | str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(os.fspath(path))
        listener.settimeout(20)
        yield listener


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told(repo: Path, point: Path, tmp_path: Path, abstract: bool) -> None:
    name = f"@{tmp_path}/abstract" if abstract else str(tmp_path / "notify")
    environment = clean_environment(tmp_path) | {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}
    with _listening(name.replace("@", "\0") if abstract else name) as listener:
        command: list[str | Path] = [sys.executable, "-P", "-m", "tools", "mount", "-f", repo, point]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                ready = listener.recv(4096).decode()
                assert ready.startswith(f"READY=1\nSTATUS={repo} is mounted at {point}")
                assert (point / "refs/r/d/f").read_bytes() == b"content"
                assert listener.recv(4096) == b"WATCHDOG=1"
            finally:
                process.send_signal(signal.SIGTERM)
            while (told := listener.recv(4096)) == b"WATCHDOG=1":
                pass
            assert told.startswith(b"STOPPING=1\n")
            assert process.wait(20) == 0


def test_the_service_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "fsview-releases.service"
    text = (PROJECT / "examples/fsview-releases.service").read_text()
    assert "Type=notify" in text and "fsview mount --foreground" in text
    unit.write_text(text.replace("/usr/local/bin/fsview", shutil.which("true") or ""))  # it looks for the program
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert str(unit.name) not in done.stderr and done.returncode == 0, done


def _view_at(point: Path, answer_s: float = 30) -> MountedView:
    (view,) = (view for view in mounted_views(answer_s) if view.point == str(point))
    return view


def test_what_is_mounted(repo: Path, mount_view: MountView, run_fsview: RunFsview) -> None:
    point, other = mount_view(repo, "--workers", "2"), mount_view(repo, "-o", "root=r:/d,workers=1")
    wait_for(lambda: all(worker["pid"] for worker in _view_at(point).status["workers"]))
    listed = json.loads(run_fsview("mounts", "--json").stdout)
    one, two = (next(view for view in listed if view["mount"] == str(path)) for path in (point, other))
    assert one["repository"] == two["repository"] == str(repo) and one["state"] == "serving"
    assert one["pid"] == server_pid(point) and 0 <= one["uptime"] < 100
    workers = [worker["pid"] for worker in one["workers"]]
    assert len(workers) == 2 and all(os.readlink(f"/proc/{pid}/exe") for pid in workers)
    assert "root=r:/d" in two["options"] and "workers=1" in two["options"]
    (line,) = (line for line in run_fsview("mounts").stdout.splitlines() if line.startswith(f"{point}: "))
    assert f"{repo}, up " in line and f"pid {one['pid']}, workers {workers[0]} {workers[1]}, " in line


def test_a_dead_view_is_listed_as_dead(repo: Path, mount_view: MountView, run_fsview: RunFsview) -> None:
    point = mount_view(repo)
    kill_server(point)
    assert _view_at(point) == MountedView(str(point), str(repo), State.DEAD, {}, os.geteuid())
    assert f"{point}: {repo}, dead: its server was killed" in run_fsview("mounts").stdout
    assert {"mount": str(point), "repository": str(repo), "state": "dead"} in json.loads(
        run_fsview("mounts", "--json").stdout
    )
    run_fsview("umount", point)


def test_a_view_that_hangs_is_not_waited_for(repo: Path, mount_view: MountView) -> None:
    point = mount_view(repo, "--workers", "1")
    processes = [server_pid(point), *(worker["pid"] for worker in _view_at(point).status["workers"])]
    try:
        for pid in processes:
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
        view = _view_at(point, answer_s=1)
    finally:
        for pid in processes:
            os.kill(pid or 0, signal.SIGCONT)
    assert (view.state, view.repository) == (State.SILENT, str(repo))


class _Handle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128))


def _handle_of(path: Path) -> _Handle:
    handle, mount_id = _Handle(128), ctypes.c_int()
    library = ctypes.CDLL(None, use_errno=True)
    failed = library.name_to_handle_at(
        -100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0
    )  # AT_FDCWD
    assert not failed, os.strerror(ctypes.get_errno())
    return handle


@contextmanager
def _opened(point: int, handle: _Handle) -> Iterator[int]:
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.open_by_handle_at(point, ctypes.byref(handle), os.O_RDONLY)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_handles(point: Path, paths: list[Path]) -> None:
    handles = [(path, _handle_of(path), path.stat()) for path in paths]
    root = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for path, handle, status in handles:
            drop_caches()
            with _opened(root, handle) as descriptor:
                found = os.fstat(descriptor)
                assert (found.st_ino, found.st_mode, found.st_size) == (status.st_ino, status.st_mode, status.st_size)
                if path.is_dir():  # which the kernel puts back into its place, by ".." and the names there
                    assert os.readlink(f"/proc/self/fd/{descriptor}") == str(path)
    finally:
        os.close(root)


@needs_root
def test_handles_stand_for_the_same_when_all_is_forgotten(sample: Sample) -> None:
    """What knfsd and CRIU do: a node's number alone is kept, its place is asked for."""
    commit = sample.commit("rel/1")
    paths = [commit, commit / "deep/a/b/c/d", commit / "kept/b/c", sample.point, sample.point / "refs/rel"]
    _check_handles(sample.point, paths)
    root = os.open(sample.point, os.O_RDONLY)
    handle = _handle_of(commit / "kept/b/c")
    drop_caches()
    with _opened(root, handle) as descriptor:
        assert os.read(descriptor, 100) == b"2\n"
    os.close(root)


@needs_root
def test_handles_in_a_directory_that_is_mounted_alone(repo: Path, mount_view: MountView) -> None:
    point = mount_view(repo, "--root", "r")
    _check_handles(point, [point, point / "d", point / "d/f"])
