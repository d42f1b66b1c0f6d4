"""What can't be done is said clearly, and the old state is untouched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MountView
from tests.fuse.waits import kill_server
from tests.marks import needs_root
from tests.running import PROJECT, clean_environment
from tests.sysroot.rig import Machine, release


@pytest.fixture
def deployed(machine: Machine) -> Iterator[Machine]:
    """Return a machine with a deployment, which at the end is current as before, and can be changed."""
    machine.commit("os/a", release("1", {}))
    machine.run("deploy", "os/a")
    before = machine.state()
    yield machine
    assert machine.state() == before
    assert (machine.root / "usr/lib/own").read_text() == "lib 1"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["deploy", "os/none"], 1, "no ref, commit or abbreviation is named 'os/none'"),
        (["switch", "os/a^"], 1, "is the first commit and has no parent"),
        (["deploy", "os/a:/usr"], 2, "is a part of a commit"),
        (["deploy", "/usr"], 1, "/usr is not in a mounted view"),
        (["deploy", "./none"], 1, "./none does not exist"),
        (["rollback", "--to", "7"], 1, "there is no generation 7 in main"),
        (["rollback", "--restore-var", "--to", "1"], 15, "has the deployment that is current"),
        (["undeploy", "1"], 15, "is current, and stays"),
        (["pin", "7"], 1, "there is no generation 7"),
        (["status", "--os", "none"], 1, "has no stateroot 'none'; it has: main"),
        (["deploy", "os/a", "--os", "../x"], 1, "has no stateroot '../x'"),
    ],
)
def test_what_is_not_there(deployed: Machine, words: list[str], status: int, message: str) -> None:
    assert message in deployed.run(*words, status=status).stderr


@pytest.mark.parametrize("word", ["deploy", "status", "rollback", "cleanup", "etc-diff", "pin"])
def test_not_a_sysroot(machine: Machine, tmp_path: Path, word: str) -> None:
    words = [word, "os/a"] if word == "deploy" else [word]
    assert "is not a sysroot" in machine.fsview(*words, "--sysroot", tmp_path, status=1).stderr
    assert "is a repository, not a sysroot" in machine.fsview(*words, "--sysroot", machine.repository, status=10).stderr
    assert "no sysroot was named" in machine.fsview(*words, status=1).stderr


def test_a_sysroot_named_by_the_environment_or_the_directory(deployed: Machine) -> None:
    by_name = deployed.fsview("status", env={"FSVIEW_SYSROOT": str(deployed.path)}).stdout
    assert by_name == deployed.fsview("status", cwd=deployed.path).stdout == deployed.run("status").stdout
    assert "is a sysroot, not a repository" in deployed.fsview("log", cwd=deployed.path, status=10).stderr


def test_a_policy_with_an_unknown_key(deployed: Machine) -> None:
    path = deployed.path / "fsview.toml"
    text = path.read_text()
    path.write_text(text + 'requires = "certified"\n')
    for word in (["deploy", "os/a"], ["status"], ["rollback"]):
        assert "unknown key 'policy.requires'" in deployed.run(*word, status=10).stderr
    path.write_text(text)


def test_an_origin_edited_into_nonsense(deployed: Machine) -> None:
    path = deployed.stateroot / "generations/1/origin.toml"
    text = path.read_text()
    path.write_text(text.replace("pinned = false", "pinned = perhaps"))
    for word in (["deploy", "os/a"], ["status"], ["rollback"], ["cleanup"]):
        assert f"{path}: " in deployed.run(*word, status=15).stderr
    path.write_text(text)


def test_a_current_that_points_elsewhere(deployed: Machine) -> None:
    link = deployed.stateroot / "current"
    link.unlink()
    link.symlink_to("/")
    assert "not at a generation; point it at the right one" in deployed.run("deploy", "os/a", status=15).stderr
    link.unlink()
    link.symlink_to("generations/1")


def test_a_view_whose_server_died(deployed: Machine, mount_view: MountView) -> None:
    view = mount_view(deployed.repository)
    kill_server(view)
    assert "whose server was killed" in deployed.run("deploy", view / "refs/os/a", status=17).stderr
    deployed.fsview("umount", view)


def test_a_relative_word_is_a_ref_of_the_sysroot_else_a_path_in_a_view(
    deployed: Machine, mount_view: MountView, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    deployed.fsview("init", other)
    deployed.fsview("commit", "--repo", other, "-b", "os/a", deployed.where / "tree-0/usr")
    refs, given = mount_view(other) / "refs", ("--sysroot", deployed.path)
    (checksum,) = {one["commit"] for one in deployed.status()["generations"]}
    assert checksum in deployed.fsview("deploy", "-n", "os/a", *given, cwd=refs).stdout
    assert "Upgrade: nothing new" in deployed.fsview("status", *given, cwd=refs).stdout
    for words in (["deploy", "os/missing"], ["deploy", "--dest", tmp_path / "x", "os/missing"]):
        assert "fsview: os/missing does not exist" in deployed.fsview(*words, *given, cwd=refs, status=1).stderr


def test_a_second_command_waits_or_says_for_whom(deployed: Machine) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tools.sysroot.locking import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, deployed.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=clean_environment(deployed.where), cwd=PROJECT,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        for words in (["deploy", "os/a"], ["rollback"], ["pin"], ["cleanup"], ["undeploy", "1"], ["upgrade"]):
            assert f"process {holder.pid} " in deployed.run(*words, "--no-wait", status=11).stderr
        deployed.run("status")  # who only reads waits for nobody
        for words in (["deploy", "os/a"], ["cleanup"], ["upgrade"]):
            deployed.run(*words, "--no-wait", "--dry-run")
        command: list[str | Path] = [sys.executable, "-m", "tools", "upgrade", "--sysroot", deployed.path]
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, env=clean_environment(deployed.where), cwd=PROJECT
        ) as second:
            assert second.stderr is not None
            assert f"waiting for process {holder.pid} ".encode() in second.stderr.readline()
            holder.communicate()
            assert b"no update" in second.stderr.read()
            assert second.wait() == 0


def test_sockets_and_fifos_in_etc(machine: Machine) -> None:
    machine.commit("os/a", release("1", {}))
    machine.run("deploy", "os/a")
    os.mkfifo(machine.root / "etc/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(machine.root / "etc")  # a socket's path has 107 bytes at most
        listening.bind("s")
        planned = machine.run("deploy", "-n", "os/a").stdout
        said = machine.json("deploy", "os/a")
    assert "\n  pipe: a socket, device or FIFO; skipped\n  s: a socket, device or FIFO; skipped\n" in planned
    assert sorted(said["etc"]["skipped"]) == ["pipe", "s"]
    assert not os.path.lexists(machine.root / "etc/pipe")


def test_an_etc_that_is_gone(deployed: Machine) -> None:
    (deployed.root / "etc").rename(deployed.where / "etc")
    assert "etc is gone" in deployed.run("deploy", "os/a", status=15).stderr
    assert "etc is gone" in deployed.run("etc-diff", status=1).stderr
    (deployed.where / "etc").rename(deployed.root / "etc")


def test_a_tree_that_is_gone_is_not_rolled_back_to(machine: Machine) -> None:
    for version in ("1", "2"):
        machine.commit("os/a", release(version, {}), second=int(version))
        machine.run("deploy", "os/a")
    before = machine.state()
    tree = (machine.stateroot / "generations/1/root").resolve()
    tree.rename(machine.where / "tree")
    assert "is gone; deploy the commit anew" in machine.run("rollback", status=15).stderr
    (machine.where / "tree").rename(tree)
    assert machine.state() == before


@needs_root
def test_a_full_disk(machine: Machine) -> None:
    machine.path.rename(machine.where / "elsewhere")
    machine.path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", machine.path], check=True)
    try:
        subprocess.run(["cp", "-a", f"{machine.where}/elsewhere/.", machine.path], check=True)
        machine.commit("os/a", release("1", {}))
        machine.commit("os/b", release("2", {"big": os.urandom(3_000_000)}), second=1)
        machine.run("deploy", "os/a")
        before = machine.state(), machine.own_refs()
        assert "No space left on device" in machine.run("switch", "os/b", status=1).stderr
        assert (machine.state(), machine.own_refs()) == before
        machine.run("deploy", "os/a")
    finally:
        subprocess.run(["umount", machine.path], check=True)


@needs_root
def test_a_sysroot_that_can_not_be_written(deployed: Machine) -> None:
    subprocess.run(["mount", "--bind", deployed.path, deployed.path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", deployed.path], check=True)
        for words in (["deploy", "os/a"], ["rollback"], ["pin"], ["cleanup"]):
            assert f"{deployed.path}/lock: Read-only file system" in deployed.run(*words, status=1).stderr
        deployed.run("status")
    finally:
        subprocess.run(["umount", deployed.path], check=True)
