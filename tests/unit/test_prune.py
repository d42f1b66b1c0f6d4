"""What a prune deletes and what it leaves, also of what is committed beside it; without a kernel in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from store import prune as module
from store.check import check
from store.content import chunks
from store.database import Writing
from store.errors import CorruptionError, FsviewError, NotFoundError, PrunedError
from store.findings import Severity
from store.marking import Rule
from store.objects import Checksum, ObjectType
from store.prune import Phase, plan, prune
from store.pruned import pruned_ids
from store.refs import reflog, set_ref
from store.repository import Repository
from store.revisions import find_named_ref, find_place, resolve
from store.schema import FIRST_ID, CommitNumber, FileId, id_key
from store.tree import commit_number, commit_record, object_id
from tests.committing import commit_tree
from tests.forge import forge
from tests.readback import committed_snapshot
from tests.running import RunFsview
from tests.trees import Spec, build_tree

LARGE = bytes(range(256)) * 700  # loose, of two blocks
REFS_ONLY = Rule(refs_only=True)


@pytest.fixture(autouse=True)
def _no_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_LAG_S", 0.0)
    monkeypatch.setattr(module, "TICKS_S", 0.0)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """Return a repository; every test ends with a check of it."""
    with Repository.create(tmp_path / "repo") as made:
        yield made


@pytest.fixture
def line(repository: Repository, tmp_path: Path) -> list[Checksum]:
    """Return four commits on the ref main, from the first to the last."""
    return [make(repository, tmp_path / str(number), tree(number)) for number in range(4)]


def tree(number: int) -> Spec:
    """Return a tree of which the half is the same in all."""
    own = {"small": b"%d" % number, "large": LARGE + b"%d" % number, "empty": b""}
    return {"same": {"f": b"same", "large": LARGE}, f"own{number}": own}


def make(repository: Repository, path: Path, spec: Spec, ref: str | None = "main") -> Checksum:
    return commit_tree(repository, build_tree(path, spec), ref).checksum


def move(repository: Repository, ref: str, checksum: Checksum | None) -> None:
    def body(writing: Writing) -> None:
        number = None if checksum is None else commit_number(writing, checksum)
        set_ref(writing, ref, number, time_s=0, message="moved")
        writing.settle_s = 0

    repository.database.write(body)


def number_of(repository: Repository, checksum: Checksum) -> CommitNumber:
    with repository.database.reading() as reading:
        number = commit_number(reading, checksum)
    assert number is not None
    return number


def here(repository: Repository, checksums: list[Checksum]) -> list[int]:
    """Return which of these commits are here, by their place in the list; those are whole."""
    with repository.database.reading() as reading:
        found = [index for index, one in enumerate(checksums) if commit_number(reading, one) is not None]
    for index in found:
        committed_snapshot(repository, checksums[index])
    return found


def loose_files(repository: Repository) -> int:
    return sum(path.is_file() for path in (repository.path / "objects").rglob("*"))


def test_without_refs_only_every_commit_stays(repository: Repository, line: list[Checksum]) -> None:
    move(repository, "main", line[0])
    assert prune(repository, Rule(depth=0)).total_bytes == 0
    assert here(repository, line) == [0, 1, 2, 3]


@pytest.mark.parametrize(("depth", "left"), [(-1, [0, 1, 2]), (0, [2]), (1, [1, 2]), (2, [0, 1, 2]), (99, [0, 1, 2])])
def test_what_refs_reach(repository: Repository, line: list[Checksum], depth: int, left: list[int]) -> None:
    move(repository, "main", line[2])
    pruned = prune(repository, Rule(refs_only=True, depth=depth))
    assert here(repository, line) == left
    assert sorted(pruned.commits) == sorted(line[index] for index in {0, 1, 2, 3} - set(left))
    assert loose_files(repository) == 1 + len(left)
    assert check(repository) == []


@pytest.mark.parametrize(("heads", "left"), [((3, 1), [0, 1, 2, 3]), ((3, 0), [0, 2, 3]), ((0, 3), [0, 2, 3])])
def test_each_ref_counts_its_own_parents(
    repository: Repository, line: list[Checksum], heads: tuple[int, int], left: list[int]
) -> None:
    for ref, head in zip(("main", "a/other"), heads, strict=True):
        move(repository, ref, line[head])
    prune(repository, Rule(refs_only=True, depth=1))
    assert here(repository, line) == left


def test_without_refs_nothing_stays(repository: Repository, line: list[Checksum]) -> None:
    move(repository, "main", None)
    pruned = prune(repository, REFS_ONLY)
    assert len(pruned.commits) == 4 and loose_files(repository) == 0
    with repository.database.reading() as reading:
        tables = (b"object", b"file", b"content", b"blocks", b"dirtree", b"listing", b"dirmeta", b"commit", b"stat")
        assert [reading.count(table) for table in tables] == [0] * len(tables)
        assert reading.count(b"mtime") > 0  # a copy may still have the second that one of the contents had


def test_a_plan_says_what_goes_and_changes_nothing(repository: Repository, line: list[Checksum]) -> None:
    with repository.database.reading() as reading:
        number = commit_number(reading, line[1])
    rule = Rule(deleted=frozenset({number} if number else ()))
    before = repository.database.last_change()
    planned = plan(repository, rule)
    assert repository.database.last_change() == before
    done = prune(repository, rule)
    assert planned == done
    assert {counter: tally.count for counter, tally in done.tallies.items()} == {
        "commit": 1, "tree": 2, "meta": 0, "file": 2,
    }  # fmt: skip
    assert done.tallies["file"].loose_bytes == len(LARGE) + 1
    assert plan(repository, rule).total_bytes == 0


def test_a_deleted_commit_leaves_a_gap_in_the_history(repository: Repository, line: list[Checksum]) -> None:
    prune(repository, Rule(deleted=frozenset({number_of(repository, line[1])})))
    assert here(repository, line) == [0, 2, 3]
    assert check(repository) == []
    with repository.database.reading() as reading:
        for text in ("main~2", f"{line[2].hex()}^"):
            with pytest.raises(NotFoundError, match=rf"whose parent {line[1].hex()} was pruned"):
                resolve(reading, text, now_s=0)
        with pytest.raises(NotFoundError, match=f"there is no commit {line[1].hex()}"):
            resolve(reading, line[1].hex(), now_s=0)


def test_behind_a_deleted_commit_refs_reach_nothing(repository: Repository, line: list[Checksum]) -> None:
    """As ostree has it: the commit is deleted first, and then its parents are not found any more."""
    prune(repository, Rule(refs_only=True, deleted=frozenset({number_of(repository, line[1])})))
    assert here(repository, line) == [2, 3]


def test_a_commit_at_which_a_ref_points_is_not_deleted(repository: Repository, line: list[Checksum]) -> None:
    move(repository, "a/b", line[2])
    with pytest.raises(FsviewError, match=rf"{line[2].hex()} can't be deleted, the ref a/b points at it"):
        prune(repository, Rule(deleted=frozenset({number_of(repository, line[2])})))
    assert here(repository, line) == [0, 1, 2, 3]


def test_the_log_of_a_ref_can_be_read(repository: Repository, line: list[Checksum]) -> None:
    prune(repository, Rule(refs_only=True, depth=0))
    with repository.database.reading() as reading:
        named = find_named_ref(reading, "main")
        assert named is not None and len(list(reflog(reading, named[1].ref_id))) == 4
        assert resolve(reading, "main@{0}", now_s=0) == named[1].commit
        for index in (1, 3):
            with pytest.raises(
                NotFoundError, match=rf"at '@\{{{index}\}}' is not here any more: 'fsview prune' deleted"
            ):
                resolve(reading, f"main@{{{index}}}", now_s=0)


def test_ids_are_not_given_out_again(repository: Repository, tmp_path: Path, line: list[Checksum]) -> None:
    first = number_of(repository, line[0])
    prune(repository, Rule(refs_only=True, depth=0))
    with repository.database.reading() as reading:
        before = {counter: reading.counter(counter) for counter in ("file", "tree", "meta", "commit")}
        gone = [pruned_ids(reading, counter) for counter in before]
    again = make(repository, tmp_path / "again", tree(0), "again")
    assert number_of(repository, again) == before["commit"] > first
    assert here(repository, [*line, again]) == [3, 4]
    assert loose_files(repository) == 3 and check(repository) == []
    with repository.database.reading() as reading:
        assert [pruned_ids(reading, counter) for counter in before] == gone
        with pytest.raises(PrunedError):
            commit_record(reading, first)


def test_what_vanished_is_damage_and_what_was_pruned_is_not(repository: Repository, line: list[Checksum]) -> None:
    file_id = _file_id(repository, line[0])
    prune(repository, Rule(refs_only=True, depth=0))
    with repository.database.reading() as reading, pytest.raises(PrunedError) as caught:
        list(chunks(repository, reading, file_id))
    assert f"file {file_id} " in str(caught.value)
    with repository.database.reading() as reading, pytest.raises(CorruptionError):
        reading.need(b"file", id_key(99_999))


def test_a_loose_file_that_goes_between_two_looks_is_no_damage(
    repository: Repository, line: list[Checksum], run_fsview: RunFsview
) -> None:
    file_id = _file_id(repository, line[0])
    with repository.database.reading() as reading:
        run_fsview("prune", "--repo", repository.path, "--refs-only", "--depth=0")
        with pytest.raises(PrunedError, match="'fsview prune' deleted it"):
            list(chunks(repository, reading, file_id))  # this reading has the record still


def _file_id(repository: Repository, checksum: Checksum) -> FileId:
    with repository.database.reading() as reading:
        return FileId(find_place(reading, checksum.hex(), b"own0/large", now_s=0).entry.id)


# Beside others.


def at(phase: Phase, work: Callable[[], object]) -> Callable[[Phase, int, int], None]:
    """Return a report that does *work* the first time that it hears of *phase*."""
    waiting = [work]

    def report(now: Phase, done: int, total: int) -> None:
        if now == phase and waiting:
            waiting.pop()()

    return report


def test_what_is_committed_after_the_marking_stays(
    repository: Repository, tmp_path: Path, line: list[Checksum]
) -> None:
    """The commit needs what was not marked: the objects of the first commit, which no ref reaches."""
    made: list[Checksum] = []
    own = {**tree(0), "new": b"new"}
    report = at(Phase.WAITING, lambda: made.append(make(repository, tmp_path / "beside", own, "beside")))
    prune(repository, Rule(refs_only=True, depth=0), report)
    assert here(repository, [*line, *made]) == [3, 4]
    assert loose_files(repository) == 3
    assert check(repository) == []


def test_a_ref_that_comes_after_the_marking_keeps_its_commit(repository: Repository, line: list[Checksum]) -> None:
    report = at(Phase.WAITING, lambda: move(repository, "late", line[0]))
    prune(repository, Rule(refs_only=True, depth=0), report)
    assert here(repository, line) == [0, 3]
    report = at(Phase.WAITING, lambda: move(repository, "main", line[0]))
    with pytest.raises(FsviewError, match=r"the ref (late|main) points at it"):
        prune(repository, Rule(deleted=frozenset({number_of(repository, line[0])})), report)
    assert here(repository, line) == [0, 3]


def test_a_commit_that_is_gone_gets_no_ref(repository: Repository, line: list[Checksum]) -> None:
    """Whoever looked up its number before the prune is told, even without the lock."""
    number = number_of(repository, line[0])
    prune(repository, Rule(refs_only=True, depth=0))
    with pytest.raises(PrunedError):
        repository.database.write(lambda writing: set_ref(writing, "late", number, time_s=0, message=""))
    assert check(repository) == []


@pytest.mark.parametrize("phase", [Phase.MARKING, Phase.WAITING])
def test_a_prune_beside_a_prune(repository: Repository, line: list[Checksum], phase: Phase) -> None:
    pruned = prune(repository, REFS_ONLY, at(phase, lambda: prune(repository, Rule(refs_only=True, depth=1))))
    assert pruned.commits == []
    assert here(repository, line) == [2, 3]


def test_what_another_prune_deletes_while_it_is_marked(repository: Repository, line: list[Checksum]) -> None:
    """The marking has the roots of all commits in hand when three of these go."""
    with mock.patch.object(module, "_AT_A_TIME", 1):
        pruned = prune(repository, Rule(), at(Phase.MARKING, lambda: prune(repository, Rule(refs_only=True, depth=0))))
    assert pruned.total_bytes == 0 and here(repository, line) == [3]


# Leftovers.


def test_leftovers_go_and_strangers_stay(repository: Repository, line: list[Checksum]) -> None:
    objects, tmp = repository.path / "objects", repository.path / "tmp"
    orphan = repository.loose_path(Checksum(bytes(32)))
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(bytes(1000))
    (tmp / "stage-old").mkdir()
    (tmp / "stage-old" / "trees").write_bytes(bytes(200))
    strange = [objects / "lost+found" / "file", objects / "notes", orphan.with_name("README")]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert plan(repository, Rule()).leftovers == prune(repository, Rule()).leftovers
    assert not orphan.exists() and list(tmp.iterdir()) == []
    left = [finding.where for finding in check(repository)]
    assert sorted(left) == sorted(map(str, [objects / "lost+found", objects / "notes", orphan.with_name("README")]))
    assert all(path.exists() for path in strange) and here(repository, line) == [0, 1, 2, 3]


def test_killed_between_the_index_and_the_files(repository: Repository, tmp_path: Path, line: list[Checksum]) -> None:
    with mock.patch.object(module, "_remove_loose", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        prune(repository, Rule(refs_only=True, depth=0))
    assert here(repository, line) == [3] and loose_files(repository) == 5
    found = check(repository)
    assert [finding.severity for finding in found] == [Severity.GARBAGE] * 3
    assert {finding.mend for finding in found} == {"it takes space only; 'fsview prune' removes it"}
    again: list[Checksum] = []
    report = at(Phase.WAITING, lambda: again.append(make(repository, tmp_path / "again", tree(0), "again")))
    pruned = prune(repository, Rule(), report)  # the file of the first commit is left over when it looks
    assert pruned.leftovers.count == 2 and loose_files(repository) == 3
    assert here(repository, [*line, *again]) == [3, 4] and check(repository) == []


def test_interrupted_in_the_transaction_nothing_is_gone(repository: Repository, line: list[Checksum]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(repository, Rule(refs_only=True, depth=0), at(Phase.DELETING, interrupt))
    assert here(repository, line) == [0, 1, 2, 3] and loose_files(repository) == 5
    assert check(repository) == []


def test_the_stat_cache_forgets(repository: Repository, tmp_path: Path) -> None:
    """A tree that was pruned is committed again from where it was: the cache knows it no more, and the rest still."""
    path = build_tree(tmp_path / "tree", {"kept": {"f": b"same"}, "gone": {"g": b"1"}})
    long_ago = mock.patch("time.time_ns", lambda: 1 << 62)
    with long_ago:
        first = commit_tree(repository, path, "first").checksum
    (path / "gone" / "g").unlink()
    second = commit_tree(repository, path, "second").checksum
    move(repository, "first", None)
    with repository.database.reading() as reading:
        before = reading.count(b"stat")
    prune(repository, REFS_ONLY)
    assert here(repository, [first, second]) == [1] and check(repository) == []
    with repository.database.reading() as reading:
        assert 0 < reading.count(b"stat") <= before
    (path / "gone" / "g").write_bytes(b"1")
    with long_ago:
        commit_tree(repository, path, "third")
        commit_tree(repository, path, "third")
    assert check(repository) == []


@pytest.mark.unchecked
def test_a_damaged_index_is_not_pruned(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "index-broken") as broken:
        with forge(broken) as work:
            root = work.tree({b"f": work.file(b"f")})
            work.publish(root, "main")
        with broken.database.reading() as reading:
            tree_id = object_id(reading, ObjectType.DIRTREE, root)
        assert tree_id == FIRST_ID
        broken.database.write(lambda writing: writing.delete(b"listing", id_key(FIRST_ID)))
        with pytest.raises(CorruptionError):
            prune(broken, Rule())
        with broken.database.reading() as reading:
            assert reading.count(b"commit") == 1
