"""The order of data versions, and what a commit declares of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tests.running import RunFsview
from tools.sysroot.data_versions import version_key


def test_versions_are_in_the_order_that_people_expect() -> None:
    order = [
        "1",
        "1.0",
        "1.0a",
        "1.0b",
        "1.0.1",
        "1.2",
        "1.10",
        "9",
        "15~beta2",
        "15~rc1",
        "15",
        "15.2",
        "15.2-1",
        "16",
    ]
    keys = [version_key(version) for version in order]
    assert all(one < other for one, other in pairwise(keys))
    assert version_key("15.02") == version_key("15.2") == version_key("15-2")


def test_a_commit_declares_data_versions(run_fsview: RunFsview, make_repo: Callable[..., Path], tmp_path: Path) -> None:
    repo, tree = make_repo(), tmp_path / "tree"
    tree.mkdir()
    commit = ["commit", "--repo", str(repo), "-b", "os/a"]
    run_fsview(*commit, "--data-version", "pg=15", "--data-version", "app db=3", tree)
    assert "{'app db': '3', 'pg': '15'}" in run_fsview("show", "--repo", repo, "os/a").stdout
    for wrong in (["pg"], ["pg=1", "pg=2"]):
        run_fsview(*commit, *[word for one in wrong for word in ("--data-version", one)], tree, status=2)


def test_refs_of_sysroots_are_listed_where_they_are_asked_for(
    run_fsview: RunFsview, make_repo: Callable[..., Path], tmp_path: Path
) -> None:
    repo, tree = make_repo(), tmp_path / "tree"
    tree.mkdir()
    for ref in ("os/a", "fsview/sysroot/ab/main/x.0"):
        run_fsview("commit", "--repo", repo, "-b", ref, tree)
    assert run_fsview("refs", "--repo", repo).stdout == "os/a\n"
    assert run_fsview("refs", "--repo", repo, "fsview/sysroot").stdout == "ab/main/x.0\n"
