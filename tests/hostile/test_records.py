"""Records that somebody forged, guard and all: each command names the commit, and has no traceback."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from store.database import Writing
from store.objects import ObjectType
from store.repository import Repository
from store.schema import FIRST_ID, CommitRecord, id_key
from tests.conftest import MountView, TreeFactory
from tests.running import RunFsview
from tests.sysroot.forked import fork_cli, run_forked

pytestmark = pytest.mark.unchecked

ABOUT: dict[str, Callable[[bytes], bytes]] = {
    "shorter than a record": lambda value: value[:10],
    "no commit": lambda value: value[:56] + b"\xff" * 20,
    "an empty commit": lambda value: value[:56],
    "a commit cut off": lambda value: value[:-1],
}


@pytest.mark.parametrize("forge", ABOUT.values(), ids=ABOUT)
def test_a_commit_that_is_none(
    forge: Callable[[bytes], bytes], make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory,
    mount_view: MountView, tmp_path: Path,
) -> None:  # fmt: skip
    repo = make_repo()
    checksum = run_fsview("commit", "--repo", repo, "-b", "r", tree_factory({"f": b""})).stdout.strip()
    key = id_key(FIRST_ID)
    with Repository.open(repo) as repository:
        repository.database.write(lambda writing: writing.put(b"commit", key, forge(writing.need(b"commit", key))))
        with repository.database.reading() as reading:
            value = reading.need(b"commit", key)
    name = checksum if len(value) >= CommitRecord._STRUCT.size else str(FIRST_ID)
    for command in (("log", "r"), ("show", "r"), ("log", "--oneline")):
        said = run_fsview(command[0], "--repo", repo, *command[1:], status=12).stderr
        assert said.startswith(f"fsview: commit {name} in {repo}/index is damaged") and said.count("\n") == 1, said
    assert "to mend: " in run_fsview("fsck", "--repo", repo, status=12).stdout
    point = mount_view(repo)
    with pytest.raises(OSError, match="Input/output error"):
        (point / "info" / checksum / "commit.json").read_bytes()
    (log,) = (tmp_path / ".local/state/fsview").iterdir()
    assert f"commit {name} in {repo}/index is damaged" in log.read_text()


def test_a_history_that_bites_its_tail(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory, mount_view: MountView
) -> None:
    """No commit can name one that names it, but the index may lead from a checksum to another commit."""
    repo, tree = make_repo(), tree_factory({"f": b""})
    keys = []
    for _ in range(2):
        said = run_fsview("commit", "--repo", repo, "-b", "r", tree).stdout.strip()
        keys.append(bytes((ObjectType.COMMIT,)) + bytes.fromhex(said))
        (tree / "f").write_bytes(b"other")
    with Repository.open(repo) as repository:
        repository.database.write(lambda writing: writing.put(b"object", keys[0], writing.need(b"object", keys[1])))
    point = mount_view(repo)
    for path in ("history/r", "versions/r/f"):
        done = subprocess.run(["timeout", "-s", "KILL", "30", "ls", point / path], capture_output=True, text=True)
        assert done.returncode == 2 and "Input/output error" in done.stderr, done
    assert run_fsview("log", "--oneline", "r", repo=repo).stdout.count("\n") == 1


NO_RECORD: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda value: value[:5],
    "all ones": lambda value: b"\xff" * (len(value) + 1),
}
COMMANDS = (
    ["log", "r"], ["show", "r"], ["refs", "--list"], ["refs", "--log", "r"], ["rev-parse", "r@{1}"], ["ls", "-R", "r"],
    ["cat", "r", "f"], ["cat", "r", "large"], ["diff", "r^", "r"], ["grep", "x", "r"], ["prune", "-n"], ["fsck"],
)  # fmt: skip


@pytest.mark.parametrize("forge", NO_RECORD.values(), ids=NO_RECORD)
@pytest.mark.parametrize("table", ["ref", "refid", "reflog", "file", "blocks", "listing", "dirtree", "dirmeta", "stat"])
def test_records_of_any_kind_that_are_none(
    table: str, forge: Callable[[bytes], bytes], make_repo: Callable[..., Path], tree_factory: TreeFactory,
    tmp_path: Path,
) -> None:  # fmt: skip
    repo, name = make_repo(), table.encode()
    tree = tree_factory({"f": b"x", "large": b"x" * 40_000})
    for _ in range(2):
        run_forked(tmp_path, "commit", "--repo", repo, "-b", "r", tree, status=0)
        (tree / "f").write_bytes(b"other")
    with Repository.open(repo) as repository:
        with repository.database.reading() as reading:
            keys = [key for key, _ in reading.items(name)]

        def put(writing: Writing) -> None:
            for key in keys:
                writing.put(name, key, forge(writing.need(name, key)))

        repository.database.write(put)
    for words in (*COMMANDS, ["checkout", "r", str(tmp_path / "out")], ["commit", "-b", "r", str(tree)]):
        status, said = fork_cli(tmp_path, [words[0], "--repo", repo, *words[1:]]), (tmp_path / "err").read_text()
        assert status in (0, 1, 12) and "Traceback" not in said, said
