"""tests/bench: what becomes of numbers; the numbers themselves decide no test."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from store.errors import NotFoundError
from store.repository import Repository
from store.revisions import resolve
from store.tree import commit_record, find, root_entry
from tests.bench.bench import attempt
from tests.bench.contender import Plain
from tests.bench.growth import FAN_OUT, LEVELS, REF, directories, make_commits, make_files
from tests.bench.loads import FILE_LOADS, READERS_COUNT, Load, split_lists, tree_loads
from tests.bench.results import (
    OWN,
    Goal,
    Measured,
    Results,
    Row,
    at_most,
    faster_than,
    times_faster,
    within,
)
from tests.checking import assert_sound
from tests.fuse.waits import is_running, wait_for


def _row(goal: Goal, **seconds: float) -> Row:
    return Row("row", "s", (goal,), {name.replace("_", "-"): Measured(value) for name, value in seconds.items()})


@pytest.mark.parametrize(
    ("goal", "seconds", "is_met"),
    [
        (faster_than(["a", "b"]), {"fsview": 1, "a": 1.1, "b": 2, "c": 0.1}, True),
        (faster_than(["a", "b"]), {"fsview": 1, "a": 1.1, "b": 1}, False),
        (faster_than(["a", "b"]), {"fsview": 1, "c": 2}, None),
        (within(5, "plain"), {"fsview": 5, "plain": 1}, True),
        (within(5, "plain"), {"fsview": 5.1, "plain": 1}, False),
        (within(5, "plain"), {"fsview": 5}, None),
        (within(2, "plain", "kernel-reads"), {"fsview": 9, "kernel_reads": 2, "plain": 1}, True),
        (within(2, "plain", "kernel-reads"), {"fsview": 1, "plain": 1}, None),
        (times_faster(10, "hardlinked"), {"fsview": 1, "hardlinked": 10}, True),
        (times_faster(10, "hardlinked"), {"fsview": 1, "hardlinked": 9.9}, False),
        (at_most(0.3), {"fsview": 0.3}, True),
        (at_most(0.3), {"fsview": 0.31}, False),
        (at_most(0.3), {"plain": 0.1}, None),
    ],
)
def test_goals(goal: Goal, seconds: dict[str, float], is_met: bool | None) -> None:
    (verdict,) = _row(goal, **seconds).judge()
    assert verdict.is_met is is_met


def test_what_took_too_long_is_a_lower_bound() -> None:
    row = _row(faster_than(["slow"]), fsview=1, slow=60)
    row.measured["slow"] = Measured(60, at_least=True)
    assert row.judge()[0].is_met is True
    row.goals = (within(2, "slow"), times_faster(10, "slow"), times_faster(100, "slow"))
    assert [verdict.is_met for verdict in row.judge()] == [None, True, None]
    row.measured[OWN] = Measured(60, at_least=True)
    assert [verdict.is_met for verdict in row.judge()] == [False, False, False]


def test_one_failure_costs_one_cell(capsys: pytest.CaptureFixture[str]) -> None:
    results = Results()
    row = results.row("find -ls, tree, warm", faster_than(["good", "bad"]), within(5, "plain"))
    assert row is not None
    row.measured.update({OWN: Measured(2.0, 3), "good": Measured(3.0), "slow": Measured(60, at_least=True)})

    def fail() -> None:
        raise TimeoutExpired("mount", 1)

    assert not attempt([row], "bad", fail)
    results.skip("gone", "missing: apt install gone")
    results.print()
    text = capsys.readouterr().out
    (line,) = (line for line in text.splitlines() if line.startswith("find"))
    cells = re.split(r" {2,}", line, maxsplit=5)
    assert cells[1:5] == ["2 s", "3 s (1.50)", "> 60 s (30.00)", "failed"]
    assert cells[5].startswith("met: faster than every FUSE peer (good takes 1.50 times as long); not judged: within 5")
    assert "failed: find -ls, tree, warm: bad: Command 'mount' timed out" in text
    assert "left out: gone: missing: apt install gone" in text
    assert "goals: 1 met, 0 missed, 1 not judged" in text
    assert json.loads(json.dumps(results.as_json()))["rows"][0]["failures"].keys() == {"bad"}


def test_our_own_failure_misses_the_goals() -> None:
    row = _row(at_most(1), peer=1)
    row.failures[OWN] = "it fell over"
    assert [(verdict.is_met, verdict.why) for verdict in row.judge()] == [(False, "it fell over")]


def test_only_some_rows() -> None:
    results = Results(re.compile("find|tar"))
    assert [results.row(what) is not None for what in ("find, a", "8 tar, a", "grep, a")] == [True, True, False]


def test_a_command_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    started, limits_s = tmp_path / "started", iter((0.5, 5, 50))  # in the first it may not have come to its sleep
    while not started.exists():
        with pytest.raises(TimeoutExpired):
            Load("slow", "sleep 600 & echo $! > pid && mv pid started; wait").run(tmp_path, next(limits_s))
    wait_for(lambda: not is_running(int(started.read_text())))


def test_what_is_missing_is_told_with_its_package(tmp_path: Path) -> None:
    class Peer(Plain):
        needs = (("bash", "bash"), ("no-such-command", "other"), ("no-such-either", "gone"))

    assert Peer(tmp_path).missing() == "missing: apt install gone other"
    assert Plain(tmp_path).missing() is None


def test_loads_see_what_is_there(tmp_path: Path) -> None:
    tree, lists = tmp_path / "tree", tmp_path / "lists"
    for name in ("a b", "new\nline", *map(str, range(20))):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_bytes(b"General Public\n" * 300)
    split_lists(tree, lists)
    parts = [part.read_bytes() for part in sorted(lists.iterdir())]
    names = b"".join(parts).split(b"\0")
    assert len(parts) == READERS_COUNT and names[-1] == b"" and len(set(names)) == len(names) == 1 + 1 + 2 * 22
    seen = {load.what: load.run(tree)[1] for load in tree_loads(lists)}
    assert seen["find -ls"] == "45" and seen["grep -r"].split()[0] == str(22 * 300 + 300)  # a newline makes two of one
    assert len(seen[f"{READERS_COUNT} parallel tar"].split()) == READERS_COUNT
    before = dict(seen)
    (tree / "a b" / "file").write_bytes(b"General Public\n" * 1000)
    (tree / "another").touch()
    after = {load.what: load.run(tree)[1] for load in tree_loads(lists)}
    assert all(before[what] != after[what] for what in before)


def test_probes_see_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(random.Random(1).randbytes(1 << 21))
    seen = [load.run(tmp_path)[1] for load in FILE_LOADS]
    with (tmp_path / "large").open("r+b") as file:
        file.write(b"other" * 10_000)
    assert all(one != load.run(tmp_path)[1] for one, load in zip(seen, FILE_LOADS, strict=True))
    assert seen[0].startswith(f"{1 << 21} ") and all(load.run(tmp_path)[0] > 0 for load in FILE_LOADS)


def test_growth_of_files(tmp_path: Path) -> None:
    make_files(tmp_path / "repo", 2)
    assert_sound(tmp_path / "repo")
    places = [path for together in directories(2) for path in together]
    assert len(set(places)) == FAN_OUT**2 and all(path.count("/") == LEVELS - 1 for path in places)
    with Repository.open(tmp_path / "repo") as repository, repository.database.reading() as reading:
        record = commit_record(reading, resolve(reading, REF, now_s=0))
        assert record.entries - record.directories + 1 == FAN_OUT**3
        for path in places:
            assert find(reading, root_entry(reading, record), f"/{path}/file-9".encode()).size > 0


def test_growth_of_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.growth._COMMITTED_AT_ONCE", 20)
    make_commits(tmp_path / "repo", 50)
    assert_sound(tmp_path / "repo")
    with Repository.open(tmp_path / "repo") as repository, repository.database.reading() as reading:
        first, last = (resolve(reading, name, now_s=0) for name in (f"{REF}~49", REF))
        assert last - first == 49
        with pytest.raises(NotFoundError):
            resolve(reading, f"{REF}~50", now_s=0)
