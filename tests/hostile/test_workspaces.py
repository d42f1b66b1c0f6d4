"""Another user writes beside a workspace what he likes: root neither believes it nor is led anywhere by it."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from store.errors import FormatError, FsviewError
from store.repository import Repository
from tests.conftest import TreeFactory
from tests.hostile.attacker import CAMPAIGN, attacking, exchanging
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview
from tests.snapshots import snapshot
from tests.users import AS_NOBODY, NOBODY
from tools import state, workspace_state, workspaces
from tools.workspace_state import Broken, load

pytestmark = [needs_fuse, needs_root]

CHECKSUM = "5b" * 32
OPTIONS = "place-inodes,owner=me"


def _as_nobody(script: str, *arguments: str | Path) -> None:
    """Run a shell script as the user nobody."""
    subprocess.run([*AS_NOBODY, "sh", "-ec", script, "sh", *arguments], check=True, cwd="/")


@pytest.fixture
def base(make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory) -> Path:
    """Return root's repository, with a commit on the ref r."""
    repo = make_repo()
    run_fsview("commit", "--repo", repo, "-b", "r", tree_factory({"a": b"a\n", "d": {"b": b"b\n"}}))
    return repo


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """Return a private directory of root's that must stay as it is."""
    path = tmp_path / "rootsecret"
    path.mkdir(mode=0o700)
    (path / "key").write_text("secret\n")
    for name in ("sub", "view"):
        (path / name).mkdir(mode=0o711)
    before, mode = snapshot(path), path.stat().st_mode
    yield path
    assert snapshot(path) == before and path.stat().st_mode == mode


def _facts(repo: Path, **values: object) -> str:
    facts: dict[str, object] = {"format": 1, "repository": str(repo), "commit": CHECKSUM, "by_kernel": True}
    return json.dumps(facts | {"view": None, "owner_me": False, "committed": ""} | values)


def _plant(where: Path, text: str, prepare: str = "mkdir upper work view") -> Path:
    """Have nobody make a workspace called work in *where*; return where it would be mounted."""
    script = 'mkdir -p "$1/work" "$1/work.workspace"; cd "$1/work.workspace"; printf %s "$2" > workspace.json; '
    _as_nobody(script + prepare, where, text)
    return where / "work"


VERBS: list[tuple[str, ...]] = [
    ("workspace", "mount"), ("workspace", "umount"), ("workspace", "umount", "-l"), ("workspace", "remove"),
    ("workspace", "remove", "--force"), ("commit", "-b", "stolen", "--workspace"),
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_root_uses_no_workspace_of_another_user(
    base: Path, nobodys: Path, secret: Path, run_fsview: RunFsview, verb: tuple[str, ...]
) -> None:
    """With a commit that leads to root's own directory, from which nobody would read through the overlay."""
    out = os.path.relpath(secret, nobodys / "work.workspace" / "view" / "commits" / "x")
    work = _plant(nobodys, _facts(base, commit=f"x/{out}"))
    said = run_fsview(*verb, work, status=1)
    assert f"{work}.workspace belongs to nobody" in said.stderr and "run the command as nobody" in said.stderr
    assert str(nobodys) not in Path("/proc/self/mountinfo").read_text()
    assert run_fsview("refs", "--repo", base).stdout.split() == ["r"]


LED = {
    "upper": 'mkdir work view; ln -s "{secret}" upper',
    "work": 'mkdir upper view; ln -s "{secret}" work',
    "work below work": 'mkdir upper work view; ln -s "{secret}" work/work',
    "view": 'mkdir upper work; ln -s "{view}" view',
    "everything": 'cd ..; rm -r work.workspace; ln -s "{secret}" work.workspace',
    "the text": 'mkdir upper work view; rm workspace.json; ln -s "{secret}/key" workspace.json',
    "a FIFO": "mkdir upper work view; rm workspace.json; mkfifo workspace.json",
}


@pytest.mark.parametrize("what", LED)
def test_symlinks_that_another_user_put_there_lead_nowhere(
    base: Path, nobodys: Path, secret: Path, run_fsview: RunFsview, mount_view: Callable[..., Path], what: str
) -> None:
    view = mount_view(base, "-o", "place-inodes")
    commit = run_fsview("rev-parse", "--repo", base, "r").stdout.strip()
    prepare = LED[what].format(secret=secret, view=view)
    work = _plant(nobodys, _facts(base, commit=commit), prepare)
    for verb in VERBS:
        said = run_fsview(*verb, work, status=None, timeout_s=20)
        assert said.returncode in (1, 10) and str(work) in said.stderr and "Traceback" not in said.stderr
    assert os.path.ismount(view) and (view / "refs/r/a").read_text() == "a\n" and not os.path.ismount(work)


@pytest.mark.parametrize("name", ["upper", "work", "view"])
def test_symlinks_in_one_s_own_workspace_are_refused(
    base: Path, secret: Path, run_fsview: RunFsview, tmp_path: Path, name: str
) -> None:
    """They are of an older fsview's time, or of a restored backup: nobody is led out of it."""
    work, home = tmp_path / "work", tmp_path / "work.workspace"
    run_fsview("workspace", "--repo", base, "r", work)
    run_fsview("workspace", "umount", work)
    (home / name).rename(tmp_path / "kept")
    (home / name).symlink_to(secret)
    for verb in (("workspace", "mount"), ("workspace", "remove", "--force")):
        said = run_fsview(*verb, work, status=10)
        assert f"{home / name} is a symlink, where a workspace has a directory" in said.stderr
    (home / name).unlink()
    (tmp_path / "kept").rename(home / name)
    run_fsview("workspace", "remove", work)


def test_a_workspace_that_others_may_write_to_is_refused(base: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    work, home = tmp_path / "work", tmp_path / "work.workspace"
    run_fsview("workspace", "--repo", base, "r", work)
    home.chmod(0o770)
    assert f"chmod go-w {home}" in run_fsview("workspace", "umount", work, status=1).stderr
    home.chmod(0o700)
    run_fsview("workspace", "remove", work)


DEEP = "[" * 30_000 + "]" * 30_000
BROKEN: dict[str, str | dict[str, Any]] = {
    "no JSON": "{",
    "of another kind": "[1]",
    "nothing": "null",
    "deep": DEEP,
    "long": " " * 100_000 + "{}",
    "another format": {"format": True},
    "a newer format": {"format": 2},
    "no repository": {"repository": 7},
    "a relative repository": {"repository": "repo"},
    "a name that can't be": {"repository": "/a\0b"},
    "half a character": {"repository": "/a\ud800"},
    "a commit that leads out": {"commit": "../../../rootsecret"},
    "a commit in capitals": {"commit": "5B" * 32},
    "a commit and more": {"commit": CHECKSUM + "\n"},
    "a number for truth": {"by_kernel": 1},
    "words for truth": {"owner_me": "no"},
    "a view that is a number": {"view": 3},
    "a relative view": {"view": "../view"},
    "a list": {"committed": []},
}


def test_a_broken_one_is_a_line_of_the_list_and_hides_no_other(
    base: Path, run_fsview: RunFsview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own user, whose disk or editor did it; the good ones come before and after it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    works = [tmp_path / name for name in ("one", "two", "three")]
    for work in works:
        run_fsview("workspace", "--repo", base, "r", work)
    works.sort(key=lambda work: load(work).name)
    path = works[1].with_name(works[1].name + ".workspace") / "workspace.json"
    good = path.read_text()
    for what, broken in BROKEN.items():
        path.write_text(broken if isinstance(broken, str) else _facts(base, **broken))
        found = list(workspace_state.listed())
        assert [one.point for one in found] == works, what
        assert isinstance(found[1], Broken) and str(path) in found[1].problem and len(found[1].problem) < 1000, what
        with pytest.raises(FormatError, match=str(path)):
            load(works[1])
    path.write_text(DEEP)
    said = run_fsview("workspace", "list")
    states = [line.split()[:3] for line in said.stdout.splitlines()]
    assert [row[0] for row in states] == [str(work) for work in works]
    assert states[1][1] == "broken" and str(path) in said.stdout and states[0][2] == states[2][2] == "mounted"
    rows = json.loads(run_fsview("workspace", "list", "--json").stdout)
    assert [row["state"] for row in rows] == ["mounted", "broken", "mounted"] and str(path) in rows[1]["problem"]
    refused = run_fsview("workspace", "umount", works[1], status=10)
    assert str(path) in refused.stderr and "Traceback" not in refused.stderr
    path.write_text(good)
    for work in works:
        run_fsview("workspace", "remove", work)


def test_one_of_another_user_s_in_the_list(base: Path, run_fsview: RunFsview, nobodys: Path, tmp_path: Path) -> None:
    """DIR was root's workspace in somebody else's directory, who put his own there."""
    work = nobodys / "work"
    run_fsview("workspace", "--repo", base, "r", work)
    run_fsview("workspace", "umount", work)
    _as_nobody('cd "$1"; mv work.workspace kept; mkdir work.workspace work.workspace/upper', nobodys)
    said = run_fsview("workspace", "list").stdout
    assert said.split()[:2] == [str(work), "broken"] and "belongs to nobody" in said
    _as_nobody('cd "$1"; mv work.workspace his; mv kept work.workspace', nobodys)
    run_fsview("workspace", "remove", work)
    assert sorted(os.listdir(nobodys)) == ["his"]


def test_a_list_in_another_user_s_home_leads_nowhere(nobodys: Path, secret: Path, run_fsview: RunFsview) -> None:
    """As sudo leaves HOME on some systems. What the list would lead to was deleted, name by name."""
    _as_nobody('mkdir -p "$1/.local/state/fsview"; ln -s "$2" "$1/.local/state/fsview/workspaces"', nobodys, secret)
    run_fsview("workspace", "list", env={"HOME": str(nobodys)})
    assert (secret / "key").read_text() == "secret\n"


@pytest.mark.parametrize("variable", ["HOME", "XDG_STATE_HOME"])
def test_state_is_kept_where_nobody_else_leads_it(
    nobodys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    account = pwd.struct_passwd(("root", "x", 0, 0, "", str(tmp_path / "own"), ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: account)
    own = tmp_path / "own/.local/state/fsview"
    _as_nobody('ln -s / "$1/link"; mkdir -p "$1/there/.local/state/fsview/workspaces"', nobodys)
    for theirs in (nobodys, nobodys / "there", nobodys / "missing", nobodys / "link" / tmp_path.relative_to("/")):
        monkeypatch.setenv(variable, str(theirs))
        assert state.state_directory() == own
    monkeypatch.setenv(variable, str(tmp_path / "mine"))
    assert state.state_directory().is_relative_to(tmp_path / "mine")


def _swap(nobodys: Path, secret: Path, view: Path) -> None:
    """Have nobody put his own directories in the place of the workspace's and of where it is mounted."""
    script = """
    cd "$1"; mv work.workspace kept; mkdir work.workspace work.workspace/work
    ln -s "$2" work.workspace/upper; ln -s "$2" work.workspace/work/work; ln -s "$3" work.workspace/view
    """
    _as_nobody(script, nobodys, secret, view)


def test_a_workspace_that_is_exchanged_meanwhile(
    base: Path, nobodys: Path, secret: Path, run_fsview: RunFsview, mount_view: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Between the look at it and each step: root goes on in the one that it looked at, and removes that one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    view = mount_view(base, "-o", "place-inodes")
    work = nobodys / "work"
    run_fsview("workspace", "--repo", base, "r", work)
    (work / "new").write_text("new\n")
    workspace = load(work)
    _swap(nobodys, secret, view)
    before = workspace.fingerprint()
    with Repository.open(base) as repository:
        with pytest.raises(FsviewError, match="has changes, such as in new"):
            workspaces.remove(repository, workspace, force=False)
        workspaces.unmount(workspace)
        assert not os.path.ismount(work) and not os.path.ismount(nobodys / "kept/view") and os.path.ismount(view)
        assert workspace.fingerprint() == before and (nobodys / "kept/upper/new").exists()
        workspaces.remove(repository, workspace, force=True)
    assert os.listdir(nobodys / "kept") == [] and sorted(os.listdir(nobodys / "work.workspace")) == [
        "upper", "view", "work",
    ]  # fmt: skip
    assert run_fsview("refs", "--repo", base).stdout.split() == ["r"]


def test_mounting_where_the_names_were_exchanged(
    base: Path, nobodys: Path, secret: Path, run_fsview: RunFsview, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The view and the overlay come where root looked, or nowhere: not over what a symlink leads to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    work = nobodys / "work"
    run_fsview("workspace", "--repo", base, "r", work)
    run_fsview("workspace", "umount", work)
    workspace = load(work)
    _as_nobody(
        'cd "$1"; mv work kept; ln -s "$2" work; mv work.workspace home; ln -s "$2" work.workspace', nobodys, secret
    )
    with pytest.raises((FsviewError, OSError)):
        workspaces.mount(workspace)
    assert not any(os.path.ismount(path) for path in (secret, secret / "view", secret / "sub"))
    workspaces.unmount(workspace)
    _as_nobody('cd "$1"; rm work work.workspace; mv kept work; mv home work.workspace', nobodys)
    run_fsview("workspace", "remove", work)


def test_no_view_is_taken_where_another_user_could_put_a_tree(
    base: Path, nobodys: Path, tmp_path: Path, run_fsview: RunFsview
) -> None:
    """He renames the directory above the mount point, and root's workspace stands on what he put there."""
    point, work = nobodys / "way/mnt", tmp_path / "work"
    _as_nobody('mkdir -p "$1"', point)
    run_fsview("mount", "-o", "place-inodes", base, point)
    try:
        said = run_fsview("workspace", "--repo", base, "--view", point, "r", work, status=17).stderr
        assert "is where somebody else could put another one: " in said
        assert list(tmp_path.glob("work*")) == []
        trusting = {"FSVIEW_TRUST_OWNER": f"{NOBODY}"}
        run_fsview("workspace", "--repo", base, "--view", point, "r", work, env=trusting)
        run_fsview("workspace", "remove", work)
    finally:
        run_fsview("umount", "-l", point)


@CAMPAIGN
def test_a_race_with_who_exchanges_it_all_the_time(
    base: Path, nobodys: Path, secret: Path, run_fsview: RunFsview, mount_view: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs: int,
) -> None:  # fmt: skip
    """Whichever of the two root meets: his own is used, the other refused, and nothing outside is touched."""
    monkeypatch.setenv("HOME", str(tmp_path))
    view = mount_view(base, "-o", "place-inodes")
    commit = run_fsview("rev-parse", "--repo", base, "r").stdout.strip()
    script = """
    mkdir "$1/decoy" "$1/decoy/work"; cd "$1/decoy"
    ln -s "$2" upper; ln -s "$2" work/work; ln -s "$3" view; printf %s "$4" > workspace.json
    """
    _as_nobody(script, nobodys, secret, view, _facts(base, commit=commit, view=str(nobodys)))
    work, seen = nobodys / "work", {"used": 0, "refused": 0}
    run_fsview("workspace", "--repo", base, "r", work)
    run_fsview("workspace", "umount", work)
    with attacking(exchanging(nobodys, (b"work.workspace", b"decoy"))):
        for number in count():
            if number >= runs and min(seen.values()) >= runs // 5:
                break
            try:
                workspace = load(work)
                assert workspace.commit == commit and workspace.view is None
                workspace.save()
                if number % 20 == 0:
                    workspaces.mount(workspace)
                workspaces.unmount(workspace, lazy=True)
                workspace.fingerprint()
                seen["used"] += 1
            except (FsviewError, OSError):
                seen["refused"] += 1
            assert os.path.ismount(view) and not any(map(os.path.ismount, (secret / "view", secret / "sub", secret)))
    if (nobodys / "decoy").stat().st_uid != NOBODY:
        _as_nobody('cd "$1"; mv work.workspace his; mv decoy work.workspace; mv his decoy', nobodys)
    workspaces.unmount(load(work), lazy=True)
    with Repository.open(base) as repository, attacking(exchanging(nobodys, (b"decoy", b"work.workspace"))):
        while True:  # until it was his own
            with suppress(FsviewError, OSError):
                workspaces.remove(repository, load(work), force=True)
                break
    left = {path.name: sorted(os.listdir(path)) for path in nobodys.iterdir() if path.name != "work"}
    decoys = [names for names in left.values() if names]
    assert decoys == [["upper", "view", "work", "workspace.json"]] and os.readlink(next(nobodys.glob("*/upper")))


def test_what_else_is_mounted_there_stays(base: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    """Only the workspace's own overlay is unmounted, and nothing of root's that was moved or mounted there."""
    work = tmp_path / "work"
    run_fsview("workspace", "--repo", base, "r", work)
    run_fsview("workspace", "umount", work)
    subprocess.run(["mount", "-t", "tmpfs", "precious", work], check=True)
    try:
        for verb in (("umount",), ("umount", "-l"), ("remove", "--force"), ("mount",)):
            said = run_fsview("workspace", *verb, work, status=17)
            assert f"what is mounted at {work} is not this workspace, but tmpfs (precious)" in said.stderr
        assert os.path.ismount(work)
    finally:
        subprocess.run(["umount", work], check=True)
    run_fsview("workspace", "remove", work)


@pytest.mark.parametrize("place", ["work.workspace/upper/mnt", "work.workspace/upper", "work/mnt"])
def test_what_is_mounted_in_it_is_not_removed(base: Path, run_fsview: RunFsview, tmp_path: Path, place: str) -> None:
    work, data = tmp_path / "work", tmp_path / "data"
    data.mkdir()
    (data / "precious").write_text("precious\n")
    run_fsview("workspace", "--repo", base, "r", work)
    (work / "mnt").mkdir()
    subprocess.run(["mount", "--bind", data, tmp_path / place], check=True)
    try:
        said = run_fsview("workspace", "remove", "--force", work, status=17)
        assert f"umount {tmp_path / place}" in said.stderr and "was not touched" in said.stderr
        assert (data / "precious").read_text() == "precious\n"
        assert os.path.ismount(work) and "mounted" in run_fsview("workspace", "list").stdout
    finally:
        subprocess.run(["umount", tmp_path / place], check=True)
    run_fsview("workspace", "remove", "--force", work)


def test_a_view_of_another_user_s_is_not_the_lower_layer(
    base: Path, nobodys: Path, run_fsview: RunFsview, tmp_path: Path
) -> None:
    """A directory that says of itself what a view says: any user can set such an xattr."""
    status: dict[str, Any] = {
        "repository": str(base), "mount": str(nobodys / "v"), "options": "place-inodes", "root": None, "version": "1",
        "pid": 1, "started": 1, "workers": [],
    }  # fmt: skip
    commit = run_fsview("rev-parse", "--repo", base, "r").stdout.strip()
    script = (
        'mkdir -p "$1/v/commits/$2"; echo evil > "$1/v/commits/$2/a"; setfattr -n user.fsview.status -v "$3" "$1/v"'
    )
    _as_nobody(script, nobodys, commit, json.dumps(status))
    command = ("workspace", "--view", nobodys / "v", "--repo", base, "r", tmp_path / "work")
    said = run_fsview(*command, status=17, env={"FSVIEW_TRUST_OWNER": f"{NOBODY}"})  # else the way is refused
    assert f"no view is mounted at {nobodys / 'v'}" in said.stderr and not (tmp_path / "work.workspace").exists()


def test_the_list_is_read_in_full_whoever_is_asked(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is no symlink, or leads to no workspace, is told; nothing of it is deleted."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    registry = tmp_path / "state/fsview/workspaces"
    (registry / "directory").mkdir(parents=True)
    (registry / "file").write_text("")
    for name, target in (("etc", "/etc"), ("relative", "x.workspace"), ("gone", tmp_path / "gone.workspace")):
        (registry / name).symlink_to(target)
    found = list(workspace_state.listed())
    assert [one.point.name for one in found if isinstance(one, Broken)] == ["directory", "etc", "file", "relative"]
    assert sorted(os.listdir(registry)) == ["directory", "etc", "file", "relative"]
