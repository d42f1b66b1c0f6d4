"""What another user mounted and made look like a view: its words are checked, and nobody waits for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fsview.mounted import State, mounted_views
from fsview.status import parse_status
from store.errors import FormatError
from tests.conftest import TreeFactory
from tests.hostile.fake_view import fake_view
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview
from tests.users import NOBODY

pytestmark = [needs_fuse, needs_root]

GOOD = {
    "repository": "/srv/repo", "mount": "/mnt", "options": "verify=xxh3", "root": None, "version": "1", "pid": 7,
    "started": 1, "workers": [{"pid": 8}],
}  # fmt: skip
STRANGE = {
    "no JSON": b"{what",
    "no object": b"[1]",
    "nothing": b"",
    "nested too deep": b'{"repository":' + b"[" * 60_000,
    "a number of 60,000 digits": b'{"pid":' + b"9" * 60_000 + b"}",
    "fields are missing": b"{}",
    "no text": json.dumps(GOOD | {"options": 7}).encode(),
    "no number": json.dumps(GOOD | {"started": "now"}).encode(),
    "a number too large": json.dumps(GOOD | {"pid": 1 << 70}).encode(),
    "no list of workers": json.dumps(GOOD | {"workers": 7}).encode(),
    "no commit": json.dumps(GOOD | {"root": "main"}).encode(),
    "a path from where one is": json.dumps(GOOD | {"repository": "repo"}).encode(),
    "bytes that are no text": b'{"repository": "\xff"}',
}


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """Return a directory to mount on."""
    (tmp_path / "theirs").mkdir()
    return tmp_path / "theirs"


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
def test_an_answer_that_is_none_is_listed_as_strange(answer: bytes, point: Path, run_fsview: RunFsview) -> None:
    with pytest.raises(FormatError, match="is not what a server of fsview's says"):
        parse_status(answer)
    with fake_view(point, {"user.fsview.status": answer}):
        (view,) = (one for one in mounted_views() if one.point == str(point))
        assert (view.state, view.status, view.owner) == (State.STRANGE, {}, NOBODY)
        assert f"{point}: /srv/repo, strange: " in run_fsview("mounts").stdout
        listed = json.loads(run_fsview("mounts", "--json").stdout)
    assert {"mount": str(point), "repository": "/srv/repo", "state": "strange"} in listed


def test_a_mount_point_with_the_end_of_a_line_in_its_name(tmp_path: Path, run_fsview: RunFsview) -> None:
    point = tmp_path / "a\rb\nc\x0bd"
    point.mkdir()
    with fake_view(point, {}):
        (view,) = (one for one in mounted_views() if one.point == str(point))
        assert view.state is State.SILENT
        assert f"{tmp_path}/a\\rb\\nc\\x0bd: /srv/repo, silent: " in run_fsview("mounts").stdout


def test_control_characters_are_escaped(point: Path, run_fsview: RunFsview) -> None:
    answer = json.dumps(GOOD | {"repository": "/\x1b[2J\nfsview: all is well", "options": "\x1b]0;x\x07"}).encode()
    with fake_view(point, {"user.fsview.status": answer}):
        said = run_fsview("mounts").stdout
    (line,) = (line for line in said.splitlines() if line.startswith(f"{point}: "))
    assert "\x1b" not in said and "\\x1b[2J" in line and "\\x1b]0;x" in line


@pytest.mark.parametrize(
    "marks",
    [
        {"user.fsview.repository": b"repo"},
        {"user.fsview.repository": b"/nowhere\0/x"},
        {"user.fsview.repository": b"/srv/repo", "user.fsview.root": b"\xff" * 64},
        {"user.fsview.repository": b"/srv/repo", "user.fsview.root": b"main"},
    ],
)  # fmt: skip
def test_a_path_in_it_leads_to_nothing_strange(marks: dict[str, bytes], point: Path, run_fsview: RunFsview) -> None:
    with fake_view(point, marks):
        error = run_fsview("log", point / "commits" / ("0" * 64), status=17).stderr
    assert "its answers are not those of fsview" in error and "Traceback" not in error


def test_a_path_in_it_leads_to_no_repository_of_theirs(
    point: Path, run_fsview: RunFsview, tree_factory: TreeFactory, nobodys: Path
) -> None:
    repo = nobodys / "repo"
    run_fsview("init", repo)
    commit = run_fsview("commit", "--repo", repo, "-b", "main", tree_factory({"a": b"a"})).stdout.strip()
    secret = nobodys / "secret"
    secret.write_bytes(b"root's")
    (repo / "index/lock.mdb").unlink()
    (repo / "index/lock.mdb").symlink_to(secret)
    for path in (repo, *repo.rglob("*")):
        if not path.is_symlink():
            _give_to_nobody(path)
    marks = {"user.fsview.repository": str(repo).encode(), "user.fsview.root": commit.encode()}
    with fake_view(point, marks):
        assert "belongs to nobody" in run_fsview("log", point / "a", status=1).stderr
    assert secret.read_bytes() == b"root's"


def test_a_word_that_could_be_a_revision_is_no_path_in_it(
    point: Path, make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    """A user mounts where root is going to name a ref, in /tmp say: root would get a commit that the user chose."""
    repo = make_repo()
    commit = run_fsview("commit", "-b", "r", tree_factory({"a": b"a"}), repo=repo).stdout.strip()
    marks = {"user.fsview.repository": str(repo).encode(), "user.fsview.root": commit.encode()}
    with fake_view(point, marks):
        said = run_fsview("rev-parse", f"{point.name}/a", repo=repo, cwd=point.parent, status=1)
        assert said.stdout == "" and "theirs/a" in said.stderr
        named = run_fsview("rev-parse", f"./{point.name}/a", repo=repo, cwd=point.parent)
        assert named.stdout == run_fsview("rev-parse", f"{commit}:/a", repo=repo).stdout


def _give_to_nobody(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def test_nobody_waits_for_one_that_never_answers(
    point: Path, make_repo: Callable[..., Path], run_fsview: RunFsview
) -> None:
    repo = make_repo()
    with fake_view(point, None, source=str(repo)):
        assert f"{point}: {repo}, silent: " in run_fsview("mounts", timeout_s=20).stdout
        run_fsview("prune", "--refs-only", repo=repo, timeout_s=20)
        run_fsview("doctor", repo, status=None, timeout_s=20)
        run_fsview("umount", point, timeout_s=20)
    assert not [one for one in mounted_views() if one.point == str(point)]


def test_no_prune_keeps_a_commit_for_a_view_of_somebody_else_s(
    point: Path, make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory
) -> None:
    repo = make_repo()
    first, _ = (
        run_fsview("commit", "-b", "r", tree_factory({"a": b"%d" % number}), repo=repo).stdout.strip()
        for number in range(2)
    )
    claim = json.dumps(GOOD | {"repository": str(repo), "root": first}).encode()
    with fake_view(point, {"user.fsview.status": claim}):
        said = run_fsview("prune", "--refs-only", "--depth=0", repo=repo)
    assert said.stdout.splitlines()[0] == f"commit {first}"
