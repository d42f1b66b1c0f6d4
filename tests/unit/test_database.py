"""The index as LMDB holds it: transactions, guards, a map that grows, readers that die, other processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from store import database as module
from store.database import Database, Writing, guard
from store.errors import ConflictError, CorruptionError, FormatError, FsviewError
from store.repository import Repository
from store.schema import DATABASES, FIRST_ID, id_key
from tests.checking import assert_sound
from tests.committing import commit_tree
from tests.running import PROJECT
from tests.trees import Spec, build_tree
from tests.users import NOBODY, run_as_nobody

MIB = 1 << 20


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.create(tmp_path / "index", map_bytes=MIB)
    yield database
    database.close()
    assert module._open == {}


def _put(key: bytes, value: bytes) -> Callable[[Writing], None]:
    return lambda writing: writing.put(b"content", key, value)


def _get(database: Database, key: bytes) -> bytes | None:
    with database.reading() as reading:
        return reading.get(b"content", key)


def _in_another_process(database: Database, body: str) -> None:
    """Run Python lines that may use `database`, their own."""
    program = (
        "from pathlib import Path\nfrom store.database import Database\n"
        f"database = Database.open(Path({str(database.path)!r}), map_bytes={MIB})\n{body}\n"
    )
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(PROJECT)}, check=True)


def _in_a_child(body: Callable[[], object]) -> None:
    """Run *body* in a forked process, which must not fail."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_values_are_guarded_in_their_place(database: Database) -> None:
    database.write(_put(b"k", b"value"))
    assert _get(database, b"k") == b"value" and _get(database, b"K") is None
    with database._env.begin() as txn:
        stored = bytes(txn.get(b"k", db=database._handles[b"content"]) or b"")
    assert stored == b"value" + guard(b"content", b"k", b"value")
    moved = {guard(table, key, b"value") for table, key in ((b"content", b"k"), (b"content", b"l"), (b"file", b"k"))}
    assert len(moved) == 3


@pytest.mark.parametrize("damage", [b"", b"short", b"valuf", b"another value of the right form"])
def test_a_damaged_value_is_never_returned(database: Database, damage: bytes) -> None:
    database.write(_put(b"k", b"value"))
    good = b"value" + guard(b"content", b"k", b"value")
    with database._env.begin(write=True) as txn:
        txn.put(b"k", damage + good[len(damage) :], db=database._handles[b"content"])
    if damage == b"":
        assert _get(database, b"k") == b"value"
        return
    with pytest.raises(CorruptionError, match=r"content 6b in .*index is damaged"):
        _get(database, b"k")
    with pytest.raises(CorruptionError), database.reading() as reading:
        list(reading.items(b"content"))


def test_a_key_that_must_be_there(database: Database) -> None:
    with pytest.raises(CorruptionError, match="expected a record, found none"), database.reading() as reading:
        reading.need(b"file", id_key(FIRST_ID))


def test_all_or_nothing(database: Database) -> None:
    def half(writing: Writing) -> None:
        writing.put(b"content", b"a", b"1")
        writing.take_id("file")
        raise KeyError("half-way")

    with pytest.raises(KeyError):
        database.write(half)
    with database.reading() as reading:
        assert reading.count(b"content") == 0 and reading.counter("file") == FIRST_ID


def test_a_reading_is_of_one_moment(database: Database) -> None:
    database.write(_put(b"k", b"1"))
    with database.reading() as before:
        _in_another_process(database, "database.write(lambda writing: writing.put(b'content', b'k', b'2'))")
        assert before.get(b"content", b"k") == b"1"
        with database.reading() as after:
            assert after.get(b"content", b"k") == b"2"


def test_ids_are_dense_and_never_given_twice(database: Database) -> None:
    taken = [database.write(lambda writing: [writing.take_id("file"), writing.take_id("tree")]) for _ in range(3)]
    assert taken == [[FIRST_ID + number] * 2 for number in range(3)]
    database.write(lambda writing: writing.set_counter("file", 5000))
    assert database.write(lambda writing: writing.take_id("file")) == 5000


def test_appending_out_of_order_is_our_own_bug(database: Database) -> None:
    def body(writing: Writing) -> None:
        writing.put(b"file", id_key(2), b"", append=True)
        writing.put(b"file", id_key(1), b"", append=True)

    with pytest.raises((AssertionError, FsviewError)):
        database.write(body)


def test_items_and_keys(database: Database) -> None:
    def fill(writing: Writing) -> None:
        for key in (b"a", b"ab", b"b", b"ba", b"bb", b"c"):
            writing.put(b"content", key, key)

    database.write(fill)
    with database.reading() as reading:
        assert [key for key, _ in reading.items(b"content")] == [b"a", b"ab", b"b", b"ba", b"bb", b"c"]
        assert [key for key, _ in reading.items(b"content", prefix=b"b")] == [b"b", b"ba", b"bb"]
        assert [key for key, _ in reading.items(b"content", start=b"b", prefix=b"")] == [b"b", b"ba", b"bb", b"c"]
        assert [key for key, _ in reading.items(b"content", start=b"ba", prefix=b"b")] == [b"ba", b"bb"]
        assert list(reading.items(b"content", prefix=b"x")) == []
        assert list(reading.keys_backwards(b"content", b"b")) == [b"bb", b"ba", b"b"]
        assert list(reading.keys_backwards(b"content", b"c")) == [b"c"]
        assert list(reading.keys_backwards(b"content", b"x")) == list(reading.keys_backwards(b"file", b"x")) == []


# The map


def test_the_map_grows(database: Database) -> None:
    runs = 0

    def body(writing: Writing) -> None:
        nonlocal runs
        runs += 1
        for number in range(100):
            writing.put(b"content", b"%d" % number, bytes(100_000))

    database.write(body)
    assert runs > 1 and database._env.info()["map_size"] >= 10 * MIB
    assert _get(database, b"99") == bytes(100_000)


def test_another_process_made_the_map_larger(database: Database) -> None:
    database.write(_put(b"k", b"1"))

    def grow() -> None:
        other = Database.open(database.path, map_bytes=MIB)
        for number in range(100):
            other.write(_put(b"%d" % number, bytes(100_000)))

    _in_a_child(grow)
    assert _get(database, b"k") == b"1" and _get(database, b"99") == bytes(100_000)
    database.write(_put(b"k", b"2"))
    assert _get(database, b"k") == b"2"


def test_another_process_made_the_map_larger_before_a_write(database: Database) -> None:
    database.write(_put(b"k", b"1"))
    _in_a_child(lambda: Database.open(database.path, map_bytes=MIB).write(_put(b"big", bytes(5 * MIB))))
    database.write(_put(b"k", b"2"))
    assert (_get(database, b"k"), _get(database, b"big")) == (b"2", bytes(5 * MIB))


def test_the_map_is_not_moved_under_a_reading(database: Database) -> None:
    database.write(_put(b"k", b"1"))
    with database.reading() as reading:
        _in_another_process(database, "database.write(lambda writing: writing.put(b'content', b'big', bytes(5 << 20)))")
        with pytest.raises(ConflictError, match="try again"), database.reading():
            pass
        assert reading.get(b"content", b"k") == b"1"
    assert _get(database, b"big") == bytes(5 * MIB)


def test_a_commit_that_outgrows_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing begins again, with loose files that are in their places already."""
    for function in (Database.create, Database.open):
        monkeypatch.setitem(function.__func__.__kwdefaults__, "map_bytes", MIB // 4)  # type: ignore[attr-defined]
    inside: Spec = {f"{number}": os.urandom(16_000) for number in range(200)}
    tree = build_tree(tmp_path / "tree", {"small": inside, "large": {f"{n}": os.urandom(40_000) for n in range(30)}})
    with Repository.create(tmp_path / "repo") as repository:
        assert repository.database._env.info()["map_size"] == MIB // 4
        commit_tree(repository, tree)
        assert repository.database._env.info()["map_size"] >= 4 * MIB
    assert_sound(tmp_path / "repo")


# Readers


def test_readers_that_were_killed_do_not_make_the_file_grow(database: Database) -> None:
    def read_and_die() -> None:
        with Database.open(database.path).reading():
            os.kill(os.getpid(), signal.SIGKILL)

    database.write(_put(b"k", bytes(50_000)))
    for number in range(300):
        if number % 30 == 0:
            pid = os.fork()
            if pid == 0:
                read_and_die()
            os.waitpid(pid, 0)
        database.write(_put(b"k", bytes([number % 256]) * 50_000))
    assert (database.path / "data.mdb").stat().st_size < 600_000


REPLACING = """
for number in range(100):
    database.write(lambda writing: writing.put(b"content", b"k", b"%d" % (number % 10) * 50_000))
"""


@pytest.mark.parametrize("forks", [0, 1, 3])
def test_a_reader_that_lives_keeps_what_it_sees(database: Database, forks: int) -> None:
    """Also after it forked: children that close what they inherited would end the parent's protection."""
    database.write(_put(b"k", b"0" * 50_000))
    for _ in range(forks):
        _in_a_child(lambda: _get(Database.open(database.path), b"k"))
    with database.reading() as reading:
        assert str(os.getpid()) in database._env.readers()
        _in_another_process(database, REPLACING)
        assert reading.get(b"content", b"k") == b"0" * 50_000
    assert _get(database, b"k") == b"9" * 50_000


def test_a_child_that_ends_in_the_middle_of_its_parents_reading(database: Database) -> None:
    database.write(_put(b"k", b"0" * 50_000))
    with database.reading() as reading:
        _in_a_child(lambda: None)
        with pytest.raises(AssertionError):  # it can't open its own here, and says so
            _in_a_child(lambda: Database.open(database.path))
        _in_another_process(database, REPLACING)
        assert reading.get(b"content", b"k") == b"0" * 50_000


# Opening


def test_one_environment_a_process(database: Database) -> None:
    again = Database.open(database.path)
    assert again is database
    again.close()
    assert _get(database, b"k") is None  # it is open still


def test_a_child_opens_its_own(database: Database) -> None:
    database.write(_put(b"k", b"1"))

    def body() -> None:
        own = Database.open(database.path)
        assert own is not database and _get(own, b"k") == b"1"
        own.write(_put(b"k", b"2"))
        own.close()

    _in_a_child(body)
    assert _get(database, b"k") == b"2"


def test_what_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"has no data\.mdb"):
        Database.open(tmp_path)
    for junk in (b"", b"junk", bytes(65536), random.Random(1).randbytes(65536)):
        (tmp_path / "data.mdb").write_bytes(junk)
        with pytest.raises((FormatError, CorruptionError, FsviewError)):
            Database.open(tmp_path)
        assert module._open == {}


def test_an_index_of_another_program(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "index")) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"1")
    with pytest.raises((FormatError, CorruptionError, FsviewError)):
        Database.open(tmp_path / "index")
    assert module._open == {}


def test_all_databases_are_there(database: Database) -> None:
    with database.reading() as reading:
        assert [reading.count(table) for table in DATABASES] == [0] * len(DATABASES)


def test_a_lock_file_that_may_not_be_written(tmp_path: Path, nobodys: Path) -> None:
    """Readers register in it: one who can't is told how to mend that, and then can read."""
    repo = nobodys / "repo"
    with Repository.create(repo) as repository:
        commit_tree(repository, build_tree(tmp_path / "tree", {"a": b"readable"}))
    assert run_as_nobody(nobodys, "cat", "--repo", repo, "main:/a").status == 1
    subprocess.run(["chgrp", "-R", str(NOBODY), repo], check=True)
    for path in (repo, repo / "index"):
        path.chmod(0o750)
    (repo / "index/data.mdb").chmod(0o640)
    (repo / "index/lock.mdb").chmod(0o640)
    said = run_as_nobody(nobodys, "cat", "--repo", repo, "main:/a")
    assert said.status == 1 and "lock.mdb can't be written: readers, too, register in it" in said.stderr
    assert 'shared = "group"' in said.stderr
    (repo / "index/lock.mdb").chmod(0o660)
    said = run_as_nobody(nobodys, "cat", "--repo", repo, "main:/a")
    assert (said.status, said.stdout) == (0, "readable")
    said = run_as_nobody(nobodys, "refs", "--repo", repo, "--delete", "main")
    assert said.status == 1 and "Traceback" not in said.stderr
    repo.chmod(0o700)
    assert_sound(repo)
