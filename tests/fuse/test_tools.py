"""The tools that people already have, on trees with many equal directories and files."""

from __future__ import annotations

import filecmp
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuse.conftest import Sample, run
from tests.snapshots import Snapshot, assert_same_tree, snapshot

COPIES: dict[str, Callable[[str, Path], object]] = {
    "cp -a": lambda tree, target: run("cp", "-aT", tree, target),
    "rsync -aHX": lambda tree, target: run("rsync", "-aHX", tree, target),
    "tar": lambda tree, target: run(
        "sh",
        "-c",
        f"mkdir '{target}' && tar c --xattrs -C '{tree}' . | tar xp --xattrs --xattrs-include='*' -C '{target}'",
    ),
}


def test_the_view_shows_what_was_committed(sample: Sample) -> None:
    for ref in ("rel/1", "rel/2", "copy/1"):
        assert_same_tree(_without_empty_xattrs(sample.trees[ref]), sample.ref(ref))


def _without_empty_xattrs(tree: Path) -> Snapshot:
    """Return what a commit can hold of *tree*: OSTree leaves out xattrs without a value."""
    return {
        path: replace(entry, xattrs=tuple((key, value) for key, value in entry.xattrs if value))
        for path, entry in snapshot(tree).items()
    }


@pytest.mark.parametrize("tool", COPIES)
def test_a_copy_is_complete(sample: Sample, tmp_path: Path, tool: str) -> None:
    COPIES[tool](sample.tree("rel/1"), tmp_path / "copy")
    left, right = snapshot(sample.ref("rel/1")), snapshot(tmp_path / "copy")
    assert_same_tree(left, right)
    assert {path: e.mtime_ns // 10**9 for path, e in left.items()} == {
        path: e.mtime_ns // 10**9 for path, e in right.items()
    }
    assert all(entry.st_nlink == 1 for entry in map(os.lstat, _files(tmp_path / "copy")))


def _files(top: Path) -> list[str]:
    return [os.path.join(path, name) for path, _, names in os.walk(top) for name in names]


def test_two_equal_commits_are_copied_side_by_side(sample: Sample, tmp_path: Path) -> None:
    one, two = sample.commit("rel/1"), sample.commit("copy/1")
    assert one != two
    run("cp", "-a", one, two, tmp_path)
    assert_same_tree(tmp_path / one.name, tmp_path / two.name, mtimes=True, ignore=("mtime_ns",))
    assert_same_tree(one, tmp_path / two.name)


def test_find_sees_every_entry_once(sample: Sample) -> None:
    lines = "%p %y %m %U %G %l\\0"
    seen = sorted(run("find", sample.tree("rel/1"), "-printf", lines.replace("%p", "%P")).split("\0"))
    there = sorted(run("find", sample.trees["rel/1"], "-printf", lines.replace("%p", "%P")).split("\0"))
    assert seen == there and len(seen) > 250
    assert run("find", sample.tree("rel/1"), "-type", "f", "-size", "+300k", "-printf", "%P %s\n").splitlines() == [
        "data/large 1800000",
        "large 512000",
    ]


def test_du_counts_equal_directories_each(sample: Sample) -> None:
    tree, one = sample.ref("rel/1"), sample.ref("rel/1") / "equal" / "000"
    run("du", "-s", sample.tree("rel/1"))
    size = int(run("du", "-sb", one).split()[0])
    assert int(run("du", "-sb", tree / "equal").split()[0]) > 40 * (size - 1000)
    assert len(run("du", "-s", *sorted((tree / "equal").iterdir())).splitlines()) == 40


def test_diff_sees_no_difference_to_the_source(sample: Sample) -> None:
    for ref in ("rel/1", "rel/2"):
        assert run("diff", "-r", "--no-dereference", f"{sample.trees[ref]}/", sample.tree(ref)) == ""


@pytest.mark.parametrize("options", [["-r"], ["-rq"], ["-ruN"], ["-rw", "-B"]])
def test_diff_between_two_refs_says_what_it_says_of_the_sources(sample: Sample, options: list[str]) -> None:
    def lines(one: str, two: str) -> list[str]:
        text = run("diff", *options, "--no-dereference", one, two, status=1)
        times = re.compile(r"\t[0-9]{4}-.*")
        return sorted(times.sub("", line.replace(one, "A/").replace(two, "B/")) for line in text.splitlines())

    refs = [sample.tree(ref) for ref in ("rel/1", "rel/2")]
    trees = [f"{sample.trees[ref]}/" for ref in ("rel/1", "rel/2")]
    there, seen = lines(*trees), lines(*refs)
    assert there == seen and len(seen) > 5


def test_git_sees_every_change(sample: Sample) -> None:
    one, two = (f"{sample.tree(ref)}." for ref in ("rel/1", "rel/2"))
    text = run("git", "diff", "--no-index", "--no-renames", "--name-status", one, two, status=1)
    changes = sorted(line.split("\t")[0] + " " + line.rsplit("/.", 1)[1].lstrip("/") for line in text.splitlines())
    assert changes == [
        "A come/f", "A kind/now", "D gone/f", "D kind", "M data/large", "M data/touched", "M link",
    ]  # fmt: skip


def test_grep_finds_in_every_equal_file(sample: Sample) -> None:
    found = run("grep", "-rl", "import b", sample.tree("rel/1"))
    assert len(found.splitlines()) == 40


def test_rsync_from_one_release_and_then_another_leaves_the_other(sample: Sample, tmp_path: Path) -> None:
    for ref in ("rel/1", "rel/2", "rel/1", "rel/2"):
        run("rsync", "-aX", "--delete", sample.tree(ref), tmp_path / "target")
        assert_same_tree(sample.ref(ref), tmp_path / "target")
    run("rsync", "-aX", "--delete", sample.tree("rel/1"), tmp_path / "without")
    changed = run("rsync", "-aXni", sample.tree("rel/2"), tmp_path / "without")
    assert ">f..t...... data/touched" in changed and "equal/" not in changed


def test_filecmp_sees_every_change(sample: Sample) -> None:
    one, two = sample.ref("rel/1") / "data", sample.ref("rel/2") / "data"
    filecmp.clear_cache()
    assert filecmp.cmpfiles(one, two, ["equal", "touched", "large"]) == (["equal"], ["touched", "large"], [])


def test_an_equal_pair_of_trees_is_never_read(sample: Sample) -> None:
    subtree = [f"{sample.point}/refs/{ref}/equal" for ref in ("rel/1", "rel/2")]
    trace = subprocess.run(["strace", "-f", "-e", "trace=openat", "diff", "-r", *subtree], capture_output=True)
    if trace.returncode == 127:
        pytest.skip("strace may not trace here: a container wants SYS_PTRACE for it")
    assert trace.returncode == 0 and b"same" not in trace.stderr


def test_a_program_runs_from_the_view(sample: Sample) -> None:
    tool = sample.ref("rel/1") / "bin" / "tool"
    subprocess.run([tool], check=True)
