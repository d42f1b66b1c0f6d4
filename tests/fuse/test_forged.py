"""Names that somebody forged, in a tree, beside the index and in it: shown for what they are, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from store.database import Writing
from store.refs import find_ref
from store.repository import Repository
from store.schema import CommitNumber, RefName, RefRecord, id_key
from tests.conftest import MountView, TreeFactory
from tests.fuse.conftest import run
from tests.running import RunFsview
from tests.trees import Symlink
from tools.render import one_line

FIRST = CommitNumber(1024)
# A file can be called so, so they are shown, though most can be no ref; of those below them no file can, or of a part.
SHOWN = (b".fsview", b"commits", b"new\nline", b"-rf", b"\x1b[31mred", b" ", b"x" * 255)
HIDDEN = (b"..", b".", b"a/../b", b"a/./b", b"/abs", b"a//b", b"a/", b"n\0ul", b"y" * 256, b"../../etc")


@pytest.fixture
def repo(make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory) -> Path:
    """Return a repository with the ref good/one."""
    path = make_repo()
    run_fsview("commit", "--repo", path, "-b", "good/one", "-s", "1", tree_factory({"f": b"f"}))
    return path


def _forge_ref(repo: Path, name: bytes) -> None:
    """Write a ref as `set_ref` does, whatever it is called."""

    def body(writing: Writing) -> None:
        parts = name.split(b"/")
        for prefix in (b"/".join(parts[:count]) for count in range(1, len(parts))):
            if prefix and writing.get(b"refdir", prefix) is None:
                _note(writing, b"refdir", prefix, b"")
        _note(writing, b"ref", name, id_key(FIRST))

    with Repository.open(repo) as repository:
        repository.database.write(body)


def _note(writing: Writing, table: bytes, name: bytes, behind: bytes) -> None:
    ref_id = writing.take_id("ref")
    writing.put(table, name, id_key(ref_id) + behind)
    writing.put(b"refid", id_key(ref_id), RefName(table == b"refdir", True, name).pack())


def test_a_ref_that_was_forged_as_the_store_writes_it(repo: Path) -> None:
    """So that the tests below forge what they say."""
    _forge_ref(repo, b"good/two")
    with Repository.open(repo) as repository, repository.database.reading() as reading:
        two, one = find_ref(reading, "good/two"), find_ref(reading, "good/one")
        assert two is not None and one is not None and two == RefRecord(two.ref_id, one.commit)


@pytest.mark.unchecked
def test_names_of_refs_in_the_index(repo: Path, mount_view: MountView, run_fsview: RunFsview) -> None:
    for name in (*SHOWN, *HIDDEN):
        _forge_ref(repo, name)
    point = os.fsencode(mount_view(repo))
    for view in (b"refs", b"history", b"versions"):
        directory = os.path.join(point, view)
        assert sorted(os.listdir(directory)) == sorted((*SHOWN, b"a", b"good")), view
        assert os.listdir(directory + b"/a") == [] and os.listdir(directory + b"/good") == [b"one"]
        assert os.path.samestat(os.stat(directory + b"/.."), os.stat(point))
        for name in HIDDEN:
            if b"\0" not in name and b"/" not in name and name.strip(b"."):
                assert not os.path.lexists(os.path.join(directory, name)), (view, name)
    for name in SHOWN:
        assert os.readlink(os.path.join(point, b"refs", name)).startswith(b"../commits/")
    run("find", os.fsdecode(point), "-ls")
    found = run_fsview("fsck", "--repo", repo, status=12).stdout
    for name in (*SHOWN[:-1], *HIDDEN):
        if name != b"commits":  # a ref may be called so
            assert f"table ref, key {one_line(name.decode())}: " in found, name
    assert "\x1b" not in run_fsview("refs", "--repo", repo).stdout


@pytest.mark.unchecked
def test_a_ref_whose_name_is_no_text(repo: Path, mount_view: MountView, run_fsview: RunFsview) -> None:
    """It is left out of refs/; who wants to know all names of refs is refused."""
    _forge_ref(repo, b"\xff\xfe")
    point = mount_view(repo)
    assert os.listdir(point / "refs") == ["good"] and not os.path.lexists(os.fsencode(point) + b"/refs/\xff\xfe")
    commit = os.readlink(point / "refs/good/one").rpartition("/")[2]
    with pytest.raises(OSError, match="Input/output error"):
        (point / "info" / commit / "refs").read_bytes()
    assert (point / "info" / commit / "subject").read_bytes() == b"1\n"
    assert "ref fffe in " in run_fsview("refs", "--repo", repo, status=12).stderr
    assert r"table ref, key \xff\xfe: " in run_fsview("fsck", "--repo", repo, status=12).stdout


def test_ref_files_beside_the_index_are_nothing(repo: Path, mount_view: MountView) -> None:
    """As OSTree's repositories have them."""
    heads = repo / "refs/heads"
    (heads / "a-directory/...").mkdir(parents=True)
    for name in ("forged", "new\nline", ".fsview", "a-directory/b"):
        (heads / name).write_text("0" * 64 + "\n")
    (heads / "link").symlink_to("/etc/passwd")
    point = mount_view(repo)
    assert (os.listdir(point / "refs"), os.listdir(point / "refs/good")) == (["good"], ["one"])


@pytest.mark.parametrize("alone", [False, True])
def test_a_tree_with_the_views_own_names_in_it(
    make_repo: Callable[..., Path], mount_view: MountView, run_fsview: RunFsview, tree_factory: TreeFactory, alone: bool
) -> None:
    repo, views = make_repo(), (".fsview", "refs", "commits", "history", "info", "versions", "by-date", "remotes")
    tree = tree_factory(
        {**{name: {"metrics": b"forged"} for name in views[:6]}, "by-date": b"", "remotes": Symlink("/")}
    )
    run_fsview("commit", "--repo", repo, "-b", "r", "-s", "1", tree)
    point = mount_view(repo, *(["--root", "r"] if alone else []))
    root = point if alone else point / "refs/r"
    assert sorted(os.listdir(root)) == sorted(views)
    assert {os.listdir(root / name)[0] for name in views[:6]} == {"metrics"}
    assert (root / ".fsview/metrics").read_bytes() == b"forged"
    assert stat.S_ISREG((root / "by-date").stat().st_mode) and os.readlink(root / "remotes") == "/"
    assert run_fsview("mounts").stdout.count(str(point)) == 1 and run_fsview("ls", root / "refs").stdout.endswith(
        "metrics\n"
    )
    if not alone:
        assert b"forged" not in (point / ".fsview/metrics").read_bytes()
