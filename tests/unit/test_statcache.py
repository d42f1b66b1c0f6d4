"""The stat cache: an unchanged file is not read again, a changed one always is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import tools.make_commit
from fsview import mountinfo
from store.database import Writing
from store.repository import Repository
from store.statcache import RACY_NS, STAT, StatRecord, is_racy, pack_stat, stat_key
from tests.checking import assert_sound
from tests.committing import TIME_S, commit_tree
from tests.conftest import MountView
from tests.marks import needs_root
from tests.running import RunFsview, clean_environment
from tests.trees import Directory, File, Spec, Symlink, build_tree, supports_xattrs
from tools import disk_source, hashing
from tools.make_commit import Message
from tools.patterns import compile_patterns
from tools.recipe import Recipe
from tools.sources import DiskOptions

SPEC: Spec = {
    "a": b"a",
    "big": bytes(range(256)) * 100,
    "d": {"b": b"b", "e": {"c": b"c", "l": Symlink("c")}, "empty": {}},
    "twin": {"b": b"b"},
}
FILES = {"a", "big", "d/b", "d/e/c", "d/e/l", "twin/b"}


class Lab:
    """A repository, a tree, and an eye on which of its files are read; commits are made some time after any change."""

    def __init__(self, repository: Repository, tree: Path) -> None:
        self.repository, self.tree = repository, tree
        self.read: set[str] = set()
        self.stopped_ns: int | None = None  # where the clock stands, if it does

    def now_ns(self) -> int:
        """Return what the clock shows to commits."""
        return time.time_ns() + RACY_NS + 10**8 if self.stopped_ns is None else self.stopped_ns

    def commit(self, **options: object) -> str:
        """Commit the tree and return the checksum; `read` has the files that were opened for it."""
        self.read.clear()
        message = Message(None, "a tree", timestamp_s=TIME_S, bindings=False)
        chosen = DiskOptions(**options)  # type: ignore[arg-type]
        return commit_tree(self.repository, self.tree, message=message, options=chosen).checksum.hex()

    def check(self, **options: object) -> set[str]:
        """Commit, with and without the cache, which must agree; return what was read for the first."""
        cached = self.commit(**options)
        read = set(self.read)
        assert self.commit(stat_cache=False, **options) == cached
        return read


def path_of(directory: int, wanted: hashing.Wanted) -> str:
    """Return where a file is that a process was told to read."""
    return os.path.join(os.readlink(f"/proc/self/fd/{directory}"), os.fsdecode(wanted.name))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Return a laboratory with SPEC in the tree, committed once."""
    with Repository.create(tmp_path / "repo") as repository:
        lab = Lab(repository, build_tree(tmp_path / "tree", SPEC))
        real = hashing._Worker._hash

        def watched(self: hashing._Worker, here: int, wanted: hashing.Wanted) -> hashing.Hashed:
            lab.read.add(os.path.relpath(path_of(here, wanted), lab.tree))
            return real(self, here, wanted)

        monkeypatch.setattr(hashing._Worker, "_hash", watched)
        monkeypatch.setattr(tools.make_commit, "time", SimpleNamespace(time=time.time, time_ns=lab.now_ns))
        lab.commit()
        assert lab.read == FILES
        yield lab
    assert_sound(tmp_path / "repo")


def test_an_unchanged_tree_is_not_read(lab: Lab) -> None:
    assert lab.check() == set()
    with lab.repository.database.reading() as reading:
        assert reading.count(b"commit") == 1 and reading.count(b"stat") == 5


def test_without_it_everything_is_read(lab: Lab) -> None:
    lab.commit(stat_cache=False)
    assert lab.read == FILES


def test_an_unchanged_tree_is_not_opened(run_fsview: RunFsview, make_repo: object, tmp_path: Path) -> None:
    """The same as the kernel sees it."""
    tree, repo = build_tree(tmp_path / "tree", SPEC), tmp_path / "repo"
    run_fsview("init", repo)
    time.sleep(RACY_NS / 10**9 + 0.1)
    run_fsview("commit", "-b", "main", tree, repo=repo)
    commit: list[str | Path] = [sys.executable, "-P", "-m", "tools", "commit", "--repo", repo, "-b", "main", tree]
    trace: list[str | Path] = ["strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", tmp_path / "trace"]
    subprocess.run([*trace, *commit], env=clean_environment(tmp_path), check=True, capture_output=True)
    opened = set(re.findall(r'"(?:[^"]*/)?([^"/]*)", ', (tmp_path / "trace").read_text()))
    assert {"d", "e", "twin"} <= opened and opened.isdisjoint(os.path.basename(path) for path in FILES)


def _swap(one: Path, two: Path) -> None:
    spare = one.with_name("spare")
    for source, target in ((one, spare), (two, one), (spare, two)):
        source.rename(target)


def _replace_by_copy(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def _again(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


def _touch_all(tree: Path) -> None:
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path)


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "contents": (lambda tree: (tree / "d/b").write_bytes(b"B"), {"d/b"}),
    "size": (lambda tree: (tree / "d/b").write_bytes(b"bb"), {"d/b"}),
    "mode": (lambda tree: (tree / "a").chmod(0o600), {"a"}),
    "mode of a directory": (lambda tree: (tree / "d/e").chmod(0o700), set()),
    "mode of the root": (lambda tree: tree.chmod(0o700), set()),
    "a new file": (lambda tree: (tree / "d/new").write_bytes(b"new"), {"d/new"}),
    "a new directory": (lambda tree: (tree / "d/new").mkdir(), set()),
    "a file less": (lambda tree: (tree / "d/b").unlink(), set()),
    "a directory less": (lambda tree: shutil.rmtree(tree / "d/e"), set()),
    "an empty directory less": (lambda tree: (tree / "d/empty").rmdir(), set()),
    "a renamed file": (lambda tree: (tree / "a").rename(tree / "z"), {"z"}),
    "a file moved elsewhere": (lambda tree: (tree / "a").rename(tree / "d/e/z"), {"d/e/z"}),
    "a renamed directory": (lambda tree: (tree / "d").rename(tree / "z"), {"z/b", "z/e/c", "z/e/l"}),
    "two directories swapped": (
        lambda tree: _swap(tree / "d", tree / "twin"),
        {"d/b", "twin/b", "twin/e/c", "twin/e/l"},
    ),
    "two files swapped": (lambda tree: _swap(tree / "a", tree / "big"), {"a", "big"}),
    "a file replaced by its equal": (lambda tree: _replace_by_copy(tree / "a"), {"a"}),
    "deleted and made again": (lambda tree: _again(tree / "a", lambda path: path.write_bytes(b"A")), {"a"}),
    "a directory replaced by a file": (lambda tree: _again(tree / "d", Path.touch), {"d"}),
    "a file replaced by a directory": (lambda tree: _again(tree / "a", Path.mkdir), set()),
    "a file replaced by a symlink": (lambda tree: _again(tree / "a", lambda path: path.symlink_to("a")), {"a"}),
    "another target": (lambda tree: _again(tree / "d/e/l", lambda path: path.symlink_to("d")), {"d/e/l"}),
    "a hard link more": (lambda tree: os.link(tree / "a", tree / "d/z"), {"a", "d/z"}),
    "only a time": (lambda tree: os.utime(tree / "a", ns=(1, 1)), {"a"}),
    "everything": (_touch_all, FILES - {"d/e/l"}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_is_read_and_nothing_else(lab: Lab, what: str) -> None:
    change, expected = CHANGES[what]
    time.sleep(0.02)  # the kernel counts times in ticks: a change within one leaves no trace but that it is so young
    change(lab.tree)
    assert lab.check() == expected
    assert lab.check() == set()


@pytest.mark.parametrize("name", ["a", "d/e"])
def test_a_changed_xattr_is_seen(lab: Lab, name: str) -> None:
    if not supports_xattrs(lab.tree):
        pytest.skip("no xattrs on this file system")
    first = lab.commit()
    for value in (b"1", b"2", b""):
        os.setxattr(lab.tree / name, "user.note", value)
        assert lab.check() == ({"a"} if name == "a" else set())
        assert lab.commit() != first or value == b""


@needs_root
def test_another_owner_is_seen(lab: Lab) -> None:
    for name, owner in (("a", (1, 0)), ("a", (1, 2)), ("d/e", (3, 4)), ("d/e/l", (5, 6))):
        before = lab.commit()
        os.chown(lab.tree / name, *owner, follow_symlinks=False)
        lab.check()
        assert lab.commit() != before


OPTIONS = {
    "canonical": {"recipe": Recipe(canonical=True)},
    "owner": {"recipe": Recipe(owner_uid=5)},
    "group": {"recipe": Recipe(owner_gid=5)},
    "no xattrs": {"recipe": Recipe(xattrs=False)},
}


@pytest.mark.parametrize("what", OPTIONS)
def test_other_options_are_another_cache(lab: Lab, what: str) -> None:
    assert lab.check(**OPTIONS[what]) == FILES
    assert lab.check(**OPTIONS[what]) == set() == lab.check()


def test_what_is_left_out_is_not_remembered_as_absent(lab: Lab) -> None:
    skips = {"is_skipped": compile_patterns(["/d/e", "/a"])}
    whole = lab.commit()
    assert lab.check(**skips) == set()
    assert lab.check(**skips) == set()
    assert lab.check() <= {"a"} and lab.commit() == whole


def test_ignore_files_come_and_go(lab: Lab) -> None:
    whole = lab.commit()
    (lab.tree / "d/.fsviewignore").write_text("c\n")
    lab.check(ignore_files=True)
    (lab.tree / "d/.fsviewignore").write_text("b\n")
    assert lab.check(ignore_files=True) <= {"d/.fsviewignore", "d/e/c"}
    (lab.tree / "d/.fsviewignore").unlink()
    lab.check(ignore_files=True)
    assert lab.commit() == whole


def test_it_is_for_one_place(lab: Lab, tmp_path: Path) -> None:
    first = lab.commit()
    lab.tree = lab.tree.rename(tmp_path / "elsewhere")
    assert lab.check() == FILES and lab.commit() == first
    (tmp_path / "tree").symlink_to(lab.tree)
    lab.tree = tmp_path / "tree"  # the same place, by another name
    assert lab.check() == set()


def test_it_may_be_lost(lab: Lab) -> None:
    with lab.repository.database.reading() as reading:
        keys = [key for key, _ in reading.items(b"stat")]

    def lose(writing: Writing) -> None:
        for key in keys[::2]:
            writing.delete(b"stat", key)

    lab.repository.database.write(lose)
    assert lab.check() < FILES


# What has just been written


@pytest.fixture
def young_lab(lab: Lab) -> Lab:
    """Return a laboratory whose commits are made when its files are, however long that takes: its clock stands."""
    lab.stopped_ns = (lab.tree / "big").stat().st_ctime_ns
    return lab


def test_what_was_just_written_is_read_again(young_lab: Lab) -> None:
    (young_lab.tree / "a").write_bytes(b"young")
    young_lab.commit()
    for _ in range(2):
        young_lab.commit()
        assert young_lab.read == {"a", "big"}  # its neighbour, too: it is as young, and the directory was scanned anew
    young_lab.stopped_ns = (young_lab.tree / "a").stat().st_ctime_ns + RACY_NS
    young_lab.commit()
    assert young_lab.read == {"a", "big"}
    young_lab.commit()
    assert young_lab.read == set()


def test_a_file_rewritten_at_once_with_its_old_time(young_lab: Lab) -> None:
    path = young_lab.tree / "a"
    seen = set()
    for number in range(40):
        path.write_bytes(b"%02d" % number)
        os.utime(path, ns=(10**18, 10**18))
        seen.add(young_lab.commit())
    assert len(seen) == 40


def test_a_file_system_with_coarse_times(young_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times in steps of two seconds, as FAT has them: two versions then have the same eight numbers."""
    assert young_lab.stopped_ns is not None
    step_ns = young_lab.stopped_ns
    young_lab.stopped_ns += RACY_NS - 1  # the end of the step; all that is written here is from its beginning

    def coarse(status: os.stat_result) -> bytes:
        *fields, ctime_ns = STAT.unpack(pack_stat(status))
        return STAT.pack(*fields, min(ctime_ns, step_ns))

    for module in (disk_source, hashing):
        monkeypatch.setattr(module, "pack_stat", coarse)
    path = young_lab.tree / "a"
    checksums, stats = set(), set()
    for number in range(5):
        path.write_bytes(b"%d" % number)
        os.utime(path, ns=(10**18, 10**18))
        stats.add(coarse(path.stat()))
        checksums.add(young_lab.commit())
    assert len(checksums) == 5 and len(stats) == 1


def test_a_file_written_after_it_was_read_in_this_scan(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes after it was read, but before the commit ends, is younger than the scan: it is not remembered."""
    monkeypatch.setattr(tools.make_commit, "time", time)
    real = hashing._Worker._hash

    def then_write(self: hashing._Worker, here: int, wanted: hashing.Wanted) -> hashing.Hashed:
        hashed = real(self, here, wanted)
        if wanted.name == b"a":
            (lab.tree / "a").write_bytes(b"x")
            os.utime(lab.tree / "a", ns=(10**18, 10**18))
        return hashed

    with monkeypatch.context() as patch:
        patch.setattr(hashing._Worker, "_hash", then_write)
        os.utime(lab.tree / "a")
        lab.commit()
    assert "a" in lab.check()


def test_each_of_the_eight_numbers_matters() -> None:
    names = ["st_dev", "st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns"]
    numbers = dict.fromkeys(names, 7)
    packed = pack_stat(SimpleNamespace(**numbers))  # type: ignore[arg-type]
    for name in names:
        assert pack_stat(SimpleNamespace(**numbers | {name: 8})) != packed  # type: ignore[arg-type]
    assert STAT.unpack(packed) == (7,) * 8


def test_times_of_any_size_fit() -> None:
    status = SimpleNamespace(
        st_dev=2**64 - 1, st_ino=2**64 - 1, st_mode=0o107777, st_uid=2**32 - 1, st_gid=0, st_size=2**63,
        st_mtime_ns=10**22, st_ctime_ns=-1,
    )  # fmt: skip
    assert is_racy(pack_stat(status), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("age_ns", "racy"), [(0, True), (RACY_NS - 1, True), (RACY_NS, False), (-5 * 10**9, True)])
def test_what_is_young(age_ns: int, racy: bool) -> None:
    scan_ns = 10**18
    assert is_racy(STAT.pack(1, 1, 1, 1, 1, 1, 1, scan_ns - age_ns), scan_ns) == racy


def test_a_record_survives() -> None:
    for names in ((), (b"a",), (b"a", b"b\n", b"\xff")):
        stats, ids = bytes(range(STAT.size)) * len(names), bytes(range(16)) * len(names)
        record = StatRecord(5, names, stats, ids)
        assert StatRecord.unpack(record.pack()) == record


def test_keys_differ_by_directory_and_options() -> None:
    keys = {stat_key(*pair) for pair in [(b"/a", b""), (b"/a", b"x"), (b"/ax", b""), (b"/", b"a\0x"), (b"/b", b"")]}
    assert len(keys) == 5 and {len(key) for key in keys} == {16}


# File systems that can't be trusted


@pytest.mark.parametrize("kind", ["fuse", "fuse.sshfs", "fuseblk", "nfs4", "cifs", "9p", "ceph", "virtiofs"])
def test_not_on_fuse_and_network_file_systems(lab: Lab, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = mountinfo._all_mounts()
    with monkeypatch.context() as patch:
        patch.setattr(mountinfo, "_all_mounts", lambda: [mount._replace(kind=kind) for mount in real])
        lab.commit()
    assert lab.read == FILES
    lab.commit()
    assert lab.read == set()


def test_a_view_is_read_whole(run_fsview: RunFsview, make_repo: object, mount_view: MountView, tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "tree", {**SPEC, "closed": Directory({"f": File(b"f", mode=0o600)}, mode=0o2755)})
    source, copy = tmp_path / "source", tmp_path / "copy"
    for repo in (source, copy):
        run_fsview("init", repo)
    options = ("--timestamp=@1", "-b", "main")
    first = run_fsview("commit", *options, tree, repo=source).stdout
    view = mount_view(source)
    assert run_fsview("commit", *options, view / "refs/main", repo=copy).stdout == first
    with Repository.open(copy) as repository, repository.database.reading() as reading:
        assert reading.count(b"stat") == 0
    assert_sound(copy)
