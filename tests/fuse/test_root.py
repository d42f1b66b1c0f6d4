"""One commit, or a directory of it, mounted alone: `--root REV[:/path]`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsview.locate import Located, locate
from tests.conftest import MountView, TreeFactory
from tests.fuse.conftest import Sample, drop_caches, run
from tests.marks import needs_root
from tests.running import RunFsview, run_cli


@pytest.fixture(scope="module")
def rooted(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Return mount points of a commit and of a directory in it, each alone."""
    home = tmp_path_factory.mktemp("rooted")
    points = {"": home / "whole", "/deep/a": home / "part"}
    for path, point in points.items():
        point.mkdir()
        run_cli(home, "mount", "--root", f"rel/1:{path}" if path else "rel/1", sample.repo, point)
    try:
        yield points
    finally:
        for point in points.values():
            run_cli(home, "umount", point)


def _below(path: str) -> list[str]:
    lines = run("find", path, "-printf", "%P %y %i %m %U:%G %s %T@ %l\\n").splitlines()
    return sorted(line for line in lines if not line.startswith(" "))


@pytest.mark.parametrize("path", ["", "/deep/a"])
def test_the_same_as_in_the_whole_view(sample: Sample, rooted: dict[str, Path], path: str) -> None:
    whole = sample.ref("rel/1").resolve() / path.lstrip("/")
    assert _below(f"{rooted[path]}/") == _below(f"{whole}/") != []
    run("diff", "-r", "--no-dereference", str(whole), str(rooted[path]))
    assert run("tar", "-C", rooted[path], "--sort=name", "-c", ".") == run("tar", "-C", whole, "--sort=name", "-c", ".")
    here, there = rooted[path].stat(), whole.stat()
    assert (here.st_mode, here.st_uid, here.st_mtime_ns) == (there.st_mode, there.st_uid, there.st_mtime_ns)
    assert here.st_ino == there.st_ino


def test_nothing_else_is_there(rooted: dict[str, Path], sample: Sample) -> None:
    assert set(os.listdir(rooted[""])) == set(os.listdir(sample.tree("rel/1")))
    for name in ("commits", "refs", sample.commit("rel/1").name):
        assert not (rooted[""] / name).exists()


def test_the_way_up(rooted: dict[str, Path]) -> None:
    os.chdir(rooted["/deep/a"] / "b/c")
    assert os.getcwd() == str(rooted["/deep/a"] / "b/c")
    assert os.stat("../..").st_ino == rooted["/deep/a"].stat().st_ino
    assert os.stat("../../..").st_ino == rooted["/deep/a"].parent.stat().st_ino
    os.chdir("/")


@needs_root
def test_the_way_up_when_the_kernel_has_forgotten(rooted: dict[str, Path]) -> None:
    os.chdir(rooted["/deep/a"] / "b/c")
    drop_caches()
    assert os.path.samefile("../..", rooted["/deep/a"])
    assert sorted(os.listdir("../..")) == sorted(os.listdir(rooted["/deep/a"]))
    os.chdir("/")


def test_its_paths_are_revisions(sample: Sample, rooted: dict[str, Path], tmp_path: Path) -> None:
    commit = sample.commit("rel/1").name
    assert locate(str(rooted[""])) == Located(sample.repo, commit, b"")
    assert locate(str(rooted[""] / "kept/b/c")) == Located(sample.repo, commit, b"/kept/b/c")
    assert locate(str(rooted["/deep/a"])) == Located(sample.repo, commit, b"/deep/a")
    assert locate(str(rooted["/deep/a"] / "b")) == Located(sample.repo, commit, b"/deep/a/b")
    listed = run_cli(tmp_path, "ls", rooted["/deep/a"] / "b").stdout
    assert listed == run_cli(tmp_path, "ls", "rel/1:/deep/a/b", repo=sample.repo).stdout


def test_xattrs_and_marks_of_the_root(
    repo: Path, mount_view: MountView, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    tree = tree_factory({"d": {"f": b""}})
    os.setxattr(tree / "d", "user.note", b"on a directory")
    run_fsview("commit", "--repo", repo, "-b", "r", tree)
    point = mount_view(repo, "--root", "r:d")
    assert os.listxattr(point) == ["user.note"] and os.getxattr(point, "user.note") == b"on a directory"
    assert os.getxattr(point, "user.fsview.root").endswith(b"/d") and os.getxattr(point, "user.fsview.pid")


def test_it_stays_when_the_ref_moves(
    repo: Path, mount_view: MountView, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    whole, alone = mount_view(repo), mount_view(repo, "-o", "root=r")
    run_fsview("commit", "--repo", repo, "-b", "r", tree_factory({"new": b"new"}))
    assert os.listdir(alone) == ["d"]
    again = mount_view(repo, "--root", whole / "refs/r")  # a path of another view
    assert os.listdir(again) == ["new"]


def test_what_cant_be_the_root(repo: Path, point: Path, run_fsview: RunFsview) -> None:
    assert "is no directory" in run_fsview("mount", "--root", "r:/d/f", repo, point, status=2).stderr
    assert "'nothing'" in run_fsview("mount", "--root", "nothing", repo, point, status=1).stderr
    assert "/x does not exist" in run_fsview("mount", "-f", "--root", "r:/x", repo, point, status=1).stderr


@needs_root
def test_a_bind_mount_of_a_part_of_it(sample: Sample, rooted: dict[str, Path], tmp_path: Path) -> None:
    subprocess.run(["mount", "--bind", rooted["/deep/a"] / "b", tmp_path], check=True)
    try:
        assert locate(str(tmp_path / "c")).path == b"/deep/a/b/c"
    finally:
        subprocess.run(["umount", tmp_path], check=True)
