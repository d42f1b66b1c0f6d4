"""Names above the commits: listed and unlisted ones, and what happens to them while the view is mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from errno import ENOENT
from functools import partial
from pathlib import Path

import pytest

from store.refs import set_ref
from store.repository import Repository
from store.schema import CommitNumber
from tests.conftest import MountView, TreeFactory
from tests.fuse.conftest import Sample, run
from tests.running import RunFsview

VIEWS = (".fsview", "by-date", "commits", "history", "info", "refs", "remotes", "versions")


def test_refs_and_commits_are_listed(sample: Sample) -> None:
    assert sorted(os.listdir(sample.point)) == sorted(VIEWS)
    assert sorted(os.listdir(sample.point / "refs")) == ["copy", "rel"]
    assert sorted(os.listdir(sample.point / "refs" / "rel")) == ["1", "2"]
    commits = sorted(os.listdir(sample.point / "commits"))
    assert commits == sorted(sample.commit(ref).name for ref in ("rel/1", "rel/2", "copy/1"))
    assert os.readlink(sample.ref("rel/1")) == f"../../commits/{sample.commit('rel/1').name}"


def test_abbreviations_and_revisions_resolve_unlisted(sample: Sample) -> None:
    name = sample.commit("rel/1").name
    assert os.readlink(sample.point / "commits" / name[:16]) == name
    assert os.readlink(sample.point / "refs" / "rel" / "1@{0}") == f"../../commits/{name}"
    assert os.readlink(sample.point / "refs" / "rel" / "1@{now}") == f"../../commits/{name}"
    assert name[:16] not in os.listdir(sample.point / "commits")


@pytest.mark.parametrize("path", ["nothing", "refs/rel/1^", "refs/rel/3", "refs/rel/1@{7}", "commits/zz", "refs/x:y"])
def test_a_name_that_nothing_has(sample: Sample, path: str) -> None:
    with pytest.raises(OSError) as caught:
        os.lstat(sample.point / path)
    assert caught.value.errno == ENOENT


def test_names_that_no_file_has(sample: Sample) -> None:
    for name in (b"\xff", b"x" * 255, b"a\nb", b"...", b" "):
        for directory in (sample.point, sample.point / "refs", sample.point / "commits", sample.commit("rel/1")):
            for _ in range(2):
                assert not os.path.lexists(os.path.join(os.fsencode(directory), name))


def test_new_commits_and_moved_refs_show_at_once(
    make_repo: Callable[..., Path], mount_view: MountView, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    repo = make_repo()
    point = mount_view(repo)
    assert os.listdir(point / "refs") == [] == os.listdir(point / "commits")
    for number in range(4):
        tree = tree_factory({"number": str(number).encode(), "equal": {"x": b"x"}})
        assert os.path.lexists(point / "refs/a/b") == (number > 0)
        checksum = run_fsview("commit", "--repo", repo, "-b", "a/b", "-s", str(number), tree).stdout.strip()
        assert os.readlink(point / "refs/a/b") == f"../../commits/{checksum}"
        assert (point / "refs/a/b/number").read_text() == str(number)
        assert len(os.listdir(point / "commits")) == number + 1
        assert os.listdir(point / "commits" / checksum[:20]) == ["equal", "number"]
        if number:
            assert (point / "refs/a/b^/number").read_text() == str(number - 1)
    assert (point / "refs/a/b~3/number").read_text() == "0"
    text = run("diff", "-r", point / "refs/a/b@{2}/", point / "refs/a/b@{1}/", status=1)
    assert "< 1" in text and "> 2" in text and "equal" not in text


def test_a_ref_that_moves_under_an_open_file_and_a_working_directory(
    make_repo: Callable[..., Path], mount_view: MountView, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    repo = make_repo()
    run_fsview("commit", "--repo", repo, "-b", "r", "-s", "1", tree_factory({"d": {"f": b"old"}}))
    point = mount_view(repo)
    os.chdir(point / "refs/r/d")
    with open("f", "rb") as opened:
        run_fsview("commit", "--repo", repo, "-b", "r", "-s", "2", tree_factory({"d": {"f": b"new"}}))
        assert opened.read() == b"old" and Path("f").read_bytes() == b"old"
        assert (point / "refs/r/d/f").read_bytes() == b"new"
    os.chdir("/")


def test_a_ref_that_looks_like_an_abbreviation(
    make_repo: Callable[..., Path], mount_view: MountView, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    repo = make_repo()
    first = run_fsview("commit", "--repo", repo, "-b", "x", tree_factory({"f": b"first"})).stdout.strip()
    short = first[:6]
    run_fsview("commit", "--repo", repo, "-b", short, tree_factory({"f": b"second"}))
    point = mount_view(repo)
    assert (point / "refs" / short / "f").read_bytes() == b"second"
    assert (point / "commits" / short / "f").read_bytes() == b"first"  # no refs are looked for there
    assert run_fsview("cat", "--repo", repo, f"{short}:/f").stdout == "second"


def test_refs_that_go_and_come(
    make_repo: Callable[..., Path], mount_view: MountView, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    repo = make_repo()
    run_fsview("commit", "--repo", repo, "-b", "a/b/c", "-s", "1", tree_factory({"f": b"1"}))
    point = mount_view(repo)
    assert (point / "refs/a/b/c/f").read_bytes() == b"1"
    run_fsview("refs", "--repo", repo, "--create", "a/b/d", "a/b/c")
    assert sorted(os.listdir(point / "refs/a/b")) == ["c", "d"]
    run_fsview("refs", "--repo", repo, "--delete", "a/b/c")
    run_fsview("refs", "--repo", repo, "--delete", "a/b/d")
    assert not os.path.lexists(point / "refs/a/b/c") and os.listdir(point / "refs") == []
    with pytest.raises(FileNotFoundError):
        os.listdir(point / "refs/a/b")  # the kernel still knows it: the server says that it is stale
    commit = os.listdir(point / "commits")[0]
    run_fsview("refs", "--repo", repo, "--create", "a/b", commit)
    assert os.readlink(point / "refs/a/b") == f"../../commits/{commit}"


def test_who_moves_a_ref_sees_it_moved(
    make_repo: Callable[..., Path], mount_view: MountView, tree_factory: TreeFactory, run_fsview: RunFsview
) -> None:
    """Without the start of a process in between; the kernel may believe a name for a moment."""
    repo = make_repo()
    for number in range(2):
        run_fsview("commit", "--repo", repo, "-b", "r", "-s", str(number), tree_factory({"f": str(number).encode()}))
    point = mount_view(repo)
    with Repository.open(repo) as repository:
        for number in range(40):
            target = CommitNumber(1024 + number % 2)
            repository.database.write(partial(set_ref, name="r", new=target, time_s=0, message=""))
            assert (point / "refs/r/f").read_text() == str(number % 2)


def test_directories_with_very_many_names(
    make_repo: Callable[..., Path], mount_view: MountView, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    names = {f"{number:05}{'x' * (number % 200)}": b"" for number in range(12_000)}
    repo = make_repo()
    run_fsview("commit", "--repo", repo, "-b", "r", "-s", "1", tree_factory(names))
    point = mount_view(repo)
    for _ in range(2):
        assert sorted(os.listdir(point / "refs/r/")) == sorted(names)
    assert len(run("find", f"{point}/refs/r/", "-type", "f").splitlines()) == 12_000


def test_several_read_at_once(sample: Sample) -> None:
    refs = ("rel/1", "rel/2", "copy/1") * 4
    running = [subprocess.Popen(["tar", "c", "-C", sample.tree(ref), "."], stdout=subprocess.PIPE) for ref in refs]
    with ThreadPoolExecutor(len(running)) as pool:
        archives = list(pool.map(lambda process: process.communicate(timeout=60)[0], running))
    assert [process.returncode for process in running] == [0] * len(refs)
    assert len(set(zip(refs, archives, strict=True))) == 3 and min(map(len, archives)) > 2_000_000
