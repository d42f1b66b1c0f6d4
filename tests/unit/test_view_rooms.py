"""The views of history: history/, by-date/, info/, remotes/ and .fsview/, without a mount."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroaring import BitMap64

from fsview import nodeid
from fsview.attributes import FOREVER_S, MOVING_NAME_S, Attributes
from fsview.nodeid import StaleNodeError
from fsview.view import View
from store.database import Writing
from store.errors import NotFoundError
from store.gvariant import Variant
from store.objects import Checksum, ObjectType, pack_detached
from store.pruned import record_pruned
from store.refs import set_ref
from store.repository import Repository
from store.schema import GENERATION, CommitNumber, RefId, id_key
from store.tree import commit_number
from tests.forge import forge

DAY_S = 1_763_892_900  # 2025-11-23T10:15:00Z
NOW_S = DAY_S + 10 * 86400
NO_DATE_S = 1 << 40
TWINS = ("11180", "12198")  # the subjects of two commits whose checksums begin with the same eight digits
METADATA = (
    ("version", Variant("s", "12.5")),
    ("ostree.ref-binding", Variant("as", ["main"])),
    ("no/file", Variant("u", 5)),
    ("..", Variant("u", 6)),
)


@dataclass
class Sample:
    """A history of four commits on a/main, the last of which is a year younger, one for itself, and one of no date."""

    repository: Repository
    view: View
    checksums: list[Checksum]

    def node(self, path: str) -> Attributes:
        """Return what is at *path* below the mount point; symlinks are not followed."""
        found = self.view.attributes(nodeid.ROOT)
        for name in path.encode("utf-8", "surrogateescape").split(b"/"):
            below = self.view.find(found.node, name)
            assert below is not None, path
            found = below
        return found

    def names(self, path: str, after: int = 0) -> list[str]:
        """Return what is listed in a directory, but for "." and ".."."""
        node = self.node(path).node if path else nodeid.ROOT
        return [row.name.decode() for row in self.view.rows(node, after) if row.name not in (b".", b"..")]

    def text(self, path: str) -> str:
        """Return what a file holds as text."""
        return self.content(path).decode()

    def content(self, path: str) -> bytes:
        """Return what a file holds; stat must know its size."""
        found = self.node(path)
        content = self.view.read(found.node, 0, 1 << 20)
        assert stat.S_ISREG(found.mode) and len(content) == found.size
        assert self.view.read(found.node, 3, 4) == content[3:7]
        return content

    def hex(self, index: int, digits: int = 64) -> str:
        """Return the checksum of a commit, or its beginning."""
        return self.checksums[index].hex()[:digits]


def build(repository: Repository) -> list[Checksum]:
    """Make the commits of `Sample`."""
    made: list[Checksum] = []
    times = (DAY_S, DAY_S + 1, DAY_S + 86400, DAY_S + 366 * 86400)
    for index, time_s in enumerate(times):
        with forge(repository) as work:
            root = work.tree({b"f": work.file(str(index).encode())}, {b"d": work.tree()})
            parent = made[-1] if made else None
            message = (f"subject {index}", "one\ntwo" if index else "")
            made.append(work.publish(root, "a/main", time_s=time_s, parent=parent, metadata=METADATA, message=message))
    with forge(repository) as work:
        made.append(work.publish(work.tree(), "other", time_s=DAY_S, parent=Checksum(bytes(32))))
        made.append(work.publish(work.tree(), "no-date", time_s=NO_DATE_S))
    point_at(repository, "origin:a/main", made[1])
    point_at(repository, "origin:top", made[0])
    point_at(repository, "beta:x", made[0])
    return made


def point_at(repository: Repository, ref: str, checksum: Checksum | None) -> None:
    """Point a ref at a commit, or delete it."""
    with repository.database.reading() as reading:
        number = None if checksum is None else commit_number(reading, checksum)
    repository.database.write(lambda writing: set_ref(writing, ref, number, time_s=DAY_S, message=""))


def view_of(repository: Repository) -> View:
    """Return a view that has seen nothing."""
    return View(repository, uid=10, gid=20, now_s=lambda: NOW_S, status={b"stats.json": lambda: b"{}\n"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Checksum]]:
    """Return a repository with the commits of `Sample`, to be copied, and their checksums."""
    path = tmp_path_factory.mktemp("rooms") / "repo"
    with Repository.create(path) as repository:
        return path, build(repository)


@pytest.fixture
def sample(tmp_path: Path, made: tuple[Path, list[Checksum]]) -> Iterator[Sample]:
    shutil.copytree(made[0], tmp_path / "repo")
    with Repository.open(tmp_path / "repo") as repository:
        yield Sample(repository, view_of(repository), list(made[1]))


def test_history_has_the_commits_of_each_ref(sample: Sample) -> None:
    assert sample.names("history") == ["a", "other", "no-date"]
    assert sample.names("history/a") == ["main"]
    assert sample.names("history/a/main") == [
        f"2025-11-23T101500Z-{sample.hex(0, 8)}", f"2025-11-23T101501Z-{sample.hex(1, 8)}",
        f"2025-11-24T101500Z-{sample.hex(2, 8)}", f"2026-11-24T101500Z-{sample.hex(3, 8)}",
    ]  # fmt: skip
    assert sample.names("history/other") == [f"2025-11-23T101500Z-{sample.hex(4, 8)}"]
    assert sample.names("history/no-date") == [f"@{NO_DATE_S:020}-{sample.hex(5, 8)}"]
    link = sample.node(f"history/a/main/2025-11-24T101500Z-{sample.hex(2, 8)}")
    assert sample.view.readlink(link.node).decode() == f"../../../commits/{sample.hex(2)}"
    assert link.size == 9 + 8 + 64 and link.mtime_ns == (DAY_S + 86400) * 10**9 and link.name_s == MOVING_NAME_S


@pytest.mark.parametrize(
    "path",
    [
        "history/nothing", "history/a/main^", "history/a/main@{{0}}", "history/{0}", "history/a/main/{0}",
        "history/a/main/2025-11-23T101500Z-{4:.8}", "history/a/main/2025-11-23T101500Z-{0}",
        "history/a/main/2025-11-23T101500Z-{0:.9}", "history/a/main/2025-02-30T101500Z-{0:.8}",
        "history/a/main/2025-11-23T101460Z-{0:.8}", "history/a/main/@00000000001763892900-{0:.8}",
        "history/a/main/9999-99-99T999999Z-00000000", "history/a/main/0000-01-01T000000Z-00000000",
        "history/a/main/@99999999999999999999-00000000", "history/no-date/@1099511627776-{5:.8}",
        "by-date/0", "by-date/1969", "by-date/2025/1", "by-date/2025/13", "by-date/2025/11/31", "by-date/02025",
        "by-date/2025/10", "by-date/2025/11/22", "by-date/²", "by-date/2024", "by-date/10000", "by-date/-1",
        "by-date/2025/11/23/2025-11-24T101500Z-{2:.8}", "by-date/2025/11/23/{0}",
        "info/nothing", "info/a", "info/main", "info/" + "0" * 64, "info/{0}/parent", "info/{0}/nothing",
        "info/{0}/metadata/..x", "info/{0}/metadata/no", "info/{0:.20}^", "info/.fsview",
        "remotes/nothing", "remotes/a", "remotes/origin:a", "remotes/origin/beta:x", "remotes/origin/a/main^^",
        "remotes/origin/a^", "remotes/beta/x/y", "remotes/" + "x" * 255, "remotes/origin/" + "x" * 255,
        ".fsview/nothing", "refs/.fsview", "versions/nothing", "versions/" + "0" * 64,
        "history/\udcff", "by-date/\udcff", "info/\udcff", "remotes/\udcff", "remotes/origin/\udcff",
        "versions/\udcff", ".fsview/\udcff", "history/a/main/\udcff", "by-date/2025/11/23/\udcff", "info/{0}/\udcff",
        "history/" + "x" * 255, "versions/a/" + "^" * 255, "versions/a/main" + "@" * 240, "info/@{{", "remotes/^",
        "remotes/origin/a/main@{{" + "9" * 230 + "}}",
    ],
)  # fmt: skip
def test_name_that_nothing_has(sample: Sample, path: str) -> None:
    directory, _, name = path.format(*(checksum.hex() for checksum in sample.checksums)).rpartition("/")
    where = sample.node(directory)
    assert sample.view.find(where.node, name.encode("utf-8", "surrogateescape")) is None


def test_history_follows_its_ref(sample: Sample) -> None:
    before = sample.names("history/a/main")
    node = sample.node("history/a/main").node
    point_at(sample.repository, "a/main", sample.checksums[1])
    assert sample.names("history/a/main") == before[:2]
    assert sample.view.find(node, before[3].encode()) is None
    with forge(sample.repository) as work:
        more = work.publish(work.tree(), "a/main", time_s=DAY_S, parent=sample.checksums[3])
    assert sample.names("history/a/main") == [*before, f"2025-11-23T101500Z-{more.hex()[:8]}"]
    assert sample.node("history/a/main").node == node
    point_at(sample.repository, "a/main", None)
    assert sample.names("history") == ["other", "no-date"]
    for gone in (node, nodeid.virtual_node(nodeid.HistoryDirectory(RefId(1 << 40)))):
        with pytest.raises(StaleNodeError):
            sample.view.attributes(gone)
        with pytest.raises(StaleNodeError):
            list(sample.view.rows(gone, 0))


def test_a_parent_that_comes_later_makes_the_history_longer(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "other") as other:
        checksums = build(other)
    with Repository.create(tmp_path / "repo") as repository:
        with forge(repository) as work:
            missing = checksums[0]
            head = work.publish(work.tree(), "r", time_s=DAY_S + 9, parent=missing)
        sample = Sample(repository, view_of(repository), [head])
        assert sample.names("history/r") == [f"2025-11-23T101509Z-{head.hex()[:8]}"]
        assert build(repository)[0] == missing
        assert len(sample.names("history/r")) == 2


def test_commits_of_one_second_whose_digits_are_the_same(sample: Sample) -> None:
    """The one with the lower number has the short name, whichever way it is looked at."""
    with forge(sample.repository) as work:
        one, two = (work.publish(work.tree(), None, time_s=DAY_S, message=(text, "")) for text in TWINS)
    assert one != two and one.hex()[:8] == two.hex()[:8]
    day = "by-date/2025/11/23"
    short, full = f"2025-11-23T101500Z-{one.hex()[:8]}", f"2025-11-23T101500Z-{two.hex()}"
    for _ in range(2):
        assert {short, full} < set(sample.names(day)) and len(sample.names(day)) == 5
        assert sample.view.readlink(sample.node(f"{day}/{short}").node).decode().endswith(one.hex())
        assert sample.view.readlink(sample.node(f"{day}/{full}").node).decode().endswith(two.hex())
        assert sample.view.find(sample.node(day).node, f"2025-11-23T101500Z-{one.hex()}".encode()) is None
        sample.view = view_of(sample.repository)


def test_by_date_has_every_commit_that_has_a_date(sample: Sample) -> None:
    assert sample.names("by-date") == ["2025", "2026"]
    assert sample.names("by-date/2025") == sample.names("by-date/2026") == ["11"]
    assert sample.names("by-date/2025/11") == ["23", "24"]
    names = [f"2025-11-23T101500Z-{sample.hex(0, 8)}", f"2025-11-23T101501Z-{sample.hex(1, 8)}"]
    assert sample.names("by-date/2025/11/23") == [*names, f"2025-11-23T101500Z-{sample.hex(4, 8)}"]
    link = sample.node(f"by-date/2025/11/23/{names[1]}")
    assert sample.view.readlink(link.node).decode() == f"../../../../commits/{sample.hex(1)}"
    for gone in (nodeid.Date(2024, 0, 0), nodeid.Date(2025, 0, 1), nodeid.Date(0, 1, 1), nodeid.Date(2025, 2, 30)):
        with pytest.raises(StaleNodeError):
            sample.view.attributes(nodeid.virtual_node(gone))


def test_a_new_commit_makes_its_day(sample: Sample) -> None:
    days = sample.names("by-date/2025/11")
    with forge(sample.repository) as work:
        work.publish(work.tree(), None, time_s=DAY_S + 5 * 86400)
        work.publish(work.tree(), None, time_s=0)
    assert sample.names("by-date/2025/11") == [*days, "28"]
    assert sample.names("by-date") == ["1970", "2025", "2026"] and len(sample.names("by-date/1970/01/01")) == 1


@pytest.mark.unchecked
def test_a_commit_that_was_taken_away(sample: Sample) -> None:
    """As a prune does it; only the records and the count of prunes matter here."""
    sample.names("by-date/2025/11/23"), sample.names("history/a/main")
    for index in (0, 3):
        with sample.repository.database.reading() as reading:
            number = commit_number(reading, sample.checksums[index])
            assert number is not None

        def remove(writing: Writing, checksum: Checksum = sample.checksums[index], number: int = number) -> None:
            writing.delete(b"commit", id_key(number))
            writing.delete(b"object", bytes((ObjectType.COMMIT,)) + checksum)
            record_pruned(writing, "commit", BitMap64([number]))
            writing.take_id(GENERATION)

        sample.repository.database.write(remove)
        assert f"2025-11-23T101500Z-{sample.hex(0, 8)}" not in sample.names("by-date/2025/11/23")
    assert sample.names("by-date") == ["2025"]
    point_at(sample.repository, "a/main", sample.checksums[2])
    assert [name[:10] for name in sample.names("history/a/main")] == ["2025-11-23", "2025-11-24"]


def test_info_of_a_commit(sample: Sample) -> None:
    info = f"info/{sample.hex(1)}"
    assert sample.names(info) == [
        "subject", "body", "parent", "tree", "metadata", "timestamp", "directories", "entries", "signatures", "refs",
        "commit.json", "object", "detached",
    ]  # fmt: skip
    assert sample.names(f"info/{sample.hex(0)}") == [name for name in sample.names(info) if name != "parent"]
    texts = {
        name: sample.text(f"{info}/{name}")
        for name in sample.names(info)
        if name not in ("parent", "tree", "metadata", "object", "detached")
    }
    found = json.loads(texts.pop("commit.json"))
    assert texts == {
        "subject": "subject 1\n", "body": "one\ntwo\n", "timestamp": "2025-11-23T10:15:01Z\n", "directories": "1\n",
        "entries": "2\n", "signatures": "", "refs": "origin:a/main\n",
    }  # fmt: skip
    assert (found["commit"], found["parent"], found["body"]) == (sample.hex(1), sample.hex(0), "one\ntwo")
    assert found["metadata"]["no/file"] == "uint32 5" and found["refs"] == ["origin:a/main"]
    assert sample.text(f"info/{sample.hex(5)}/timestamp") == f"@{NO_DATE_S}\n"
    assert sample.text(f"info/{sample.hex(0)}/body") == ""
    assert sample.node(f"{info}/subject").mtime_ns == (DAY_S + 1) * 10**9


def test_info_of_metadata(sample: Sample) -> None:
    metadata = f"info/{sample.hex(1)}/metadata"
    assert sample.names(metadata) == ["version", "ostree.ref-binding"]
    assert sample.text(f"{metadata}/version") == "12.5\n"
    assert sample.text(f"{metadata}/ostree.ref-binding") == "['main']\n"


def test_symlinks_in_info(sample: Sample) -> None:
    def target(path: str) -> str:
        found = sample.node(path)
        way = sample.view.readlink(found.node).decode()
        assert found.size == len(way) and stat.S_ISLNK(found.mode)
        return way

    assert target(f"info/{sample.hex(1)}/parent") == f"../{sample.hex(0)}"
    assert target(f"info/{sample.hex(4)}/parent") == f"../{'0' * 64}"  # also if it is not here
    assert target(f"info/{sample.hex(1)}/tree") == f"../../commits/{sample.hex(1)}"
    assert target(f"info/{sample.hex(1, 20)}") == sample.hex(1)
    assert target(f"info/{sample.hex(3)}~2") == sample.hex(1)


def test_what_may_change_is_kept_briefly(sample: Sample) -> None:
    info = f"info/{sample.hex(1)}"
    for name in ("signatures", "refs", "commit.json", "detached"):
        found = sample.node(f"{info}/{name}")
        assert found.attributes_s == MOVING_NAME_S
    for name in ("subject", "body", "timestamp", "metadata/version", "object"):
        found = sample.node(f"{info}/{name}")
        assert found.attributes_s == FOREVER_S
    point_at(sample.repository, "new", sample.checksums[1])
    assert sample.text(f"{info}/refs") == "new\norigin:a/main\n"
    with sample.repository.database.reading() as reading:
        number = commit_number(reading, sample.checksums[1])
    assert number is not None
    signatures = pack_detached((("ostree.gpgsigs", Variant("aay", [b"\1\2", b"\3"])), ("note", Variant("s", "x"))))
    sample.repository.database.write(lambda writing: writing.put(b"detached", id_key(number), signatures))
    assert sample.text(f"{info}/signatures") == "ostree.gpgsigs 0102\nostree.gpgsigs 03\n"
    assert json.loads(sample.text(f"{info}/commit.json"))["detached_metadata"]["note"] == "'x'"
    assert sample.content(f"{info}/detached") == signatures


def test_the_bytes_of_a_commit(sample: Sample) -> None:
    info = f"info/{sample.hex(1)}"
    assert hashlib.sha256(sample.content(f"{info}/object")).hexdigest() == sample.hex(1)
    assert sample.content(f"{info}/detached") == b""


def test_items_that_a_commit_does_not_have_are_stale(sample: Sample) -> None:
    first = nodeid.Info(CommitNumber(1024), 0)
    for item in (3, 14, 1023, 1024 + len(METADATA), (1 << 28) - 1):
        with pytest.raises(StaleNodeError):
            sample.view.attributes(nodeid.virtual_node(first._replace(item=item)))
    with pytest.raises(StaleNodeError):
        sample.view.attributes(nodeid.virtual_node(first._replace(commit=CommitNumber(5000))))


def test_remotes(sample: Sample) -> None:
    assert sorted(sample.names("remotes")) == ["beta", "origin"]
    assert sample.names("remotes/origin") == ["a", "top"] and sample.names("remotes/origin/a") == ["main"]
    for path, index, up in (
        ("beta/x", 0, 2), ("origin/top", 0, 2), ("origin/a/main", 1, 3), ("origin/a/main^", 0, 3),
        ("origin/a/main@{0}", 1, 3),
    ):  # fmt: skip
        found = sample.node(f"remotes/{path}")
        way = sample.view.readlink(found.node).decode()
        assert way == "../" * up + f"commits/{sample.hex(index)}" and len(way) == found.size
    assert sample.names("refs") == ["a", "other", "no-date"]


def test_a_remote_is_there_as_long_as_it_has_refs(sample: Sample) -> None:
    node = sample.node("remotes/beta").node
    point_at(sample.repository, "beta:x", None)
    assert sample.names("remotes") == ["origin"]
    with pytest.raises(StaleNodeError):
        sample.view.attributes(node)
    point_at(sample.repository, "beta:y/z", sample.checksums[0])
    assert sample.node("remotes/beta").node == node and sample.names("remotes/beta") == ["y"]


def test_many_remotes_and_refs_are_found_in_between(sample: Sample) -> None:
    for name in ("origin-2:a", "origin.x:b/c", "origin/local", "originals", "z:1", "a/b/c", "beta/y"):
        point_at(sample.repository, name, sample.checksums[0])
    assert sorted(sample.names("remotes")) == ["beta", "origin", "origin-2", "origin.x", "z"]
    assert sorted(sample.names("refs")) == ["a", "beta", "no-date", "origin", "originals", "other"]
    assert sample.names("refs/origin") == ["local"] and sample.names("remotes/origin.x/b") == ["c"]


def test_a_ref_whose_name_may_be_an_abbreviation(sample: Sample) -> None:
    name = sample.hex(0, 4)
    point_at(sample.repository, name, sample.checksums[3])
    assert sample.view.readlink(sample.node(f"refs/{name}^").node).decode().endswith(sample.hex(2))
    assert sample.view.readlink(sample.node(f"refs/{name}~2").node).decode().endswith(sample.hex(1))


def test_status(sample: Sample) -> None:
    assert sample.names(".fsview") == ["repository", "stats.json", "version"]
    assert sample.text(".fsview/repository") == f"{sample.repository.path}\n"
    assert sample.text(".fsview/stats.json") == "{}\n" and sample.text(".fsview/version").endswith("\n")
    found = sample.node(".fsview/stats.json")
    assert found.attributes_s == 0
    with pytest.raises(StaleNodeError):
        sample.view.attributes(nodeid.virtual_node(nodeid.StatusFile(9)))


def test_what_is_listed_is_found_by_name_and_read_on_behind_any_cookie(sample: Sample) -> None:
    left: list[int] = [nodeid.ROOT]
    count = 0
    while left:
        node = left.pop()
        rows = list(sample.view.rows(node, 0))
        assert len({row.cookie for row in rows}) == len(rows) == len({row.name for row in rows})
        for index, row in enumerate(rows):
            assert row.cookie < 1 << 63 and list(sample.view.rows(node, row.cookie)) == rows[index + 1 :]
            if index > 1:
                assert sample.view.find(node, row.name) == row.attributes
                left += [row.attributes.node] if stat.S_ISDIR(row.attributes.mode) else []
        count += len(rows)
    assert count > 200


def test_no_question_to_the_wrong_node_is_answered(sample: Sample) -> None:
    """Nor ends in anything but an error that has an errno."""
    paths = ("history/a/main", "by-date/2025/11", f"info/{sample.hex(0)}/subject", f"info/{sample.hex(0)}", "versions")
    nodes = [sample.node(path).node for path in (*paths, ".fsview/version", "remotes/beta", "remotes", "refs/a/main")]
    for node in nodes:
        is_file = not stat.S_ISDIR(sample.view.attributes(node).mode)
        if not is_file or stat.S_ISLNK(sample.view.attributes(node).mode):
            with pytest.raises(NotFoundError, match="no file"):
                sample.view.read(node, 0, 1)
        if is_file:
            assert sample.view.find(node, b"x") is None
            with pytest.raises(NotFoundError, match="no directory"):
                list(sample.view.rows(node, 3))


def test_who_reads_a_long_history_says_so(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the supervisor would take the worker for one that hangs."""
    monkeypatch.setattr("fsview.ancestry.PROGRESS_COMMITS", 2)
    monkeypatch.setattr("fsview.commit_names.PROGRESS_COMMITS", 2)
    said = []
    sample.view.on_progress = lambda: said.append(True)
    sample.names("by-date")
    assert len(said) == 3
    sample.names("history/a/main")
    assert len(said) == 5
