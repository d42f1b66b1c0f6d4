"""What a repository gives to other users: nothing, whatever is in the trees."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from store.exposure import close_to_others
from store.repository import Repository
from tests.checking import assert_sound, trusting
from tests.conftest import MountView, TreeFactory
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview
from tests.trees import Directory, File
from tests.users import NOBODY, User, run_as, shell_as_nobody, try_as

pytestmark = needs_root

GROUP = 4321
OWNER = User(4001, 4001, (GROUP,), umask=0o077)
MEMBER = User(4002, 4002, (GROUP,), umask=0o077)
STRANGER = User(4003, 4003)
LARGE = b"0123456789abcdef" * 2000
CAPABILITIES = struct.pack("<5I", 0x02000001, 1 << 7, 0, 0, 0)  # cap_setuid, permitted and effective
ACL = struct.pack(
    "<I" + 5 * "HHI", 2, 1, 6, 2**32 - 1, 2, 6, NOBODY, 4, 4, 2**32 - 1, 16, 6, 2**32 - 1, 32, 4, 2**32 - 1
)
PROGRAM = Path("/usr/bin/id").read_bytes()
assert len(PROGRAM) > 16 << 10

SPEC = {
    "setuid": File(PROGRAM, mode=0o4755),
    "setgid": File(PROGRAM + b"g", mode=0o2755),
    "sticky": File(PROGRAM + b"t", mode=0o1755),
    "capable": File(PROGRAM + b"c", mode=0o755, xattrs={"security.capability": CAPABILITIES}),
    "trusted": File(LARGE + b"t", xattrs={"trusted.note": b"x"}),
    "open": File(LARGE, mode=0o666),
    "acl": File(LARGE + b"a", mode=0o664, xattrs={"system.posix_acl_access": ACL}),
    "theirs": File(LARGE + b"n", owner=(NOBODY, NOBODY)),
    "closed": Directory({"private": LARGE + b"p"}, mode=0o700),
    "plain": File(PROGRAM + b"p", mode=0o755, owner=(0, 42), xattrs={"user.note": b"x"}),
    "group": File(LARGE + b"g", mode=0o640, owner=(0, 42)),
}


@pytest.fixture
def repo(nobodys: Path, run_fsview: RunFsview, tree_factory: TreeFactory) -> Path:
    """Return a repository of root's, to which a path leads, with SPEC in it."""
    before = os.umask(0)
    try:
        run_fsview("init", nobodys / "repo")
    finally:
        os.umask(before)
    run_fsview("commit", "--repo", nobodys / "repo", "-b", "main", tree_factory(SPEC))
    return nobodys / "repo"


def _loose(repo: Path) -> list[Path]:
    return sorted((repo / "objects").glob("*/*"))


def _loose_of(repo: Path, content: bytes) -> Path:
    return next(path for path in _loose(repo) if path.read_bytes() == content)


def test_nobody_gets_in(repo: Path) -> None:
    """Not to run, not to read and not to write, though all may reach the directory that it is in."""
    program, private, writable = (_loose_of(repo, content) for content in (PROGRAM, LARGE + b"p", LARGE))
    assert stat.S_IMODE(repo.stat().st_mode) == 0o700
    commands: list[list[str | Path]] = [
        [program, "-u"], ["cat", private], ["dd", "if=/dev/null", f"of={writable}"], ["ls", repo],
    ]  # fmt: skip
    for command in commands:
        done = shell_as_nobody(command)
        assert done.returncode != 0 and "Permission denied" in done.stderr, command
    assert writable.read_bytes() == LARGE


@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o077])
@pytest.mark.parametrize("is_there", [False, True])
def test_init_closes_the_directory_whatever_the_umask(
    umask: int, is_there: bool, tmp_path: Path, run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    repo = tmp_path / "repo"
    before = os.umask(umask)
    try:
        if is_there:
            repo.mkdir()
        run_fsview("init", repo)
        run_fsview("commit", "--repo", repo, "-b", "main", tree_factory({"large": LARGE}))
    finally:
        os.umask(before)
    assert stat.S_IMODE(repo.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in repo.rglob("*") if path.is_dir()}
    assert modes == {0}


def test_loose_files_give_no_rights(repo: Path) -> None:
    for path in _loose(repo):
        status = path.stat()
        assert status.st_uid == 0 and not status.st_mode & 0o7022, (path, oct(status.st_mode))
        assert not set(os.listxattr(path)) & {"security.capability", "system.posix_acl_access", "trusted.note"}
    plain = _loose_of(repo, PROGRAM + b"p")
    assert (plain.stat().st_gid, stat.S_IMODE(plain.stat().st_mode), os.listxattr(plain)) == (42, 0o755, ["user.note"])


def test_a_checkout_has_all_that_was_committed(repo: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    """What a loose file lacks makes a copy; all else is linked as ever."""
    out = tmp_path / "out"
    run_fsview("checkout", "--repo", repo, "--link=hardlink", "main", out)
    modes = {name: stat.S_IMODE((out / name).stat().st_mode) for name in ("setuid", "setgid", "sticky", "open", "acl")}
    assert modes == {"setuid": 0o4755, "setgid": 0o2755, "sticky": 0o1755, "open": 0o666, "acl": 0o664}
    assert os.getxattr(out / "capable", "security.capability") == CAPABILITIES
    assert os.getxattr(out / "acl", "system.posix_acl_access") == ACL
    assert (out / "theirs").stat().st_uid == NOBODY
    assert {name for name in SPEC if (out / name).is_file() and (out / name).stat().st_nlink > 1} == {"plain", "group"}
    assert run_fsview("fsck", "--repo", repo).stdout == ""


@needs_fuse
def test_kernel_reads_show_what_the_view_says(repo: Path, run_fsview: RunFsview, nobodys: Path, tmp_path: Path) -> None:
    """Owner, mode and xattrs are those of the commit; the loose file is where the bytes are, and no more."""
    point = nobodys / "mnt"
    point.mkdir()
    run_fsview("mount", "--root", "main", "--kernel-reads", "-o", "allow_other,suid", repo, point)
    try:
        assert stat.S_IMODE((point / "setuid").stat().st_mode) == 0o4755
        assert stat.S_IMODE((point / "open").stat().st_mode) == 0o666
        assert os.getxattr(point / "capable", "security.capability") == CAPABILITIES
        assert (point / "theirs").stat().st_uid == NOBODY
        assert shell_as_nobody(["cat", point / "theirs"]).stdout.encode() == LARGE + b"n"
        assert shell_as_nobody([point / "setuid", "-u"]).stdout == "0\n"
        assert shell_as_nobody(["cat", point / "group"]).returncode != 0
    finally:
        run_fsview("umount", point)


# Repositories of before


@pytest.fixture
def old(repo: Path, tmp_path: Path) -> Path:
    """Return a repository as older programs made it: all could enter it, loose files had what their objects have."""
    for path in (repo, repo / "objects", *(repo / "objects").iterdir()):
        path.chmod(0o755)
    _loose_of(repo, PROGRAM).chmod(0o4755)
    _loose_of(repo, LARGE).chmod(0o666)
    os.setxattr(_loose_of(repo, PROGRAM + b"c"), "security.capability", CAPABILITIES)
    os.chown(_loose_of(repo, LARGE + b"n"), NOBODY, NOBODY)
    for name, content in {"setuid": PROGRAM, "open": LARGE, "capable": PROGRAM + b"c"}.items():
        os.link(_loose_of(repo, content), tmp_path / name)  # as a deployment had it
    return repo


@pytest.mark.unchecked
def test_doctor_and_fsck_tell_of_it(old: Path, run_fsview: RunFsview) -> None:
    said = run_fsview("doctor", old, status=1).stdout
    assert f"open    {old}: all users can enter it (mode 0755)" in said and f"fsview doctor --fix {old}" in said
    assert "this loose file gives rights: " in said and "; so do 3 more" in said
    found = run_fsview("fsck", "--quick", "--repo", old)
    assert "no errors, 5 things open to others" in found.stderr and "it is set-user-ID (mode 4755)" in found.stdout
    assert run_fsview("log", "--repo", old, "main").stderr == ""  # who reads is not told with each command


@pytest.mark.unchecked
def test_who_commits_there_is_told(old: Path, run_fsview: RunFsview, tree_factory: TreeFactory) -> None:
    said = run_fsview("commit", "--repo", old, "-b", "new", tree_factory({"a": b"a"})).stderr
    assert f"{old}: all users can enter it (mode 0755)" in said and f"close it: fsview doctor --fix {old}" in said


def test_doctor_closes_it_and_what_is_deployed_stays(old: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    program = _loose_of(old, PROGRAM)
    assert shell_as_nobody([program, "-u"]).stdout == "0\n"
    inode, mtime_ns = program.stat().st_ino, program.stat().st_mtime_ns
    run_fsview("doctor", "--fix", old)
    assert "Permission denied" in shell_as_nobody([program, "-u"]).stderr
    assert (tmp_path / "setuid").stat().st_ino == inode and program.stat().st_ino != inode
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("setuid", "open")] == [0o4755, 0o666]
    assert os.getxattr(tmp_path / "capable", "security.capability") == CAPABILITIES
    assert stat.S_IMODE(program.stat().st_mode) == 0o755 and program.stat().st_mtime_ns == mtime_ns
    test_loose_files_give_no_rights(old)
    assert_sound(old)
    assert "there was nothing to mend" in run_fsview("doctor", "--fix", old).stderr


@pytest.mark.parametrize("step", ["rename", "fsync", "copy_file_range"])
def test_a_repair_that_fails_leaves_the_file_or_has_the_new_one(
    step: str, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {path: path.read_bytes() for path in _loose(old)}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space left"):
            close_to_others(old)
    assert {path: path.read_bytes() for path in _loose(old)} == contents
    assert list((old / "tmp").iterdir()) == [] and stat.S_IMODE(old.stat().st_mode) == 0o700
    assert close_to_others(old).loose == 4


def test_an_index_that_others_may_write_in_is_mended(repo: Path, run_fsview: RunFsview) -> None:
    for path, mode in ((repo, 0o777), (repo / "index", 0o777), (repo / "index/lock.mdb", 0o666)):
        path.chmod(mode)
    assert "can be written by all users" in run_fsview("log", "--repo", repo, "main", status=1).stderr
    run_fsview("doctor", "--fix", repo)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (repo, repo / "index", repo / "index/lock.mdb")]
    assert modes == [0o700, 0o700, 0o600]
    run_fsview("log", "--repo", repo, "main")


# One that a group shares


@pytest.fixture
def shared(nobodys: Path) -> Path:
    """Return a directory that belongs to a user and a group, with a repository in it that this group shares."""
    nobodys.chmod(0o777)
    ours = nobodys / "ours"
    ours.mkdir(mode=0o700)
    os.chown(ours, OWNER.uid, GROUP)
    assert run_as(OWNER, nobodys, "init", "--shared=group", ours).status == 0
    return ours


def _trusting_owner() -> dict[str, str]:
    return {"FSVIEW_TRUST_OWNER": str(OWNER.uid)}


def test_members_say_once_that_they_trust_the_owner(shared: Path, nobodys: Path, tree_factory: TreeFactory) -> None:
    tree = shutil.copytree(tree_factory({"large": File(LARGE, mode=0o644), "a": b"a"}), nobodys / "tree")
    commit = ("commit", "--repo", shared, "-b", "main", tree)
    said = run_as(MEMBER, nobodys, *commit)
    assert said.status == 1 and f"export FSVIEW_TRUST_OWNER={OWNER.uid}" in said.stderr
    assert run_as(MEMBER, nobodys, *commit, env=_trusting_owner()).status == 0
    assert run_as(MEMBER, nobodys, "--trust-owner", str(OWNER.uid), "fsck", "--repo", shared).status == 0
    assert run_as(STRANGER, nobodys, "log", "--repo", shared, env=_trusting_owner()).status == 1
    with trusting(OWNER.uid):
        assert_sound(shared)


def test_all_members_commit_read_and_prune(shared: Path, nobodys: Path) -> None:
    for number, user in enumerate((MEMBER, OWNER, MEMBER)):
        tree = nobodys / f"tree{number}"
        tree.mkdir()
        (tree / "large").write_bytes(LARGE + b"%d" % number)
        said = run_as(user, nobodys, "commit", "--repo", shared, "-b", "main", tree, env=_trusting_owner())
        assert said.status == 0, said.stderr
    for user in (OWNER, MEMBER):
        said = run_as(user, nobodys, "cat", "--repo", shared, "main^:/large", env=_trusting_owner())
        assert said.stdout.encode() == LARGE + b"1"
    modes = {(stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) for path in _loose(shared)}
    assert modes == {(0o640, GROUP)} and {path.stat().st_uid for path in _loose(shared)} == {OWNER.uid, MEMBER.uid}
    for path in (shared, *shared.rglob("*")):
        status = path.stat()
        assert status.st_gid == GROUP and (not path.is_dir() or stat.S_IMODE(status.st_mode) == 0o2770), path
    said = run_as(MEMBER, nobodys, "prune", "--repo", shared, "--refs-only", "--depth=0", env=_trusting_owner())
    assert said.status == 0 and len(_loose(shared)) == 1, said.stderr


def test_a_stage_of_a_member_who_was_killed_is_swept(shared: Path, nobodys: Path) -> None:
    from store.stager import Stager  # the member's process ends without a word after this was staged
    from store.staging import Stage

    def stage_and_end() -> None:
        with trusting(OWNER.uid), Repository.open(shared) as repository, Stage(repository) as stage:
            Stager(repository, stage.path, "0")
            os._exit(0)

    assert try_as(MEMBER, stage_and_end) == 0
    assert len(list((shared / "tmp").iterdir())) == 1
    (nobodys / "tree").mkdir()
    assert run_as(OWNER, nobodys, "commit", "--repo", shared, "-b", "main", nobodys / "tree").status == 0
    assert list((shared / "tmp").iterdir()) == []


def test_checkouts_share_no_files_with_it(shared: Path, nobodys: Path) -> None:
    (nobodys / "tree").mkdir()
    (nobodys / "tree/large").write_bytes(LARGE)
    os.chown(nobodys / "tree/large", OWNER.uid, GROUP)
    (nobodys / "tree/large").chmod(0o640)
    assert run_as(OWNER, nobodys, "commit", "--repo", shared, "-b", "main", nobodys / "tree").status == 0
    owner = User(OWNER.uid, GROUP, (GROUP,))  # who would have all that the loose file has
    assert run_as(owner, nobodys, "checkout", "--repo", shared, "main", nobodys / "copy").status == 0
    assert (nobodys / "copy/large").stat().st_nlink == 1
    said = run_as(owner, nobodys, "checkout", "--repo", shared, "--link=hardlink", "main", nobodys / "linked")
    assert said.status == 1 and "a group shares the repository" in said.stderr


def test_one_that_was_private_is_shared_later(nobodys: Path, run_fsview: RunFsview, tree_factory: TreeFactory) -> None:
    repo = nobodys / "repo"
    run_fsview("init", repo)
    run_fsview("commit", "--repo", repo, "-b", "main", tree_factory({"large": File(LARGE, mode=0o755), "a": b"a"}))
    settings = repo / "fsview.toml"
    settings.write_text(settings.read_text().replace('shared = "no"', 'shared = "group"'))
    os.chown(repo, 0, GROUP)
    run_fsview("doctor", "--fix", repo)
    said = run_as(MEMBER, nobodys, "cat", "--repo", repo, "main:/large")  # root is trusted by all
    assert (said.status, said.stdout.encode()) == (0, LARGE), said.stderr
    assert run_as(STRANGER, nobodys, "cat", "--repo", repo, "main:/large").status == 1


@pytest.mark.unchecked
@pytest.mark.parametrize("shared", ['"everybody"', "true", "7"])
def test_shared_with_nobody_knows_whom(shared: str, make_repo: Callable[..., Path], run_fsview: RunFsview) -> None:
    settings = make_repo() / "fsview.toml"
    settings.write_text(settings.read_text().replace('shared = "no"', f"shared = {shared}"))
    assert "'shared' must be one of no, group" in run_fsview("log", "--repo", settings.parent, status=10).stderr


# Workspaces


@needs_fuse
def test_a_workspace_is_nosuid_unless_that_was_asked_for(repo: Path, run_fsview: RunFsview, nobodys: Path) -> None:
    work, suid = nobodys / "work", nobodys / "suid"
    run_fsview("workspace", "--repo", repo, "main", work)
    run_fsview("workspace", "--repo", repo, "--suid", "--dev", "main", suid)
    try:
        assert shell_as_nobody([work / "setuid", "-u"]).stdout == f"{NOBODY}\n"
        assert shell_as_nobody([suid / "setuid", "-u"]).stdout == "0\n"
        for point in (work, suid):
            run_fsview("workspace", "umount", point)
            run_fsview("workspace", "mount", point)
        assert shell_as_nobody([work / "setuid", "-u"]).stdout == f"{NOBODY}\n"
        assert shell_as_nobody([suid / "setuid", "-u"]).stdout == "0\n"
        assert [os.statvfs(point).f_flag & 6 for point in (work, suid)] == [2 | 4, 0]  # ST_NOSUID, ST_NODEV
    finally:
        for point in (work, suid):
            run_fsview("workspace", "remove", "--force", point)


@needs_fuse
def test_a_view_of_it_is_for_others(repo: Path, mount_view: MountView, nobodys: Path, run_fsview: RunFsview) -> None:
    """Which is how they read: as far as modes let them."""
    point = nobodys / "mnt"
    point.mkdir()
    run_fsview("mount", "-o", "allow_other", repo, point)
    try:
        assert shell_as_nobody(["cat", point / "refs/main/plain"]).returncode == 0
        assert shell_as_nobody(["cat", point / "refs/main/closed/private"]).returncode != 0
    finally:
        run_fsview("umount", point)
