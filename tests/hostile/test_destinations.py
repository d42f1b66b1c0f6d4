"""Root writes a tree into another user's directory, who exchanges what is under way there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from store.libc import RENAME_EXCHANGE, renameat2
from tests.conftest import TreeFactory
from tests.hostile.attacker import SECRET, Attack, attacking, make_his, make_victim
from tests.running import RunFsview
from tests.snapshots import snapshot
from tests.sysroot.forked import fork_cli

RUNS = 200
FILES = {f"file-{number}": b"%d" % number for number in range(30)}
TREE = {"usr": {"etc": {"d": dict(FILES)}, "lib": dict(FILES)}}


def _exchanging_the_hidden_directory(his: Path) -> Attack:
    """Return an attack: what is hidden beside the destination becomes a symlink, his own directory, or is elsewhere."""
    turns = 0

    def act() -> None:
        nonlocal turns
        for name in os.listdir(b"."):
            if name.startswith(b".out.fsview-"):
                turns += 1
                other = (b"link", b"mine")[turns % 2]
                renameat2(name, other, RENAME_EXCHANGE)
                if turns % 3:
                    renameat2(name, other, RENAME_EXCHANGE)

    return Attack(his, act)


@pytest.fixture
def grounds(open_path: Path) -> Path:
    """Return a directory with root's `victim`, which has the names of the tree, too."""
    victim = make_victim(open_path / "victim")
    for top in (victim, victim / "usr/lib", victim / "usr/etc/d", victim / "etc/d"):
        top.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (top / name).write_bytes(SECRET)
    return open_path


def _make_his_directory(grounds: Path) -> Path:
    his = grounds / "his"
    shutil.rmtree(his, ignore_errors=True)
    (his / "mine/usr").mkdir(parents=True)
    (his / "link").symlink_to(grounds / "victim")
    make_his(his)
    return his


COMMANDS: dict[str, Callable[[Path], list[str | Path]]] = {
    "checkout": lambda to: ["checkout", "r", to],
    "deploy": lambda to: ["deploy", "--dest", to, "r"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_nothing_of_root_s_is_changed(
    grounds: Path, make_repo: Callable[..., Path], tree_factory: TreeFactory, run_fsview: RunFsview,
    words: Callable[[Path], list[str | Path]],
) -> None:  # fmt: skip
    repo, expected, statuses = make_repo(), snapshot(grounds / "victim"), set()
    run_fsview("commit", "-b", "r", tree_factory(TREE), repo=repo)
    for run in range(RUNS):
        his = _make_his_directory(grounds)
        with attacking(_exchanging_the_hidden_directory(his)):
            statuses.add(fork_cli(grounds, [*words(his / "out"), "--repo", repo]))
        said = (grounds / "err").read_text()
        assert "Traceback" not in said, said
        assert snapshot(grounds / "victim") == expected, f"in run {run}"
    assert len(statuses) > 1  # he won sometimes, and sometimes not
