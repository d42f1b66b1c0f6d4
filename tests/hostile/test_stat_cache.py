"""A file system whose maker chose all times and inode numbers: what was read of it once proves nothing later."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsview import mountinfo
from tests.running import RunFsview

LONG_AGO_S = 1_577_836_800
NAMES = ("file", "d/file")


@contextmanager
def _mounted(image: Path, point: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "loop,ro", image, point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return an image of ext4 with some files, changed last long ago."""
    if os.geteuid() != 0 or not (shutil.which("debugfs") and os.path.exists("/dev/loop-control")):
        pytest.skip("takes root, debugfs and loop devices")
    tree, image = tmp_path / "tree", tmp_path / "image"
    for name in NAMES:
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"what was there before")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, "8M"], check=True)
    for name in ("", "d", *NAMES):
        for field in ("ctime", "mtime"):
            command = f"set_inode_field /{name} {field} @{LONG_AGO_S}"
            subprocess.run(["debugfs", "-w", "-R", command, image], check=True, capture_output=True)
    return image


def test_another_image_at_the_same_place_is_read_anew(
    image: Path, make_repo: Callable[..., Path], run_fsview: RunFsview, tmp_path: Path
) -> None:
    repo, point = make_repo(), tmp_path / "mnt"
    point.mkdir()
    for text in (b"what was there before", b"what is there instead"):
        image.write_bytes(image.read_bytes().replace(b"what was there before", text))
        with _mounted(image, point):
            assert (point / "file").read_bytes() == text
            run_fsview("commit", "-b", "r", point, repo=repo)
        for name in NAMES:
            assert run_fsview("cat", f"r:/{name}", repo=repo).stdout.encode() == text, name


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("ext4", True), ("tmpfs", True), ("vfat", False), ("squashfs", False), ("nfs4", False), ("fuse.sshfs", False)],
)
def test_which_file_systems_keep_times(kind: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountinfo, "_all_mounts", lambda: [mountinfo.Mount("/m", kind, "none", number=7)])
    monkeypatch.setattr(mountinfo, "_mount_number", lambda descriptor: 7)
    assert mountinfo.has_reliable_times(0) is expected
