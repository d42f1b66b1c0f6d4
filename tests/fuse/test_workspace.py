"""`fsview workspace`: made, used, unmounted, mounted again, removed; what is in the way is said."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fsview.mountpoint import server_pid
from tests.conftest import MountView, TreeFactory
from tests.fuse.conftest import drop_caches
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview
from tests.trees import Directory, Spec, Symlink

pytestmark = [
    needs_fuse,
    needs_root,
]

TREE: Spec = {"a": b"equal\n", "d": Directory({"b": b"equal\n"}, mode=0o2751, owner=(3, 4)), "l": Symlink("a")}
KINDS = [pytest.param((), id="kernel"), pytest.param(("--fuse",), id="fuse-overlayfs")]


@pytest.fixture
def base(make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory) -> Path:
    """Return a repository with two equal files in a commit on the ref r."""
    repo, tree = make_repo(), tree_factory(TREE)
    for path in (tree / "a", tree / "d" / "b"):
        os.utime(path, (10**9, 10**9))
    os.chmod(tree, 0o711)
    run_fsview("commit", "--repo", repo, "-b", "r", tree)
    return repo


@pytest.fixture
def work(base: Path, run_fsview: RunFsview, tmp_path: Path) -> Iterator[Path]:
    """Return where a workspace is to be; it is removed at the end if it is there."""
    yield tmp_path / "work"
    if (tmp_path / "work.workspace").exists():
        run_fsview("workspace", "remove", "--force", tmp_path / "work")


@pytest.mark.parametrize("options", KINDS)
def test_from_the_first_day_to_the_last(
    base: Path, work: Path, run_fsview: RunFsview, tmp_path: Path, options: tuple[str, ...]
) -> None:
    run_fsview("workspace", *options, "--repo", base, "r", work)
    assert sorted(os.listdir(work)) == ["a", "d", "l"] and os.stat(work).st_mode & 0o7777 == 0o711
    with open(work / "a", "a") as stream:
        stream.write("more\n")
    assert (work / "d" / "b").read_text() == "equal\n"  # equal to what "a" was: without place-inodes it would change
    found = json.loads(run_fsview("workspace", "list", "--json").stdout)
    assert [(one["directory"], one["state"]) for one in found] == [(str(work), "mounted")]
    assert "has changes, such as in a" in run_fsview("workspace", "remove", work, status=11).stderr

    run_fsview("workspace", "umount", work)
    assert os.listdir(work) == [] and "not mounted" in run_fsview("workspace", "list").stdout
    run_fsview("workspace", "mount", work)
    assert (work / "a").read_text() == "equal\nmore\n"
    assert "is mounted already" in run_fsview("workspace", "mount", work, status=17).stderr

    made = run_fsview("commit", "--workspace", work, "-b", "new", "-s", "more").stdout.strip()
    assert run_fsview("cat", "--repo", base, "new", "a").stdout == "equal\nmore\n"
    log = run_fsview("log", "--repo", base, "new").stdout
    assert made in log and run_fsview("rev-parse", "--repo", base, "r").stdout.strip() in log
    assert run_fsview("diff", "--repo", base, "r", "new").stdout.split() == ["M", "/a"]

    (work / "d" / "b").chmod(0o600)
    assert "has changes" in run_fsview("workspace", "remove", work, status=11).stderr
    run_fsview("commit", "--workspace", work, "-b", "new", "--ignore=a")
    assert "has changes" in run_fsview("workspace", "remove", work, status=11).stderr
    run_fsview("commit", "--workspace", work, "-b", "new")
    run_fsview("workspace", "remove", work)
    assert not work.exists() and run_fsview("workspace", "list").stdout == ""
    assert run_fsview("refs", "--repo", base).stdout.split() == ["new", "r"]


def test_who_lets_go_of_the_view_late_is_waited_for(base: Path, work: Path, run_fsview: RunFsview) -> None:
    run_fsview("workspace", "--repo", base, "r", work)
    held = os.open(work.with_name("work.workspace") / "view", os.O_RDONLY)
    release = threading.Timer(1.5, os.close, [held])  # as fuse-overlayfs may, which ends when it was unmounted
    release.start()
    run_fsview("workspace", "umount", work)
    release.join()
    assert not os.path.ismount(work.with_name("work.workspace") / "view")


@contextmanager
def _caches_dropped_meanwhile() -> Iterator[None]:
    is_over = threading.Event()

    def drop() -> None:
        while not is_over.wait(0.005):
            drop_caches()

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_what_was_changed_can_be_read_when_the_kernel_forgot_it(
    base: Path, work: Path, run_fsview: RunFsview, tmp_path: Path
) -> None:
    """The kernel's overlay would find the files below by their handles, and take them for stale when read twice."""
    run_fsview("workspace", "--repo", base, "r", work)
    with open(work / "a", "a") as stream:
        stream.write("more\n")
    os.chmod(work / "d" / "b", 0o600)
    os.link(work / "d" / "b", work / "d" / "c")
    os.rename(work / "d", work / "e")
    for _ in range(3):
        drop_caches()
        for _ in range(3):
            assert (work / "a").read_text() == "equal\nmore\n"
            assert (work / "e" / "b").read_text() == (work / "e" / "c").read_text() == "equal\n"
            assert os.stat(work / "e" / "b").st_ino == os.stat(work / "e" / "c").st_ino
    with _caches_dropped_meanwhile():
        for number in range(100):
            with open(work / "e" / "b", "a") as stream:
                stream.write(f"{number}\n")
            os.rename(work / "e" / "b", work / "moved")
            os.link(work / "moved", work / "e" / "b")
            assert (work / "moved").read_text() == (work / "e" / "b").read_text()
            os.unlink(work / "moved")
            os.rename(work / "e", work / "d")
            os.rename(work / "d", work / "e")
    assert len((work / "e" / "b").read_text().splitlines()) == 101


@pytest.mark.parametrize("options", KINDS)
def test_after_its_server_was_killed_nothing_is_lost(
    base: Path, work: Path, run_fsview: RunFsview, options: tuple[str, ...]
) -> None:
    run_fsview("workspace", *options, "--repo", base, "r", work)
    (work / "new").write_text("new\n")
    pid = server_pid(work.with_name("work.workspace") / "view")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(OSError) as caught:  # the kernel goes on with what it has read, but not with other names
        for number in range(1000):
            time.sleep(0.01)
            with suppress(FileNotFoundError):
                os.stat(work / "d" / str(number))
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    with suppress(OSError):
        assert os.listdir(work) != []
    run_fsview("workspace", "mount", work)
    assert (work / "new").read_text() == "new\n" and (work / "d" / "b").read_text() == "equal\n"


def test_a_view_without_place_inodes_is_refused(
    base: Path, work: Path, run_fsview: RunFsview, mount_view: MountView, tmp_path: Path
) -> None:
    said = run_fsview("workspace", "--view", mount_view(base), "--repo", base, "r", work, status=17)
    assert "mounted without place-inodes" in said.stderr and "-o place-inodes" in said.stderr
    assert not work.exists() and not (tmp_path / "work.workspace").exists()
    placed = mount_view(base, "-o", "place-inodes")
    said = run_fsview("workspace", "--fuse", "--view", placed, "--repo", base, "r", work, status=17)
    assert "mounted without place-inodes=stat" in said.stderr
    run_fsview("workspace", "--view", placed, "--repo", base, f"{placed}/refs/r", work)
    assert (work / "d" / "b").read_text() == "equal\n"
    run_fsview("workspace", "remove", work)
    assert run_fsview("workspace", "--view", tmp_path, "--repo", base, "r", work, status=17).stderr


def test_what_is_in_the_way(base: Path, work: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    assert "no empty directory" in run_fsview("workspace", "--repo", base, "r", tmp_path, status=2).stderr
    assert run_fsview("workspace", "--repo", base, "nothing", work, status=1).stderr
    assert "can't be made in it" in run_fsview("workspace", "--repo", base, "r", tmp_path / "x" / "y", status=1).stderr
    assert "is no workspace" in run_fsview("workspace", "mount", tmp_path, status=1).stderr
    assert "is no workspace" in run_fsview("commit", "--workspace", tmp_path, "-b", "x", status=1).stderr
    run_fsview("workspace", "add", "--repo", base, "r", work)
    assert "is a workspace already" in run_fsview("workspace", "--repo", base, "r", work, status=2).stderr
    assert "committed alone" in run_fsview("commit", "--workspace", work, "-b", "x", tmp_path, status=2).stderr
    other = tmp_path / "other"
    run_fsview("init", other)
    said = run_fsview("commit", "--repo", other, "--workspace", work, "-b", "x", status=2)
    assert "one command works on one repository" in said.stderr


def test_without_fuse_overlayfs_it_says_what_to_install(
    base: Path, work: Path, run_fsview: RunFsview, tmp_path: Path
) -> None:
    said = run_fsview("workspace", "--fuse", "--repo", base, "r", work, status=17, env={"PATH": "/nowhere"})
    assert "apt install fuse-overlayfs" in said.stderr
    assert not work.exists() and not work.with_name("work.workspace").exists()
    assert run_fsview("refs", "--repo", base).stdout.split() == ["r"]


def test_programs_run_in_it(base: Path, work: Path, run_fsview: RunFsview) -> None:
    run_fsview("workspace", "--repo", base, "r", work)
    (work / "run").write_text("#!/bin/sh\necho run\n")
    (work / "run").chmod(0o755)
    assert subprocess.run([work / "run"], capture_output=True, check=True).stdout == b"run\n"


def test_a_tree_with_programs_can_be_entered(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tmp_path: Path, mount_view: MountView
) -> None:
    """Exec, shared libraries (mmap), shebangs and pipes work in a view's tree, and in a workspace on top of it."""
    tree = tmp_path / "tree"
    for program in ("sh", "cat", "sed"):
        _copy_with_libraries(program, tree)
    (tree / "bin" / "script").write_text("#!/bin/sh\ncat /etc/note | sed s/1/2/\n")
    (tree / "bin" / "script").chmod(0o755)
    (tree / "etc").mkdir()
    (tree / "etc" / "note").write_text("note 1\n")
    repo = make_repo()
    run_fsview("commit", "--repo", repo, "-b", "r", tree)
    view, work = mount_view(repo), tmp_path / "work"
    run_fsview("workspace", "--repo", repo, "r", work)
    try:
        for top in (f"{view}/refs/r", f"{view}/refs/r/", work):
            done = subprocess.run(["chroot", top, "/bin/script"], capture_output=True, text=True)
            assert (done.stdout, done.stderr) == ("note 2\n", "")
        subprocess.run(["chroot", work, "/bin/sh", "-c", "echo note 11 >/etc/note"], check=True)
        done = subprocess.run(["chroot", work, "/bin/script"], capture_output=True, text=True, check=True)
        assert done.stdout == "note 21\n"
    finally:
        run_fsview("workspace", "remove", "--force", work)


def _copy_with_libraries(program: str, tree: Path) -> None:
    path = shutil.which(program, path="/bin:/usr/bin")
    assert path is not None
    said = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    for file in (path, *re.findall(r"(/\S+) \(0x", said)):
        name = f"bin/{program}" if file == path else file.lstrip("/")
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tree / name)


def test_debian_can_be_entered(
    debian_tree: Path, make_repo: Callable[..., Path], run_fsview: RunFsview, mount_view: MountView
) -> None:
    repo = make_repo()
    run_fsview("commit", "--repo", repo, "-b", "debian/12", debian_tree)
    command = ["chroot", f"{mount_view(repo)}/refs/debian/12/", "/usr/bin/dpkg", "-l"]
    assert "ii  base-files" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
