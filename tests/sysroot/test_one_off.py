"""`deploy --dest`, and sources that are only to be had through a mount."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MountView
from tests.marks import needs_root
from tests.running import PROJECT, clean_environment
from tests.snapshots import assert_same_tree
from tests.sysroot.rig import Machine, release
from tests.trees import Directory, File


@pytest.fixture
def one(machine: Machine) -> Machine:
    """Return a machine with the ref os/a and nothing deployed."""
    machine.commit("os/a", release("1", {}), "--add-metadata-string=version=1.0")
    return machine


@pytest.fixture
def other(one: Machine) -> Machine:
    """Return another machine, with an empty repository of its own."""
    where = one.where / "other"
    where.mkdir()
    return Machine.make(one.fsview, where)


def test_a_tree_outside_of_any_sysroot(one: Machine, mount_view: MountView) -> None:
    one.fsview("checkout", "--repo", one.repository, "os/a", one.where / "expected")
    point = mount_view(one.repository)
    named: list[list[str | Path]] = [["--repo", one.repository, "os/a"], ["--sysroot", one.path, "os/a"]]
    named.append([point / "refs/os/a"])
    for number, words in enumerate(named):
        target = one.where / f"tree-of-{number}"
        assert one.fsview("deploy", "--dest", target, *words).stdout == f"{target}\n"
        assert_same_tree(one.where / "expected", target, mtimes=True)
    assert one.state() == ("", set())


def test_etc_is_where_a_deployment_has_it(one: Machine) -> None:
    etc = Directory({"conf": File(b"conf", mode=0o640)}, mode=0o750)
    tree: dict[str, Any] = {"usr": {"etc": etc, "f": b"f"}, "var": {"own": b"own"}}
    one.commit("os/usr-etc", tree)
    one.run("deploy", "--dest", one.where / "tree", "os/usr-etc")
    assert_same_tree(one.where / "tree/usr/etc", one.where / "tree/etc", mtimes=True)
    assert (one.where / "tree/var/own").read_bytes() == b"own"
    (one.where / "tree/etc/conf").write_bytes(b"edited")
    assert (one.where / "tree/usr/etc/conf").read_bytes() == b"conf"
    one.commit("os/both", tree | {"etc": {"x": b"x"}})
    assert "both /etc and /usr/etc" in one.run("deploy", "--dest", one.where / "no", "os/both", status=15).stderr
    assert not (one.where / "no").exists()


def test_what_would_be_written_and_what_was(one: Machine) -> None:
    words: list[str | Path] = ["deploy", "--dest", one.where / "tree", "os/a", "--json"]
    told = json.loads(one.run(*words, "--dry-run").stdout)
    assert (told["dry_run"], told["title"], told["ref"]) == (True, "1.0", "os/a")
    assert not (one.where / "tree").exists()
    assert json.loads(one.run(*words).stdout)["written"]["files"] > 5


def test_what_is_refused(one: Machine) -> None:
    taken = one.where / "taken"
    taken.mkdir()
    (taken / "mine").write_bytes(b"mine")
    assert "exists already" in one.run("deploy", "--dest", taken, "os/a", status=1).stderr
    assert os.listdir(taken) == ["mine"]
    for odd in (["--strict"], ["--snapshot-var"], ["--os", "main"], ["--merge=text"]):
        refused = one.run("deploy", "--dest", one.where / "x", *odd, "os/a", status=2)
        assert "--dest makes no generation" in refused.stderr
    assert "--repo is for --dest" in one.run("deploy", "--repo", one.repository, "os/a", status=2).stderr
    assert "is no directory" in one.run("deploy", "--dest", one.where / "no/where", "os/a", status=1).stderr


def test_a_view_of_another_repository(one: Machine, other: Machine, mount_view: MountView) -> None:
    key = one.where / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    one.fsview("certify", "--repo", one.repository, "os/a", "--key", key)
    source = mount_view(one.repository) / "refs/os/a"
    assert "would be copied through the mount" in other.run("deploy", "--dry-run", source, status=1).stderr
    said = other.run("deploy", source)
    assert f"{source} is copied through the mount: {other.repository} does not have it" in said.stderr
    one.run("deploy", "os/a")
    assert_same_tree(one.root.resolve(), other.root.resolve(), mtimes=True)
    commit = other.status()["generations"][-1]["commit"]
    assert (
        "good Ed25519 signature"
        in other.fsview("verify", "--repo", other.repository, commit, "--key", f"{key}.pub").stdout
    )
    again = other.run("deploy", source)
    assert "copied through the mount" not in again.stderr
    other.fsview("fsck", "--repo", other.repository)


@needs_root
def test_a_view_of_a_repository_that_is_out_of_reach(one: Machine, mount_view: MountView) -> None:
    point = mount_view(one.repository)
    one.fsview("checkout", "--repo", one.repository, "os/a", one.where / "expected")
    program: list[str | Path] = [
        sys.executable,
        "-m",
        "tools",
        "deploy",
        "--dest",
        one.where / "tree",
        point / "refs/os/a",
    ]
    script = f'mount -t tmpfs none {one.repository}; exec "$@"'
    hidden: list[str | Path] = ["unshare", "-m", "sh", "-ec", script, "sh", *program]
    done = subprocess.run(hidden, env=clean_environment(one.where), cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is copied through the mount: its repository can't be opened" in done.stderr
    assert_same_tree(one.where / "expected", one.where / "tree", mtimes=True)
    assert not list(one.where.glob(".tree*"))


def test_a_view_that_shows_other_owners(one: Machine, other: Machine, mount_view: MountView) -> None:
    source = mount_view(one.repository, "-o", "uid=77") / "refs/os/a"
    refused = other.run("deploy", source, status=16)
    assert "shows is not commit" in refused.stderr and "mounted with options that show other owners" in refused.stderr
    assert other.state() == ("", set()) and other.own_refs() == []


def test_a_view_of_one_tree_alone(one: Machine, other: Machine, mount_view: MountView) -> None:
    refused = other.run("deploy", mount_view(one.repository, "--root", "os/a"), status=17)
    assert "shows one tree alone" in refused.stderr


@pytest.mark.unchecked
def test_a_view_that_is_damaged(one: Machine, other: Machine, mount_view: MountView) -> None:
    (loose,) = (path for path in (one.repository / "objects").rglob("*") if path.is_file())
    loose.chmod(0o600)
    with loose.open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    refused = other.run("deploy", mount_view(one.repository) / "refs/os/a", status=16)
    assert "usr/lib/large can't be read: Input/output error" in refused.stderr
    assert other.state() == ("", set())
