"""What must not go with an old deployment, and what can't be removed and must stop nobody."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.marks import needs_root
from tests.snapshots import snapshot
from tests.sysroot.rig import Machine, release

pytestmark = needs_root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a directory with something precious."""
    path = tmp_path / "data"
    (path / "sub").mkdir(parents=True)
    (path / "sub/file").write_text("precious")
    return path


@pytest.fixture
def three(machine: Machine) -> Machine:
    """Return a machine with three generations, each with a tree of its own."""
    for number in "123":
        machine.commit("os/a", release(number, {"mnt": {}}), second=int(number))
        machine.run("deploy", "os/a")
    return machine


@pytest.fixture
def mounted() -> Iterator[list[Path]]:
    """Return a list of mount points, which are unmounted at the end."""
    points: list[Path] = []
    yield points
    for point in reversed(points):
        subprocess.run(["umount", point], check=True)


def bind(source: Path, point: Path, mounted: list[Path]) -> Path:
    subprocess.run(["mount", "--bind", source, point], check=True)
    mounted.append(point)
    return point


def first_root(machine: Machine) -> Path:
    return (machine.stateroot / "generations/1/root").resolve()


@pytest.mark.parametrize("words", [("undeploy", "1"), ("cleanup", "--keep", "1")], ids=["undeploy", "cleanup"])
def test_a_mount_in_a_deployment_is_named_and_nothing_is_changed(
    three: Machine, data: Path, mounted: list[Path], words: tuple[str, ...]
) -> None:
    point = bind(data, first_root(three) / "etc/mnt", mounted)
    before = snapshot(three.path / "deploy")
    said = three.run(*words, status=15).stderr
    assert f"umount {point}" in said and "nothing was changed" in said
    assert snapshot(three.path / "deploy") == before
    subprocess.run(["umount", mounted.pop()], check=True)
    three.run(*words)
    assert not first_root(three).exists()
    assert (data / "sub/file").read_text() == "precious"


def test_the_shared_var_in_a_deployment_is_not_erased(three: Machine, mounted: list[Path]) -> None:
    """As it has to be for a chroot."""
    (three.var / "order").write_text("x")
    bind(three.var, first_root(three) / "var", mounted)
    three.run("cleanup", "--keep", "1", status=15)
    assert (three.var / "order").read_text() == "x"


def test_a_sweep_leaves_a_tree_in_which_something_is_mounted(three: Machine, data: Path, mounted: list[Path]) -> None:
    garbage = three.stateroot / "deployments" / f"{'0' * 64}.0"
    (garbage / "mnt").mkdir(parents=True)
    (garbage / "other").write_text("x")
    point = bind(data, garbage / "mnt", mounted)
    for words in (("rollback",), ("cleanup",), ("deploy", "os/a")):
        said = three.run(*words).stderr
        assert f"what is left of {garbage} stays" in said and f"umount {point}" in said
    assert (garbage / "other").exists() and (data / "sub/file").read_text() == "precious"
    assert json.loads(three.run("status", "--json").stdout)[0]["left_over"] == [str(garbage)]


def test_what_can_not_be_removed_stops_nobody(three: Machine) -> None:
    fixed = first_root(three) / "etc"
    subprocess.run(["chattr", "+i", *fixed.glob("*")], check=True)
    stuck = fixed.parent.with_name(f"{fixed.parent.name}.tmp")
    try:
        said = three.run("undeploy", "1").stderr
        assert str(stuck / "etc") in said and "Operation not permitted" in said
        assert sorted(path.name for path in stuck.iterdir()) == ["etc"]  # all else is gone
        for words in (("deploy", "os/a"), ("rollback",), ("cleanup",)):
            assert f"what is left of {stuck} stays" in three.run(*words).stderr
        assert f"left over: {stuck}" in three.run("status").stdout
    finally:
        subprocess.run(["chattr", "-i", *(stuck / "etc").glob("*")], check=True)
    three.run("cleanup")
    assert not stuck.exists() and "left over" not in three.run("status").stdout


@pytest.mark.parametrize("words", [("switch", "--snapshot-var", "os/b"), ("rollback", "--snapshot-var")])
def test_what_is_mounted_in_var_is_not_copied(
    three: Machine, data: Path, mounted: list[Path], words: tuple[str, ...]
) -> None:
    three.commit("os/b", release("b", {}), second=9)
    (three.var / "mnt").mkdir()
    point = bind(data, three.var / "mnt", mounted)
    current = (three.stateroot / "current").readlink()
    assert f"umount {point}" in three.run(*words, status=15).stderr
    assert (three.stateroot / "current").readlink() == current


def test_what_is_mounted_in_var_is_not_moved_by_a_restore(three: Machine, data: Path, mounted: list[Path]) -> None:
    three.commit("os/b", release("b", {}), second=9)
    three.run("switch", "--snapshot-var", "os/b")
    (three.var / "mnt").mkdir()
    point = bind(data, three.var / "mnt", mounted)
    assert f"umount {point}" in three.run("rollback", "--restore-var", status=15).stderr
    assert (three.var / "mnt/sub/file").read_text() == "precious"
