"""What other users must not get at: copies of /var, and trees that are under way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.acls import DEFAULT, acl
from tests.marks import needs_root
from tests.sysroot.rig import Machine, keep_as_before, release
from tests.users import NOBODY, run_as_nobody, shell_as_nobody
from tools.sysroot import build, var
from tools.sysroot.trees import Built


@pytest.fixture
def kept(machine: Machine) -> Machine:
    """Return a machine with two generations, of which the first has a snapshot of /var: "1"."""
    for second, ref in enumerate(("os/a", "os/b")):
        machine.commit(ref, release(ref, {}), second=second)
    machine.run("deploy", "os/a")
    (machine.var / "data").write_text("1")
    machine.run("switch", "--snapshot-var", "os/b")
    (machine.var / "data").write_text("2")
    return machine


def _modes(generation: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o7777 for path in generation.iterdir() if not path.is_symlink()}


def test_a_snapshot_lies_where_nobody_else_can_enter(kept: Machine) -> None:
    assert _modes(kept.stateroot / "generations/1") == {"origin.toml": 0o644, "snapshot": 0o700}
    mode = kept.var.stat().st_mode
    kept.run("rollback", "--restore-var")
    assert _modes(kept.stateroot / "generations/2") == {"origin.toml": 0o644, "snapshot": 0o700}
    assert (kept.stateroot / "generations/2/snapshot/var/data").read_text() == "2"
    assert (kept.var.stat().st_mode, (kept.var / "data").read_text()) == (mode, "1")


def test_what_is_to_be_restored_lies_there_too(kept: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.sysroot.activate.finish_restore", lambda stateroot, generation: None)
    kept.run("rollback", "--restore-var")
    assert _modes(kept.stateroot / "generations/3") == {"origin.toml": 0o644, "restored": 0o700}


@needs_root
def test_a_default_acl_lets_nobody_in(kept: Machine) -> None:
    for path in (kept.stateroot / "generations/2", kept.stateroot / "deployments"):
        os.setxattr(path, DEFAULT, acl(f"u::rwx,u:{NOBODY}:rwx,g::r-x,m::rwx,o::r-x"))
    kept.run("switch", "--snapshot-var", "os/a")
    paths = list((kept.stateroot / "generations/2/snapshot").rglob("*"))
    assert paths and [path for path in paths if os.listxattr(path, follow_symlinks=False)] == []


@needs_root
def test_who_may_not_enter_is_told_of_the_snapshot(nobodys: Path, run_fsview: object) -> None:
    os.chown(nobodys, 0, 0)
    home = nobodys / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    machine = Machine.make(run_fsview, nobodys)  # type: ignore[arg-type]  # a fixture's value is an object here
    for second, ref in enumerate(("os/a", "os/b")):
        machine.commit(ref, release(ref, {}), second=second)
    machine.run("deploy", "os/a")
    machine.run("switch", "--snapshot-var", "os/b")
    said = run_as_nobody(home, "status", "--sysroot", machine.path)
    assert (said.status, "(/var snapshot)" in said.stdout) == (0, True)
    path = machine.stateroot / "generations/1/snapshot/var"
    assert path.is_dir()
    assert shell_as_nobody(["ls", path]).returncode != 0


@pytest.mark.parametrize("words", [("cleanup", "--keep", "9"), ("rollback", "--restore-var"), ("switch", "os/a")])
def test_a_snapshot_of_before_is_found_and_hidden(kept: Machine, words: tuple[str, ...]) -> None:
    generation = kept.stateroot / "generations/1"
    keep_as_before(generation)
    assert "(/var snapshot)" in kept.run("status").stdout
    assert kept.status()["generations"][1]["snapshot_of_var"] is True
    kept.run("rollback", "--restore-var", "--dry-run")
    kept.run(*words)
    assert _modes(generation) == {"origin.toml": 0o644, "snapshot": 0o700}
    assert (generation / "snapshot/var/data").read_text() == "1"
    assert (kept.var / "data").read_text() == ("1" if "--restore-var" in words else "2")


@pytest.mark.parametrize("is_exchanged", [False, True])
def test_a_restore_that_an_earlier_fsview_began_is_finished(
    kept: Machine, is_exchanged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tools.sysroot.activate.finish_restore", lambda stateroot, generation: None)
        kept.run("rollback", "--restore-var")
    generation = kept.stateroot / "generations/3"
    (generation / "restored/var").rename(generation / "var-restored")
    (generation / "restored").rmdir()
    if is_exchanged:
        var._exchange(kept.var, generation / "var-restored")
    kept.run("cleanup", "--keep", "9")
    assert (kept.var / "data").read_text() == "1"
    assert (kept.stateroot / "generations/2/snapshot/var/data").read_text() == "2"
    assert sorted(os.listdir(generation)) == ["origin.toml", "root"]


def test_nobody_else_gets_into_what_is_under_way(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree has its own modes and owners before it is proven, and before its own name."""
    told = machine.where / "told"
    told.touch()

    class Look:
        """Looks in place of a proof."""

        def check(self, built: Built) -> None:
            for path in (built.root, built.pristine):
                self.check_var(path)

        def check_var(self, path: Path) -> None:
            with told.open("a") as file:
                file.write(f"{path.name[64:] or path.name} {_is_closed(path, machine.stateroot)}\n")

    monkeypatch.setattr(build.Building, "_content_check", lambda building: Look())
    machine.commit("os/a", release("a", {}))
    machine.run("deploy", "os/a")
    assert told.read_text().splitlines() == [".0 True", ".0.etc-pristine True", "var True"]
    assert sorted(os.listdir(machine.stateroot)) == ["current", "deployments", "generations", "var"]
    assert [name[64:] for name in sorted(os.listdir(machine.stateroot / "deployments"))] == [".0", ".0.etc-pristine"]


def _is_closed(path: Path, top: Path) -> bool:
    above = path.parent
    return above != top and (above.stat().st_mode & 0o077 == 0 or _is_closed(above, top))
