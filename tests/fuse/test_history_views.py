"""history/, by-date/, info/, remotes/, versions/ and .fsview/ in a real mount, seen with the tools that people have."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from store.database import Writing
from store.gvariant import Variant
from store.objects import Checksum, pack_detached
from store.refs import set_ref
from store.repository import Repository
from store.schema import CommitNumber, id_key
from store.tree import commit_number
from tests.conftest import MountView
from tests.forge import Forge, forge
from tests.fuse.conftest import run
from tests.leaks import LeakGuard
from tests.marks import HAS_FUSE, NO_FUSE
from tests.running import RunFsview, run_cli

DAY_S = 1_763_892_900  # 2025-11-23T10:15:00Z
VIEWS = (".fsview", "by-date", "commits", "history", "info", "refs", "remotes", "versions")
LARGE = b"0123456789abcdef" * 20_000


@dataclass
class Lived:
    """A repository with a history, mounted."""

    repository: Repository
    point: Path
    checksums: list[str]

    def commit(self, build: Callable[[Forge], Checksum], ref: str = "a/main", time_s: int = DAY_S) -> str:
        """Make a commit on top of the last one."""
        with forge(self.repository) as work:
            parent = Checksum(bytes.fromhex(self.checksums[-1])) if self.checksums else None
            made = work.publish(build(work), ref, time_s=time_s, parent=parent, message=(f"on {ref}", "body"))
        self.checksums.append(made.hex())
        return made.hex()

    def point_at(self, ref: str, index: int | None) -> None:
        """Point a ref at a commit, or delete it."""
        number = None if index is None else self.number(index)
        self.repository.database.write(lambda writing: set_ref(writing, ref, number, time_s=0, message=""))

    def point_many(self, refs: dict[str, int | None]) -> None:
        """Point refs at commits, or delete them, and don't wait until everybody sees it."""
        numbers = {ref: None if index is None else self.number(index) for ref, index in refs.items()}

        def body(writing: Writing) -> None:
            for ref, number in numbers.items():
                set_ref(writing, ref, number, time_s=0, message="")
            writing.settle_s = 0

        self.repository.database.write(body)

    def number(self, index: int) -> CommitNumber:
        """Return the number of a commit."""
        with self.repository.database.reading() as reading:
            number = commit_number(reading, Checksum(bytes.fromhex(self.checksums[index])))
        assert number is not None
        return number


@pytest.fixture
def lived(tmp_path: Path, mount_view: MountView) -> Iterator[Lived]:
    """Return a repository of this test's own."""
    with _lived(tmp_path / "repo") as made:
        made.point = mount_view(tmp_path / "repo")
        yield made


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, _run_guard: LeakGuard) -> Iterator[Lived]:
    """Return one that nobody changes."""
    if not HAS_FUSE:
        pytest.skip(NO_FUSE)
    home = tmp_path_factory.mktemp("views")
    with _lived(home / "repo") as made:
        made.point = home / "mnt"
        made.point.mkdir()
        run_cli(home, "mount", home / "repo", made.point)
        try:
            yield made
        finally:
            run_cli(home, "umount", made.point)


@contextmanager
def _lived(path: Path) -> Iterator[Lived]:
    with Repository.create(path) as repository:
        made = Lived(repository, Path(), [])
        for number, content in enumerate((b"one\n", b"two\n", LARGE)):
            made.commit(partial(_tree, content=content, number=number), time_s=DAY_S + 3600 * number)
        made.point_at("origin:b/main", 1)
        yield made


def _numbered(work: Forge, number: int) -> Checksum:
    return work.tree({b"n": work.file(b"%d" % number)})


def _tree(work: Forge, content: bytes, number: int) -> Checksum:
    etc = {b"f": work.file(content), b"same": work.file(b"same\n"), b"l": work.symlink(b"f")}
    if number < 2:
        etc[b"gone"] = work.file(b"gone %d\n" % number)
    return work.tree({b"top": work.file(b"top\n")}, {b"etc": work.tree(etc)})


def test_find_and_ls_go_through_everything(settled: Lived) -> None:
    assert sorted(os.listdir(settled.point)) == list(VIEWS)
    found = run("find", settled.point, "-ls").splitlines()
    assert len(found) > 80
    listed = run("ls", "-laR", settled.point)
    assert all(f"{settled.point}/{view}:" in listed for view in VIEWS)
    versions = f"{settled.point}/versions/a/main/"
    assert (
        len(run("find", versions).splitlines()) == 12
    )  # four directories of one, one of three versions, and what holds them
    ids = run("find", settled.point, versions, "-type", "d", "-printf", "%i\n").splitlines()
    assert len(ids) == len(set(ids))


def test_history_and_by_date_sort_by_time(settled: Lived) -> None:
    names = [f"2025-11-23T1{number}1500Z-{settled.checksums[number][:8]}" for number in range(3)]
    assert run("ls", settled.point / "history/a/main").split() == names
    assert run("ls", settled.point / "by-date/2025/11/23").split() == names
    for directory in ("history/a/main", "by-date/2025/11/23"):
        assert (settled.point / directory / names[1] / "etc/f").read_bytes() == b"two\n"
    run("diff", "-r", *(f"{settled.point}/history/a/main/{name}/" for name in names[:2]), status=1)


def test_info_is_read_by_cat_grep_and_tar(settled: Lived, tmp_path: Path) -> None:
    info = settled.point / "info" / settled.checksums[1]
    assert run("cat", info / "subject", info / "timestamp") == "on a/main\n2025-11-23T11:15:00Z\n"
    assert (info / "parent/parent").exists() is False and (info / "parent/subject").read_text() == "on a/main\n"
    assert (info / "tree/etc/f").read_bytes() == b"two\n"
    assert json.loads((info / "commit.json").read_text())["refs"] == ["origin:b/main"]
    assert len(run("grep", "-rl", "on a/main", settled.point / "info").splitlines()) == 9  # commit.json, object
    run("tar", "cf", tmp_path / "a.tar", "-C", settled.point, "info", "history", "by-date", "remotes", "refs")
    run("tar", "xf", tmp_path / "a.tar", "-C", tmp_path)
    run("diff", "-r", "--no-dereference", settled.point / "info", tmp_path / "info")
    run("cp", "-a", settled.point / "info", tmp_path / "copy")
    assert (tmp_path / "copy" / settled.checksums[0] / "body").read_text() == "body\n"


def test_what_may_change_in_info_is_seen_at_once(lived: Lived) -> None:
    info = lived.point / "info" / lived.checksums[1]
    for number in range(10):
        lived.point_at("x" * (number + 1), 1)
        expected = sorted(["origin:b/main", *("x" * (n + 1) for n in range(number + 1))])
        assert (info / "refs").read_text().split() == expected
        assert os.stat(info / "refs").st_size == len("".join(f"{name}\n" for name in expected))
        assert json.loads((info / "commit.json").read_bytes())["refs"] == expected
    signatures = pack_detached((("ostree.gpgsigs", Variant("aay", [b"\1\2"])),))
    number = lived.number(1)
    assert (info / "signatures").read_text() == ""
    lived.repository.database.write(lambda writing: writing.put(b"detached", id_key(number), signatures))
    time.sleep(0.05)  # a signature is no ref: who adds one does not wait until nobody believes the old state
    assert (info / "signatures").read_text() == "ostree.gpgsigs 0102\n"


def test_versions_of_a_file(settled: Lived) -> None:
    file = settled.point / "versions/a/main/etc/f"
    names = [f"2025-11-23T1{number}1500Z-{settled.checksums[number][:8]}" for number in range(3)]
    assert sorted(os.listdir(file)) == names
    assert [(file / name).read_bytes() for name in names] == [b"one\n", b"two\n", LARGE]
    assert "-one" in run("diff", "-u", file / names[0], file / names[1], status=1)
    there = os.stat(settled.point / "commits" / settled.checksums[1] / "etc/f")
    assert os.path.samestat(os.stat(file / names[1]), there)
    assert run("grep", "-rl", "same", settled.point / "versions/a/main/etc/").split() == [
        f"{settled.point}/versions/a/main/etc/same/{names[0]}"
    ]
    link = settled.point / "versions/a/main/etc/l" / names[0]
    assert os.readlink(link) == "f"


def test_a_file_that_is_gone_has_versions(settled: Lived) -> None:
    etc = settled.point / "versions/a/main/etc"
    assert sorted(os.listdir(etc)) == ["f", "l", "same"]
    assert os.readlink(etc / "gone") == f"../../{settled.checksums[1]}/etc/gone"
    contents = [(etc / "gone" / name).read_text() for name in sorted(os.listdir(etc / "gone"))]
    assert contents == ["gone 0\n", "gone 1\n"]
    assert run("ls", f"{etc}/gone/") == run("ls", settled.point / "versions/a/main^/etc/gone")
    assert not os.path.lexists(etc / "never")


def test_names_complete(settled: Lived) -> None:
    def complete(start: str) -> list[str]:
        return run("bash", "-c", f"compgen -f '{settled.point}/{start}'").replace(f"{settled.point}/", "").split()

    assert complete("hist") == ["history"] and complete("history/a/m") == ["history/a/main"]
    assert len(complete("history/a/main/2025-11-23T1")) == 3
    assert complete("by-date/2") == ["by-date/2025"]
    assert complete("versions/a/main/etc/s") == ["versions/a/main/etc/same"]
    assert complete(f"info/{settled.checksums[0]}/sub") == [f"info/{settled.checksums[0]}/subject"]


def test_new_commits_and_moved_refs_show_at_once_in_every_view(lived: Lived) -> None:
    point = lived.point
    for number in range(1, 4):
        time_s = DAY_S + 86400 * number
        made = lived.commit(partial(_numbered, number=number), time_s=time_s)
        name = f"2025-11-{23 + number}T101500Z-{made[:8]}"
        assert (point / "history/a/main" / name / "n").read_text() == str(number)
        assert os.listdir(point / f"by-date/2025/11/{23 + number}") == [name]
        assert (point / "info" / made / "refs").read_text() == "a/main\n"
        assert os.listdir(point / "versions/a/main/n")[-1] == name
        lived.point_at("origin:new/ref", -1)
        assert os.readlink(point / "remotes/origin/new/ref") == f"../../../commits/{made}"
    lived.point_at("a/main", 0)
    assert len(os.listdir(point / "history/a/main")) == 1
    assert os.readlink(point / "versions/a/main") == f"../{lived.checksums[0]}"
    lived.point_at("a/main", None)
    assert os.listdir(point / "history") == os.listdir(point / "versions") == []
    for ref in ("origin:new/ref", "origin:b/main"):
        lived.point_at(ref, None)
    assert os.listdir(point / "remotes") == []


@pytest.mark.parametrize("view", ["refs", "history", "versions", "remotes/far"])
def test_reading_a_directory_while_refs_come_and_go(lived: Lived, view: str) -> None:
    """What is there all the time is seen once, whatever happens around it."""
    prefix = "far:" if view.startswith("remotes") else ""
    long = "x" * 200
    lived.point_many({f"{prefix}{'keep' if n % 2 else 'go'}-{n:03}-{long}": 0 for n in range(120)})
    with os.scandir(lived.point / view) as entries:
        seen = [next(entries).name for _ in range(5)]
        for number in range(0, 120, 2):
            lived.point_many({f"{prefix}go-{number:03}-{long}": None, f"{prefix}come-{number:03}": 0})
        seen += [entry.name for entry in entries]
    assert sorted(name for name in seen if name.startswith("keep")) == [
        f"keep-{number:03}-{long}" for number in range(1, 120, 2)
    ]
    assert len(seen) == len(set(seen))


def test_forged_names(lived: Lived) -> None:
    for ref in ("commits", "history", "versions/x", "fsview", "by-date/2025/11/23", "info/subject"):
        lived.point_at(ref, 0)
    assert os.readlink(lived.point / "refs/commits") == f"../commits/{lived.checksums[0]}"
    assert len(os.listdir(lived.point / "history/by-date/2025/11/23")) == 1
    names = (b"\xff", b"x" * 255, b"a\nb", b"...", b" ", b"@{", b"^" * 255, b"main@{0}^^^", b":", b"a:b", b"~" * 9)
    directories = [
        lived.point / below
        for below in (*VIEWS, "history/a", "history/a/main", "by-date/2025", "by-date/2025/11/23", "remotes/origin",
                      f"info/{lived.checksums[0]}", f"info/{lived.checksums[0]}/metadata", "versions/a/main/etc",
                      "versions/a/main/etc/f", "versions/a")
    ]  # fmt: skip
    for directory in directories:
        for name in names:
            assert not os.path.lexists(os.path.join(os.fsencode(directory), name)), (directory, name)
        assert not os.path.lexists(directory / ("x" * 256))


def test_status(settled: Lived) -> None:
    status = settled.point / ".fsview"
    assert sorted(os.listdir(status)) == ["metrics", "repository", "stats.json", "version"]
    assert all((status / name).stat().st_mtime <= time.time() for name in os.listdir(status))
    assert (status / "repository").read_text() == f"{settled.repository.path}\n"
    assert json.loads((status / "stats.json").read_text())["repository"] == str(settled.repository.path)
    before, after = (
        next(line for line in (status / "metrics").read_text().splitlines() if 'requests_total{kind="lookup"}' in line)
        for _ in range(2)
        if not os.path.lexists(status / "nothing")
    )
    assert int(after.split()[1]) > int(before.split()[1])


def test_nothing_below_a_commits_versions_is_asked_twice(settled: Lived) -> None:
    """Names of its tree are the kernel's for good."""
    etc = f"{settled.point}/versions/{settled.checksums[2]}/etc"
    run("ls", "-l", etc)

    def lookups() -> int:
        stats = json.loads((settled.point / ".fsview/stats.json").read_text())
        return int(stats["requests"]["lookup"])

    before = lookups()
    with os.scandir(f"{etc}/f"), os.scandir(f"{etc}/same"):  # so that the kernel doesn't forget them
        for _ in range(50):
            os.stat(f"{etc}/f"), os.stat(f"{etc}/same")
    assert lookups() - before < 10


def test_the_view_of_a_tool_that_follows_symlinks(settled: Lived) -> None:
    directories = [settled.point / view for view in ("history", "refs")]
    assert len(run("find", "-L", *directories, "-type", "f", "-name", "f").splitlines()) == 4


def test_a_pruned_commit_is_gone_from_every_view(lived: Lived, run_fsview: RunFsview) -> None:
    point, gone = lived.point, lived.checksums[0]
    looked = [
        point / "history/a/main" / f"2025-11-23T101500Z-{gone[:8]}",
        point / "by-date/2025/11/23" / f"2025-11-23T101500Z-{gone[:8]}",
        point / "info" / gone / "subject",
        point / "versions" / gone / "etc/gone",
        point / "versions/a/main/etc/f" / f"2025-11-23T101500Z-{gone[:8]}",
    ]
    assert all(map(os.path.lexists, looked)) and len(os.listdir(point / "versions/a/main/etc/same")) == 1
    run_fsview("prune", "--repo", lived.repository.path, "--refs-only", "--depth", "0")
    assert not any(map(os.path.lexists, looked))
    assert len(os.listdir(point / "history/a/main")) == 2 == len(os.listdir(point / "by-date/2025/11/23"))
    assert os.readlink(point / "info" / lived.checksums[1] / "parent") == f"../{gone}"
    assert os.listdir(point / "versions/a/main/etc/same") == [f"2025-11-23T111500Z-{lived.checksums[1][:8]}"]
