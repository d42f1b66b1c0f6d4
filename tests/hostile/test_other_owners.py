"""Repositories of other users, and parts that are not what they seem: refused before anything is read or written."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from store import entrance
from store.errors import FsviewError
from store.repository import Repository
from tests.conftest import TreeFactory
from tests.hostile.attacker import attacking, exchanging
from tests.marks import needs_fuse, needs_root
from tests.running import PROJECT, RunFsview, clean_environment
from tests.users import NOBODY
from tools.parameters import trust_owners

pytestmark = [needs_root, pytest.mark.unchecked]

SECRET = b"root's own, of which no byte may change\n" * 200
INDEX = ("index/data.mdb", "index/lock.mdb")
FILES = ("fsview.toml", "lock", *INDEX)
DIRECTORIES = ("index", "objects", "tmp", "damaged")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("log", "main"), ("commit", "-b", "main", "tree"), ("fsck",), ("prune",), ("refs",),
    ("checkout", "main", "out"),
)  # fmt: skip


@pytest.fixture
def repo(nobodys: Path, run_fsview: RunFsview, tree_factory: TreeFactory, tmp_path: Path) -> Path:
    """Return a repository of root's in a directory of nobody's; all parts are there, and in `tmp_path` a tree."""
    path = nobodys / "repo"
    run_fsview("init", path)
    run_fsview("commit", "--repo", path, "-b", "main", tree_factory({"large": bytes(20_000)}, "tree"))
    (path / "damaged").mkdir()
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """Return a file of root's, which must stay as it is."""
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    yield path
    assert path.read_bytes() == SECRET and stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.fixture
def distrust() -> Iterator[None]:
    """Have this process forget whom it trusts at the end."""
    before = entrance._Trust.uids, entrance._Trust.everybody
    yield
    entrance._Trust.uids, entrance._Trust.everybody = before


def _give_away(path: Path) -> None:
    for one in (path, *path.rglob("*")):
        os.chown(one, NOBODY, NOBODY, follow_symlinks=False)


# Whose it is


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_what_belongs_to_another_user_is_refused(
    command: tuple[str, ...], repo: Path, secret: Path, run_fsview: RunFsview
) -> None:
    _give_away(repo)
    (repo / "index/lock.mdb").unlink()
    (repo / "index/lock.mdb").symlink_to(secret)
    said = run_fsview(*command, repo=repo, status=1).stderr
    assert f"fsview: {repo} belongs to nobody" in said and "export FSVIEW_TRUST_OWNER=nobody" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("trust", ["nobody", str(NOBODY), " 7, nobody", "*"])
def test_who_trusts_the_owner_may_go_on(trust: str, repo: Path, run_fsview: RunFsview) -> None:
    _give_away(repo)
    assert run_fsview("log", "main", repo=repo, env={"FSVIEW_TRUST_OWNER": trust}).stdout
    assert run_fsview("--trust-owner", trust, "log", "main", repo=repo).stdout
    run_fsview("log", "main", repo=repo, status=1, env={"FSVIEW_TRUST_OWNER": "7"})


@needs_fuse
def test_fstab_can_say_so_too(repo: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    _give_away(repo)
    (tmp_path / "mnt").mkdir()
    assert "belongs to nobody" in run_fsview("mount", repo, tmp_path / "mnt", status=1).stderr
    run_fsview("mount", "-o", "noatime,trust-owner=nobody", repo, tmp_path / "mnt")
    try:
        assert os.listdir(tmp_path / "mnt/refs/main/") == ["large"]
    finally:
        run_fsview("umount", tmp_path / "mnt")
    assert "there is no user" in run_fsview("mount", "-o", "trust-owner=x y", repo, tmp_path / "mnt", status=2).stderr


def test_sudo_changes_nothing(repo: Path, run_fsview: RunFsview) -> None:
    """A sudo rule may allow one command only; what the user owns could make it another."""
    _give_away(repo)
    run_fsview("log", "main", repo=repo, status=1, env={"SUDO_UID": str(NOBODY), "SUDO_USER": "nobody"})


def test_a_user_who_is_not_there_is_told(repo: Path, run_fsview: RunFsview) -> None:
    said = run_fsview("log", repo=repo, status=2, env={"FSVIEW_TRUST_OWNER": "nosuchuser"}).stderr
    assert "FSVIEW_TRUST_OWNER: there is no user 'nosuchuser'" in said
    assert "--trust-owner: there is no user" in run_fsview("--trust-owner", "x y", "log", status=2).stderr


@pytest.mark.parametrize("part", (*FILES, *DIRECTORIES))
def test_a_part_that_belongs_to_another_user_is_refused(part: str, repo: Path, run_fsview: RunFsview) -> None:
    os.chown(repo / part, NOBODY, NOBODY)
    for command in COMMANDS:
        assert f"{repo / part} belongs to nobody" in run_fsview(*command, repo=repo, status=1).stderr, command


@pytest.mark.parametrize("part", ["", *FILES, *DIRECTORIES])
def test_a_part_that_anybody_may_write_is_refused(part: str, repo: Path, run_fsview: RunFsview) -> None:
    path = repo / part
    path.chmod(path.stat().st_mode | 0o002)
    said = run_fsview("log", "main", repo=repo, status=1).stderr
    assert f"{path} can be written by all users" in said and "fsview doctor --fix" in said
    run_fsview("doctor", "--fix", repo)
    run_fsview("log", "main", repo=repo)


def test_an_index_that_a_group_may_write_in_is_refused_unless_it_shares_it(repo: Path, run_fsview: RunFsview) -> None:
    (repo / "index").chmod(0o770)
    assert "index can be written by its group" in run_fsview("log", "main", repo=repo, status=1).stderr
    with (repo / "fsview.toml").open("a") as settings:
        settings.write('\nshared = "group"\n')
    text = (repo / "fsview.toml").read_text().replace('shared = "no"\n', "")
    (repo / "fsview.toml").write_text(text)
    run_fsview("log", "main", repo=repo)


# What it is


def _make_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _make_fifo(path: Path, target: Path) -> None:
    os.mkfifo(path, 0o600)


def _make_device(path: Path, target: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _make_other_kind(path: Path, target: Path) -> None:
    path.mkdir() if path.name in ("fsview.toml", "lock", "data.mdb", "lock.mdb") else path.touch()


OTHER: dict[str, Callable[[Path, Path], None]] = {
    "a symlink": _make_link, "a FIFO": _make_fifo, "a device": _make_device, "another kind": _make_other_kind,
}  # fmt: skip


@pytest.mark.parametrize("other", OTHER)
@pytest.mark.parametrize("part", (*FILES, *DIRECTORIES))
def test_a_part_that_is_something_else_is_refused(
    part: str, other: str, repo: Path, secret: Path, run_fsview: RunFsview, tmp_path: Path
) -> None:
    """At once: to open a FIFO would wait for ever. And what it leads to stays as it is."""
    path = repo / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    OTHER[other](path, secret if part in FILES else elsewhere)
    for command in COMMANDS:
        done = run_fsview(*command, repo=repo, status=None, timeout_s=30)
        assert done.returncode in (1, 10, 12), (command, done)
        assert f"{path}" in done.stderr + done.stdout and "Traceback" not in done.stderr, (command, done)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("part", FILES)
def test_a_hard_link_of_a_file_of_somebody_else_s_is_refused(
    part: str, repo: Path, run_fsview: RunFsview, nobodys: Path
) -> None:
    """Where the kernel lets users make hard links of what isn't theirs (fs.protected_hardlinks = 0)."""
    _give_away(repo)
    victim = nobodys / "victim"
    shutil.copyfile(repo / part, victim)
    before = victim.read_bytes()
    (repo / part).unlink()
    os.link(victim, repo / part)  # root's
    said = run_fsview("commit", "-b", "main", "tree", repo=repo, status=10, env={"FSVIEW_TRUST_OWNER": "nobody"}).stderr
    assert f"{repo / part} is a hard link of a file of root's" in said
    assert victim.read_bytes() == before


def test_a_loose_file_that_is_a_fifo_is_damage_and_keeps_nobody_waiting(repo: Path, run_fsview: RunFsview) -> None:
    loose = next((repo / "objects").glob("*/*"))
    loose.unlink()
    os.mkfifo(loose)
    assert str(loose) in run_fsview("cat", "main", "/large", repo=repo, status=12, timeout_s=30).stderr
    run_fsview("fsck", repo=repo, status=12, timeout_s=60)


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_settings_that_are_too_long_or_empty(size: int, repo: Path, run_fsview: RunFsview) -> None:
    (repo / "fsview.toml").write_bytes(b"#" * size)
    said = run_fsview("log", repo=repo, status=10).stderr
    assert f"{repo / 'fsview.toml'}" in said and "Traceback" not in said


# Exchanged at the last moment


def _trap(path: Path, target: Path) -> Path:
    """Make another repository, whose lock file leads to *target*."""
    Repository.create(path).close()
    (path / "index/lock.mdb").unlink()
    (path / "index/lock.mdb").symlink_to(target)
    return path


def test_a_directory_exchanged_between_the_look_and_the_use(
    repo: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, nobodys: Path
) -> None:
    """LMDB is led to the directory that was looked at, and not to what is called so by now."""
    with Repository.open(repo) as repository:
        own_secret = repository.secret
    theirs = _trap(nobodys / "theirs", secret)
    really_open, exchanged = lmdb.open, list[bool]()

    def exchange_and_open(*arguments: Any, **options: Any) -> object:
        if not exchanged:
            repo.rename(nobodys / "away")
            theirs.rename(repo)
            exchanged.append(True)
        return really_open(*arguments, **options)

    monkeypatch.setattr(lmdb, "open", exchange_and_open)
    with Repository.open(repo) as repository:
        assert exchanged and repository.secret == own_secret
        repository.database.write(lambda writing: writing.put(b"head", b"format", writing.need(b"head", b"format")))


def test_who_owns_the_directory_above_exchanges_it_all_the_time(repo: Path, secret: Path, nobodys: Path) -> None:
    """Either root's repository is opened, or none; until both have happened 50 times, with a real second user."""
    with Repository.open(repo) as repository:
        own_secret = repository.secret
    theirs = _trap(nobodys / "theirs", secret)
    _give_away(theirs)
    opened = refused = 0
    with attacking(exchanging(nobodys, (b"repo", b"theirs"))):
        while min(opened, refused) < 50:
            try:
                with Repository.open(repo) as repository:
                    assert repository.secret == own_secret
                opened += 1
            except FsviewError as error:
                assert "belongs to nobody" in str(error)
                refused += 1


# What stays as it was


def test_a_repository_of_before_is_opened(repo: Path, run_fsview: RunFsview) -> None:
    """With modes as the umask made them, no word on sharing in its settings, and a group that may write."""
    text = (repo / "fsview.toml").read_text()
    (repo / "fsview.toml").write_text(text[: text.index("# Who may enter")])
    for path in (repo, repo / "objects"):
        path.chmod(0o775)
    (repo / "lock").chmod(0o664)
    shutil.rmtree(repo / "damaged")
    for command in COMMANDS:
        run_fsview(*command, repo=repo)


def test_root_s_repository_is_trusted_by_all_who_may_enter(distrust: None) -> None:
    assert entrance.is_trusted(0) and entrance.is_trusted(os.geteuid()) and not entrance.is_trusted(NOBODY)
    trust_owners("nobody", "a test")
    assert entrance.is_trusted(NOBODY) and not entrance.is_trusted(7)


def test_a_name_that_leads_there_is_followed(repo: Path, tmp_path: Path, run_fsview: RunFsview) -> None:
    (tmp_path / "current").symlink_to(repo)
    assert run_fsview("log", "main", repo=tmp_path / "current").stdout


def test_without_proc(repo: Path, tmp_path: Path) -> None:
    """As in a chroot that was not given one: then by the path."""
    script = 'mount -t tmpfs none /proc && exec "$@"'
    command: list[str | Path] = [sys.executable, "-P", "-m", "tools", "log", "--repo", repo, "main"]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *command],
        env=clean_environment(tmp_path) | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and "commit " in done.stdout, done
