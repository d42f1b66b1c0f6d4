"""Unmounting as root where another user owns a directory on the way to the mount point."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fsview import mountpoint
from fsview.kernel_reads import uncover
from store.errors import MountError
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview

pytestmark = [needs_root, needs_fuse]


def test_what_is_mounted_elsewhere_stays(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    his, data = tmp_path / "his", tmp_path / "data"
    for path in (his, data):
        (path / "mnt").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", data / "mnt"], check=True)
    run_fsview("mount", make_repo(), his / "mnt")
    try:

        def swap(*arguments: object, **named: object) -> None:
            his.rename(tmp_path / "was-his")
            his.symlink_to(data)
            uncover(*arguments, **named)  # type: ignore[arg-type]  # as they came

        with monkeypatch.context() as patch, pytest.raises(MountError, match="can't be unmounted"):
            patch.setattr(mountpoint, "uncover", swap)
            mountpoint.unmount(his / "mnt", lazy=True)
        assert os.path.ismount(data / "mnt")
    finally:
        his.unlink()
        (tmp_path / "was-his").rename(his)
        run_fsview("umount", his / "mnt")
        subprocess.run(["umount", data / "mnt"], check=False)
