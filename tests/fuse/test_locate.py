"""Paths in a mounted view, found again in the repository; and as revisions on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fsview.locate import Located, locate
from store.errors import MountError, NotFoundError
from tests.conftest import MountView, TreeFactory
from tests.fuse.conftest import Sample
from tests.leaks import unmount_lazily
from tests.marks import needs_root
from tests.running import RunFsview, clean_environment
from tools.cli import run

RunHere = Callable[..., str]  # (*arguments: str | Path, status: int = 0) -> stdout, or stderr if it failed


@pytest.fixture
def run_here(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> RunHere:
    """Return a function that runs the command line in this process, with no repository named."""
    monkeypatch.delenv("FSVIEW_REPO", raising=False)

    def here(*arguments: str | Path, status: int = 0) -> str:
        found = run([str(argument) for argument in arguments])
        captured = capfdbinary.readouterr()
        assert found == status, captured
        return os.fsdecode(captured.err if status else captured.out)

    return here


def test_every_way_to_a_place_leads_there(sample: Sample, tmp_path: Path) -> None:
    checksum, parent = sample.commit("rel/2").name, sample.commit("rel/1").name
    (tmp_path / "link").symlink_to(sample.ref("rel/2"))
    for path, commit, inside in (
        (sample.ref("rel/2"), checksum, b""),
        (sample.tree("rel/2"), checksum, b""),
        (sample.ref("rel/1") / "kept/b/c", parent, b"/kept/b/c"),
        (sample.point / "commits" / checksum, checksum, b""),
        (sample.point / "commits" / checksum[:12], checksum, b""),
        (sample.point / "commits" / checksum[:12] / "kept", checksum, b"/kept"),
        (sample.point / "info" / checksum / "subject", checksum, b""),
        (sample.point / "info" / checksum[:8], checksum, b""),
        (tmp_path / "link", checksum, b""),
        (tmp_path / "link/data/../kept", checksum, b"/kept"),
    ):
        assert locate(str(path)) == Located(sample.repo, commit, inside), path


def test_through_the_views_of_history(sample: Sample) -> None:
    checksum = sample.commit("rel/2").name
    (name,) = os.listdir(sample.point / "history/rel/2")
    assert locate(str(sample.point / "history/rel/2" / name / "kept/a")) == Located(sample.repo, checksum, b"/kept/a")


def test_in_versions(
    make_repo: Callable[..., Path], mount_view: MountView, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    repo, commits = make_repo(), []
    trap = "2025-11-24T000000Z-00000000"  # named as a version is
    for number in range(3):
        tree = tree_factory({"d": {"f": b"%d" % (number // 2), trap: b""}, **({"gone": b""} if number == 0 else {})})
        commits.append(run_fsview("commit", "--repo", repo, "-b", "r", f"--timestamp=@{number}", tree).stdout.strip())
    top = mount_view(repo) / "versions/r"
    first, last = sorted(os.listdir(top / "d/f"))
    for path, commit, inside in (
        (top, commits[2], b""),
        (top / "d", commits[2], b"/d"),
        (top / "d/f", commits[2], b"/d/f"),
        (top / "d/f" / first, commits[0], b"/d/f"),
        (top / "d/f" / last, commits[2], b"/d/f"),
        (top / "d" / trap, commits[2], b"/d/" + trap.encode()),
        (top / "gone/", commits[0], b"/gone"),
    ):
        assert locate(f"{path}/" if path.name == "gone" else str(path)) == Located(repo, commit, inside), path


def test_a_symlink_in_a_commit_is_itself_unless_a_slash_follows(sample: Sample) -> None:
    link = sample.ref("rel/2") / "link"
    assert locate(str(link)).path == b"/link"
    assert locate(f"{link}/").path == b"/data"
    assert locate(str(link / "equal")).path == b"/data/equal"


def test_names_that_are_no_text(sample: Sample) -> None:
    names = os.listdir(os.fsencode(sample.tree("rel/1") + "odd"))
    for name in names:
        assert locate(os.path.join(sample.tree("rel/1"), "odd", os.fsdecode(name))).path == b"/odd/" + name
    assert len(names) > 3


def test_from_inside(sample: Sample) -> None:
    os.chdir(sample.ref("rel/1") / "kept/b")
    checksum = sample.commit("rel/1").name
    assert locate(".") == Located(sample.repo, checksum, b"/kept/b")
    assert locate("..") == Located(sample.repo, checksum, b"/kept")
    assert locate("c") == Located(sample.repo, checksum, b"/kept/b/c")
    assert locate(".").revision == f"{checksum}:/kept/b"


def test_what_is_in_no_commit_is_told_so(sample: Sample, tmp_path: Path) -> None:
    for path, text in (
        (sample.point, "is above the commits of the view at"),
        (sample.point / "refs/rel", "name one of them"),
        (tmp_path, "is not in a mounted view"),
        (tmp_path / "missing", "does not exist"),
        (sample.ref("rel/1") / "missing", "does not exist"),
        (sample.ref("rel/1") / "kind/x", "does not exist"),
    ):
        with pytest.raises(NotFoundError, match=text) as caught:
            locate(str(path))
        assert str(path) in str(caught.value)


def test_a_working_directory_that_was_deleted(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(NotFoundError, match="current directory is not there any more"):
        locate("x")


@needs_root
def test_a_bind_mount_of_a_part(sample: Sample, tmp_path: Path) -> None:
    checksum = sample.commit("rel/1").name
    subprocess.run(["mount", "--bind", sample.ref("rel/1") / "kept", tmp_path], check=True)
    try:
        assert locate(str(tmp_path / "b/c")) == Located(sample.repo, checksum, b"/kept/b/c")
        assert locate(str(tmp_path)) == Located(sample.repo, checksum, b"/kept")
    finally:
        unmount_lazily(tmp_path)


def test_commands_take_a_path_for_a_revision(sample: Sample, run_here: RunHere, tmp_path: Path) -> None:
    one, two = sample.ref("rel/1"), sample.ref("rel/2")
    repo, checksum = sample.repo, sample.commit("rel/1").name
    for path, revision, commands in (
        (one, "rel/1", (["log"], ["log", "--oneline"], ["show"], ["ls", "-R"], ["rev-parse"])),
        (one / "kept/a", "rel/1:/kept/a", (["log"], ["show"], ["ls"], ["cat"], ["rev-parse"])),
        (sample.point / "commits" / checksum[:10] / "data", f"{checksum}:/data", (["ls"], ["show", "--json"])),
    ):
        for command in commands:
            assert run_here(*command, path) == run_here(*command, revision, "--repo", repo) != ""
    diff = run_here("diff", one, sample.point / "commits" / sample.commit("rel/2").name[:9])
    assert diff == run_here("diff", "rel/1", "rel/2", "--repo", repo) != ""
    assert run_here("diff", one / "kept", two / "kept") == ""
    assert run_here("grep", "-l", "^1", one / "kept") == f"{checksum}:/kept/a\n"
    assert run_here("grep", "-l", "-e", "^1", one, "--", "kept") == f"{checksum}:/kept/a\n"
    assert run_here("grep", "-l", str(one), two, status=1) == ""  # a pattern, not a path
    run_here("checkout", one / "kept", tmp_path / "out")
    assert (tmp_path / "out/b/c").read_bytes() == b"2\n"


def test_relative_words(sample: Sample, run_here: RunHere) -> None:
    os.chdir(sample.point / "refs")
    expected = run_here("show", "rel/1", "--repo", sample.repo)  # a ref of the repository that is named
    assert run_here("show", "rel/1") == expected == run_here("show", "./rel/1") == run_here("show", "../refs/rel/1")
    os.chdir(sample.ref("rel/1"))
    assert run_here("show", ".") == expected
    os.chdir(sample.point)
    for word in ("refs/missing", "refs/rel/1/missing", "commits/dead"):
        for command in (["log", word], ["checkout", word, "/nowhere"], ["run", word, "--", "true"]):
            assert f"{word} does not exist" in run_here(*command, status=1)
    os.chdir("/")
    assert "is named 'tmp/missing'" in run_here("log", "--repo", sample.repo, "tmp/missing", status=1)  # in no view


def test_one_repository_a_command(
    sample: Sample, repo: Path, mount_view: MountView, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = mount_view(repo)
    for arguments in (
        ["diff", sample.ref("rel/1"), point / "refs/r"],
        ["log", "--repo", repo, sample.ref("rel/1")],
        ["--repo", repo, "log", sample.ref("rel/1")],
        ["log", sample.ref("rel/1"), "--repo", repo],
    ):
        message = run_here(*arguments, status=2)
        assert str(repo) in message and str(sample.repo) in message
    log = run_here("log", point / "refs/r")
    assert log == run_here("log", "--repo", repo, point / "refs/r") == run_here("log", "--repo", repo, "r")
    monkeypatch.setenv("FSVIEW_REPO", str(sample.repo))  # a default, which a path overrules
    assert run_here("log", point / "refs/r") == log


def test_a_ref_is_stronger_than_a_relative_path(
    sample: Sample, repo: Path, run_here: RunHere, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    run_fsview("commit", "--repo", repo, "-b", "rel/1", "-s", "mine", tree_factory({"f": b""}))
    os.chdir(sample.point / "refs")
    assert "mine" in run_here("log", "--repo", repo, "rel/1")
    assert str(repo) in run_here("log", "--repo", repo, "./rel/1", status=2)


def test_refs_and_commits_made_from_paths(repo: Path, mount_view: MountView, run_here: RunHere) -> None:
    point = mount_view(repo)
    path, checksum = point / "refs/r", (point / "refs/r").resolve().name
    run_here("refs", "--repo", repo, "--create=new/one", path)
    run_here("tag", "v1", path)
    assert run_here("rev-parse", "--repo", repo, "new/one", "v1") == f"{checksum}\n" * 2
    os.chdir(point / "refs")
    run_here("refs", "--repo", repo, "--delete", "new/one")  # the name of a ref, whatever is there
    made = run_here("commit", "--orphan", f"--tree=ref={path / 'd'}", "--parent", path).strip()
    assert run_here("ls", "--repo", repo, made).endswith(" /f\n")
    assert f"Parent:  {checksum}" in run_here("show", "--repo", repo, made)
    os.chdir("/")  # or the view can't be unmounted


def test_completion_leaves_paths_to_the_shell(sample: Sample, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path) | {"_FSVIEW_COMPLETE": "bash_complete", "FSVIEW_REPO": str(sample.repo)}
    for word, expected in ((f"{sample.point}/re", "file,"), ("rel/", "plain,rel/1")):
        variables = environment | {"COMP_WORDS": f"fsview log {word}", "COMP_CWORD": "2"}
        done = subprocess.run([sys.executable, "-m", "tools"], env=variables, capture_output=True, text=True)
        assert expected in done.stdout


def test_a_view_whose_repository_was_moved_away(sample: Sample, run_here: RunHere) -> None:
    os.chdir(sample.point.parent)
    elsewhere = sample.repo.rename(sample.repo.with_name("elsewhere"))
    try:
        assert "Input/output error" in run_here("log", f"{sample.point.name}/refs/rel/1", status=1)
    finally:
        elsewhere.rename(sample.repo)
        os.chdir("/")


def test_a_dead_view(repo: Path, point: Path, run_fsview: RunFsview, run_here: RunHere) -> None:
    run_fsview("mount", repo, point)
    checksum = (point / "refs/r").resolve().name
    pid = int(os.getxattr(point, "user.fsview.pid"))
    os.kill(pid, 9)
    with suppress(OSError):
        while os.statvfs(point):  # its workers end after it
            time.sleep(0.01)
    for path in (point / "refs/r", point / "commits" / checksum):
        with pytest.raises(MountError, match="was killed"):
            locate(str(path))
    assert "mount it there again" in run_here("log", point / "refs/r", status=17)
    os.chdir(point.parent)
    assert "mount it there again" in run_here("log", f"{point.name}/refs/r", status=17)
    os.chdir("/")
    run_fsview("umount", point)
