"""What was done in a workspace is committed from its upper directory, and equals a commit of the merged tree."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.repository import Repository
from tests.committing import TIME_S, commit_tree
from tests.conftest import TreeFactory
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview
from tests.trees import Directory, File, Spec, Symlink, build_tree
from tools import commit_source, overlay_source
from tools.hashing import Hasher
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


def _change(at: random.Random, top: Path, xattrs: tuple[str, ...]) -> str:
    """Do something to a tree; return what was done. What the kernel refuses is refused here, too."""
    directories = [Path(path) for path, _, _ in os.walk(top)]
    everything = [Path(path) / name for path, names, files in os.walk(top) for name in (*names, *files)]
    if not everything:
        everything = [top]
    old, new = at.choice(everything), at.choice(directories) / at.choice(NAMES)
    actions: dict[str, Callable[[], object]] = {
        "write": lambda: new.write_bytes(at.randbytes(at.choice((0, 1, 100, 20_000)))),
        "append": lambda: _append(old),
        "truncate": lambda: os.truncate(old, 2),
        "rename": lambda: os.rename(old, new),
        "rename back": lambda: os.rename(old, old.with_name(at.choice(NAMES))),
        "unlink": lambda: old.unlink(),
        "remove": lambda: shutil.rmtree(old),
        "replace": lambda: _replace(old, {"f": b"new"}),
        "become a file": lambda: _replace(old, b"file"),
        "mkdir": lambda: new.mkdir(),
        "chmod": lambda: old.chmod(at.choice((0o600, 0o755, 0o2711))),
        "chown": lambda: os.chown(old, at.randrange(3), at.randrange(3), follow_symlinks=False),
        "symlink": lambda: new.symlink_to("a/x"),
        "link": lambda: os.link(old, new),
        "xattr": lambda: os.setxattr(old, at.choice(xattrs), b"n", follow_symlinks=False),
    }
    name = at.choice(sorted(actions))
    try:
        actions[name]()
    except OSError as error:
        return f"{name} {old} {new}: {error}"
    return f"{name} {old} {new}"


@pytest.mark.parametrize(("seed", "options"), [(1, ()), (2, ()), (3, ()), (4, ("--fuse",)), (5, ("--fuse",))])
def test_whatever_was_done_it_equals_a_commit_of_the_merged_tree(
    workspace: Callable[..., Path], tmp_path: Path, seed: int, options: tuple[str, ...]
) -> None:
    """With fuse-overlayfs for two courses of events: in others version 1.10 shows what it did not write down."""
    point, at = workspace(*options, spec=PLAIN if options else TREE), random.Random(seed)
    done: list[str] = []
    xattrs = ("user.n",) if options else ("user.n", "trusted.overlay.opaque")
    with Repository.open(tmp_path / "repo") as repository:
        for number in range(90):
            if number % 9 == 0:
                whole = commit_tree(repository, point, None, processes=1)
                assert _commit(repository, point).checksum == whole.checksum, "\n".join(done)
            done.append(_change(at, point, xattrs))
    assert sum(": [Errno" not in line for line in done) > 40


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
