"""Repositories: made once and atomically, refused when they are newer, shared by several processes."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store import database
from store import repository as module
from store.database import Writing
from store.errors import FormatError, FsviewError, NotFoundError
from store.objects import Commit
from store.refs import find_ref, reflog
from store.repository import Repository, Settings
from store.schema import FORMAT_VERSION, FormatRecord
from store.tree import commit_number, load_commit
from tests.checking import assert_sound
from tests.committing import commit_tree
from tests.running import PROJECT, RunFsview, clean_environment
from tests.trees import build_tree

# Making one


def test_a_new_repository(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "a/b/repo") as repository:
        assert len(repository.secret) == 32 and repository.settings == Settings()
    with Repository.open(tmp_path / "a/b/repo") as repository:
        secret = repository.secret
    with Repository.create(tmp_path / "other", mtime="zero") as other:
        assert other.secret != secret and other.settings.mtime == "zero"
    (tmp_path / "empty").mkdir()
    Repository.create(tmp_path / "empty").close()
    for name in ("a/b/repo", "other", "empty"):
        assert_sound(tmp_path / name)
    assert database._open == {}


def test_a_repository_is_made_once(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "repo") as repository:
        secret = repository.secret
    with pytest.raises(FsviewError, match="is a repository already; nothing was changed"):
        Repository.create(tmp_path / "repo")
    with Repository.open(tmp_path / "repo") as repository:
        assert repository.secret == secret


def test_where_something_else_is(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter").touch()
    with pytest.raises(FsviewError, match=r"is not empty \(it has 'letter'\)"):
        Repository.create(tmp_path / "full")
    assert os.listdir(tmp_path / "full") == ["letter"]
    with pytest.raises(OSError, match="exists"):
        Repository.create(tmp_path / "full/letter")
    with pytest.raises(OSError, match="Not a directory"):
        Repository.create(tmp_path / "full/letter/below")


INIT = """
import os, sys
from pathlib import Path
import store.repository as module
def dying(real):
    def die(*arguments, **options):
        if sys.argv[3] == "after":
            real(*arguments, **options)
        os.kill(os.getpid(), 9)
    return die
for name in ("mkdir", "rename"):
    if sys.argv[2] == name:
        setattr(Path, name, dying(getattr(Path, name)))
if sys.argv[2] == "database":
    module.Database.create = dying(module.Database.create)
if sys.argv[2] == "first record":
    module._initialise = dying(module._initialise)
if sys.argv[2] == "settings":
    module._write_durably = dying(module._write_durably)
module.Repository.create(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["mkdir", "database", "first record", "settings", "rename"])
def test_an_init_that_was_killed_is_begun_again(tmp_path: Path, step: str, when: str) -> None:
    repo = tmp_path / "repo"
    killed = subprocess.run(
        [sys.executable, "-c", INIT, repo, step, when], env=os.environ | {"PYTHONPATH": str(PROJECT)}
    )
    assert killed.returncode == -9
    if (repo / "fsview.toml").exists():
        assert (step, when) in (("settings", "after"), ("rename", "after"))
    else:
        with pytest.raises(NotFoundError, match="is not an fsview repository"):
            Repository.open(repo)
        Repository.create(repo).close()
    with Repository.open(repo) as repository:
        commit_tree(repository, build_tree(tmp_path / "tree", {"a": b"a"}))
    assert_sound(repo)


# Opening one


def test_what_is_no_repository(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotFoundError, match="make one with 'fsview init"):
            Repository.open(path)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format = 2", "has format 2, but this fsview knows formats up to 1; use a newer fsview"),
        ("format = 99\nunheard = 'of'", "has format 99"),
        ("format = 0", "'format' must be a number from 1, not 0"),
        ("format = '1'", "'format' must be a number"),
        ("format = true", "'format' must be a number"),
        ("", "'format' must be a number from 1, not None"),
        ("format = ", "correct the file by hand"),
        ("format = 1\nmtime = 'noon'", "'mtime' must be one of first-seen, zero, not 'noon'"),
        (b"format = 1 # \xff", "correct the file by hand"),
    ],
)
def test_settings_that_are_not_ours(tmp_path: Path, text: str | bytes, message: str) -> None:
    Repository.create(tmp_path / "repo").close()
    (tmp_path / "repo/fsview.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FormatError) as caught:
        Repository.open(tmp_path / "repo")
    assert message in str(caught.value) and "fsview.toml" in str(caught.value)


def test_settings_of_later_programs_are_let_be(tmp_path: Path) -> None:
    Repository.create(tmp_path / "repo").close()
    with (tmp_path / "repo/fsview.toml").open("a") as file:
        file.write("\n[remote.origin]\nurl = 'https://example.org'\n")
    Repository.open(tmp_path / "repo").close()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("record", "message"),
    [
        (FormatRecord(FORMAT_VERSION, 0, 0, 1), "format 1 with feature bits 0x1 that this fsview"),
        (FormatRecord(FORMAT_VERSION, 0, 0, 1 << 63), "feature bits 0x8000000000000000"),
        (FormatRecord(FORMAT_VERSION, 0, 4, 0), "feature bits 0x4"),
        (FormatRecord(FORMAT_VERSION + 1, 0, 0, 0), "format 2"),
    ],
)
def test_features_of_later_programs(tmp_path: Path, record: FormatRecord, message: str) -> None:
    with Repository.create(tmp_path / "repo") as repository:
        repository.database.write(lambda writing: writing.put(b"head", b"format", record.pack()))
    with pytest.raises(FormatError) as caught:
        Repository.open(tmp_path / "repo")
    assert message in str(caught.value) and "use a newer fsview" in str(caught.value)
    assert database._open == {}


def test_features_that_do_not_matter(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "repo") as repository:
        record = FormatRecord(FORMAT_VERSION, 0xFF, 0, 0)
        repository.database.write(lambda writing: writing.put(b"head", b"format", record.pack()))
    Repository.open(tmp_path / "repo").close()


def test_a_repository_without_its_index(tmp_path: Path) -> None:
    Repository.create(tmp_path / "repo").close()
    for part in ("index/data.mdb", "index/lock.mdb", "index"):
        path = tmp_path / "repo" / part
        if part == "index":
            path.rmdir()
        else:
            path.unlink()
        if part != "index/lock.mdb":
            with pytest.raises(FormatError, match="index"):
                Repository.open(tmp_path / "repo")


# Locks


def _can_lock(repo: Path, kind: int) -> bool:
    with (repo / "lock").open("r+b") as file:
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize(("exclusive", "readers"), [(False, True), (True, False)])
def test_the_lock(tmp_path: Path, exclusive: bool, readers: bool) -> None:
    with Repository.create(tmp_path / "repo") as repository:
        with repository.lock(exclusive=exclusive):
            assert _can_lock(repository.path, fcntl.F_RDLCK) == readers
            assert not _can_lock(repository.path, fcntl.F_WRLCK)
        assert _can_lock(repository.path, fcntl.F_WRLCK)


def test_who_waits_for_the_exclusive_lock_bars_new_sharers(tmp_path: Path) -> None:
    """Else commits that overlap could keep a prune waiting for ever."""
    order: list[str] = []

    def take(name: str, exclusive: bool) -> None:
        with repository.lock(exclusive=exclusive):
            order.append(name)
            time.sleep(0.01)

    with Repository.create(tmp_path / "repo") as repository:
        threads = [threading.Thread(target=take, args=(f"sharer {number}", False)) for number in range(4)]
        with repository.lock():
            with repository.lock():
                order.append("two share it")
            threads.insert(0, threading.Thread(target=take, args=("pruner", True)))
            threads[0].start()
            for _ in range(10_000):
                if _is_gate_shut(repository.path):
                    break
                time.sleep(0.001)
            for thread in threads[1:]:
                thread.start()
            threads[1].join(0.1)
            assert order == ["two share it"]
        for thread in threads:
            thread.join(30)
    assert order[:2] == ["two share it", "pruner"] and len(order) == 6


def _is_gate_shut(repo: Path) -> bool:
    with (repo / "lock").open("r+b") as file:
        request = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0)
        kind: int = struct.unpack_from("h", fcntl.fcntl(file, fcntl.F_OFD_GETLK, request))[0]
        return kind != fcntl.F_UNLCK


def test_the_lock_ends_with_an_error(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "repo") as repository:
        with pytest.raises(KeyError), repository.lock(exclusive=True):
            raise KeyError
        assert _can_lock(repository.path, fcntl.F_WRLCK)


# Several processes at once

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Return a function that starts `fsview commit` on the repository "repo"."""

    def begin(*arguments: str | Path) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-P",
            "-m",
            "tools",
            "commit",
            "--repo",
            str(tmp_path / "repo"),
            *map(str, arguments),
        ]
        return subprocess.Popen(
            command, env=clean_environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return begin


def _history(repository: Repository, ref: str) -> list[Commit]:
    """Return the commits of a ref, the newest first."""
    found = []
    with repository.database.reading() as reading:
        record = find_ref(reading, ref)
        number = record.commit if record else None
        while number is not None:
            commit = load_commit(reading, number)
            found.append(commit)
            number = commit_number(reading, commit.parent) if commit.parent else None
        assert record and len(list(reflog(reading, record.ref_id))) == len(found)
    return found


def test_commits_to_one_ref_at_once_come_one_after_the_other(tmp_path: Path, start: Start) -> None:
    trees = [build_tree(tmp_path / f"t{n}", {f"{n}": b"%d" % n, "big": os.urandom(50_000)}) for n in range(4)]
    Repository.create(tmp_path / "repo").close()
    running = [start("-b", "main", "-s", f"from {tree.name}", tree) for tree in trees]
    outputs = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 4, outputs
    with Repository.open(tmp_path / "repo") as repository:
        history = _history(repository, "main")
    assert {commit.checksum.hex() for commit in history} == {out.strip() for out, _ in outputs}
    assert sorted(commit.subject for commit in history) == [f"from t{number}" for number in range(4)]
    assert_sound(tmp_path / "repo")


def test_one_content_committed_by_several_at_once(tmp_path: Path, start: Start) -> None:
    """Each stages it, one publishes it, all commits have it."""
    tree = build_tree(tmp_path / "tree", {f"{number}": bytes([number]) * 20_000 for number in range(40)})
    Repository.create(tmp_path / "repo").close()
    running = [start("-b", f"ref{number}", "--no-bindings", "--timestamp=@1", tree) for number in range(3)]
    outputs = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 3, outputs
    assert len({out for out, _ in outputs}) == 1
    with Repository.open(tmp_path / "repo") as repository, repository.database.reading() as reading:
        assert (reading.count(b"ref"), reading.count(b"commit"), reading.count(b"file")) == (3, 1, 40)
    assert_sound(tmp_path / "repo")


def test_refs_that_exclude_each_other_made_at_once(tmp_path: Path, start: Start) -> None:
    tree = build_tree(tmp_path / "tree", {"a": b"a"})
    Repository.create(tmp_path / "repo").close()
    running = [start("-b", name, tree) for name in ("a", "a/b")]
    outputs = [process.communicate(timeout=60) for process in running]
    assert sorted(process.returncode for process in running) == [0, 2]
    assert "can't be a ref, as" in "".join(err for _, err in outputs)
    assert_sound(tmp_path / "repo")


def test_reading_goes_on_while_others_write(tmp_path: Path, start: Start, run_fsview: RunFsview) -> None:
    tree = build_tree(tmp_path / "tree", {f"{number}": b"%d" % number for number in range(300)})
    Repository.create(tmp_path / "repo").close()
    with Repository.open(tmp_path / "repo") as repository:
        first = commit_tree(repository, tree).checksum
        with repository.database.reading() as reading:
            for number in range(3):
                (tree / "0").write_bytes(b"x%d" % number)
                process = start("-b", "main", tree)
                _, err = process.communicate(timeout=60)
                assert process.returncode == 0, err
            record = find_ref(reading, "main")
            assert record is not None and load_commit(reading, record.commit).checksum == first
        assert len(_history(repository, "main")) == 4
    assert_sound(tmp_path / "repo")


def test_a_failed_write_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "repo") as repository:

        def body(writing: Writing) -> None:
            writing.put(b"ref", b"half", b"")
            raise KeyError

        with pytest.raises(KeyError):
            repository.database.write(body)
    assert_sound(tmp_path / "repo")
    assert module.SETTINGS_FILE in os.listdir(tmp_path / "repo")
