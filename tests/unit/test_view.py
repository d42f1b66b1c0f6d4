"""The view without a mount: what it answers, and from what."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsview import nodeid
from fsview.attributes import FOREVER_S, MOVING_NAME_S, Attributes, Row
from fsview.nodeid import StaleNodeError
from fsview.rank import EntryRank, Rank
from fsview.view import View
from store.errors import CorruptionError, NotFoundError
from store.refs import set_ref
from store.repository import Repository
from store.schema import CommitNumber, RefId, id_key
from tests.leaks import open_descriptors
from tests.trees import Directory as Dir
from tests.trees import File, Spec, Symlink, build_tree, supports_xattrs
from tools.make_commit import Message, TreeSpec, commit
from tools.sources import DiskOptions

NOW_S = 1_800_000_000
YEAR_NS = 1_577_836_800 * 10**9
MANY = 700  # names in one directory

TREE: Spec = {
    "bin": {"sh": Symlink("tool"), "tool": File(b"#!/bin/sh\n", mode=0o755, mtime_ns=YEAR_NS + 5)},
    "large": File(bytes(range(256)) * 2000, mtime_ns=YEAR_NS),
    "many": {f"{number:04}": b"" for number in range(MANY)},
    "noted": Dir({"f": File(b"f", xattrs={"user.k": b"value"})}, mode=0o2750, xattrs={"user.d": b"directory"}),
    "twins": {"a": {"x": {"f": b"equal"}}, "b": {"x": {"f": b"equal"}}},
}


@dataclass
class Sample:
    """A repository with two commits of one tree, a third of a smaller one, and a view of it."""

    repository: Repository
    view: View
    commits: list[CommitNumber]
    checksums: list[str]

    def node(self, path: bytes) -> Attributes:
        """Return what is at *path* below the mount point; symlinks are not followed."""
        return walk(self.view, path)


def walk(view: View, path: bytes) -> Attributes:
    """Return what is at *path*, looked up name by name."""
    found = view.attributes(nodeid.ROOT)
    for name in path.split(b"/"):
        below = view.find(found.node, name)
        assert below is not None, path
        found = below
    return found


def make(path: Path, mtime: str = "first-seen") -> tuple[Repository, list[str]]:
    """Make a repository with three commits on refs a/b, a/c and other."""
    repository = Repository.create(path / "repo", mtime=mtime)
    big, small = build_tree(path / "big", TREE), build_tree(path / "small", {"bin": TREE["bin"], "only": b"this"})
    checksums = []
    for number, (ref, tree) in enumerate((("a/b", big), ("a/c", big), ("a/b", small))):
        message = Message(ref, f"number {number}", timestamp_s=1_700_000_000 + number)
        done = commit(repository, [TreeSpec("dir", str(tree))], message, DiskOptions(), processes=1)
        checksums.append(done.checksum.hex())
    repository.database.write(lambda writing: set_ref(writing, "origin:a/b", FIRST, time_s=0, message=""))
    return repository, checksums


FIRST = CommitNumber(1024)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    repository, checksums = make(tmp_path_factory.mktemp("view"))
    with repository:
        view = View(repository, uid=10, gid=20, now_s=lambda: NOW_S)
        yield Sample(repository, view, [CommitNumber(FIRST + number) for number in range(3)], checksums)
        view.close()


def names(view: View, node: int, after: int = 0) -> list[bytes]:
    return [row.name for row in view.rows(node, after)]


def test_above_the_commits(sample: Sample) -> None:
    assert names(sample.view, nodeid.ROOT) == [
        b".", b"..", b"commits", b"refs", b"remotes", b"history", b"by-date", b"info", b"versions", b".fsview",
    ]  # fmt: skip
    assert names(sample.view, nodeid.COMMITS)[2:] == [text.encode() for text in sample.checksums]
    assert names(sample.view, nodeid.REFS) == [b".", b"..", b"a"]  # no ref of a remote
    assert names(sample.view, sample.node(b"refs/a").node) == [b".", b"..", b"b", b"c"]
    refs = sample.node(b"refs")
    assert (refs.mode, refs.uid, refs.gid) == (stat.S_IFDIR | 0o555, 10, 20)


@pytest.mark.parametrize(
    ("path", "number", "way"),
    [
        ("refs/a/b", 2, "../../commits/"),
        ("refs/a/c", 1, "../../commits/"),
        ("refs/a/b@{{0}}", 2, "../../commits/"),
        ("refs/a/b@{{1}}", 0, "../../commits/"),
        ("refs/a/b^", 0, "../../commits/"),
        ("refs/a/b~", 0, "../../commits/"),
        ("refs/a/b~1", 0, "../../commits/"),
        ("commits/{2}^", 0, ""),
        ("commits/{2:.20}", 2, ""),
        ("commits/{1:.63}", 1, ""),
        ("commits/{2:.9}~1", 0, ""),
    ],
)
def test_symlink_to_a_commit(sample: Sample, path: str, number: int, way: str) -> None:
    found = sample.node(path.format(*sample.checksums).encode())
    target = sample.view.readlink(found.node)
    assert target.decode() == way + sample.checksums[number]
    assert found.size == len(target) and found.mode == stat.S_IFLNK | 0o777
    assert found.name_s == MOVING_NAME_S and found.mtime_ns == (1_700_000_000 + number) * 10**9
    assert sample.view.attributes(found.node) == found


@pytest.mark.parametrize(
    "path",
    [
        "nothing", "refs/nothing", "refs/a/nothing", "refs/a/b^^", "refs/a/b~9", "refs/a/b@{{9}}", "refs/a/b@{{x}}",
        "refs/a/b@{{1999-01-01}}", "refs/a^", "refs/origin:a", "refs/a/origin:a", "refs/a/b:bin", "refs/{2}",
        "refs/{2:.20}", "refs/\udcff", "refs/" + "x" * 255, "commits/" + "0" * 64,
        "commits/zz", "commits/{2}^^", "commits/{2}@{{0}}", "commits/{2}0", "commits/" + "f" * 255, "commits/",
    ],
)  # fmt: skip
def test_name_that_nothing_has(sample: Sample, path: str) -> None:
    directory, _, name = os.fsencode(path.format(*sample.checksums)).rpartition(b"/")
    node = sample.node(directory).node if directory else nodeid.ROOT
    assert sample.view.find(node, name) is None


def test_a_ref_that_looks_like_an_abbreviation_is_no_name_in_commits(tmp_path: Path) -> None:
    repository, checksums = make(tmp_path)
    with repository:
        repository.database.write(lambda writing: set_ref(writing, "fade", FIRST, time_s=0, message=""))
        view = View(repository, uid=0, gid=0, now_s=lambda: NOW_S)
        assert not any(text.startswith("fade") for text in checksums)
        assert view.find(nodeid.COMMITS, b"fade") is None
        assert view.find(nodeid.REFS, b"fade") is not None


def test_attributes_of_a_commits_tree(sample: Sample) -> None:
    root = b"commits/" + sample.checksums[0].encode()
    tool, large, link = (sample.node(root + path) for path in (b"/bin/tool", b"/large", b"/bin/sh"))
    assert (tool.mode, tool.size, tool.mtime_ns) == (stat.S_IFREG | 0o755, 10, YEAR_NS + 5)
    assert (large.size, large.mtime_ns, large.attributes_s, large.name_s) == (512000, YEAR_NS, FOREVER_S, FOREVER_S)
    assert (tool.uid, tool.gid) == (os.getuid(), os.getgid())
    assert sample.view.readlink(link.node) == b"tool" and link.size == 4
    assert stat.S_IMODE(sample.node(root + b"/noted").mode) == 0o2750
    assert sample.node(root).mtime_ns == 1_700_000_000 * 10**9


def test_every_answer_follows_from_the_number_alone(sample: Sample) -> None:
    """Ask a view that has seen nothing, node by node, what another one said on the way down."""
    for directory, rows in _all_directories(sample):
        for row in rows[:20]:
            fresh = View(sample.repository, uid=10, gid=20, now_s=lambda: NOW_S)
            known = row.attributes  # how long a name holds is the name's, not the node's
            assert fresh.attributes(known.node)._replace(name_s=known.name_s) == known
        fresh = View(sample.repository, uid=10, gid=20, now_s=lambda: NOW_S)
        assert list(fresh.rows(directory, 0)) == rows


def _all_directories(sample: Sample) -> Iterator[tuple[int, list[Row]]]:
    left: list[int] = [nodeid.ROOT]
    while left:
        rows = list(sample.view.rows(node := left.pop(), 0))
        left += [row.attributes.node for row in rows[2:] if stat.S_ISDIR(row.attributes.mode)]
        yield node, rows


def test_the_parent_of_each_directory(sample: Sample) -> None:
    left: list[int] = [nodeid.ROOT]
    while left:
        node = left.pop()
        for row in list(sample.view.rows(node, 0))[2:]:
            if stat.S_ISDIR(row.attributes.mode):
                left.append(row.attributes.node)
                assert sample.view.find(row.attributes.node, b"..") == sample.view.attributes(node)
                assert sample.view.find(row.attributes.node, b".") == row.attributes
                assert [r.attributes.node for r in sample.view.rows(row.attributes.node, 0)][:2] == [left[-1], node]
    assert sample.view.find(nodeid.ROOT, b"..") == sample.view.attributes(nodeid.ROOT)


def test_reading_a_directory_goes_on_behind_any_cookie(sample: Sample) -> None:
    many = sample.node(b"commits/" + sample.checksums[0].encode() + b"/many").node
    for node in (many, nodeid.ROOT, nodeid.COMMITS, nodeid.REFS, sample.node(b"refs/a").node):
        rows = list(sample.view.rows(node, 0))
        for index, row in enumerate(rows):
            assert 0 < row.cookie < 1 << 63
            assert list(sample.view.rows(node, row.cookie)) == rows[index + 1 :]
    assert len(names(sample.view, many)) == MANY + 2


def test_equal_directories_have_equal_st_ino_at_one_path_only(sample: Sample) -> None:
    roots = [b"commits/" + text.encode() for text in sample.checksums]
    for path in (b"/bin", b"/twins", b"/twins/a", b"/twins/a/x"):
        one, two = (sample.node(root + path) for root in roots[:2])
        assert one.ino == two.ino and one.node != two.node
        assert one._replace(node=two.node) == two
    assert sample.node(roots[0] + b"/bin").ino == sample.node(roots[2] + b"/bin").ino
    inside = [sample.node(roots[0] + path).ino for path in (b"/twins/a", b"/twins/b", b"/twins/a/x", b"/twins/b/x")]
    assert len(set(inside)) == 4
    assert len({sample.node(root).ino for root in roots}) == 3
    files = {sample.node(root + path).node for root in roots[:2] for path in (b"/twins/a/x/f", b"/twins/b/x/f")}
    assert len(files) == 1


def test_reading_a_file(sample: Sample) -> None:
    content, node = bytes(range(256)) * 2000, sample.node(b"commits/" + sample.checksums[0].encode() + b"/large").node
    for offset, size in ((0, 1), (0, 1 << 20), (131_071, 2), (131_072, 131_072), (511_999, 10), (512_000, 10)):
        assert sample.view.read(node, offset, size) == content[offset : offset + size]


def test_extended_attributes(sample: Sample, tmp_path: Path) -> None:
    if not supports_xattrs(tmp_path):
        pytest.skip("no xattrs on this file system")
    root = b"commits/" + sample.checksums[0].encode()
    assert sample.view.xattrs(sample.node(root + b"/noted/f").node) == ((b"user.k", b"value"),)
    assert sample.view.xattr(sample.node(root + b"/noted").node, b"user.d") == b"directory"
    assert sample.view.xattr(sample.node(root + b"/large").node, b"user.d") is None
    assert sample.view.xattrs(nodeid.ROOT) == ()


def test_marks_are_there_but_not_listed(sample: Sample) -> None:
    view = View(sample.repository, uid=0, gid=0, now_s=lambda: NOW_S, marks={b"user.fsview.pid": lambda: b"1"})
    assert view.xattr(nodeid.ROOT, b"user.fsview.pid") == b"1" and view.xattrs(nodeid.ROOT) == ()


def test_numbers_that_were_never_given_out_are_stale(sample: Sample) -> None:
    last = sample.repository
    with last.database.reading() as reading:
        directories = reading.counter("commit")
        file_id = reading.counter("file")
    for node in (
        file_id, 2, nodeid.directory_node(CommitNumber(directories), Rank(0)),
        nodeid.directory_node(FIRST, Rank(10_000)), nodeid.ref_directory_node(RefId(1 << 40)),
        nodeid.link_node(1, CommitNumber(directories)),
    ):  # fmt: skip
        with pytest.raises(StaleNodeError):
            sample.view.attributes(node)
    with pytest.raises(NotFoundError, match="no directory"):
        sample.view.find(file_id - 1, b"x")
    with pytest.raises(NotFoundError, match="no symlink"):
        sample.view.readlink(nodeid.ROOT)


@pytest.mark.unchecked
def test_a_number_that_was_given_out_and_is_gone_is_damage(tmp_path: Path) -> None:
    repository, checksums = make(tmp_path)
    with repository:
        view = View(repository, uid=0, gid=0, now_s=lambda: NOW_S)
        tool = walk(view, b"commits/" + checksums[0].encode() + b"/bin/tool")
        repository.database.write(lambda writing: writing.delete(b"file", id_key(tool.node)))
        repository.database.write(lambda writing: writing.delete(b"commit", id_key(FIRST)))
        fresh = View(repository, uid=0, gid=0, now_s=lambda: NOW_S)
        for node in (tool.node, nodeid.directory_node(FIRST, Rank(0)), nodeid.link_node(1, FIRST)):
            with pytest.raises(CorruptionError, match="a record"):
                fresh.attributes(node)
            assert fresh.describe(node) in (f"node {node:#x}", "Link (1, 1024)")


def test_what_a_node_is_called_in_the_log(sample: Sample) -> None:
    checksum = sample.checksums[0]
    assert sample.view.describe(sample.node(f"commits/{checksum}/twins/a/x".encode()).node) == (
        f"commits/{checksum}/twins/a/x"
    )
    assert sample.view.describe(sample.node(f"commits/{checksum}/large".encode()).node).startswith("file object ")
    assert sample.view.describe(nodeid.ROOT) == "Fixed (1,)"


def test_refs_that_go_and_come_again(tmp_path: Path) -> None:
    repository, _ = make(tmp_path)
    with repository:
        view = View(repository, uid=0, gid=0, now_s=lambda: NOW_S)
        old, link = walk(view, b"refs/a"), walk(view, b"refs/a/c")
        database = repository.database
        database.write(lambda writing: set_ref(writing, "a/c", FIRST, time_s=0, message=""))
        assert walk(view, b"refs/a/c").node != link.node
        for name in ("a/b", "a/c"):
            database.write(lambda writing, name=name: set_ref(writing, name, None, time_s=0, message=""))  # type: ignore[misc]
        assert view.find(nodeid.REFS, b"a") is None and names(view, nodeid.REFS) == [b".", b".."]
        with pytest.raises(StaleNodeError):
            view.find(old.node, b"b")
        database.write(lambda writing: set_ref(writing, "a/b", FIRST, time_s=0, message=""))
        assert walk(view, b"refs/a").node != old.node
        assert walk(view, b"refs/a/b").node == walk(view, b"refs/a/b@{0}").node


def test_refs_are_listed_in_the_order_of_ids_at_every_depth(tmp_path: Path) -> None:
    repository, _ = make(tmp_path)
    with repository:
        view = View(repository, uid=0, gid=0, now_s=lambda: NOW_S)
        for name in ("z", "a/z/1", "a/a", "a/z/0", "a/z0", "a/z.d/x"):
            repository.database.write(lambda writing, name=name: set_ref(writing, name, FIRST, time_s=0, message=""))  # type: ignore[misc]
        assert names(view, nodeid.REFS)[2:] == [b"a", b"z"]
        assert names(view, walk(view, b"refs/a").node)[2:] == [b"b", b"c", b"z", b"a", b"z0", b"z.d"]
        assert names(view, walk(view, b"refs/a/z").node)[2:] == [b"1", b"0"]
        assert view.readlink(walk(view, b"refs/a/z/1").node).startswith(b"../../../commits/")


def test_with_mtime_zero_all_times_are_zero(tmp_path: Path) -> None:
    repository, checksums = make(tmp_path, mtime="zero")
    with repository:
        view = View(repository, uid=0, gid=0, now_s=lambda: NOW_S)
        for path in ("commits", "refs/a", "refs/a/b", "commits/{0}", "commits/{0}/bin", "commits/{0}/bin/tool"):
            # What is above the commits needs times that differ, if only by nanoseconds.
            mtime_ns = walk(view, path.format(*checksums).encode()).mtime_ns
            assert mtime_ns == 0 or ("{" not in path and mtime_ns < 10**6), path


def test_many_open_files_are_closed_again(sample: Sample) -> None:
    view = View(sample.repository, uid=0, gid=0, now_s=lambda: NOW_S)
    before = open_descriptors()
    view.read(sample.node(b"commits/" + sample.checksums[0].encode() + b"/large").node, 0, 10)
    assert open_descriptors() == before + 1
    for row in list(view.rows(nodeid.directory_node(FIRST, Rank(2)), 0))[2:]:
        view.read(row.attributes.node, 0, 10)
    view.close()
    assert open_descriptors() == before


def test_with_place_inodes_files_have_nodes_of_their_own_and_the_same_st_ino(sample: Sample) -> None:
    placed = View(sample.repository, uid=10, gid=20, now_s=lambda: NOW_S, place_inodes=True)
    nodes = set()
    for path in ("twins/a/x/f", "twins/b/x/f", "bin/tool", "bin/sh", "large", "noted/f"):
        whole = f"commits/{sample.checksums[0]}/{path}".encode()
        plain, found = sample.node(whole), walk(placed, whole)
        assert found == plain._replace(node=found.node) != plain
        fresh = View(sample.repository, uid=10, gid=20, now_s=lambda: NOW_S, place_inodes=True)
        assert fresh.attributes(found.node) == found
        assert fresh.xattrs(found.node) == sample.view.xattrs(plain.node)
        assert fresh.describe(found.node) == sample.view.describe(plain.node)
        if stat.S_ISLNK(found.mode):
            assert fresh.readlink(found.node) == sample.view.readlink(plain.node)
        else:
            assert fresh.read(found.node, 0, 1 << 20) == sample.view.read(plain.node, 0, 1 << 20)
        fresh.close()
        nodes.add(found.node)
    placed.close()
    assert len(nodes) == 6
    beyond = nodeid.placed_node(FIRST, EntryRank(10_000)), nodeid.placed_node(FIRST, EntryRank(0))
    for number in (*beyond, nodeid.placed_node(CommitNumber(FIRST + 99), EntryRank(1))):
        with pytest.raises(StaleNodeError):
            placed.attributes(number)
