"""The guard of migrations, and /var kept and put back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.snapshots import snapshot
from tests.sysroot.rig import Machine, release
from tools.sysroot.layout import Sysroot
from tools.sysroot.var import RESTORED, finish_restore


@pytest.fixture
def migrated(machine: Machine) -> Machine:
    """Return a machine that went from data version 9 to 15 in two generations, with /var as 15 made it."""
    for second, version in enumerate(("9", "15")):
        machine.commit(f"os/{version}", release(version, {}), "--data-version", f"pg={version}", second=second)
    machine.run("deploy", "os/9")
    (machine.var / "data").write_text("as of 9")
    machine.run("switch", "--snapshot-var", "os/15")
    (machine.var / "data").write_text("as of 15")
    return machine


def test_metadata_of_another_type_are_refused(machine: Machine) -> None:
    machine.commit("os/b", release("1", {}), "--add-metadata", "fsview.data-versions=uint32 5")
    assert "is of type u, not a{ss}" in machine.run("deploy", "os/b", status=10).stderr


@pytest.mark.parametrize("words", [["rollback"], ["switch", "os/9"], ["deploy", "os/9"]])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["", "dry"])
def test_what_is_made_for_older_data_is_refused(migrated: Machine, words: list[str], dry: list[str]) -> None:
    before = migrated.state()
    said = migrated.run(*words, *dry, status=15).stderr
    by = migrated.status()["generations"][0]["deployment"]
    assert "pg is at version 15 since 20" in said and f"{by[:8]}….0" in said and "this tree is made for 9" in said
    assert migrated.state() == before
    migrated.run(*words, "--accept-data-versions")


def test_the_mark_is_carried_on(migrated: Machine) -> None:
    migrated.run("rollback", "--accept-data-versions")
    assert "Too old for /var: pg is at version 15" in migrated.run("status").stdout
    migrated.commit("os/none", release("x", {}))
    migrated.run("switch", "os/none")  # declares nothing, so nothing is known
    migrated.run("cleanup", "--keep", "1")
    mark = migrated.status()["generations"][0]["high_water"]["pg"]
    assert mark["version"] == "15"
    assert "made for 9" in migrated.run("switch", "os/9", status=15).stderr
    migrated.run("switch", "os/15")


def test_var_is_put_back_and_what_was_there_is_kept(migrated: Machine) -> None:
    migrated.run("rollback", "--restore-var")
    assert (migrated.var / "data").read_text() == "as of 9"
    migrated.run("rollback", "--restore-var")
    assert (migrated.var / "data").read_text() == "as of 15"
    status = migrated.status()["generations"]
    assert status[0]["high_water"]["pg"]["version"] == "15" and status[1]["high_water"]["pg"]["version"] == "9"


def test_a_snapshot_has_all_that_var_had(migrated: Machine) -> None:
    (migrated.var / "d").mkdir(mode=0o2770)
    os.link(migrated.var / "data", migrated.var / "d/again")
    os.mkfifo(migrated.var / "d/pipe")
    expected = snapshot(migrated.var)
    migrated.run("switch", "--snapshot-var", "--accept-data-versions", "os/9")
    assert snapshot(migrated.stateroot / "generations/2/snapshot/var") == expected


def test_without_a_snapshot_nothing_is_put_back(machine: Machine) -> None:
    for version in ("1", "2"):
        machine.commit("os/a", release(version, {}), second=int(version))
        machine.run("deploy", "os/a")
    before = machine.state()
    for words in (["rollback", "--restore-var"], ["rollback", "--restore-var", "--dry-run"]):
        assert "has no snapshot of /var" in machine.run(*words, status=1).stderr
        assert machine.state() == before
    machine.run("status")
    machine.run("pin")
    machine.run("cleanup")
    assert machine.state() == before


@pytest.mark.parametrize("is_exchanged", [False, True])
def test_a_restore_that_was_killed_is_finished_by_the_next_command(migrated: Machine, is_exchanged: bool) -> None:
    migrated.run("rollback", "--restore-var")
    restored, left = migrated.stateroot / f"generations/3/{RESTORED}", migrated.stateroot / "generations/2/snapshot"
    left.rename(restored)
    if not is_exchanged:
        _exchange(restored / "var", migrated.var)
        assert (migrated.var / "data").read_text() == "as of 15"
    migrated.run("cleanup")
    assert (migrated.var / "data").read_text() == "as of 9"
    assert (left / "var/data").read_text() == "as of 15"
    stateroot = Sysroot.open(migrated.path).stateroot()
    current = stateroot.current()
    assert current is not None
    finish_restore(stateroot, current)  # once more: nothing is left to do
    assert (migrated.var / "data").read_text() == "as of 9"


def test_a_snapshot_of_a_command_that_was_killed_is_none(migrated: Machine) -> None:
    """A later one that leaves the same generation would find its place taken, and keep what is older."""
    for name in ("snapshot/var", "snapshot.tmp/var"):
        (migrated.stateroot / "generations/2" / name).mkdir(parents=True)
        (migrated.stateroot / "generations/2" / name / "data").write_text("as it was then")
    (migrated.var / "data").write_text("as it is now")
    migrated.run("rollback", "--restore-var")
    assert sorted(os.listdir(migrated.stateroot / "generations/2")) == ["origin.toml", "root", "snapshot"]
    migrated.run("rollback", "--restore-var")
    assert (migrated.var / "data").read_text() == "as it is now"


def _exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
