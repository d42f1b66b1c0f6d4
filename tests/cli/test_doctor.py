"""fsview doctor: each lack is told with what mends it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from store.damage import note_damage
from store.objects import Checksum
from store.repository import Repository
from tests.cli.conftest import Fsview, Releases
from tests.marks import needs_root
from tests.running import RunFsview
from tools.doctor import Diagnosis, Machine, State, examine_machine, examine_repository
from tools.fsck import fsck

pytestmark = pytest.mark.unchecked


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine that has everything."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bwrap", "diff", "fusermount3", "gpgv"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o4755)
    (tmp_path / "fuse").touch()
    (tmp_path / "filesystems").write_text("\text4\nnodev\tfuse\n")
    (tmp_path / "fuse.conf").write_text("# comment\nuser_allow_other\n")
    (tmp_path / "status").write_text("CapEff:\t000001ffffffffff\n")
    return Machine(
        tmp_path / "fuse", tmp_path / "filesystems", tmp_path / "fuse.conf", tmp_path / "status", str(programs)
    )  # fmt: skip


def _lacks(machine: Machine) -> list[Diagnosis]:
    return [one for one in examine_machine(machine) if one.state != State.FINE]


def _lack(machine: Machine) -> Diagnosis:
    (found,) = _lacks(machine)
    assert found.state == State.LACKING and found.mend
    return found


@needs_root
def test_a_machine_that_has_everything(machine: Machine) -> None:
    assert _lacks(machine) == []
    assert _lacks(replace(machine, is_root=True)) == []


def test_without_the_device(machine: Machine) -> None:
    machine.device.unlink()
    assert "modprobe fuse" in _lack(replace(machine, is_root=True)).mend


def test_without_the_module(machine: Machine) -> None:
    machine.filesystems.write_text("nodev\tfusectl\n\tfuseblk\n")
    assert _lack(replace(machine, is_root=True)).mend == "modprobe fuse"


def test_root_without_the_capability(machine: Machine) -> None:
    machine.status.write_text("CapEff:\t00000000a80425fb\n")  # a container's
    assert "--cap-add SYS_ADMIN" in _lack(replace(machine, is_root=True)).mend


@needs_root
@pytest.mark.parametrize(("name", "package"), [("bwrap", "bubblewrap"), ("gpgv", "gpgv")])
def test_without_what_one_command_needs(machine: Machine, name: str, package: str) -> None:
    (Path(str(machine.search_path)) / name).unlink()
    (found,) = _lacks(machine)
    assert found.state == State.HINT and found.mend == f"apt install {package}"


def test_without_the_helper_only_root_mounts(machine: Machine) -> None:
    (Path(str(machine.search_path)) / "fusermount3").unlink()
    assert _lack(machine).mend == "apt install fuse3"
    assert _lacks(replace(machine, is_root=True)) == []


def test_a_helper_that_is_not_root_s(machine: Machine) -> None:
    helper = Path(str(machine.search_path)) / "fusermount3"
    helper.chmod(0o755)
    assert f"chmod u+s {helper}" in _lack(machine).mend


def test_without_diff(machine: Machine) -> None:
    (Path(str(machine.search_path)) / "diff").unlink()
    assert _lack(replace(machine, is_root=True)).mend == "apt install diffutils"


def test_user_allow_other_is_a_hint(machine: Machine) -> None:
    machine.fuse_settings.write_text("#user_allow_other\n")
    (hint,) = _lacks(replace(machine, is_root=True))
    assert hint.state == State.HINT and "user_allow_other" in hint.mend


def test_a_python_package_that_is_missing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.doctor._PACKAGES", ("click", "fsview_no_such_package"))
    assert _lack(replace(machine, is_root=True)).mend == "pip install fsview_no_such_package"


def test_a_repository(own_releases: Releases) -> None:
    repo = own_releases.repo
    assert all(one.state != State.LACKING for one in examine_repository(repo))
    (repo / "tmp/stage-dead").mkdir()
    assert any("1 leftover" in one.text for one in examine_repository(repo))
    loose = next((repo / "objects").glob("*/*"))
    loose.unlink()
    broken, named = (one for one in examine_repository(repo) if one.state == State.LACKING)
    assert broken.text == "1 error in a quick check" and broken.mend == f"fsview fsck --repo {repo}"
    assert named.subject == str(loose) and "the loose file is gone; it shows as " in named.text
    assert list((repo / "tmp").iterdir()) == [repo / "tmp/stage-dead"]  # nothing of its own is left


def test_damage_that_was_noted_is_named_until_it_is_mended(own_releases: Releases) -> None:
    repo = own_releases.repo
    loose = next((repo / "objects").glob("*/*"))
    good = loose.read_bytes()
    loose.chmod(0o600)
    loose.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    assert all(one.state != State.LACKING for one in examine_repository(repo))  # a quick check reads no contents
    with Repository.open(repo) as repository:
        note_damage(repository, Checksum(bytes.fromhex(loose.parent.name + loose.name)), "today: it is wrong")
        note_damage(repository, Checksum(b"x" * 32), "today: what is not here any more")
    _, named = (one for one in examine_repository(repo) if one.state == State.LACKING)
    assert named.subject.startswith(str(loose)) and ":/large" in named.text and "put a good copy" in named.mend
    loose.write_bytes(good)
    assert all(one.state != State.LACKING for one in examine_repository(repo))
    assert any("2 leftovers" in one.text for one in examine_repository(repo))
    notes = [finding for finding in fsck(repo) if finding.where.startswith(str(repo / "damaged"))]
    assert sorted(finding.what.partition("; ")[2] for finding in notes) == [
        "now it is as it should be; was it the disk?",
        "this file object is gone",
    ]


@pytest.mark.parametrize("kind", ["a FIFO", "a symlink"])
def test_a_note_that_is_no_plain_file_is_not_read(own_releases: Releases, run_fsview: RunFsview, kind: str) -> None:
    note, secret = own_releases.repo / "damaged" / ("5b" * 32), own_releases.repo.parent / "secret"
    note.parent.mkdir()
    secret.write_text("secret\n")
    os.mkfifo(note) if kind == "a FIFO" else note.symlink_to(secret)
    done = run_fsview("fsck", "--repo", own_releases.repo, timeout_s=30)
    assert "damage was noted: unreadable" in done.stdout and "secret\n" not in done.stdout


def test_no_repository(tmp_path: Path) -> None:
    (found,) = examine_repository(tmp_path)
    assert found.state == State.LACKING and "not an fsview repository" in found.text


def test_the_command(fsview: Fsview, own_releases: Releases) -> None:
    here = Machine(is_root=os.geteuid() == 0)
    status = int(any(one.state == State.LACKING for one in examine_machine(here)))
    lines = fsview("doctor", own_releases.repo, status=status).lines
    found = json.loads(fsview("doctor", "--json", own_releases.repo, status=status).stdout)
    assert [one["subject"] for one in found if one["state"] == "ok"] and "ok      diff: it is there" in lines
    shutil.rmtree(own_releases.repo / "objects")
    fsview("doctor", status=1)
