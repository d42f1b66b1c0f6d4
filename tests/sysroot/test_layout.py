"""The files of a sysroot: what is written is read again, and what was edited into nonsense is named."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from store.errors import ConflictError, FormatError, FsviewError, InvalidNameError, NotFoundError, SysrootError
from store.repository import Repository
from tools.sysroot.layout import Stateroot, Sysroot
from tools.sysroot.locking import locked
from tools.sysroot.origin import ORIGIN_FILE, HighWater, Origin
from tools.sysroot.settings import Policy, SysrootSettings

COMMIT = "5b" * 32
MOMENT = datetime(2026, 11, 23, 10, 15, tzinfo=UTC)
ORIGIN = Origin(COMMIT, f"{COMMIT}.0", MOMENT)
FULL = replace(
    ORIGIN, ref="debian/12", source='a "path"\nin \x7f two \U0001f600', verb="switch", previous=2, pinned=True,
    title="12", committed=MOMENT, certified=("release",), packages="1 added", conflicts=2, declares={"pg sql": "15"},
    high_water={"pg sql": HighWater("15.2", f"{COMMIT}.1", MOMENT)}, restore_inode=7,
)  # fmt: skip
SYSROOT_TABLE = '[sysroot]\nformat = 1\nid = "ab12"\nrepository = "../repo"\n'


@pytest.fixture
def sysroot(tmp_path: Path) -> Sysroot:
    """Return a new sysroot."""
    return Sysroot.create(tmp_path / "sysroot", SysrootSettings("ab12", Path("../repo")))


@pytest.fixture
def stateroot(sysroot: Sysroot) -> Stateroot:
    """Return a stateroot with two generations, the second current, and a third that never was."""
    stateroot = sysroot.make_stateroot("main")
    for number in (1, 2, 3):
        path = stateroot.generations_directory / str(number)
        path.mkdir()
        ORIGIN.save(path / ORIGIN_FILE)
    stateroot.current_link.symlink_to("generations/2")
    return stateroot


@pytest.mark.parametrize("origin", [ORIGIN, FULL], ids=["least", "full"])
def test_an_origin_is_read_as_it_was_written(tmp_path: Path, origin: Origin) -> None:
    origin.save(tmp_path / ORIGIN_FILE)
    assert Origin.load(tmp_path / ORIGIN_FILE) == origin


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pinned = false", "pinned = 1", "'origin.pinned' must be true or false, not 1"),
        ("pinned = false", "pined = true", "unknown key 'origin.pined'"),
        ("[declares]", "[declares]\npg = 15", "'declares.pg' must be a string, not 15"),
        ("[high-water]", "[high-water.pg]\nversion = 'x'", "'high-water.pg.deployment' must be a string, not None"),
        ("[origin]", "[origin", "Expected"),
        (COMMIT, "5a" * 32, "no deployment of the commit"),
        ("2026-11-23 10:15:00+00:00", "2026-11-23 10:15:00", "'origin.created' must be a time with its zone"),
        ("created", "# created", "'origin.created' is missing"),
    ],
)  # fmt: skip
def test_an_origin_edited_into_nonsense_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / ORIGIN_FILE
    ORIGIN.save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SysrootError, match=message) as raised:
        Origin.load(path)
    assert str(path) in str(raised.value)


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    settings = SysrootSettings("ab12", Path('/a "b"\\c'), Policy("certified", (Path("keys/a.pub"),)))
    settings.save(tmp_path / "fsview.toml")
    assert SysrootSettings.load(tmp_path / "fsview.toml") == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SYSROOT_TABLE + '[policy]\nrequired = "certified"\n', "unknown key 'policy.required'; known are require"),
        (SYSROOT_TABLE + '[polici]\n', "unknown key 'polici'"),
        (SYSROOT_TABLE + 'colour = 1\n', "unknown key 'sysroot.colour'"),
        (SYSROOT_TABLE + '[policy]\nrequire = "sometimes"\n', "'policy.require' must be"),
        (SYSROOT_TABLE + '[policy]\ntrusted = "key"\n', "'policy.trusted' must be a list of paths"),
        (SYSROOT_TABLE.replace("format = 1", "format = 2"), "has format 2; use a newer fsview"),
        (SYSROOT_TABLE.replace("format = 1", ""), "'sysroot.format' must be a number from 1, not None"),
        ("format = 1\n", "is a repository, not a sysroot"),
        ("sysroot = 1\n", "'sysroot' must be a table"),
        ("=", "correct the file by hand"),
    ],
)  # fmt: skip
def test_settings_that_are_not_understood_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "fsview.toml").write_text(text)
    with pytest.raises(FormatError, match=message):
        Sysroot.open(tmp_path)


def test_a_sysroot_is_no_repository(sysroot: Sysroot) -> None:
    with pytest.raises(FormatError, match="is a sysroot, not a repository"):
        Repository.open(sysroot.path)


def test_paths_in_the_settings_are_relative_to_the_sysroot(tmp_path: Path) -> None:
    policy = Policy("certified", (Path("keys/a.pub"), Path("/b.pub")))
    made = Sysroot.create(tmp_path / "s", SysrootSettings("ab12", Path("../repo"), policy))
    assert made.repository_path == tmp_path / "s" / "../repo"
    assert made.policy.trusted == (tmp_path / "s" / "keys/a.pub", Path("/b.pub"))


def test_what_is_there_is_not_made_a_sysroot(tmp_path: Path, sysroot: Sysroot) -> None:
    settings = SysrootSettings("cd34", Path("repo"))
    with pytest.raises(SysrootError, match="already"):
        Sysroot.create(sysroot.path, settings)
    with pytest.raises(SysrootError, match="not empty"):
        Sysroot.create(tmp_path, settings)


def test_a_stateroot_is_found_by_its_name_or_because_it_is_the_only_one(sysroot: Sysroot) -> None:
    with pytest.raises(NotFoundError, match="no stateroot yet"):
        sysroot.stateroot()
    sysroot.make_stateroot("main")
    assert sysroot.stateroot().name == sysroot.stateroot("main").name == "main"
    sysroot.make_stateroot("other")
    with pytest.raises(InvalidNameError, match="name one with --os: main, other"):
        sysroot.stateroot()
    with pytest.raises(NotFoundError, match="no stateroot 'third'"):
        sysroot.stateroot("third")
    with pytest.raises(SysrootError, match="already"):
        sysroot.make_stateroot("main")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", ".a", "é", "a" * 65])
def test_a_stateroot_can_not_be_called_anything(sysroot: Sysroot, name: str) -> None:
    with pytest.raises(InvalidNameError):
        sysroot.make_stateroot(name)


def test_generations_above_the_current_one_never_were(stateroot: Stateroot) -> None:
    assert [generation.number for generation in stateroot.generations()] == [1, 2]
    current = stateroot.current()
    assert current is not None and current.number == 2
    assert current.root == stateroot.deployments / f"{COMMIT}.0"
    assert current.pristine_etc == stateroot.deployments / f"{COMMIT}.0.etc-pristine"
    with pytest.raises(NotFoundError, match="no generation 3 in main; there are: 1, 2"):
        stateroot.generation(3)


@pytest.mark.parametrize("target", ["generations/9", "generations/x", "/etc", "generations/../2"])
def test_a_current_that_fsview_did_not_make_is_named(stateroot: Stateroot, target: str) -> None:
    stateroot.current_link.unlink()
    stateroot.current_link.symlink_to(target)
    with pytest.raises(FsviewError):
        stateroot.current()


def test_one_command_at_a_time(sysroot: Sysroot, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    waits, done = threading.Event(), threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        waits.set()

    def second() -> None:
        with locked(sysroot.path):
            done.set()

    monkeypatch.setattr("store.locking._tell", tell)
    monkeypatch.setattr("store.locking.PATIENCE_S", 0)

    with locked(sysroot.path):
        with pytest.raises(ConflictError, match=f"process {os.getpid()} "), locked(sysroot.path, wait=False):
            pass
        waiting = threading.Thread(target=second)
        waiting.start()
        assert waits.wait(30) and not done.wait(0.2)
    waiting.join(30)
    assert done.is_set()
    assert len(told) == 1 and f"process {os.getpid()} " in told[0]
