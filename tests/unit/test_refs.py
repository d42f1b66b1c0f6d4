"""Refs: OSTree's names, no ref below another, a log of all moves, and ids that are never given out again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tools.make_commit
from store.database import Reading, Writing
from store.errors import ConflictError, FsviewError, InvalidNameError, NotFoundError
from store.refs import NAME_BYTES_MAX, check_ref_name, find_ref, list_refs, reflog, set_ref
from store.repository import Repository
from store.schema import CommitNumber, RefId, ReflogRecord, RefName, key_id
from tests.checking import assert_sound
from tests.forge import forge
from tools.cli import run

GOOD = [
    "a", "a/b", "1", "_", "a-b", "a.b", "a..b", "A/b-1/c_2.d", "é", "日本/語", "a.", "a-", "x" * 255, "f" * 63,
    "F" * 64,
]  # fmt: skip
BAD = [
    "", "/", "a/", "/a", "a//b", "-a", ".a", "a/-b", "a/.b", ".", "..", "a b", "a\tb", "a\nb", "a*", "a@{1}", "a^",
    "a~1", "f" * 64, "0" * 64,
]  # fmt: skip
WORSE = [  # ostree has no word on these: a NUL can't be given, a newline at the end is let through
    "a\0", "a\n", "x" * 256, "a/b:c", "-r:a", "r:-a", "r::a", "r:s:a", "r:", ":r", "r:" + "f" * 64, "a/" * 250 + "b",
]  # fmt: skip


class Ledger:
    """A repository with three commits, and short names for what is done to its refs."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        with forge(repository) as work:
            root = work.tree()
            for time_s in range(3):
                work.publish(root, None, time_s=time_s)
        first = 1024
        self.commits = [CommitNumber(first + number) for number in range(3)]
        self.clock = 0

    def set(self, name: str, commit: int | None, **more: CommitNumber | None) -> None:
        """Point a ref at the n-th commit, or delete it."""
        self.clock += 1

        def body(writing: Writing) -> None:
            new = None if commit is None else self.commits[commit]
            set_ref(writing, name, new, time_s=self.clock, message=f"move {self.clock}", **more)
            writing.settle_s = 0

        self.repository.database.write(body)

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of refs, as listed."""
        with self.repository.database.reading() as reading:
            return [name for name, _ in list_refs(reading, prefix)]

    def id(self, name: str) -> RefId:
        """Return the id of a ref."""
        with self.repository.database.reading() as reading:
            found = find_ref(reading, name)
        assert found is not None
        return found.ref_id

    def directories(self) -> dict[str, int]:
        """Return the directories of refs, with their ids."""
        with self.repository.database.reading() as reading:
            return {key.decode(): key_id(value) for key, value in reading.items(b"refdir")}

    def log(self, ref_id: RefId) -> list[ReflogRecord]:
        """Return the moves of a ref."""
        with self.repository.database.reading() as reading:
            return list(reflog(reading, ref_id))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Repository.create(tmp_path / "repo") as repository:
        yield Ledger(repository)
    assert_sound(tmp_path / "repo")


@pytest.mark.parametrize("name", [*GOOD, "origin:a/b", "my.remote-1:x"])
def test_a_good_name(name: str) -> None:
    check_ref_name(name)


@pytest.mark.parametrize("name", BAD + WORSE)
def test_a_bad_name(name: str) -> None:
    with pytest.raises(InvalidNameError):
        check_ref_name(name)


def test_ostree_has_the_same_names(tmp_path: Path) -> None:
    repo = tmp_path / "ostree"
    subprocess.run(["ostree", "init", f"--repo={repo}", "--mode=bare-user"], check=True)
    (tmp_path / "empty").mkdir()
    commit: list[str | Path] = [
        "ostree",
        "commit",
        f"--repo={repo}",
        "--orphan",
        "--no-bindings",
        "--timestamp=@1",
        tmp_path / "empty",
    ]
    made = subprocess.run(commit, check=True, capture_output=True, text=True).stdout.strip()
    for name in GOOD + BAD:
        create = ["ostree", "refs", f"--repo={repo}", f"--create={name}", made]
        theirs = subprocess.run(create, capture_output=True, env=os.environ | {"LC_ALL": "C.UTF-8"})
        subprocess.run(["ostree", "refs", f"--repo={repo}", "--delete", name], capture_output=True)
        assert (theirs.returncode == 0) == (name in GOOD), (name, theirs.stderr)


def test_a_ref_moves_and_every_move_is_logged(ledger: Ledger) -> None:
    ledger.set("a/b", 0)
    ref_id = ledger.id("a/b")
    ledger.set("a/b", 1)
    ledger.set("a/b", 1)
    ledger.set("a/b", None)
    one, two, _ = ledger.commits
    assert ledger.log(ref_id) == [
        ReflogRecord(two, None, 4, "move 4"), ReflogRecord(two, two, 3, "move 3"),
        ReflogRecord(one, two, 2, "move 2"), ReflogRecord(None, one, 1, "move 1"),
    ]  # fmt: skip


def test_deleted_and_made_again_it_is_another(ledger: Ledger) -> None:
    ledger.set("a/b", 0)
    old, old_directories = ledger.id("a/b"), ledger.directories()
    ledger.set("a/b", None)
    assert ledger.names() == [] and ledger.directories() == {}
    ledger.set("a/b", 1)
    assert ledger.id("a/b") > old and ledger.directories()["a"] > old_directories["a"]
    assert len(ledger.log(ledger.id("a/b"))) == 1 and len(ledger.log(old)) == 2
    with ledger.repository.database.reading() as reading:
        names = [RefName.unpack(value) for _, value in reading.items(b"refid")]
    assert names == [
        RefName(True, False, b"a"),
        RefName(False, False, b"a/b"),
        RefName(True, True, b"a"),
        RefName(False, True, b"a/b"),
    ]


def test_directories_live_as_long_as_there_is_a_ref_in_them(ledger: Ledger) -> None:
    for name in ("a/b/c", "a/b/d", "a/e"):
        ledger.set(name, 0)
    before = ledger.directories()
    assert sorted(before) == ["a", "a/b"]
    ledger.set("a/b/c", None)
    assert ledger.directories() == before
    ledger.set("a/b/d", None)
    assert ledger.directories() == {"a": before["a"]}
    ledger.set("a/e", None)
    assert ledger.directories() == {}


@pytest.mark.parametrize(
    ("there", "name"),
    [("a", "a/b"), ("a", "a/b/c"), ("a/b", "a"), ("a/b/c", "a"), ("a/b/c", "a/b"), ("o:a", "o:a/b"), ("o:a/b", "o:a")],
)
def test_no_ref_is_a_directory_of_refs(ledger: Ledger, there: str, name: str) -> None:
    ledger.set(there, 0)
    with pytest.raises(InvalidNameError, match=r"can't be a ref, as .* choose another name"):
        ledger.set(name, 1)
    assert ledger.names() == [there]
    ledger.set(there, None)
    ledger.set(name, 1)  # now it can


@pytest.mark.parametrize(
    ("there", "name"), [("a", "ab"), ("a", "a.b/c"), ("a/b", "a/bc"), ("a", "o:a"), ("o", "o:a/b"), ("o/a", "o:a")]
)
def test_names_that_only_look_like_it(ledger: Ledger, there: str, name: str) -> None:
    ledger.set(there, 0)
    ledger.set(name, 1)
    assert ledger.names() == sorted([there, name], key=str.encode)


def test_a_remotes_refs_are_in_no_local_directory(ledger: Ledger) -> None:
    """origin/x is a local ref, origin:x a remote's: the one's directory goes although the other is there."""
    ledger.set("origin:x", 0)
    ledger.set("origin/x", 0)
    ledger.set("origin/x", None)
    assert ledger.directories() == {}
    ledger.set("origin", 1)
    assert ledger.names() == ["origin", "origin:x"]


def test_listing_below_a_prefix(ledger: Ledger) -> None:
    for name in ("a", "ab/c", "b/c/d", "b/c-e", "b:c", "é/x"):
        ledger.set(name, 0)
    assert ledger.names() == ["a", "ab/c", "b/c-e", "b/c/d", "b:c", "é/x"]
    assert [ledger.names(prefix) for prefix in ("a", "ab", "b", "b/c", "b/", "é", "x", "b:c")] == [
        ["a"], ["ab/c"], ["b/c-e", "b/c/d", "b:c"], ["b/c/d"], ["b/c-e", "b/c/d", "b:c"], ["é/x"], [], ["b:c"],
    ]  # fmt: skip


def test_what_is_expected_must_be_so(ledger: Ledger) -> None:
    one, two, _ = ledger.commits
    with pytest.raises(ConflictError):
        ledger.set("a", 0, expected=one)
    ledger.set("a", 0, expected=None)
    with pytest.raises(ConflictError):
        ledger.set("a", 1, expected=None)
    with pytest.raises(ConflictError):
        ledger.set("a", 1, expected=two)
    with pytest.raises(ConflictError):
        ledger.set("a", None, expected=two)
    ledger.set("a", 1, expected=one)
    ledger.set("a", None, expected=two)
    assert len(ledger.log(RefId(1024))) == 3


def test_what_is_not_there_can_not_be_deleted(ledger: Ledger) -> None:
    ledger.set("a/b", 0)
    for name in ("a", "a/b/c", "b"):
        with pytest.raises(NotFoundError):
            ledger.set(name, None)


def test_names_that_no_ref_can_have_are_not_found(ledger: Ledger) -> None:
    def look(reading: Reading) -> None:
        assert find_ref(reading, "") is None
        assert find_ref(reading, "a" * 10_000) is None
        assert find_ref(reading, "é" * 256) is None
        assert find_ref(reading, "a\udcff") is None
        assert list(list_refs(reading, "a" * 10_000)) == list(list_refs(reading, "\udcff")) == []

    with ledger.repository.database.reading() as reading:
        look(reading)


def test_the_longest_name(ledger: Ledger) -> None:
    name = "/".join(["é" * 124] * 2) + "/b"
    assert len(name.encode()) == NAME_BYTES_MAX - 1
    ledger.set(name, 0)
    assert ledger.names() == [name]


names = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3).map("/".join)
refs = st.builds(lambda remote, name: remote + name, st.sampled_from(["", "", "a:", "b:"]), names)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.tuples(refs, st.sampled_from([0, 1, None])), max_size=20))
def test_any_moves(ledger: Ledger, moves: list[tuple[str, int | None]]) -> None:
    """Refs are what a dictionary says in which no key is a directory of another; all directories are alive ones."""
    for name in ledger.names():
        ledger.set(name, None)
    model: dict[str, int] = {}
    seen: set[int] = set()
    for name, commit in moves:
        clash = any(other.startswith(name + "/") or name.startswith(other + "/") for other in model)
        try:
            ledger.set(name, commit)
        except FsviewError:
            assert name not in model and (commit is None or clash)
            continue
        assert commit is None or not clash
        if commit is None:
            del model[name]
        else:
            assert (ledger.id(name) in seen) == (name in model)
            seen.add(ledger.id(name))
            model[name] = commit
    assert ledger.names() == sorted(model, key=str.encode)
    parents = {name[:at] for name in model for at, character in enumerate(name) if character == "/"}
    assert set(ledger.directories()) == parents


def test_a_commit_that_has_no_place_to_go_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not after hours of hashing."""
    repo, tree = str(tmp_path / "repo"), tmp_path / "tree"
    tree.mkdir()
    assert run(["init", repo]) == 0
    assert run(["commit", "--repo", repo, "-b", "a", str(tree)]) == 0
    (tree / "f").write_bytes(b"f")
    monkeypatch.delattr(tools.make_commit, "Writer")
    assert run(["commit", "--repo", repo, "-b", "a/b", str(tree)]) == 2
    assert "as a is one" in capsys.readouterr().err
    assert_sound(tmp_path / "repo")
