"""Root removes, copies and merges trees in which another user owns a directory, and that user is quick.

Whether the user wins is a matter of luck, so it is tried often. What root does may fail; it may not reach what is
outside, nor wait for something that the user put there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest

from store.errors import ConflictError, FsviewError
from store.repository import Repository
from store.walking.copy import copy_tree
from store.walking.remove import remove_tree
from tests.hostile.attacker import (
    CAMPAIGN,
    SECRET,
    assert_no_secret_in,
    attacking,
    exchanging,
    make_his,
    make_his_tree,
    make_victim,
    moving_back_and_forth,
    moving_when_entered,
)
from tests.running import RunFsview
from tests.snapshots import snapshot
from tests.sysroot.forked import fork_cli
from tests.sysroot.rig import Machine, release
from tools import throwaway
from tools.sysroot.etc_changes import find_changes
from tools.sysroot.etc_merge import fingerprint, merge_etc
from tools.sysroot.trees import write_etc

PRECIOUS = [f"precious-{number}" for number in range(10)]


@pytest.fixture
def grounds(nobodys: Path) -> Path:
    """Return a directory of root's that others can look into."""
    os.chown(nobodys, 0, 0)
    return nobodys


@contextmanager
def allowed_to_fail() -> Iterator[None]:
    """A command may give up on a tree that doesn't hold still, with an error that says so."""
    with suppress(FsviewError, OSError):
        yield


# --- removing


def _shared(path: Path) -> Path:
    """Make a directory in which all can make files, as /tmp is, with files of root's."""
    path.mkdir()
    path.chmod(0o1777)
    for name in PRECIOUS:
        (path / name).mkdir()
        (path / name / "file").write_bytes(SECRET)
    return path


def _his_directory(own: Path, levels: int, files: int = 60) -> Path:
    """Make a directory of nobody's, with the names that are precious elsewhere; return one in it that takes a while."""
    slow = own / "slow"
    deep = slow.joinpath(*["x"] * levels)
    deep.mkdir(parents=True)
    for number in range(files):
        (deep / f"{number}").touch()
    for name in PRECIOUS:
        (own / name).mkdir()
        (own / name / "file").touch()
    make_his(own)
    return slow


@CAMPAIGN
def test_nothing_is_removed_from_where_a_directory_was_moved_to(grounds: Path, runs: int) -> None:
    shared = _shared(grounds / "shared")
    expected = snapshot(shared)
    for run in range(runs):
        top = grounds / f"top-{run}"
        (top / "srv").mkdir(parents=True)
        slow = _his_directory(top / "srv/own", levels=(0, 1, 40)[run % 3])
        away = shared / slow.name  # where root would find what it looks for
        with attacking(moving_when_entered(slow, away)), allowed_to_fail():
            remove_tree(top)
        shutil.rmtree(top, ignore_errors=True)
        shutil.rmtree(away, ignore_errors=True)
        found = snapshot(shared)
        found[b"."] = expected[b"."]  # names come and go
        assert found == expected, f"in run {run}"


@CAMPAIGN
def test_a_removal_goes_through_no_symlink(grounds: Path, runs: int) -> None:
    victim = make_victim(grounds / "victim")
    expected = snapshot(victim)
    for run in range(runs):
        top = grounds / f"top-{run}"
        own = top / "own"
        for number in range(40):
            (own / f"{number}").mkdir(parents=True)
            (own / f"link-{number}").symlink_to(victim)
        make_his(own)
        attack = exchanging(own, *((b"%d" % number, b"link-%d" % number) for number in range(40)))
        with attacking(attack), allowed_to_fail():
            remove_tree(top)
        assert snapshot(victim) == expected, f"in run {run}"
        shutil.rmtree(top, ignore_errors=True)


# --- copying


@CAMPAIGN
def test_nothing_outside_is_copied(grounds: Path, runs: int) -> None:
    """By which `deploy --snapshot-var`, `rollback --restore-var` and pristine copies are made."""
    victim, top = make_victim(grounds / "victim"), grounds / "top"
    expected = snapshot(victim)
    top.mkdir()
    attack = make_his_tree(top / "own", victim)
    (grounds / "his").mkdir()
    make_his(grounds / "his")
    with attacking(attack, moving_back_and_forth(top / "own/0/d", grounds / "his/d")):
        for run in range(runs):
            with allowed_to_fail():
                copy_tree(top, grounds / f"copy-{run}")
            assert_no_secret_in(grounds / f"copy-{run}")
            shutil.rmtree(grounds / f"copy-{run}", ignore_errors=True)
    assert snapshot(victim) == expected


@CAMPAIGN
def test_nothing_outside_is_in_a_throwaway_copy(grounds: Path, monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    """As `fsview run --ephemeral` makes one of /var where there is no overlay."""
    monkeypatch.setattr(throwaway, "_may_be_overlaid", lambda source: False)
    victim, top = make_victim(grounds / "victim"), grounds / "top"
    top.mkdir()
    with attacking(make_his_tree(top / "own", victim)):
        for run in range(runs):
            with allowed_to_fail():
                throwaway.throwaway(top, grounds / f"home-{run}")
            assert_no_secret_in(grounds / f"home-{run}")


# --- writing


def test_an_etc_is_not_written_elsewhere(grounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `deploy --dest` writes /etc from /usr/etc into a tree that may be another user's."""
    victim, target = make_victim(grounds / "victim"), grounds / "etc"
    real = os.mkdir

    def mkdir(*arguments: object, **named: object) -> None:
        real(*arguments, **named)  # type: ignore[arg-type]  # as they came
        target.rmdir()
        target.symlink_to(victim)

    monkeypatch.setattr("os.mkdir", mkdir)
    expected = snapshot(victim)
    with pytest.raises(ConflictError, match="etc was replaced while it was being written"):
        write_etc(cast(Repository, None), target, None, user_mode=False)
    assert snapshot(victim) == expected


# --- the merge of /etc


@CAMPAIGN
@pytest.mark.parametrize("text", [False, True], ids=["", "text"])
def test_nothing_outside_is_merged(grounds: Path, text: bool, runs: int) -> None:
    victim, own = make_victim(grounds / "victim"), grounds / "own"
    for side in (grounds / "old", grounds / "new"):
        (side / "own/0/swap").mkdir(parents=True)
        for name in ("own/0/f", "own/0/g", "own/0/swap/file"):
            (side / name).write_text(f"{side.name}\n")
        make_his(side / "own")
    own.mkdir()
    attack = make_his_tree(own / "own", victim)
    with attacking(attack):
        for _ in range(runs):
            target = grounds / "target"
            target.mkdir(mode=0o700)
            copy_tree(grounds / "new", target / "etc")
            with allowed_to_fail():
                merge_etc(grounds / "old", own, grounds / "new", target / "etc", text=text)
            with allowed_to_fail():
                find_changes(grounds / "old", own)
            with allowed_to_fail():
                fingerprint(own)
            assert_no_secret_in(target)
            shutil.rmtree(target)


# --- the commands


@pytest.fixture
def machine(grounds: Path, run_fsview: RunFsview) -> Machine:
    """Return a machine with two releases, the first deployed and its /var kept, where others can look into it."""
    machine = Machine.make(run_fsview, grounds)
    for second, ref in enumerate(("os/a", "os/b")):
        machine.commit(ref, release(ref, {"own": {"x": b"1"}}), second=second)
    machine.run("deploy", "os/a")
    machine.run("deploy", "--snapshot-var", "os/a")
    return machine


def _run(machine: Machine, *words: str) -> int:
    status = fork_cli(machine.where, [*words, "--sysroot", machine.path])
    said = (machine.where / "err").read_text()
    assert status in (0, 1, 11, 15) and "Traceback" not in said, said
    return status


def test_commands_on_a_system_whose_user_is_quick(machine: Machine, grounds: Path) -> None:
    victim = make_victim(grounds / "victim")
    expected = snapshot(victim)
    attacks = [
        make_his_tree(machine.var / "own", victim, copies=3),
        make_his_tree(machine.root.resolve() / "etc/his", victim),
    ]
    with attacking(*attacks):
        statuses = [
            _run(machine, *words)
            for words in [
                ("deploy", "--snapshot-var", "--merge=text", "os/b"), ("rollback", "--restore-var", "--to", "1"),
                ("etc-diff",), ("switch", "--snapshot-var", "os/b"), ("rollback", "--snapshot-var"),
            ] * 2
        ]  # fmt: skip
    assert statuses
    assert_no_secret_in(machine.stateroot)
    assert snapshot(victim) == expected
    machine.run("cleanup", "--keep", "1")
    machine.run("deploy", "--no-merge", "os/a")


def test_a_cleanup_of_a_deployment_with_a_quick_user(machine: Machine, grounds: Path) -> None:
    shared, victim = _shared(grounds / "shared"), make_victim(grounds / "victim")
    expected, kept = snapshot(shared), snapshot(victim)
    slow = _his_directory(machine.root.resolve() / "usr/own", 0, files=3000)
    attack = make_his_tree(machine.root.resolve() / "usr/his", victim)
    machine.run("switch", "os/b")
    machine.run("deploy", "os/b")
    moving = moving_when_entered(slow, shared / slow.name)
    with attacking(moving, attack):
        _run(machine, "cleanup", "--keep", "1")
    shutil.rmtree(shared / slow.name, ignore_errors=True)
    found = snapshot(shared)
    found[b"."] = expected[b"."]
    assert (found, snapshot(victim)) == (expected, kept)
    machine.run("cleanup", "--keep", "1")


def test_who_gives_up_says_why(grounds: Path) -> None:
    """The removal of what was moved while root was deep in it: a conflict, with its path."""
    top = grounds / "top"
    _his_directory(top / "own", levels=40)
    moved = grounds / "moved"
    moved.mkdir()
    real = os.unlink

    def unlink(*arguments: object, **named: object) -> None:
        if str(arguments[0]).strip("b'").isdigit() and (top / "own/slow").exists():
            (top / "own/slow").rename(moved / "slow")
        real(*arguments, **named)  # type: ignore[arg-type]  # as they came

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConflictError, match="was moved elsewhere"):
        patch.setattr("store.walking.remove.os.unlink", unlink)
        remove_tree(top)
