"""A sysroot of another user's, and files in one's own that are not what they should be: neither is believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.marks import needs_root
from tests.running import RunFsview
from tests.snapshots import snapshot
from tests.sysroot.rig import Machine, release
from tests.trees import build_tree
from tests.users import NOBODY, run_as_nobody

VERBS: list[tuple[str, ...]] = [
    ("status",), ("pin",), ("unpin",), ("deploy", "a"), ("switch", "a"), ("upgrade",), ("rollback",), ("undeploy", "1"),
    ("cleanup",), ("etc-diff",), ("os-init", "other"),
]  # fmt: skip


@pytest.fixture
def machine(run_fsview: RunFsview, tmp_path: Path) -> Machine:
    """Return a machine with two generations."""
    machine = Machine.make(run_fsview, tmp_path)
    for version in ("1", "2"):
        machine.commit("a", release(version, {}))
        machine.run("deploy", "a")
    return machine


@pytest.fixture
def theirs(nobodys: Path) -> Path:
    """Return a sysroot that nobody made, with two generations."""
    sysroot = nobodys / "sysroot"
    assert run_as_nobody(nobodys, "init", nobodys / "repo").status == 0
    for number in (1, 2):
        tree = build_tree(nobodys / f"tree{number}", {"etc": {"a": b"%d" % number}})
        os.chown(tree, NOBODY, NOBODY)
        assert run_as_nobody(nobodys, "commit", "--repo", nobodys / "repo", "-b", "a", tree).status == 0
        if number == 1:
            assert run_as_nobody(nobodys, "sysroot", "init", sysroot, "--repo", nobodys / "repo").status == 0
            assert run_as_nobody(nobodys, "os-init", "main", "--sysroot", sysroot).status == 0
        assert run_as_nobody(nobodys, "deploy", "a", "--sysroot", sysroot).status == 0
    return sysroot


@needs_root
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_root_neither_believes_nor_changes_one_of_another_user(
    theirs: Path, run_fsview: RunFsview, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    """Whose lock leads to a file of root's: what held it wrote there."""
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    (theirs / "lock").unlink()
    (theirs / "lock").symlink_to(secret)
    before = snapshot(theirs)
    for said in (
        run_fsview(*verb, "--sysroot", theirs, status=1),
        run_fsview(*verb, cwd=theirs, status=1),
        run_fsview(*verb, env={"FSVIEW_SYSROOT": str(theirs)}, status=1),
    ):
        assert f"{theirs}: " in said.stderr and f"belongs to user {NOBODY}, who could have this command" in said.stderr
    assert secret.read_text() == "secret\n" and snapshot(theirs) == before


@needs_root
def test_root_s_own_in_another_user_s_directory(nobodys: Path, run_fsview: RunFsview, machine: Machine) -> None:
    """Who could rename it, and put his own there, at any moment."""
    machine.path.rename(nobodys / "sysroot")
    said = run_fsview("status", "--sysroot", nobodys / "sysroot", status=1)
    assert f"{nobodys.name!r} on the way to it belongs to user {NOBODY}" in said.stderr
    (nobodys / "sysroot").rename(machine.path)
    machine.run("status")
    (nobodys / "link").symlink_to(machine.path)
    os.chown(nobodys / "link", NOBODY, NOBODY, follow_symlinks=False)
    assert "on the way to it belongs" in run_fsview("status", "--sysroot", nobodys / "link", status=1).stderr


def _replace(path: Path, target: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rename(Path(target).parent / "kept")
    else:
        path.unlink()
    path.symlink_to(target)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _deployment(machine: Machine) -> Path:
    return (machine.stateroot / "current/root").resolve()


HARM: dict[str, tuple[Callable[[Machine, Path], object], str]] = {
    "root": (lambda m, secret: _replace(m.stateroot / "generations/2/root", secret), "does not lead to its deployment"),
    "generation": (lambda m, secret: _replace(m.stateroot / "generations/2", secret), "is no directory"),
    "generations": (lambda m, secret: _replace(m.stateroot / "generations", secret), "no stateroot|is no directory"),
    "deployments": (lambda m, secret: _replace(m.stateroot / "deployments", secret), "is no directory"),
    "deployment": (lambda m, secret: _replace(_deployment(m), secret), "is a symlink"),
    "stateroot": (lambda m, secret: _replace(m.stateroot, secret), "no stateroot|is no directory"),
    "origin": (lambda m, secret: _replace(m.stateroot / "generations/2/origin.toml", secret / "key"), "plain file"),
    "a FIFO for an origin": (lambda m, secret: _fifo(m.stateroot / "generations/2/origin.toml"), "plain file"),
    "settings": (lambda m, secret: _replace(m.path / "fsview.toml", secret / "key"), "plain file"),
    "a FIFO for settings": (lambda m, secret: _fifo(m.path / "fsview.toml"), "plain file"),
    "writable settings": (lambda m, secret: (m.path / "fsview.toml").chmod(0o666), "chmod go-w"),
    "writable generations": (lambda m, secret: (m.stateroot / "generations").chmod(0o777), "chmod go-w"),
    "deep settings": (lambda m, secret: (m.path / "fsview.toml").write_text("a = " + "[" * 9000), "by hand"),
    "long settings": (lambda m, secret: (m.path / "fsview.toml").write_text("#" * 2_000_000), "is longer than"),
    "deep origin": (
        lambda m, secret: (m.stateroot / "generations/2/origin.toml").write_text("a = " + "[" * 9000), "by hand",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HARM)
def test_what_leads_out_of_one_s_own_is_named(machine: Machine, tmp_path: Path, what: str) -> None:
    secret = tmp_path / "secret"
    build_tree(secret, {"key": b"secret\n", "generations": {"1": {}}, "deployments": {}})
    before = snapshot(secret)
    harm, message = HARM[what]
    harm(machine, secret)
    for verb in (["status"], ["deploy", "a"], ["rollback"], ["cleanup"]):
        said = machine.fsview(*verb, "--sysroot", machine.path, status=None, timeout_s=20)
        assert said.returncode in (1, 10, 15) and "Traceback" not in said.stderr, said
        assert any(part in said.stderr for part in message.split("|")), said.stderr
        assert str(machine.path) in said.stderr
    assert snapshot(secret) == before


def test_nobody_else_can_write_in_one_whatever_the_umask(run_fsview: RunFsview, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        machine = Machine.make(run_fsview, tmp_path)
        machine.commit("a", release("1", {}))
        machine.run("deploy", "a")
    finally:
        os.umask(before)
    directories = [path for path in (machine.path, *machine.path.rglob("*")) if path.is_dir()]
    assert [path for path in directories if path.stat().st_mode & 0o022] == []
