"""Any bytes as a name in any virtual directory of a view: there, or not there; never an error, never a dead worker."""

from __future__ import annotations

import json
import os
import random
import time
from calendar import timegm
from collections.abc import Iterator
from datetime import UTC, datetime
from errno import ENAMETOOLONG, ENOENT
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsview import nodeid
from fsview.view import View
from store.database import Writing
from store.objects import Checksum
from store.refs import set_ref
from store.repository import Repository
from store.schema import CommitNumber
from store.tree import commit_number
from tests.conftest import MountView
from tests.forge import forge
from tests.marks import needs_fuse
from tests.running import RunFsview

DAY_S = 1_763_892_900  # 2025-11-23T10:15:00Z
LAST_S = 253_402_300_799  # 9999-12-31T23:59:59Z
INFO_TIME = "%Y-%m-%dT%H:%M:%SZ"
TIMES_S = (DAY_S, 0, 1, LAST_S, LAST_S + 1, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def build(path: Path) -> str:
    """Make a repository with commits of extreme times, refs and a remote; return the first commit's checksum."""
    with Repository.create(path) as repository:
        made: list[Checksum] = []
        for time_s in TIMES_S:
            with forge(repository) as work:
                root = work.tree({b"f": work.file(b"%d" % time_s)}, {b"d": work.tree({b"@": work.file(b"at")})})
                made.append(work.publish(root, None, time_s=time_s, parent=made[-1] if made else None))
        with repository.database.reading() as reading:
            numbers = [commit_number(reading, checksum) for checksum in made]

        def point(writing: Writing) -> None:
            for ref in ("a/main", "b", "origin:a/main", "origin:top", "x" * 250):
                for number in (numbers[0], numbers[-1]):
                    set_ref(writing, ref, number, time_s=DAY_S, message="")
            set_ref(writing, "c", CommitNumber(numbers[0] or 0), time_s=(1 << 63) - 1, message="")

        repository.database.write(point)
    return made[0].hex()


def directories(checksum: str) -> tuple[str, ...]:
    """Return every kind of virtual directory."""
    return (
        "", "commits", "refs", "refs/a", "remotes", "remotes/origin", "remotes/origin/a", "history", "history/a",
        "history/a/main", "by-date", "by-date/1970", "by-date/9999", "by-date/9999/12", "by-date/9999/12/31",
        "by-date/2025", "by-date/2025/11", "by-date/2025/11/23", "info", f"info/{checksum}",
        f"info/{checksum}/metadata", "versions", "versions/a", f"versions/{checksum}", f"versions/{checksum}/d",
        f"versions/{checksum}/d/@", f"versions/{checksum}/f", ".fsview",
    )  # fmt: skip


WORDS = (
    b"@", b"~", b"^", b"{", b"}", b"@{", b"@{}", b"@{0}", b"@{1}", b"@{-1}", b"@{yesterday}", b"@{now}",
    b"@{9 weeks ago}", b"@{999999999 weeks ago}", b"@{0001-01-01}", b"@{9999-12-31}", b"@{9999-12-31T23:59:59-23:59}",
    b"@{99999999999}", b"@{@999999999999}", b"@{2025-11-23T10:15:00+14:00}", b"@{Sun, 01 Nov 9999 10:00:00 +0100}",
    b"~999999999", b"~0", b"^^^^", b"~~~", b":", b"\\", b"-", b".", b"..", b"...", b" ", b"\n", b"\t", b"\x1b[31m",
    b"\x7f", b"\xff", b"\xed\xa0\x80", "²".encode(), "٣".encode(), "é".encode(), b"9999", b"10000", b"1970", b"0000",
    b"0", b"12", b"31", b"13", b"32", b"00", b"99", b"9999-12-31T235959Z-", b"@00000253402300800-",
    b"@18446744073709551615-", b"@99999999999999999999-", b"0000-00-00T000000Z-", b"2025-11-23T101500Z-",
    b"2025-11-23T101560Z-", b"1969-12-31T235959Z-", b"a", b"b", b"c", b"main", b"top", b"origin", b"origin:",
    b"x" * 250, b"f" * 64, b"0" * 64, b"0" * 63, b"0" * 65, b"A" * 64, b"subject", b"parent", b"commits", b"refs",
    b".fsview", b"tags", b"stats.json", b"fsview", b"sysroot", b"12345678",
)  # fmt: skip
ALONE = sorted(
    {*WORDS, *(word * 40 for word in (b"^", b"~", b"@", b"0")), b"x" * 255, b"\xff" * 255, b"^" * 255, b"@" * 255}
)


def _whole_name(words: list[bytes]) -> bytes:
    return b"".join(words).replace(b"/", b"").replace(b"\0", b"")[:255]


def names(checksum: str) -> st.SearchStrategy[bytes]:
    """Generate what a process may ask the kernel for: no "/", no NUL, 255 bytes; and more of what means something."""
    known = (*WORDS, checksum.encode(), checksum[:8].encode(), checksum[:1].encode())
    parts = st.one_of(st.sampled_from(known), st.binary(max_size=12), st.text(max_size=6).map(_encoded))
    return st.lists(parts, min_size=1, max_size=6).map(_whole_name).filter(bool)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repository, str]]:
    path = tmp_path_factory.mktemp("names") / "repo"
    checksum = build(path)
    with Repository.open(path) as repository:
        yield repository, checksum


def _node(view: View, path: str) -> int:
    node: int = nodeid.ROOT
    for name in path.encode().split(b"/") if path else []:
        found = view.find(node, name)
        assert found is not None, path
        node = found.node
    return node


@pytest.fixture(scope="module")
def places(repository: tuple[Repository, str]) -> tuple[View, dict[str, int]]:
    """Return a view, and the node of each virtual directory."""
    view = View(repository[0], uid=0, gid=0, now_s=lambda: DAY_S, status={b"stats.json": lambda: b"{}\n"})
    return view, {path: _node(view, path) for path in directories(repository[1])}


def test_any_name_in_any_virtual_directory(
    repository: tuple[Repository, str], places: tuple[View, dict[str, int]]
) -> None:
    view, nodes = places

    @settings(max_examples=500)
    @given(st.sampled_from(sorted(nodes)), names(repository[1]))
    @example("refs", b"@")
    @example("by-date", b"9999")
    def look(path: str, name: bytes) -> None:
        found = view.find(nodes[path], name)  # None or something: whatever it raised would be an error to a user
        if found is not None:
            assert view.attributes(found.node).ino == found.ino
            os.stat_result(
                (found.mode, found.ino, 0, 1, found.uid, found.gid, found.size, *([found.mtime_ns // 10**9] * 3))
            )

    look()


def test_each_odd_name_in_each_virtual_directory(places: tuple[View, dict[str, int]]) -> None:
    view, nodes = places
    for path, node in nodes.items():
        for name in ALONE:
            view.find(node, name)
        assert list(view.rows(node, 0)), path


@needs_fuse
def test_through_the_kernel(tmp_path: Path, mount_view: MountView) -> None:
    checksum = build(tmp_path / "repo")
    point = mount_view(tmp_path / "repo")
    before = json.loads((point / ".fsview" / "stats.json").read_text())
    mixed = random.Random(1)
    odd = [*ALONE, *(_whole_name(mixed.choices(WORDS, k=3)) for _ in range(200)), b"y" * 256, b"@" * 4000]
    for path in directories(checksum):
        directory = os.path.join(os.fsencode(point), path.encode())
        for name in odd:
            try:
                os.lstat(os.path.join(directory, name))
            except OSError as error:
                assert error.errno == (ENAMETOOLONG if len(name) > 255 else ENOENT), (path, name, error)
        assert os.listdir(directory) is not None
    after = json.loads((point / ".fsview" / "stats.json").read_text())
    assert after["workers"] == before["workers"] and after["errors"]["EIO"] == 0


@needs_fuse
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_commits_of_extreme_times(tmp_path: Path, run_fsview: RunFsview, zone: str) -> None:
    """They are in all rooms that have room for them, and break none for others; wherever the clock on the wall is."""
    repo, point, where = tmp_path / "repo", tmp_path / "mnt", {"TZ": zone}
    build(repo)
    point.mkdir()
    run_fsview("mount", repo, point, env=where)
    try:
        assert sorted(os.listdir(point / "by-date")) == ["1970", "2025", "2038", "9999"]
        for found in (point / "by-date").glob("????/??/??/*"):
            assert (found / "f").read_text() == str(timegm(time.strptime(found.name[:-9], "%Y-%m-%dT%H%M%SZ")))
        for history in (point / "history" / "b", point / "history" / "a" / "main"):
            assert sorted(int((link / "f").read_text()) for link in history.iterdir()) == sorted(TIMES_S)
        for commit in (point / "commits").iterdir():
            assert commit.stat().st_mtime == pytest.approx(min(int((commit / "f").read_text()), (1 << 63) // 10**9))
        for info in (point / "info").iterdir():
            time_s = json.loads((info / "commit.json").read_text())["timestamp"]
            text = (info / "timestamp").read_text().strip()
            assert text == (
                f"@{time_s}" if time_s > LAST_S else datetime.fromtimestamp(time_s, UTC).strftime(INFO_TIME)
            )
    finally:
        run_fsview("umount", point)
    logged = json.loads(run_fsview("log", "--json", "b", repo=repo, env=where).stdout)
    assert sorted(entry["timestamp"] for entry in logged) == sorted(TIMES_S)
    dates = [line for line in run_fsview("log", "b", repo=repo, env=where).stdout.splitlines() if "Date:" in line]
    assert len(dates) == len(TIMES_S) and "Date:  9999-12-31 23:59:59 +0000" in dates
    for index in range(len(TIMES_S)):
        for verb in ("show", "ls"):
            assert run_fsview(verb, f"b~{index}", repo=repo, env=where).stdout
    assert "@9223372036854775807" in run_fsview("refs", "--log", "c", repo=repo, env=where).stdout
