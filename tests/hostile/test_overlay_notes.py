"""What is noted in an upper directory, and leads nowhere, or means nothing: an error that names it, never less content.

Root may have edited it, a disk may have lost it; through fuse-overlayfs whoever owns a file notes what he likes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import TreeFactory
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview
from tests.trees import Directory, Spec, Symlink

pytestmark = [needs_fuse, needs_root]

TREE: Spec = {
    "a": {"x": {"f": b"f\n"}, "y": {"g": b"g\n"}}, "file": b"file\n", "link": Symlink("a"), "own": Directory({}, 0o777),
}  # fmt: skip


@pytest.fixture
def workspace(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory, tmp_path: Path
) -> Iterator[Callable[..., Path]]:
    """Return a function that makes a workspace; it is removed at the end."""
    point = tmp_path / "work"

    def make(*options: str) -> Path:
        repo = make_repo()
        run_fsview("commit", "--repo", repo, "-b", "base", tree_factory(TREE))
        run_fsview("workspace", *options, "--repo", repo, "base", point)
        return point

    yield make
    run_fsview("workspace", "remove", "--force", point)


@pytest.fixture
def upper(workspace: Callable[..., Path]) -> Path:
    """Return the upper directory of a workspace of the kernel's overlay, in which a/x was renamed to a/moved."""
    point = workspace()
    os.rename(point / "a/x", point / "a/moved")
    assert os.getxattr(point.with_name("work.workspace") / "upper/a/moved", "trusted.overlay.redirect") == b"x"
    return point.with_name("work.workspace") / "upper"


NOWHERE = {
    "nothing": b"missing",
    "nothing below the root": b"/missing/x",
    "a file": b"/file",
    "a file on the way": b"/file/x",
    "a symlink": b"/link",
    "a symlink on the way": b"/link/x",
    "up and down": b"/a/../a/x",
    "out": b"/../../etc",
    "up": b"..",
    "here": b".",
    "a path that is relative": b"a/x",
    "the root": b"/",
    "two slashes": b"//a/x",
    "a slash at the end": b"/a/x/",
    "no name": b"",
    "no text": b"\xff\n\x1b[2J",
}


@pytest.mark.parametrize("what", NOWHERE)
def test_a_redirect_that_leads_nowhere(upper: Path, run_fsview: RunFsview, tmp_path: Path, what: str) -> None:
    os.setxattr(upper / "a/moved", "trusted.overlay.redirect", NOWHERE[what])
    said = run_fsview("commit", "--workspace", tmp_path / "work", "-b", "x", status=16)
    assert str(upper / "a/moved") in said.stderr and ("renamed from" in said.stderr or "redirect" in said.stderr)
    assert said.stderr.isascii() and "\x1b" not in said.stderr
    assert "no ref" in run_fsview("log", "--repo", tmp_path / "repo", "x", status=1).stderr


def test_a_redirect_where_nothing_is_below(upper: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    """By a name beside its own, in a directory that is new: there is none."""
    (upper / "new/dir").mkdir(parents=True)
    os.setxattr(upper / "new/dir", "trusted.overlay.redirect", b"x")
    said = run_fsview("commit", "--workspace", tmp_path / "work", "-b", "x", status=16)
    assert f"{upper}/new/dir: it was renamed from 'x'" in said.stderr


@pytest.mark.parametrize("redirect", [b"x", b"/a/x"])
def test_redirects_that_lead_somewhere_are_followed_wherever_that_is(
    upper: Path, run_fsview: RunFsview, tmp_path: Path, redirect: bytes
) -> None:
    """Two to one place, and a directory into itself: a commit ends, as the lower tree does."""
    os.setxattr(upper / "a/moved", "trusted.overlay.redirect", redirect)
    (upper / "a/moved/inside").mkdir()
    os.setxattr(upper / "a/moved/inside", "trusted.overlay.redirect", b"/a")
    run_fsview("commit", "--workspace", tmp_path / "work", "-b", "x")
    found = run_fsview("ls", "--repo", tmp_path / "repo", "-R", "x").stdout.split()
    names = {name for name in found if name.startswith("/a")}
    inside = {"/a/moved/inside", *(f"/a/moved/inside/{name}" for name in ("x", "x/f", "y", "y/g"))}
    assert names == {"/a", "/a/moved", "/a/moved/f", "/a/y", "/a/y/g"} | inside


@pytest.mark.parametrize("value", [b"", b"n", b"Y", b"yes"])
def test_an_opaque_mark_that_no_overlay_writes(
    upper: Path, run_fsview: RunFsview, tmp_path: Path, value: bytes
) -> None:
    os.setxattr(upper / "a", "trusted.overlay.opaque", value)
    said = run_fsview("commit", "--workspace", tmp_path / "work", "-b", "x", status=16)
    assert f"{upper}/a: its xattr 'opaque' is {value.decode()!r}" in said.stderr


def test_notes_through_fuse_overlayfs(workspace: Callable[..., Path], run_fsview: RunFsview, tmp_path: Path) -> None:
    """Whoever owns a directory in the workspace can set these; fuse-overlayfs itself takes no notice."""
    point = workspace("--fuse")
    subprocess.run(["setfattr", "-n", "user.overlay.redirect", "-v", "/a/y", point / "own"], check=True)
    said = run_fsview("commit", "--workspace", point, "-b", "x", status=16)
    assert "own: its xattr 'redirect', '/a/y', means nothing to fuse-overlayfs" in said.stderr
    os.removexattr(point / "own", "user.overlay.redirect")
    (point / "own/.wh.precious").mkdir()
    (point / "own/.wh.precious/data").write_text("data\n")
    said = run_fsview("commit", "--workspace", point, "-b", "x", status=16)
    assert "own/.wh.precious: fuse-overlayfs takes it for its mark" in said.stderr
    run_fsview("workspace", "umount", point)
    upper = point.with_name("work.workspace") / "upper"
    os.rename(upper / "own/.wh.precious", upper / "own/kept")
    run_fsview("commit", "--workspace", point, "-b", "x")
    assert run_fsview("cat", "--repo", tmp_path / "repo", "x", "own/kept/data").stdout == "data\n"
