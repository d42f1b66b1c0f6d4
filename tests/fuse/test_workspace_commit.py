"""What was done in a workspace is committed from its upper directory, and equals a commit of the merged tree."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from store.errors import SourceError
from store.repository import Repository
from tests.committing import TIME_S, commit_tree
from tests.conftest import TreeFactory
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview
from tests.trees import Directory, File, Spec, Symlink, build_tree
from tools import commit_source, overlay_source
from tools.hashing import Hasher, Ticket
from tools.make_commit import WORKSPACE, Committed, Message, TreeSpec, commit
from tools.sources import DiskOptions

pytestmark = [
    needs_fuse,
    needs_root,
]

PLAIN: Spec = {
    "a": {"x": {"f": b"equal", "g": b"equal"}, "y": {"f": b"equal", "s": Symlink("../x")}},
    "b": {"x": {"f": b"equal", "g": b"other"}, "empty": {}},
    "noted": Directory({"f": File(b"f", xattrs={"user.k": b"v"})}, mode=0o2750, xattrs={"user.d": b"d"}),
    "large": bytes(range(256)) * 200,
    "tool": File(b"#!/bin/sh\n", mode=0o4755),
    "link": Symlink("a/x/f"),
}
TREE: Spec = {
    **PLAIN,  # the kernel's overlay shows the xattrs of an overlay that are in the commit
    "nested": Directory({"f": File(b"f", xattrs={"trusted.overlay.k": b"1"})}, xattrs={"trusted.overlay.opaque": b"y"}),
}
NAMES = ("a", "b", "x", "y", "f", "g", "new")
MODES = (0o600, 0o755, 0o2711)


@pytest.fixture
def workspace(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory, tmp_path: Path
) -> Iterator[Callable[..., Path]]:
    """Return a function that makes a workspace of a tree; --force at the end removes it."""
    made: list[Path] = []

    def make(*options: str, spec: Spec = TREE) -> Path:
        repo = make_repo()
        run_fsview("commit", "--repo", repo, "-b", "base", tree_factory(spec))
        run_fsview("workspace", *options, "--repo", repo, "base", tmp_path / "work")
        made.append(tmp_path / "work")
        return made[-1]

    yield make
    for point in made:
        run_fsview("workspace", "remove", "--force", point)
        assert not point.exists() and not point.with_name("work.workspace").exists()


def _commit(repository: Repository, point: Path) -> Committed:
    message = Message(None, "a tree", timestamp_s=TIME_S)
    return commit(repository, [TreeSpec(WORKSPACE, str(point))], message, DiskOptions(), processes=1)


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def _replace(path: Path, by: Spec | bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    if isinstance(by, bytes):
        path.write_bytes(by)
    else:
        build_tree(path, by)


def _change(at: random.Random, tops: tuple[Path, Path]) -> str:
    """Do something at random to two equal trees; return what. What the kernel refuses is refused in both."""
    first, _ = tops
    everything = sorted(first.rglob("*"))  # sorted: each file system lists in an order of its own
    directories = [first, *(path for path in everything if path.is_dir() and not path.is_symlink())]
    new = at.choice(directories).relative_to(first) / at.choice(NAMES)
    old = at.choice(everything).relative_to(first) if everything else new
    beside, data, mode = old.parent / at.choice(NAMES), at.randbytes(at.choice((0, 1, 100, 20_000))), at.choice(MODES)
    uid, gid, xattr = at.randrange(3), at.randrange(3), at.choice(("user.n", "trusted.overlay.opaque"))
    actions: dict[str, Callable[[Path], object]] = {
        "write": lambda top: (top / new).write_bytes(data),
        "append": lambda top: _append(top / old),
        "truncate": lambda top: os.truncate(top / old, 2),
        "rename": lambda top: os.rename(top / old, top / new),
        "rename back": lambda top: os.rename(top / old, top / beside),
        "unlink": lambda top: (top / old).unlink(),
        "remove": lambda top: shutil.rmtree(top / old),
        "replace": lambda top: _replace(top / old, {"f": b"new"}),
        "become a file": lambda top: _replace(top / old, b"file"),
        "mkdir": lambda top: (top / new).mkdir(),
        "chmod": lambda top: (top / old).chmod(mode),
        "chown": lambda top: os.chown(top / old, uid, gid, follow_symlinks=False),
        "symlink": lambda top: (top / new).symlink_to("a/x"),
        "link": lambda top: os.link(top / old, top / new, follow_symlinks=False),
        "xattr": lambda top: os.setxattr(top / old, xattr, b"n", follow_symlinks=False),
    }
    name = at.choice(sorted(actions))
    said = f"{name} {old} {new} {beside}"
    outcomes = {_attempt(partial(actions[name], top)) for top in tops}
    assert len(outcomes) == 1, (said, outcomes)
    return f"{said}: {outcomes.pop()}"


def _attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return f"refused: {error.strerror}"
    return "done"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_was_done_it_equals_a_commit_of_the_merged_tree(
    workspace: Callable[..., Path], tree_factory: TreeFactory, tmp_path: Path, seed: int
) -> None:
    """And of a plain directory to which the same was done."""
    point, plain, at = workspace(), tree_factory(TREE), random.Random(seed)
    done: list[str] = []
    with Repository.open(tmp_path / "repo") as repository:
        for number in range(91):
            if number % 9 == 0:
                made = {commit_tree(repository, top, None, processes=1).checksum for top in (point, plain)}
                assert {_commit(repository, point).checksum} == made, "\n".join(done)
            done.append(_change(at, (point, plain)))
    assert sum("refused" not in line for line in done) > 40


def _by_fuse(top: Path) -> None:
    """Do what fuse-overlayfs notes in each of its ways, once; at random, version 1.10 forgets what was removed."""
    _append(top / "a/x/f")
    (top / "a/y/f").unlink()
    shutil.rmtree(top / "b")
    (top / "b/x/new").mkdir(parents=True)  # g is not below it again
    (top / "b/x/new/f").write_bytes(b"new")
    os.rename(top / "large", top / "a/x/moved")
    _replace(top / "link", {"f": b"new"})
    _replace(top / "deep/one", b"file")
    os.link(top / "tool", top / "tool2")
    os.setxattr(top / "noted/f", "user.n", b"n")
    (top / "deep/two/three").chmod(0o700)
    os.chown(top / "deep/two/f", 1, 2)
    os.rename(top / "deep/two/f", top / "deep/g")


def test_with_fuse_overlayfs_it_equals_a_commit_of_the_merged_tree(
    workspace: Callable[..., Path], tree_factory: TreeFactory, run_fsview: RunFsview, tmp_path: Path
) -> None:
    """And of a plain directory to which the same was done; also when it was mounted again."""
    spec: Spec = {**PLAIN, "deep": {"one": {"f": b""}, "two": {"f": b"f", "three": {}}}}
    point, plain = workspace("--fuse", spec=spec), tree_factory(spec)
    (plain / "noted").chmod(0o750)  # as fuse-overlayfs shows it once something in it was changed
    for top in (point, plain):
        _by_fuse(top)
    with Repository.open(tmp_path / "repo") as repository:
        wanted = _commit(repository, point).checksum
        run_fsview("workspace", "umount", point)
        run_fsview("workspace", "mount", point)
        assert _commit(repository, point).checksum == wanted
        merged = commit_tree(repository, point, None, processes=1)
        assert merged.checksum == commit_tree(repository, plain, None, processes=1).checksum
        (plain / "noted").chmod(0o2750)
        assert wanted == commit_tree(repository, plain, None, processes=1).checksum


def test_an_untouched_workspace_is_its_commit(workspace: Callable[..., Path], tmp_path: Path) -> None:
    point = workspace()
    with Repository.open(tmp_path / "repo") as repository:
        assert _commit(repository, point).checksum == commit_tree(repository, tmp_path / "tree1", None).checksum


@contextmanager
def _counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    counts = {"listings": 0, "files": 0}

    def count(what: str, function: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object) -> object:
            counts[what] += 1
            return function(*arguments)

        return counting

    with monkeypatch.context() as patch:
        for module in (commit_source, overlay_source):
            patch.setattr(module, "load_listing", count("listings", module.load_listing))
        patch.setattr(Hasher, "submit", count("files", Hasher.submit))
        yield counts


def test_only_what_changed_is_read(
    workspace: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file in one of 400 directories, and a directory of 100 more that moved: four directories are looked at."""
    directories: Spec = {f"{number:03}": {"f": b"%d" % number, "below": {"g": b"g"}} for number in range(100)}
    point = workspace(spec={"a": directories, "b": {"moving": directories, "stays": b""}})
    (point / "a" / "007" / "f").write_bytes(b"changed")
    os.rename(point / "b" / "moving", point / "b" / "moved")
    with Repository.open(tmp_path / "repo") as repository:
        with _counted(monkeypatch) as counts:
            made = _commit(repository, point)
        assert counts == {"listings": 9, "files": 1}
        assert made.checksum == commit_tree(repository, point, None, processes=1).checksum


def test_contents_that_stayed_below_are_refused(workspace: Callable[..., Path], run_fsview: RunFsview) -> None:
    """Nobody mounts a workspace with metacopy but by hand."""
    point = workspace()
    (point / "new").write_bytes(b"data")
    os.setxattr(point.with_name("work.workspace") / "upper" / "new", "trusted.overlay.metacopy", b"")
    said = run_fsview("commit", "--workspace", point, "-b", "x", status=16)
    assert "metacopy=off" in said.stderr and "upper/new" in said.stderr


def test_a_program_in_a_chroot_leads_nowhere(
    workspace: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its root is the workspace, where it may do all; its "/secret" must not become the machine's."""
    point = workspace(spec={"d": {"old": b"old"}})
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_bytes(b"root alone may read this")
    (point / "d/sub").mkdir()
    (point / "d/sub/file").write_bytes(b"its own")
    submit = Hasher.submit

    def swapped_then(self: Hasher, *arguments: Any) -> Ticket:
        if not (point / "d/sub").is_symlink():
            (point / "d/sub").rename(point / "d/away")
            (point / "d/sub").symlink_to(tmp_path / "secret")
        return submit(self, *arguments)

    monkeypatch.setattr(Hasher, "submit", swapped_then)
    with (
        Repository.open(tmp_path / "repo") as repository,
        pytest.raises(SourceError, match="vanished while it was read"),
    ):
        _commit(repository, point)
