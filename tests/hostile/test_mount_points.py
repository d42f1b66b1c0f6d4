"""Root mounts at a path in another user's directory, who exchanges what is there meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsview.mountinfo import mounts
from tests.conftest import TreeFactory
from tests.hostile.attacker import SECRET, attacking, exchanging, make_his, make_victim
from tests.marks import needs_fuse
from tests.running import RunFsview
from tests.sysroot.forked import fork_cli

RUNS = 200


@pytest.fixture
def grounds(open_path: Path) -> Iterator[Path]:
    """Return a directory of root's with root's `victim`, and `his` where `mnt` and `link`, to victim, change places."""
    victim, his = make_victim(open_path / "victim"), open_path / "his"
    (his / "mnt").mkdir(parents=True)
    (his / "link").symlink_to(victim)
    make_his(his)
    try:
        yield open_path
    finally:
        _unmount_all(open_path)


def _mounted_below(top: Path) -> list[str]:
    """Return where something is mounted below *top*, the last first."""
    return [mount.point for mount in reversed(mounts()) if mount.point.startswith(f"{top}/")]


def _unmount_all(top: Path) -> None:
    for point in _mounted_below(top):
        subprocess.run(["umount", "--lazy", "--no-canonicalize", point], check=False)


@needs_fuse
@pytest.mark.parametrize("options", [(), ("--root=r", "--kernel-reads")], ids=["", "kernel-reads"])
def test_no_view_covers_what_a_symlink_leads_to(
    grounds: Path, make_repo: Callable[..., Path], tree_factory: TreeFactory, run_fsview: RunFsview,
    options: tuple[str, ...],
) -> None:  # fmt: skip
    repo, his, mounted = make_repo(), grounds / "his", 0
    run_fsview("commit", "-b", "r", tree_factory({"file": b"evil"}), repo=repo)
    for run in range(RUNS):
        with attacking(exchanging(his, (b"mnt", b"link"))):
            fork_cli(grounds, ["mount", "--workers=1", *options, repo, his / "mnt"])
        points = _mounted_below(grounds)
        mounted += bool(points)
        assert not [point for point in points if "victim" in point], f"in run {run}"
        assert (grounds / "victim/file").read_bytes() == SECRET
        _unmount_all(grounds)
    assert mounted
