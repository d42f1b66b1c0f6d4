"""fsview checkout: everything that was committed comes back, links only where they may be, nothing half-made stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tools.materialise
from store.errors import CorruptionError, FsviewError
from store.objects import DirMeta, DirTree
from store.repository import Repository
from store.revisions import find_place
from store.schema import TreeId, id_key
from store.staging import StagedTree
from store.tree import load_listing
from store.writer import Writer
from tests.checking import assert_sound
from tests.cli.conftest import LARGE, Fsview, Releases
from tests.marks import needs_root
from tests.running import RunFsview
from tests.snapshots import assert_same_tree, snapshot
from tests.trees import File, Node, Spec, Symlink, build_tree, sample_tree
from tests.users import run_as_nobody
from tools.checkout import checkout
from tools.linking import Link

LARGE_SPEC: Spec = {
    "usr": {"large": LARGE, "small": b"small\n", "empty": b"", "private": File(LARGE + b"!", mode=0o600)},
    "etc": {"large": LARGE + b"in etc"},
    "var": {"large": LARGE + b"in var"},
}


@pytest.fixture(autouse=True)
def by_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write small trees as large ones are written; those of tests/sysroot are written by one process."""
    monkeypatch.setattr(tools.materialise, "_ALONE_ENTRIES_MAX", -1)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)


@pytest.fixture
def large_repo(tmp_path: Path, fsview: Fsview, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository with LARGE_SPEC at the ref "main"; `fsview` works on it."""
    repo = tmp_path / "repo"
    fsview("init", repo)
    monkeypatch.setenv("FSVIEW_REPO", str(repo))
    fsview("commit", "-b", "main", build_tree(tmp_path / "tree", LARGE_SPEC))
    return repo


def _check_out(repo: Path, revision: str, destination: Path, **options: Any) -> None:
    with Repository.open(repo) as repository:
        with repository.database.reading() as reading:
            place = find_place(reading, revision, now_s=0)
        checkout(repository, place, destination, **options)


@pytest.mark.parametrize("steps_each", [1, 4, 1000])
def test_everything_comes_back(
    fsview: Fsview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_each: int
) -> None:
    """However the work is shared out: a few large subtrees each, some small ones at a time, every directory apart."""
    monkeypatch.setattr(tools.materialise, "_STEPS_EACH", steps_each)
    spec = dict(sample_tree())
    tree = build_tree(tmp_path / "tree", spec)
    if os.geteuid() == 0:
        os.removexattr(tree / "etc/noted", "user.empty")  # OSTree drops empty ones
    fsview("init", tmp_path / "repo")
    monkeypatch.setenv("FSVIEW_REPO", str(tmp_path / "repo"))
    fsview("commit", "-b", "main", tree)
    fsview("checkout", "main", tmp_path / "out")
    assert_same_tree(tree, tmp_path / "out", ignore=() if os.geteuid() == 0 else ("owner", "xattrs", "mode"))
    assert_sound(tmp_path / "repo")


def test_times_are_those_of_the_records(fsview: Fsview, tmp_path: Path) -> None:
    fsview("checkout", "rel", tmp_path / "out")
    rows = json.loads(fsview("ls", "-R", "--json", "rel").stdout)
    assert len(rows) > 10
    for row in rows:
        assert (tmp_path / f"out{row['path']}").lstat().st_mtime_ns == row["mtime_ns"], row["path"]


def test_zero_times(fsview: Fsview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsview("init", "--mtime=zero", tmp_path / "repo")
    monkeypatch.setenv("FSVIEW_REPO", str(tmp_path / "repo"))
    fsview("commit", "-b", "main", build_tree(tmp_path / "tree", LARGE_SPEC))
    fsview("checkout", "main", tmp_path / "out")
    assert {entry.mtime_ns for entry in snapshot(tmp_path / "out").values()} == {0}


def test_part_of_a_commit(fsview: Fsview, releases: Releases, tmp_path: Path) -> None:
    fsview("checkout", "rel^:/etc", tmp_path / "etc")
    assert_same_tree(releases.trees["old"] / "etc", tmp_path / "etc")
    fsview("checkout", "rel:/etc/motd", tmp_path / "motd")
    assert (tmp_path / "motd").read_bytes() == b"hello\nnew world\n"
    fsview("checkout", "rel:/link", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "bin/sh"


def test_json_counts_what_was_written(fsview: Fsview, releases: Releases, tmp_path: Path) -> None:
    found = json.loads(fsview("checkout", "--json", "--link=copy", "rel", tmp_path / "out").stdout)
    kinds = [entry.kind for entry in snapshot(releases.trees["new"]).values()]
    assert found["commit"] == releases.new and found["path"] == "/"
    assert (found["files"], found["directories"], found["symlinks"]) == tuple(
        kinds.count(kind) for kind in ("file", "directory", "symlink")
    )
    assert (found["copied"], found["hardlinked"], found["reflinked"]) == (found["files"], 0, 0)
    sizes = (entry.size for entry in snapshot(releases.trees["new"]).values() if entry.kind == "file")
    assert found["bytes"] == sum(sizes)


@pytest.mark.parametrize("kind", ["file", "directory", "dangling", "symlink to an empty directory"])
def test_a_destination_that_is_taken_stays_as_it_is(fsview: Fsview, tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()
    out: dict[str, Node] = {
        "file": b"mine",
        "directory": {"mine": b""},
        "dangling": Symlink("nowhere"),
        "symlink to an empty directory": Symlink(str(tmp_path / "empty")),
    }
    there = build_tree(tmp_path / "there", {"out": out[kind]})
    before = snapshot(there)
    for revision in ("rel", "rel:/etc/motd"):
        assert "exists already" in fsview("checkout", revision, there / "out", status=1).stderr
    assert_same_tree(before, there, mtimes=True)


def test_an_empty_directory_is_taken_over(fsview: Fsview, releases: Releases, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fsview("checkout", "rel", tmp_path / "out")
    assert_same_tree(releases.trees["new"], tmp_path / "out")


def test_without_a_parent_directory(fsview: Fsview, tmp_path: Path) -> None:
    assert f"mkdir -p {tmp_path / 'no'}" in fsview("checkout", "rel", tmp_path / "no" / "out", status=1).stderr


@needs_root
def test_hard_links_only_where_they_may_be(fsview: Fsview, large_repo: Path, tmp_path: Path) -> None:
    fsview("checkout", "-H", "main", tmp_path / "out")
    links = {path: (tmp_path / "out" / path).stat().st_nlink for path in ("usr/large", "usr/private", "usr/small")}
    assert links == {"usr/large": 2, "usr/private": 2, "usr/small": 1}
    assert [(tmp_path / "out" / path).stat().st_nlink for path in ("usr/empty", "etc/large", "var/large")] == [1, 1, 1]
    fsview("checkout", "-H", "main:/etc", tmp_path / "etc")
    assert (tmp_path / "etc/large").stat().st_nlink == 1
    for link in ("copy", "auto"):
        fsview("checkout", f"--link={link}", "main", tmp_path / link)
        assert_same_tree(tmp_path / link, tmp_path / "out", mtimes=True)
        assert (tmp_path / link / "usr/large").stat().st_nlink == 1


@needs_root
@pytest.mark.unchecked  # fsck tells that others may write it
def test_a_loose_file_with_other_attributes_is_not_linked(fsview: Fsview, large_repo: Path, tmp_path: Path) -> None:
    fsview("checkout", "--link=hardlink", "main", tmp_path / "first")
    (tmp_path / "first/usr/large").chmod(0o777)
    os.setxattr(tmp_path / "first/usr/private", "user.added", b"x")
    found = json.loads(fsview("checkout", "--link=hardlink", "--json", "main", tmp_path / "second").stdout)
    assert found["hardlinked"] == 0 and found["copied"] == 6
    assert_same_tree(tmp_path / "tree", tmp_path / "second")


@pytest.mark.unchecked
@needs_root
def test_a_write_through_a_hard_link_is_noticed(fsview: Fsview, large_repo: Path, tmp_path: Path) -> None:
    fsview("checkout", "--link=hardlink", "main", tmp_path / "first")
    with (tmp_path / "first/usr/large").open("r+b") as file:
        file.write(b"other")
    for link in Link:
        if link != Link.REFLINK:
            assert "damaged" in fsview("checkout", f"--link={link}", "main", tmp_path / "out", status=12).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "repo", "tree"]
    assert "main:/usr/large" in fsview("fsck", status=12).stdout.decode()


def test_links_that_are_impossible(fsview: Fsview, large_repo: Path, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == large_repo.stat().st_dev:
        pytest.skip("no second file system")
    target = elsewhere / f"fsview-test-{os.getpid()}-out"
    for link in ("hardlink", "reflink"):
        assert "impossible here" in fsview("checkout", f"--link={link}", "main", target, status=1).stderr
        assert not target.exists()
    try:
        fsview("checkout", "main", target)
        assert_same_tree(tmp_path / "tree", target)
    finally:
        shutil.rmtree(target)
    assert not list(elsewhere.glob(f".{target.name}*"))


def test_user_mode(fsview: Fsview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = build_tree(
        tmp_path / "tree", {"suid": File(b"x", mode=0o4755), "noted": File(b"y", xattrs={"user.k": b"v"})}
    )
    fsview("init", tmp_path / "repo")
    monkeypatch.setenv("FSVIEW_REPO", str(tmp_path / "repo"))
    fsview("commit", "-b", "main", "--owner-uid=12345", tree)
    assert "not root" not in fsview("checkout", "-U", "main", tmp_path / "out").stderr
    assert stat.S_IMODE((tmp_path / "out/suid").stat().st_mode) == 0o755
    assert (tmp_path / "out/suid").stat().st_uid == os.geteuid()
    assert os.listxattr(tmp_path / "out/noted") == []


@needs_root
def test_who_is_not_root_is_told_what_is_left_out(nobodys: Path) -> None:
    tree = build_tree(nobodys / "tree", {"suid": File(b"x", mode=0o4755)})
    repository = ("--repo", nobodys / "repo")
    run_as_nobody(nobodys, "init", nobodys / "repo")
    run_as_nobody(nobodys, "commit", *repository, "-b", "main", tree)
    said = run_as_nobody(nobodys, "checkout", *repository, "main", nobodys / "written")
    assert (said.status, said.stderr.count("not root")) == (0, 1), said.stderr
    assert stat.S_IMODE((nobodys / "written/suid").stat().st_mode) == 0o755


def test_interrupted_nothing_is_left(fsview: Fsview, releases: Releases, tmp_path: Path) -> None:
    def interrupt(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _check_out(releases.repo, "rel", tmp_path / "there" / ".." / "out", advance=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_killed_nothing_has_the_name(releases: Releases, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        _check_out(releases.repo, "rel", tmp_path / "out", advance=lambda step: os.kill(os.getpid(), signal.SIGKILL))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name.startswith(".out.fsview-") for path in tmp_path.iterdir()] == [True]
    _check_out(releases.repo, "rel", tmp_path / "out")
    assert_same_tree(releases.trees["new"], tmp_path / "out")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system with 64 KiB and 20 inodes."""
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=20", "none", point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


@needs_root
@pytest.mark.parametrize("revision, text", [("main", "No space left"), ("many", "free inodes")])
def test_a_full_disk(
    fsview: Fsview, large_repo: Path, small_disk: Path, tmp_path: Path, revision: str, text: str
) -> None:
    fsview("commit", "-b", "many", build_tree(tmp_path / "many", {str(number): b"" for number in range(30)}))
    error = fsview("checkout", revision, small_disk / "out", status=1).stderr
    assert text in error and str(small_disk / "out") in error
    assert list(small_disk.iterdir()) == []


@pytest.fixture
def reflink_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system with reflinks."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("no mkfs.xfs")
    image, point = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    point.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, point], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no loop devices here")
    yield point
    subprocess.run(["umount", point], check=True)


@needs_root
@pytest.mark.parametrize("link", ["auto", "reflink"])
def test_reflinks(fsview: Fsview, reflink_disk: Path, tmp_path: Path, link: str) -> None:
    repo = reflink_disk / "repo"
    fsview("init", repo)
    fsview("commit", "--repo", repo, "-b", "main", build_tree(tmp_path / "tree", LARGE_SPEC))
    options = ("--repo", repo, f"--link={link}", "--json", "main")
    found = json.loads(fsview("checkout", *options, reflink_disk / "out").stdout)
    assert (found["reflinked"], found["hardlinked"], found["copied"]) == (4, 0, 2)
    assert_same_tree(tmp_path / "tree", reflink_disk / "out")
    (reflink_disk / "out/usr/large").write_bytes(b"changed")
    assert_sound(repo)
    if link == "auto":
        found = json.loads(fsview("checkout", *options, tmp_path / "elsewhere").stdout)
        assert found["reflinked"] == found["hardlinked"] == 0


def test_deeper_than_any_path(tmp_path: Path, fsview: Fsview) -> None:
    fsview("init", tmp_path / "repo")
    with Repository.open(tmp_path / "repo") as repository, Writer(repository) as writer:
        meta = writer.add_meta(DirMeta(os.geteuid(), os.getegid(), 0o40755))
        tree = DirTree((), ())
        for _ in range(1500):
            writer.add_tree(StagedTree(tree.checksum, 0, tree.to_bytes()))
            tree = DirTree((), ((b"long name" * 2, tree.checksum, meta),))
        writer.add_tree(StagedTree(tree.checksum, 0, tree.to_bytes()))
        _publish(writer, tree, meta)
    _check_out(tmp_path / "repo", "deep", tmp_path / "out")
    found = subprocess.run(["find", tmp_path / "out"], capture_output=True, check=True)
    assert found.stdout.count(b"\n") == 1501
    with pytest.raises(RuntimeError):
        _check_out(tmp_path / "repo", "deep", tmp_path / "again", advance=_fail_at(1200))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "repo"]
    subprocess.run(["rm", "-rf", tmp_path / "out"], check=True)


def _publish(writer: Writer, tree: DirTree, meta: bytes) -> None:
    from store.objects import Checksum, Commit

    commit = Commit((), None, "deep", "", 0, tree.checksum, Checksum(meta))
    writer.publish(lambda reading: commit, ref="deep", time_s=0, message="deep")


def _fail_at(steps: int) -> object:
    left = steps

    def advance(step: int) -> None:
        nonlocal left
        left -= step
        if left < 0:
            raise RuntimeError

    return advance


@pytest.mark.unchecked
@pytest.mark.parametrize("name", [b"../evil", b"..", b"", b"/evil"])
def test_a_listing_that_somebody_made_to_escape(own_releases: Releases, tmp_path: Path, name: bytes) -> None:
    with Repository.open(own_releases.repo) as repository:
        with repository.database.reading() as reading:
            tree_id = TreeId(find_place(reading, "rel", now_s=0).entry.id)
            listing = load_listing(reading, tree_id)
            value = reading.need(b"listing", id_key(tree_id))
        first = listing.names[0]
        forged = value.replace(b"\0".join(listing.names), b"\0".join([name, *listing.names[1:]]))
        assert first != name and forged != value
        repository.database.write(lambda writing: writing.put(b"listing", id_key(tree_id), forged))
    (tmp_path / "here").mkdir()
    with pytest.raises(CorruptionError, match="names of files"):
        _check_out(own_releases.repo, "rel", tmp_path / "here/out")
    assert list((tmp_path / "here").iterdir()) == [] and not (tmp_path / "evil").exists()


def test_an_owner_that_no_file_can_have(fsview: Fsview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsview("init", tmp_path / "repo")
    monkeypatch.setenv("FSVIEW_REPO", str(tmp_path / "repo"))
    fsview("commit", "-b", "main", f"--owner-uid={2**32 - 1}", build_tree(tmp_path / "tree", {"f": b"x"}))
    with pytest.raises(FsviewError, match="--user-mode"):
        _check_out(tmp_path / "repo", "main", tmp_path / "out")
    fsview("checkout", "-U", "main", tmp_path / "out")


def test_the_debian_tree(debian_tree: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    run_fsview("init", tmp_path / "repo")
    run_fsview("commit", "--repo", tmp_path / "repo", "-b", "debian", debian_tree)
    for link in ("auto", "copy"):
        run_fsview("checkout", "--repo", tmp_path / "repo", f"--link={link}", "debian", tmp_path / link)
        assert_same_tree(debian_tree, tmp_path / link)
    assert_sound(tmp_path / "repo")
