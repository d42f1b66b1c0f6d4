"""The helpers of the tests keep their own promises: comparison misses nothing, nothing leaks unseen."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store.repository import Repository
from tests.fuse.waits import wait_for
from tests.leaks import LeakGuard, open_descriptors
from tests.marks import needs_fuse
from tests.prefork import Prefork
from tests.running import RunFsview, clean_environment, run_cli
from tests.snapshots import assert_same_tree, differences, snapshot
from tests.trees import Directory, File, Spec, Special, Symlink, build_tree, supports_xattrs

PLAIN: Spec = {"d": {"f": File(b"one", mtime_ns=10**18)}, "l": Symlink("target", mtime_ns=10**18)}

CHANGES: dict[str, Spec] = {
    "content is": {"d": {"f": File(b"two", mtime_ns=10**18)}, "l": Symlink("target", mtime_ns=10**18)},
    "mode is 0o644": {"d": {"f": File(b"one", mode=0o664, mtime_ns=10**18)}, "l": PLAIN["l"]},
    "mtime_ns is": {"d": {"f": File(b"one", mtime_ns=10**18 + 1)}, "l": PLAIN["l"]},
    "target is b'target'": {"d": PLAIN["d"], "l": Symlink("tarGet", mtime_ns=10**18)},
    "kind is 'symlink'": {"d": PLAIN["d"], "l": File(b"target", mtime_ns=10**18)},
    "only in the first: b'd/f'": {"d": {}, "l": PLAIN["l"]},
    "only in the second: b'd/g'": {"d": {"f": File(b"one", mtime_ns=10**18), "g": b""}, "l": PLAIN["l"]},
    "xattrs is ()": {"d": {"f": File(b"one", xattrs={"user.a": b""}, mtime_ns=10**18)}, "l": PLAIN["l"]},
    "b'd': mode": {"d": Directory({"f": File(b"one", mtime_ns=10**18)}, mode=0o2755), "l": PLAIN["l"]},
    "kind is 'file' in the first, 'fifo'": {"d": {"f": Special("fifo")}, "l": PLAIN["l"]},
}


@pytest.mark.parametrize("message", CHANGES)
def test_each_kind_of_difference_is_seen(tmp_path: Path, message: str) -> None:
    if "xattrs" in message and not supports_xattrs(tmp_path):
        pytest.skip("no xattrs on this file system")
    a, b = build_tree(tmp_path / "a", PLAIN), build_tree(tmp_path / "b", CHANGES[message])
    assert [line for line in differences(a, b, mtimes=True) if message in line]
    with pytest.raises(AssertionError, match="differences of"):
        assert_same_tree(a, snapshot(b), mtimes=True)


def test_owners_are_seen(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing owners takes root")
    a, b = build_tree(tmp_path / "a", {"f": b""}), build_tree(tmp_path / "b", {"f": File(owner=(0, 42))})
    assert differences(a, b) == ["b'f': owner is (0, 0) in the first, (0, 42) in the second"]
    assert differences(a, b, ignore=("owner",)) == []


def test_cp_copies_the_sample_tree_completely(tree_factory: Callable[..., Path], tmp_path: Path) -> None:
    tree = tree_factory()
    subprocess.run(["cp", "-a", tree, tmp_path / "copy"], check=True)
    assert_same_tree(tree, tmp_path / "copy", mtimes=True)
    assert len(snapshot(tree)) > 60


def test_a_process_in_the_background_is_found_and_ended(leak_guard: LeakGuard) -> None:
    before = leak_guard.survey()
    command = "sleep 300 >/dev/null 2>&1 & echo $!"  # the shell ends, its child goes to init
    pid = int(subprocess.run(["setsid", "sh", "-c", command], capture_output=True, check=True).stdout)
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    assert leak_guard.sweep(before, grace_s=0.1) == [f"process {pid} still runs: sleep 300"]
    assert leak_guard.survey() == before


def test_a_process_that_ends_in_time_is_no_leak(leak_guard: LeakGuard) -> None:
    before = leak_guard.survey()
    with subprocess.Popen(["sleep", "0.1"]):
        started = time.monotonic()
        assert leak_guard.sweep(before, grace_s=60) == []
        assert time.monotonic() - started < 30


def test_a_mount_is_found_and_detached(leak_guard: LeakGuard, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    (point := tmp_path / "a mount\\point").mkdir()
    before = leak_guard.survey()
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    assert leak_guard.sweep(before, grace_s=0.1) == [f"{point} is still mounted"]
    assert not os.path.ismount(point)


SAME: dict[str, tuple[list[str | bytes], int]] = {
    "what is said": (["--version"], 0),
    "an error": (["log", "--repo", "nowhere"], 1),
    "a word that is not UTF-8": ([b"log", b"--repo", b"\xff"], 1),
    "what can't be read": (["nonsense"], 2),
}


@pytest.mark.parametrize("case", SAME)
def test_a_command_that_was_forked_is_as_one_that_was_started(tmp_path: Path, prefork: Prefork, case: str) -> None:
    words, status = SAME[case]
    one, other = (run_cli(tmp_path, *words, status=None, prefork=by) for by in (prefork, None))
    assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)
    assert one.returncode == status and one.args != other.args  # which begin with the program


def test_a_forked_command_has_its_own_input_environment_directory_and_umask(tmp_path: Path, prefork: Prefork) -> None:
    run = functools.partial(run_cli, tmp_path, prefork=prefork, env={"FSVIEW_REPO": "here"}, cwd=tmp_path / "d")
    (tmp_path / "d").mkdir()
    os.umask(0o077)
    run("init", "here")
    large = os.urandom(300_000)  # more than a pipe holds
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            entry = tarfile.TarInfo("f")
            entry.size = len(large)
            archive.addfile(entry, io.BytesIO(large))
        run("commit", "-b", "main", "--tree=tar=-", input=file.getvalue())
    run("checkout", "main", "out")
    assert (tmp_path / "d/out/f").read_bytes() == large
    assert os.fsencode(run("cat", "main:/f").stdout) == large


def test_a_forked_command_that_takes_too_long_is_ended(tmp_path: Path, prefork: Prefork, leak_guard: LeakGuard) -> None:
    before, descriptors = leak_guard.survey(), open_descriptors()
    with Repository.create(tmp_path / "repo") as repository, repository.lock(exclusive=True):
        with pytest.raises(subprocess.TimeoutExpired):
            run_cli(tmp_path, "prune", "--repo", tmp_path / "repo", prefork=prefork, timeout_s=0.5)
        wait_for(lambda: leak_guard.survey() == before)
    assert open_descriptors() == descriptors


@needs_fuse
def test_what_a_forked_command_leaves_is_found(
    tmp_path: Path, leak_guard: LeakGuard, run_fsview: RunFsview, make_repo: Callable[..., Path]
) -> None:
    before = leak_guard.survey()
    (point := tmp_path / "mnt").mkdir()
    run_fsview("mount", make_repo(), point)
    assert f"{point} is still mounted" in leak_guard.sweep(before, grace_s=0.1)
    assert leak_guard.survey() == before


def test_where_a_fork_would_differ_a_command_is_started(prefork: Prefork, tmp_path: Path) -> None:
    usual = clean_environment(tmp_path)
    assert prefork.can(usual | {"XDG_STATE_HOME": "/x"})
    for name in ("LC_ALL", "LANG", "PYTHONUTF8"):
        assert not prefork.can(usual | {name: "0"})
