"""versions/: each file of a commit's tree as a directory of all that it was, without a mount."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fsview import nodeid
from fsview.attributes import Attributes
from fsview.commit_names import time_text
from fsview.nodeid import StaleNodeError
from fsview.rank import EntryRank
from fsview.view import View
from store.database import Reading
from store.errors import NotFoundError
from store.listing import Listing
from store.objects import Checksum, DirMeta, DirTree
from store.refs import set_ref
from store.repository import Repository
from store.schema import CommitNumber, TreeId
from store.tree import commit_number, load_listing
from tests.forge import Forge, forge

DAY_S = 1_763_892_900  # 2025-11-23T10:15:00Z
PRIVATE = DirMeta(0, 0, 0o40700)

# A tree: bytes are a file, a str is a symlink, a dictionary a directory; a directory called "private" is mode 0700.
Tree = Mapping[bytes, "bytes | str | Tree"]


@dataclass
class Line:
    """A repository with one line of commits, and a view of it."""

    repository: Repository
    view: View
    checksums: list[Checksum] = field(default_factory=list)

    def commit(self, tree: Tree) -> None:
        """Make a commit on top of the last one, a second later."""
        with forge(self.repository) as work:
            parent = self.checksums[-1] if self.checksums else None
            time_s = DAY_S + len(self.checksums)
            self.checksums.append(work.publish(build(work, tree), None, time_s=time_s, parent=parent))

    def node(self, path: str) -> Attributes:
        """Return what is at *path* below the head's versions; symlinks on the way are followed as the kernel does."""
        here = self.view.attributes(nodeid.ROOT)
        left = f"versions/{self.checksums[-1].hex()}/{path}".encode().split(b"/")
        while left:
            found = self.view.find(here.node, left.pop(0))
            if found is None:
                raise FileNotFoundError(path)
            if stat.S_ISLNK(found.mode) and left:
                left = self.view.readlink(found.node).split(b"/") + left
            else:
                here = found
        return here

    def names(self, path: str) -> list[str]:
        """Return what is listed at *path*."""
        return [row.name.decode() for row in self.view.rows(self.node(f"{path}/.").node, 0)][2:]

    def versions(self, path: str) -> dict[int, bytes]:
        """Return what a file was, by the index of the oldest commit with it."""
        found = {}
        for row in self.view.rows(self.node(f"{path}/.").node, 0):
            if row.name in (b".", b".."):
                continue
            is_link = stat.S_ISLNK(row.attributes.mode)
            content = self.view.readlink(row.attributes.node) if is_link else None
            found[self._index(row.name)] = content or self.view.read(row.attributes.node, 0, 100)
        return found

    def _index(self, name: bytes) -> int:
        digits = [checksum.hex()[:8] for checksum in self.checksums]
        index = digits.index(name[-8:].decode())
        assert name == f"{time_text(DAY_S + index)}-{digits[index]}".encode()
        return index


def build(work: Forge, tree: Tree) -> Checksum:
    """Stage a tree."""
    files, dirs = {}, []
    for name, content in sorted(tree.items()):
        if isinstance(content, bytes):
            files[name] = work.file(content)
        elif isinstance(content, str):
            files[name] = work.symlink(content.encode())
        else:
            meta = work.writer.add_meta(PRIVATE) if name == b"private" else work.meta
            dirs.append((name, build(work, content), meta))
    return work.raw_tree(DirTree(tuple(files.items()), tuple(dirs)).to_bytes())


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with Repository.create(tmp_path / "repo") as repository:
        view = View(repository, uid=10, gid=20, now_s=lambda: DAY_S)
        yield Line(repository, view)
        view.close()


def test_a_file_is_a_directory_of_what_it_was(line: Line) -> None:
    for content in (b"one", b"two", b"two", b"one", b"three"):
        line.commit({b"etc": {b"f": content, b"same": b"same"}, b"other": content})
    assert line.names(".") == ["etc", "other"] and line.names("etc") == ["f", "same"]
    assert line.versions("etc/f") == {0: b"one", 1: b"two", 4: b"three"}
    assert line.versions("etc/same") == {0: b"same"}
    assert line.versions("other") == {0: b"one", 1: b"two", 4: b"three"}


def test_versions_are_the_file_objects_themselves(line: Line) -> None:
    line.commit({b"f": b"one"})
    line.commit({b"f": b"two", b"l": "f"})
    rows = {row.name[-8:]: row.attributes for row in line.view.rows(line.node("f").node, 0)}
    for checksum in line.checksums:
        commits = line.view.find(nodeid.COMMITS, checksum.hex().encode())
        assert commits is not None
        found = line.view.find(commits.node, b"f")
        assert found is not None and rows[checksum.hex()[:8].encode()]._replace(name_s=found.name_s) == found
    assert line.versions("l") == {1: b"f"}


def test_refs_and_revisions_lead_to_commits(line: Line) -> None:
    line.commit({b"f": b"one"})
    line.commit({b"f": b"two"})
    with line.repository.database.reading() as reading:
        number = commit_number(reading, line.checksums[1])
    for name in ("top", "a/b"):
        line.repository.database.write(lambda writing, name=name: set_ref(writing, name, number, time_s=0, message=""))  # type: ignore[misc]
    versions = nodeid.VERSIONS
    assert [row.name for row in line.view.rows(versions, 2)] == [b"top", b"a"]
    a = line.view.find(versions, b"a")
    assert a is not None and [row.name for row in line.view.rows(a.node, 0)] == [b".", b"..", b"b"]
    one, two = (checksum.hex() for checksum in line.checksums)
    for node, name, target in (
        (versions, "top", two), (a.node, "b", f"../{two}"), (versions, "top^", one), (a.node, "b~", f"../{one}"),
        (versions, two[:20], two), (versions, f"{two[:20]}^", one),
    ):  # fmt: skip
        link = line.view.find(node, name.encode())
        assert link is not None and line.view.readlink(link.node).decode() == target and link.size == len(target)
        assert line.view.attributes(link.node) == link


def test_names_of_versions_stay_as_the_history_grows(line: Line) -> None:
    line.commit({b"f": b"one"})
    before = line.names("f")
    line.commit({b"f": b"two"})
    line.commit({b"f": b"one"})
    assert line.names("f")[0] == before[0] and len(line.names("f")) == 2


def test_directories_have_the_heads_owner_mode_and_time(line: Line) -> None:
    line.commit({b"d": {b"f": b"f"}, b"private": {b"f": b"f"}})
    root = line.view.find(nodeid.COMMITS, line.checksums[0].hex().encode())
    assert root is not None
    for name in (b"d", b"private"):
        there, here = line.view.find(root.node, name), line.node(name.decode())
        assert there is not None and here == there._replace(node=here.node, ino=here.ino)
    found = line.node("d/f")
    assert (found.mode, found.uid, found.gid) == (stat.S_IFDIR | 0o555, 10, 20)


def test_who_could_not_always_get_to_a_file_can_not_get_to_its_versions(line: Line) -> None:
    """Once in a directory of mode 0700, later moved to an open one: what it was then stays closed."""
    line.commit({b"private": {b"d": {b"f": b"secret"}}, b"open": {b"f": b"f"}})
    line.commit({b"private": {b"d": {b"f": b"public"}}, b"open": {b"f": b"g"}})
    assert stat.S_IMODE(line.node("private/d/f").mode) == 0o500 and stat.S_IMODE(line.node("open/f").mode) == 0o555
    assert line.versions("private/d/f") == {0: b"secret", 1: b"public"}


def test_what_the_head_lacks_is_a_symlink_to_the_newest_commit_with_it(line: Line) -> None:
    line.commit({b"etc": {b"gone": b"one", b"d": {b"deep": b"deep"}}, b"top": b"top"})
    line.commit({b"etc": {b"gone": b"two", b"d": {}}, b"top": b"top"})
    line.commit({b"etc": {b"kept": b"kept"}})
    assert line.names(".") == ["etc"] and line.names("etc") == ["kept"]
    for path, index, up in (("etc/gone", 1, 2), ("top", 1, 1), ("etc/d", 1, 2)):
        link = line.node(path)
        target = line.view.readlink(link.node).decode()
        assert target == "../" * up + f"{line.checksums[index].hex()}/{path}" and link.size == len(target)
        assert line.view.attributes(link.node) == link and stat.S_ISLNK(link.mode)
    assert line.versions("etc/gone") == {0: b"one", 1: b"two"} and line.versions("top") == {0: b"top"}
    assert line.versions("etc/d/deep") == {0: b"deep"}  # by two symlinks
    for missing in ("nothing", "etc/nothing", "etc/kept/gone", "etc/gone/x", "etc/d/x"):
        with pytest.raises(FileNotFoundError):
            line.node(missing)


def test_whether_a_path_is_a_file_or_a_directory_the_head_decides(line: Line) -> None:
    line.commit({b"a": b"file", b"b": {b"f": b"in b"}})
    line.commit({b"a": {b"f": b"in a"}, b"b": b"file"})
    assert line.names("a") == ["f"] and line.versions("a/f") == {1: b"in a"}
    assert line.versions("b") == {1: b"file"}
    line.commit({})
    assert line.names("a") == ["f"] and line.versions("b") == {1: b"file"}
    line.commit({b"a": "a symlink"})
    assert line.versions("a") == {0: b"file", 3: b"a symlink"}


def test_a_directory_that_came_and_went(line: Line) -> None:
    line.commit({b"d": {b"f": b"one", b"early": b"e"}})
    line.commit({})
    line.commit({b"d": {b"f": b"two"}})
    assert line.versions("d/f") == {0: b"one", 2: b"two"} and line.versions("d/early") == {0: b"e"}


def test_every_node_below_versions_answers_for_itself(line: Line) -> None:
    line.commit({b"a": {b"b": {b"f": b"1"}, b"f": b"1"}, b"z": "l"})
    line.commit({b"a": {b"b": {b"f": b"2"}, b"f": b"1"}, b"gone": b""})
    line.commit({b"a": {b"b": {b"f": b"2", b"g": b"3"}}, b"z": b"z"})
    left, count = [line.node(".").node], 0
    while left:
        node = left.pop()
        rows = list(line.view.rows(node, 0))
        for index, row in enumerate(rows):
            assert list(line.view.rows(node, row.cookie)) == rows[index + 1 :]
            fresh = View(line.repository, uid=10, gid=20, now_s=lambda: DAY_S)
            assert fresh.attributes(row.attributes.node)._replace(name_s=0) == row.attributes._replace(name_s=0)
            if index > 1:
                assert line.view.find(node, row.name) == row.attributes
            if index > 1 and stat.S_ISDIR(row.attributes.mode):
                left.append(row.attributes.node)
                assert fresh.find(row.attributes.node, b"..") == line.view.attributes(node)
        count += len(rows)
    assert count == 22


def test_numbers_that_were_never_given_out(line: Line) -> None:
    line.commit({b"f": b"f"})
    first = CommitNumber(1024)
    for kind in (nodeid.Versioned, nodeid.GoneLink):
        for commit, rank in ((first, 2), (first, 1 << 31), (CommitNumber(1025), 0)):
            with pytest.raises(StaleNodeError):
                line.view.attributes(nodeid.virtual_node(kind(commit, EntryRank(rank))))
    gone = nodeid.virtual_node(nodeid.GoneLink(first, EntryRank(1)))
    with pytest.raises(NotFoundError, match="no directory"):
        list(line.view.rows(gone, 3))
    with pytest.raises(NotFoundError, match="no symlink"):
        line.view.readlink(line.node("f").node)


def test_the_versions_of_one_file_take_the_dirtrees_on_the_way_to_it_once(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many commits, most of which change something else."""
    loaded = Counter[TreeId]()

    def counted(reading: Reading, tree_id: TreeId) -> Listing:
        loaded[tree_id] += 1
        return load_listing(reading, tree_id)

    still = {b"%02d" % number: {b"f": b"%d" % number} for number in range(20)}
    for number in range(200):
        usr = {b"lib": {b"f": b"%d" % (number // 50)}, **still}
        line.commit({b"usr": usr, b"var": {b"log": b"%d" % number, **still}})
    monkeypatch.setattr("fsview.commit_tree.load_listing", counted)
    assert line.versions("usr/lib/f") == {index: b"%d" % (index // 50) for index in (0, 50, 100, 150)}
    assert max(loaded.values()) == 1
    assert len(loaded) == 200 + 4 + 4  # every root, what usr was, what usr/lib was; neither var nor what held still
    before = sum(loaded.values())
    line.versions("usr/lib/f")
    assert sum(loaded.values()) == before
