"""The helpers of the tests keep their own promises: comparison misses nothing, nothing leaks unseen."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuse.waits import wait_for
from tests.leaks import LeakGuard
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
