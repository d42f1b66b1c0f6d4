"""`-o place-inodes`: equal files are files of their own, which a writable overlay over a view needs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MountView, TreeFactory
from tests.fuse.conftest import Sample, drop_caches, run
from tests.leaks import unmount_lazily
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview
from tests.snapshots import snapshot

pytestmark = [
    needs_fuse,
    needs_root,
]


@contextmanager
def overlay(lower: Path, home: Path, options: str = "") -> Iterator[Path]:
    """Mount a writable overlay over *lower*; *home* gets upper, work and merged."""
    for name in ("upper", "work", "merged"):
        (home / name).mkdir(parents=True)
    layers = f"lowerdir={lower},upperdir={home}/upper,workdir={home}/work{options}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, home / "merged"], check=True)
    try:
        yield home / "merged"
    finally:
        subprocess.run(["umount", home / "merged"], check=False)
        unmount_lazily(home / "merged")


@pytest.fixture
def twins(make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory) -> Path:
    """Return a repository with a commit of two equal files on the ref r."""
    repo = make_repo()
    tree = tree_factory({"a": b"equal\n", "d": {"b": b"equal\n"}})
    os.utime(tree / "a", (10**9, 10**9))
    os.utime(tree / "d" / "b", (10**9, 10**9))
    run_fsview("commit", "--repo", repo, "-b", "r", tree)
    return repo


@pytest.mark.parametrize(("options", "other"), [((), b"equal\nmore\n"), (("-o", "place-inodes"), b"equal\n")])
def test_writing_one_of_two_equal_files(
    twins: Path, mount_view: MountView, tmp_path: Path, options: tuple[str, ...], other: bytes
) -> None:
    """Without the option the other one changes as well: overlayfs copies up by inode. So workspaces insist on it."""
    view = mount_view(twins, *options)
    with overlay((view / "refs/r").resolve(), tmp_path / "overlay") as merged:
        assert (merged / "a").read_bytes() == (merged / "d/b").read_bytes() == b"equal\n"
        with open(merged / "a", "ab") as stream:
            stream.write(b"more\n")
        assert (merged / "a").read_bytes() == b"equal\nmore\n"
        assert (merged / "d/b").read_bytes() == other


def test_only_the_node_differs(sample: Sample, mount_view: MountView) -> None:
    """What stat and readdir show, contents and xattrs are those of a view without the option, cold and warm."""
    point = mount_view(sample.repo, "-o", "place-inodes")
    for ref in ("rel/1", "rel/2"):
        commit = sample.commit(ref).name
        plain, placed = sample.point / "commits" / commit, point / "commits" / commit
        assert snapshot(plain) == snapshot(placed)
        drop_caches()
        assert snapshot(plain) == snapshot(placed)
        for path in ("bin", "equal/000/same", "equal/039/same", "data/large"):
            one, two = os.stat(plain / path), os.stat(placed / path)
            assert (one.st_ino, one.st_mtime_ns, one.st_size) == (two.st_ino, two.st_mtime_ns, two.st_size)
        with os.scandir(placed / "equal/007") as entries:
            assert all(entry.inode() == os.lstat(entry.path).st_ino for entry in entries)
    assert run("diff", "-rq", f"{point}/refs/rel/1/equal", f"{point}/refs/rel/2/equal") == ""


def test_xattrs_of_overlays_in_a_commit_are_shown_escaped(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory, mount_view: MountView,
    tmp_path: Path,
) -> None:  # fmt: skip
    """A view shows them with a name that no overlay obeys; an overlay over the view shows what was committed."""
    repo, tree = make_repo(), tree_factory({"d": {"f": b"f\n"}})
    os.setxattr(tree / "d", b"trusted.overlay.opaque", b"y")
    os.setxattr(tree / "d" / "f", b"trusted.overlay.metacopy", b"x")
    os.setxattr(tree / "d" / "f", b"user.overlay.redirect", b"/elsewhere")
    run_fsview("commit", "--repo", repo, "-b", "r", tree)
    lower = (mount_view(repo, "-o", "place-inodes") / "refs/r").resolve()
    assert os.listxattr(lower / "d") == ["trusted.overlay.overlay.opaque"]
    assert os.listxattr(lower / "d" / "f") == ["trusted.overlay.overlay.metacopy", "user.overlay.overlay.redirect"]
    assert os.getxattr(lower / "d", "trusted.overlay.overlay.opaque") == b"y"
    with pytest.raises(OSError, match="No data"):
        os.getxattr(lower / "d", "trusted.overlay.opaque")
    with overlay(lower, tmp_path / "overlay", ",metacopy=on,redirect_dir=on") as merged:
        assert os.getxattr(merged / "d", "trusted.overlay.opaque") == b"y"
        assert (merged / "d" / "f").read_bytes() == b"f\n"
        assert "trusted.overlay.metacopy" in os.listxattr(merged / "d" / "f")
