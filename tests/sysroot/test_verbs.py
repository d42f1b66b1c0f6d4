"""deploy, switch, upgrade, rollback: what is current, and what each of them leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from store.repository import Repository
from tests.conftest import MountView
from tests.marks import needs_root
from tests.running import RunFsview
from tests.snapshots import assert_same_tree, snapshot
from tests.sysroot.rig import LARGE, Machine, release
from tests.trees import Directory, File
from tools.linking import can_reflink
from tools.sysroot import etc_writing
from tools.sysroot.deploy import Options, deploy
from tools.sysroot.etc_tree import Node
from tools.sysroot.layout import Sysroot
from tools.sysroot.target import find_target


@pytest.fixture
def two(machine: Machine) -> Machine:
    """Return a machine with the refs a and b; a is deployed."""
    machine.commit("os/a", release("1", {}))
    machine.commit("os/b", release("2", {"new": b"new"}), second=10)
    machine.run("deploy", "os/a")
    return machine


def test_a_deployment_is_the_commit_but_for_var(machine: Machine) -> None:
    checksum = machine.commit("os/a", release("1", {}))
    said = machine.json("deploy", "os/a")
    assert (said["generation"], said["ref"], said["commit"]) == (1, "os/a", checksum)
    assert said["root"] == str(machine.stateroot / "deployments" / f"{checksum}.0")
    machine.fsview("checkout", "--repo", machine.repository, "os/a", machine.where / "checkout")
    expected = {
        name: node for name, node in snapshot(machine.where / "checkout").items() if not name.startswith(b"var/")
    }
    assert_same_tree(expected, snapshot(machine.root.resolve()), mtimes=True)
    assert_same_tree(machine.where / "checkout" / "var", machine.var, mtimes=True)
    assert_same_tree(machine.where / "checkout" / "etc", machine.stateroot / f"deployments/{checksum}.0.etc-pristine")


@pytest.mark.parametrize("alone", [0, 1 << 20])
def test_files_are_linked_but_not_those_that_are_written_to(
    two: Machine, monkeypatch: pytest.MonkeyPatch, alone: int
) -> None:
    """By several processes, and by one."""
    monkeypatch.setattr("tools.materialise._ALONE_ENTRIES_MAX", alone)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    first = two.root.resolve()
    two.run("deploy", "os/a")
    second = two.root.resolve()
    assert first != second
    for name, is_same in {
        "usr/bin/same": True,
        "usr/lib/large": not _can_reflink(two.where),  # a file of its own then, whose blocks are shared
        "usr/lib/link": True,
        "usr/lib/empty": False,
        "etc/hosts": False,
    }.items():
        assert os.path.samestat((first / name).lstat(), (second / name).lstat()) is is_same, name
    assert_same_tree(first, second, mtimes=True)


def _can_reflink(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return can_reflink(descriptor)
    finally:
        os.close(descriptor)


def test_each_deployment_has_a_pristine_copy_of_etc_of_its_own(two: Machine) -> None:
    first = two.root.resolve()
    two.run("deploy", "os/b")
    second = two.root.resolve()
    (one, other) = (path.with_name(path.name + ".etc-pristine") for path in (first, second))
    assert not (one / "hosts").samefile(other / "hosts")
    (second / "etc/hosts").write_bytes(b"edited")
    assert (one / "hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert two.run("etc-diff").stdout == "M    hosts\n"


def test_files_in_etc_are_never_links(two: Machine) -> None:
    """Equal ones are one file in the repository, and so in the pristine copy."""
    two.commit("os/equal", release("3", {"one": LARGE, "other": LARGE}), second=20)
    for edit in (b"first", b"second"):
        two.run("deploy", "os/equal")
        etc = two.root.resolve() / "etc"
        assert {path.stat().st_nlink for path in etc.iterdir() if path.is_file()} == {1}
        (etc / "hosts").write_bytes(edit)


def test_nobody_can_get_into_what_is_merged(two: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who owns a directory in /etc could make it a symlink to elsewhere, where root would write then."""
    own = two.root / "etc/own"
    own.mkdir(mode=0o755)
    os.chown(own, 65534, 65534)
    (own / "file").write_bytes(b"mine")
    closed: list[bool] = []
    copy = etc_writing._copy

    def watched(node: Node, at: bytes) -> None:
        above = [path for path in Path(os.fsdecode(at)).parents if two.stateroot in path.parents]
        closed.append(any(path.stat().st_mode & 0o777 == 0o700 for path in above))
        copy(node, at)

    monkeypatch.setattr(etc_writing, "_copy", watched)
    with Repository.open(two.repository) as repository:
        with repository.database.reading() as reading:
            target = find_target(reading, "os/b", "os/b")
        deploy(Sysroot.open(two.path).stateroot(), repository, target, Options())
    assert (two.root / "etc/own/file").read_bytes() == b"mine" and closed == [True]


def test_a_file_that_was_changed_in_a_deployment_is_not_linked(two: Machine) -> None:
    first = two.root.resolve()
    (first / "usr/bin/same").write_bytes(b"SAME\n")
    os.setxattr(first / "usr/lib/own", "user.note", b"x")
    (first / "usr/lib/link").unlink()
    (first / "usr/lib/link").symlink_to("other")
    two.run("deploy", "os/a")
    assert (two.root / "usr/bin/same").read_bytes() == b"same\n"
    assert os.listxattr(two.root / "usr/lib/own") == [] and os.readlink(two.root / "usr/lib/link") == "large"


@needs_root
def test_a_repository_in_another_file_system_leaves_the_earlier_deployment_to_link_with(
    run_fsview: RunFsview, tmp_path: Path
) -> None:
    """Also after a file that only the repository has, which can't be linked from there."""
    (tmp_path / "repo").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "none", tmp_path / "repo"], check=True)
    try:
        machine = Machine.make(run_fsview, tmp_path)
        tree = {"same": b"same", "large": LARGE, "z": b"z"}
        machine.commit("os/a", {"usr": tree})
        machine.commit("os/b", {"usr": {"a new one": LARGE[1:], **tree}}, second=1)
        machine.run("deploy", "os/a")
        machine.run("deploy", "os/b")
        links = {path.name: path.stat().st_nlink for path in (machine.root / "usr").iterdir()}
        assert links == {"a new one": 1, "same": 2, "large": 2, "z": 2}
    finally:
        subprocess.run(["umount", tmp_path / "repo"], check=True)


def test_a_symlink_in_the_way_to_a_neighbours_directory_is_not_followed(two: Machine, tmp_path: Path) -> None:
    first = two.root.resolve()
    (first / "usr/bin").rename(tmp_path / "elsewhere")
    (first / "usr/bin").symlink_to(tmp_path / "elsewhere")
    two.run("deploy", "os/a")
    assert not (two.root / "usr/bin/same").samefile(tmp_path / "elsewhere" / "same")


def test_the_whole_way_there_and_back(two: Machine) -> None:
    (two.root / "etc/hosts").write_text("127.0.0.1 mine\n")
    (two.root / "etc/added").write_text("added")
    (two.root / "etc/gone").unlink()
    (two.var / "lib/data").write_text("data")
    assert two.run("etc-diff").stdout == "A    added\nD    gone\nM    hosts\n"
    two.run("switch", "os/b")
    assert (two.root / "usr/lib/own").read_text() == "lib 2"
    assert (two.root / "etc/hosts").read_text() == "127.0.0.1 mine\n"
    assert sorted(os.listdir(two.root / "etc")) == ["added", "hosts", "new", "version"]
    (two.root / "etc/later").write_text("later")
    two.run("rollback")
    assert (two.root / "usr/lib/own").read_text() == "lib 1"
    assert sorted(os.listdir(two.root / "etc")) == ["added", "hosts", "version"]
    two.run("rollback")
    assert sorted(os.listdir(two.root / "etc")) == ["added", "hosts", "later", "new", "version"]
    assert sorted(os.listdir(two.var / "lib")) == ["data", "seed"]
    status = two.status()
    assert [one["verb"] for one in status["generations"]] == ["rollback", "rollback", "switch", "deploy"]
    assert [one["generation"] for one in status["generations"]] == [4, 3, 2, 1]
    assert status["generations"][0]["deployment"] == status["generations"][2]["deployment"]


def test_upgrade_follows_the_ref(two: Machine) -> None:
    assert two.json("upgrade")["changed"] is False
    assert "no update: os/a is at" in two.run("upgrade").stderr
    head = two.commit("os/a", release("3", {}), second=20)
    assert two.status()["upgrade"]["commit"] == head
    assert two.json("upgrade")["commit"] == head
    assert two.status()["upgrade"] is None


def test_upgrade_does_not_go_back_in_time(two: Machine) -> None:
    old = two.commit("os/a", release("0", {}), second=-20)
    assert two.status()["upgrade"]["older"] is True
    before = two.state()
    assert "--allow-downgrade" in two.run("upgrade", status=15).stderr
    assert two.state() == before
    assert two.json("upgrade", "--allow-downgrade")["commit"] == old


def test_upgrade_after_a_deployment_without_a_ref(two: Machine) -> None:
    two.run("deploy", two.status()["generations"][0]["commit"])
    assert "follows no ref" in two.run("upgrade", status=15).stderr
    assert two.status()["upgrade"]["unknown"] == "no ref is followed"


def test_a_path_in_a_view_is_followed_as_its_ref(machine: Machine, mount_view: MountView) -> None:
    machine.commit("debian/12", release("1", {}))
    view = mount_view(machine.repository)
    assert machine.json("deploy", f"{view}/refs/debian/12/")["ref"] == "debian/12"
    assert machine.json("deploy", f"{view}/commits/{machine.status()['generations'][0]['commit']}")["ref"] is None
    machine.fsview("deploy", f"{view.name}/refs/debian/12/", "--sysroot", machine.path, cwd=view.parent)
    assert machine.status()["generations"][0]["source"] == f"{view}/refs/debian/12"
    said = machine.run("deploy", f"{view}/refs/debian/12/usr", status=2).stderr
    assert "a part of a commit" in said
    assert os.listdir(view / "refs") == ["debian"]  # the refs of the sysroot are not listed there
    assert machine.fsview("refs", repo=machine.repository).stdout == "debian/12\n"


def test_switching_back_takes_the_deployment_that_is_there(two: Machine) -> None:
    first = two.root.resolve()
    two.run("switch", "os/b")
    assert two.json("switch", "os/a")["reused"] is True
    assert two.root.resolve() == first
    (two.root / "etc/added").write_text("x")
    assert two.json("switch", "os/b")["reused"] is False
    assert (two.root / "etc/added").exists()
    assert two.json("switch", "os/b")["changed"] is False


def test_the_mode_of_etc_itself_is_carried_over(two: Machine) -> None:
    two.run("switch", "os/b")
    (two.root / "etc").chmod(0o700)
    assert two.run("etc-diff").stdout == "M    .\n"
    assert two.json("switch", "os/a")["reused"] is False
    assert (two.root / "etc").stat().st_mode & 0o7777 == 0o700


def test_a_dry_run_changes_nothing(two: Machine) -> None:
    (two.root / "etc/version").write_text("mine")
    two.commit("os/a", release("3", {}), second=20)
    before = two.state(), snapshot(two.path / "deploy")
    for verb in (["deploy", "os/b"], ["switch", "os/b"], ["upgrade"]):
        said = two.json(*verb, "--dry-run")
        assert said["dry_run"] is True and said["conflicts"] == ["version"]
        assert "1 conflict" in two.run(*verb, "--dry-run").stdout
    two.run("cleanup", "--dry-run")
    assert (two.state(), snapshot(two.path / "deploy")) == before


def test_a_conflict_is_listed_and_strict_refuses_it(two: Machine) -> None:
    (two.root / "etc/version").write_text("mine")
    before = two.state()
    assert "version" in two.run("switch", "--strict", "os/b", status=15).stderr
    assert two.state() == before
    assert [one["path"] for one in two.json("switch", "os/b")["etc"]["conflicts"]] == ["version"]
    assert (two.root / "etc/version").read_text() == "mine"
    assert (two.root / "etc/version.fsview-new").read_text() == "2"
    assert two.status()["generations"][0]["conflicts"] == 1


def test_no_merge_takes_etc_as_it_was_committed(two: Machine) -> None:
    (two.root / "etc/added").write_text("x")
    two.run("switch", "--no-merge", "os/b")
    assert not (two.root / "etc/added").exists()


@pytest.mark.parametrize("before", ["etc", "usr/etc", "none"])
@pytest.mark.parametrize("after", ["etc", "usr/etc", "none"])
def test_etc_wherever_a_tree_has_it(machine: Machine, before: str, after: str) -> None:
    for ref, where in (("os/a", before), ("os/b", after)):
        tree = release(ref, {} if where == "etc" else None)
        if where == "usr/etc":
            tree["usr"]["etc"] = {"version": ref.encode(), "hosts": b"hosts"}
        machine.commit(ref, tree)
    machine.run("deploy", "os/a")
    assert (machine.root / "etc").exists() == (before != "none")
    machine.run("switch", "os/b")
    assert (machine.root / "etc").exists() == (after != "none")
    if after != "none":
        assert (machine.root / "etc/version").read_text() == "os/b"
        (machine.root / "etc/added").write_text("added")
    machine.run("deploy", "os/a")
    assert (machine.root / "etc/added").exists() == (after != "none")  # nothing of the admin's is lost


def test_what_others_have_to_pass_is_open_to_them_whatever_the_umask(machine: Machine) -> None:
    machine.commit("os/a", {"usr": {"f": b"1"}})
    machine.commit("os/b", {"usr": {"f": b"2"}})
    before = os.umask(0o077)
    try:
        machine.run("os-init", "other")
        for words in (["deploy", "os/a"], ["switch", "os/b"], ["rollback"]):
            machine.run(*words, "--os", "other")
    finally:
        os.umask(before)
    top = machine.path / "deploy/other"
    found = [top, top / "generations", *(top / "generations").iterdir(), top / "deployments"]
    for tree in (top / "deployments").iterdir():
        found += [tree] if tree.name.endswith("etc-pristine") else [tree, tree / "var"]
    assert {path.stat().st_mode & 0o7777 for path in found} == {0o755} and len(found) == 12
    assert {path.stat().st_mode & 0o7777 for path in top.glob("generations/*/origin.toml")} == {0o644}


def test_what_is_made_and_pinned_is_told_in_json_too(two: Machine) -> None:
    new = two.where / "new"
    for words in (["--dry-run"], []):
        made = json.loads(two.fsview("sysroot", "init", new, "--repo", two.repository, "--json", *words).stdout)
        assert made == {"sysroot": str(new), "repository": str(two.repository), "dry_run": bool(words)}
        assert new.exists() == (not words)
    for words in (["--dry-run"], []):
        assert two.json("os-init", "other", *words)["var"] == str(two.path / "deploy/other/var")
        assert (two.path / "deploy/other").exists() == (not words)
    for verb, pinned in (("pin", True), ("unpin", False)):
        assert two.json(verb, "--os", "main", "--dry-run") == {"dry_run": True, "generation": 1, "pinned": pinned}
        assert two.json("status", "--os", "main")[0]["generations"][0]["pinned"] is not pinned
        two.run(verb, "--os", "main")
    assert "already" in two.run("os-init", "other", "--dry-run", status=15).stderr
    assert "already" in two.fsview("sysroot", "init", new, "--repo", two.repository, "--dry-run", status=15).stderr


def test_both_etcs_are_refused(two: Machine) -> None:
    tree = release("3", {})
    tree["usr"]["etc"] = {"x": b""}
    two.commit("os/c", tree)
    before = two.state()
    assert "both /etc and /usr/etc" in two.run("switch", "os/c", status=15).stderr
    assert two.state() == before


def test_var_is_seeded_once_and_then_left_alone(machine: Machine) -> None:
    machine.commit("none", {"usr": {"f": b""}})
    machine.commit("os/a", release("1", {}, var=Directory({"lib": {"seed": b"1"}}, mode=0o711)))
    machine.commit("os/b", release("2", {}))
    machine.run("deploy", "none")
    assert os.listdir(machine.var) == []
    assert os.listdir(machine.root / "var") == []
    assert "was empty, and was filled" in machine.run("deploy", "os/a").stderr
    assert machine.var.stat().st_mode & 0o777 == 0o711
    assert "is ignored" in machine.run("deploy", "os/b").stderr
    assert (machine.var / "lib/seed").read_text() == "1"
    assert os.listdir(machine.root / "var") == []


def test_setuid_and_owners_are_those_of_the_commit(two: Machine) -> None:
    assert (two.root / "usr/bin/tool").stat().st_mode & 0o7777 == (0o4755 if os.geteuid() == 0 else 0o755)


def test_a_rollback_needs_no_repository(two: Machine) -> None:
    two.run("switch", "os/b")
    two.repository.rename(two.where / "elsewhere")
    two.run("rollback")
    assert (two.root / "usr/lib/own").read_text() == "lib 1"
    assert "is not an fsview repository" in two.status()["upgrade"]["unknown"]
    assert "the sysroot's repository" in two.run("switch", "os/b", status=1).stderr
    (two.where / "elsewhere").rename(two.repository)


def test_prune_never_takes_what_a_generation_holds(two: Machine) -> None:
    commits = [two.status()["generations"][0]["commit"], two.json("switch", "os/b")["commit"]]
    assert two.own_refs() == sorted(f"{commit}.0" for commit in commits)
    two.fsview("refs", "--repo", two.repository, "--delete", "os/a", "os/b")
    two.fsview("prune", "--repo", two.repository, "--refs-only")
    two.run("deploy", commits[0])
    two.run("undeploy", "1", "2")
    assert two.own_refs() == [f"{commits[0]}.1"]
    two.fsview("prune", "--repo", two.repository, "--refs-only")
    assert "there is no commit" in two.run("deploy", commits[1], status=1).stderr


def test_pins_and_cleanup(two: Machine) -> None:
    for name in ("os/b", "os/a", "os/b"):
        two.run("deploy", name)
    two.run("pin", "1")
    assert two.run("undeploy", "1", status=15).stderr.count("pinned") == 1
    assert "is current" in two.run("undeploy", "4", status=15).stderr
    assert two.json("cleanup", "--keep", "1")["generations"] == [2]
    assert [one["generation"] for one in two.status()["generations"]] == [4, 3, 1]
    two.run("unpin", "1")
    assert two.json("cleanup")["generations"] == [1]
    assert len(two.deployments()) == 2
    two.run("pin")
    assert two.status()["generations"][0]["pinned"] is True


def test_what_rollback_goes_to_is_never_cleaned_up(two: Machine) -> None:
    two.run("switch", "os/b")
    for _ in range(2):
        two.run("rollback")
    assert two.json("cleanup", "--keep", "1")["generations"] == [1, 2]
    two.run("rollback")
    assert (two.root / "usr/lib/own").read_text() == "lib 1"


def test_rollback_to_a_generation(two: Machine) -> None:
    two.run("switch", "os/b")
    two.commit("os/c", release("3", {}))
    two.run("switch", "os/c")
    assert "would go back to generation 2" in two.run("rollback", "--dry-run").stdout
    two.run("rollback", "--to", "1")
    assert (two.root / "usr/lib/own").read_text() == "lib 1"
    assert "has the deployment that is current" in two.run("rollback", "--to", "4", status=15).stderr
    assert "no generation 9" in two.run("rollback", "--to", "9", status=1).stderr


def test_nothing_to_roll_back_to(machine: Machine) -> None:
    assert "nothing is deployed" in machine.run("rollback", status=15).stderr
    machine.commit("os/a", release("1", {}))
    machine.run("deploy", "os/a")
    assert "no other deployment" in machine.run("rollback", status=15).stderr


def test_two_stateroots_have_nothing_in_common_but_the_lock(two: Machine) -> None:
    two.run("os-init", "other")
    assert "name one with --os: main, other" in two.run("switch", "os/b", status=2).stderr
    two.run("deploy", "os/b", "--os", "other")
    assert (two.path / "deploy/other/current/root/usr/lib/own").read_text() == "lib 2"
    assert (two.root / "usr/lib/own").read_text() == "lib 1"
    assert len(two.own_refs()) == 2
    two.run("deploy", "os/b", "--os", "other")
    two.run("cleanup", "--keep", "1", "--os", "main")
    assert len(two.own_refs()) == 3


def test_status_as_text(two: Machine) -> None:
    two.commit("os/a", release("3", {}), "--add-metadata-string", "version=3.0", second=20)
    two.run("upgrade")
    two.run("pin", "1")
    text = two.run("status").stdout
    assert "* 2  os/a\n" in text and "  1  os/a  (pinned)\n" in text
    current, _, earlier = text.partition("  1  os/a")
    assert "Version: 3.0 (2026-09-21T14:13:40Z)" in current and current.endswith("Upgrade: nothing new\n")
    assert "Upgrade" not in earlier


def test_a_file_of_packages_is_compared(machine: Machine) -> None:
    entry = "Package: {}\nStatus: install ok installed\nArchitecture: all\nVersion: {}\n\n"
    for second, version in enumerate(("1.0", "1.1")):
        database = {"lib": {"dpkg": {"status": File(entry.format("tool", version).encode())}}}
        machine.commit("os/a", release(version, {}, var=database), second=second)
        if second:
            assert machine.run("upgrade", "--dry-run").stdout.endswith("packages:     1 upgraded\n")
        machine.run("upgrade" if second else "deploy", *([] if second else ["os/a"]))
    assert machine.status()["generations"][0]["packages"] == "1 upgraded"
