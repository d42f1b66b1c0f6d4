"""Readers and writers at the same time: nobody waits for the other kind, and nobody sees the half of anything."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from store.publication import Phase
from store.refs import find_ref, reflog
from store.repository import Repository
from tests.checking import assert_sound
from tests.crash.driver import REF, Case, run_commit
from tests.crash.rig import Stand, running, start, wait_for_group
from tests.forge import forge
from tests.leaks import open_descriptors
from tests.readback import committed_snapshot, head
from tests.running import PROJECT, clean_environment
from tests.snapshots import assert_same_tree
from tests.trees import build_tree


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    return Stand.build(tmp_path_factory.mktemp("concurrency") / "stand", small=20, large=4, processes=1)


@contextmanager
def stopped(case: Case, where: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a commit until it stands still at the case's report; at the end it is killed if it still runs."""
    with running(case, where) as process:
        while (state := _state(process.pid)) != "T":
            assert state != "Z", "the commit ended instead of standing still"
            time.sleep(0.002)
        yield process


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_reading_does_not_wait_for_a_write_transaction(stand: Stand, tmp_path: Path, number: int) -> None:
    case = stand.case(tmp_path / "repo", "stop", Phase.PUBLISHING, number)
    with stopped(case, tmp_path) as writer:
        for _ in range(3):
            with Repository.open(tmp_path / "repo") as repository:
                assert head(repository, REF) == stand.old
                committed_snapshot(repository, stand.old)
        assert_sound(tmp_path / "repo", garbage=True)  # loose files may have their names already
        writer.send_signal(signal.SIGCONT)
        assert writer.wait(30) == 0
    with Repository.open(tmp_path / "repo") as repository:
        assert head(repository, REF) == stand.new
    assert_sound(tmp_path / "repo")


def test_a_reading_keeps_its_state_while_others_write(stand: Stand, tmp_path: Path) -> None:
    case = stand.case(tmp_path / "repo")
    with Repository.open(tmp_path / "repo") as repository, repository.database.reading() as reading:
        old = find_ref(reading, REF)
        with start(case, tmp_path) as writer:
            assert writer.wait(30) == 0
        assert find_ref(reading, REF) == old
        assert head(repository, REF) == stand.new  # another reading, begun now


def test_readers_see_whole_commits_while_a_series_is_written(stand: Stand, tmp_path: Path) -> None:
    """A process reads in a loop while this one commits; each look finds one commit, whole.

    It tells of each commit that it sees for the first time. This one waits for that now and then: else it could be
    done before the other one had its turn.
    """
    case, made, seen = stand.case(tmp_path / "repo"), list[str](), list[str]()
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from store.repository import Repository\n"
        "from tests.readback import committed_snapshot, head\n"
        "seen = set()\n"
        "with Repository.open(Path(sys.argv[1])) as repository:\n"
        "    while not Path(sys.argv[2]).exists():\n"
        "        checksum = head(repository, 'crash/test')\n"
        "        files = committed_snapshot(repository, checksum)\n"
        "        assert b'number' not in files or len(files) == 3\n"
        "        if checksum not in seen:\n"
        "            seen.add(checksum)\n"
        "            print(checksum.hex(), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, case.repository, tmp_path / "done"],
        stdout=subprocess.PIPE,
        env=clean_environment(tmp_path),
        cwd=PROJECT,
    ) as reader:
        assert reader.stdout is not None and reader.stdout.readline().decode() == f"{stand.old.hex()}\n"
        with Repository.open(Path(case.repository)) as repository:
            for number in range(20):
                with forge(repository) as work:
                    files = {b"number": work.file(b"x" * number), b"large": work.file(bytes([number]) * 20_000)}
                    made.append(work.publish(work.tree(files), REF, time_s=number).hex())
                if number % 4 == 3:
                    seen.append(reader.stdout.readline().decode().strip())
        (tmp_path / "done").touch()
        seen += reader.stdout.read().decode().split()
    assert reader.returncode == 0 and len(seen) >= 5
    assert seen == sorted(seen, key=made.index)  # one after the other, and nothing else
    assert_sound(tmp_path / "repo")


def test_a_second_writer_waits_for_the_first(stand: Stand, tmp_path: Path) -> None:
    case = stand.case(tmp_path / "repo", "stop", Phase.PUBLISHING, 3)
    other_tree = build_tree(tmp_path / "other", {"other": b"other"})
    with stopped(case, tmp_path) as first:
        other = replace(case, action="none", tree=str(other_tree), status=str(tmp_path / "other.status"))
        with running(other, tmp_path) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(1)
            first.send_signal(signal.SIGCONT)
            assert first.wait(30) == 0 and second.wait(30) == 0
    with Repository.open(tmp_path / "repo") as repository:
        last = head(repository, REF)
        assert last is not None
        assert_same_tree(other_tree, committed_snapshot(repository, last))
        with repository.database.reading() as reading:
            record = find_ref(reading, REF)
            assert record is not None and len(list(reflog(reading, record.ref_id))) == 3
    assert_sound(tmp_path / "repo")


def test_a_writer_that_is_killed_in_its_transaction_leaves_the_way_free(stand: Stand, tmp_path: Path) -> None:
    case = stand.case(tmp_path / "repo", "stop", Phase.PUBLISHING, 3)
    with stopped(case, tmp_path) as first:
        with running(replace(case, action="none", status=str(tmp_path / "other.status")), tmp_path) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(1)
            first.kill()
            assert second.wait(30) == 0
        wait_for_group(first.pid)
    stand.assert_mends(replace(case, action="none"))


def test_a_killed_reader_does_not_make_the_index_grow(stand: Stand, tmp_path: Path) -> None:
    case = stand.case(tmp_path / "repo")
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from store.repository import Repository\n"
        "with Repository.open(Path(sys.argv[1])) as repository, repository.database.reading():\n"
        "    print('reading', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, case.repository],
        stdout=subprocess.PIPE,
        env=clean_environment(tmp_path),
        cwd=PROJECT,
    ) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == b"reading\n"
        reader.kill()
        reader.wait()
    sizes = []
    with Repository.open(Path(case.repository)) as repository:
        for number in range(40):
            with forge(repository) as work:
                work.publish(work.tree(), None, time_s=number)
            sizes.append((repository.path / "index" / "data.mdb").stat().st_size)
    assert sizes[-1] <= sizes[9] + 32 * 4096


def test_commits_leave_no_descriptors_behind(stand: Stand, tmp_path: Path) -> None:
    case = stand.case(tmp_path / "repo")
    before = open_descriptors()
    for _ in range(5):
        assert run_commit(case) == stand.new
        assert run_commit(replace(case, processes=2)) == stand.new
    assert open_descriptors() == before
