"""Prunes through a real mount: what is gone is gone at the next look, and what somebody holds stays right."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MountView, TreeFactory
from tests.marks import needs_root
from tests.running import PROJECT, RunFsview, clean_environment

LARGE = bytes(range(256)) * 2000


@dataclass(frozen=True)
class Mounted:
    """Two commits, the first of which no ref reaches by itself, in a repository that is mounted."""

    repo: Path
    point: Path
    old: str
    new: str
    prune: Callable[[], None]

    @property
    def old_root(self) -> Path:
        return self.point / "commits" / self.old


@pytest.fixture
def mounted(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory, mount_view: MountView
) -> Mounted:
    repo, commits = make_repo(), []
    for number in range(2):
        own = {"f": b"%d" % number, "large": LARGE + b"%d" % number, "deep": {"er": {"x": b"x%d" % number}}}
        tree = tree_factory({"same": {"f": b"same"}, f"own{number}": own})
        commits.append(run_fsview("commit", "--repo", repo, "-b", "r", tree).stdout.strip())

    def prune() -> None:
        run_fsview("prune", "--repo", repo, "--refs-only", "--depth=0")

    return Mounted(repo, mount_view(repo), commits[0], commits[1], prune)


def log_text(tmp_path: Path) -> str:
    return "".join(path.read_text() for path in tmp_path.glob(".local/state/fsview/**/*.log*"))


def test_a_pruned_commit_is_gone_at_the_next_look(mounted: Mounted, tmp_path: Path) -> None:
    """The kernel, and the caches of each worker, know everything of it when it goes."""
    commits = mounted.point / "commits"
    for _ in range(8):
        for _, _, files in os.walk(mounted.old_root):
            assert files is not None
    assert (commits / mounted.old[:10] / "own0" / "f").read_bytes() == b"0"
    assert (mounted.point / "refs" / "r^" / "own0" / "f").read_bytes() == b"0"
    dated = [path for path in mounted.point.glob("by-date/*/*/*/*") if path.name.endswith(mounted.old[:8])]
    assert len(dated) == 1 and (mounted.point / "history" / "r" / dated[0].name / "own0" / "f").exists()
    virtual = [mounted.point / "info" / mounted.old, mounted.point / "versions" / mounted.old, *dated]
    assert all(path.exists() and os.listdir(path) for path in virtual)
    mounted.prune()
    virtual.append(mounted.point / "history" / "r" / dated[0].name)
    for gone in (mounted.old_root, commits / mounted.old[:10], mounted.point / "refs" / "r^", *virtual):
        assert not os.path.lexists(gone), gone
        with pytest.raises(FileNotFoundError):
            (gone / "own0" / "f").read_bytes()
    assert os.listdir(commits) == [mounted.new] == os.listdir(mounted.point / "info")
    assert [name[-8:] for name in os.listdir(mounted.point / "history" / "r")] == [mounted.new[:8]]
    assert (mounted.point / "refs" / "r" / "own1" / "f").read_bytes() == b"1"
    assert (commits / mounted.new / "same" / "f").read_bytes() == b"same"
    assert "level=error" not in log_text(tmp_path)


def test_who_is_in_a_pruned_commit(mounted: Mounted, tmp_path: Path) -> None:
    """A directory that is open shows what the kernel knows of it; every request for more is stale."""
    own, deep = (os.open(mounted.old_root / path, os.O_RDONLY) for path in ("own0", "own0/deep"))
    try:
        before = os.fstat(deep)
        assert all(len(os.listdir(own)) == 3 for _ in range(8))  # of each worker
        mounted.prune()
        assert os.fstat(deep) == before
        for _ in range(8):
            assert error_of(os.stat, "nothing", dir_fd=own) == errno.ESTALE
            assert error_of(os.stat, "f", dir_fd=own) in (None, errno.ESTALE)  # known, if the kernel had room
            assert error_of(os.stat, "er/x", dir_fd=deep) == errno.ESTALE
            assert listed_or_stale(own) in (["deep", "f", "large"], errno.ESTALE)  # the same
    finally:
        os.close(own)
        os.close(deep)
    assert "level=error" not in log_text(tmp_path) and log_text(tmp_path) != ""


def listed_or_stale(directory: Path | int) -> list[str] | int:
    """Return the names in a directory, or the number of the error."""
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        assert error.errno is not None
        return error.errno


def error_of(call: Callable[..., object], *arguments: object, **more: object) -> int | None:
    """Return the number of the error that a call ends with."""
    try:
        call(*arguments, **more)
    except OSError as error:
        return error.errno
    return None


def test_a_file_that_is_open(mounted: Mounted, tmp_path: Path) -> None:
    """What is read is right, as far as the kernel or a worker has it; behind that is an error, never an end."""
    with (mounted.old_root / "own0" / "large").open("rb", buffering=0) as file:
        assert file.read(4096) == LARGE[:4096]
        mounted.prune()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        data, whole = b"", LARGE + b"0"
        try:
            while piece := file.read(100_000):
                data += piece
            assert data == whole
        except OSError as problem:
            assert problem.errno == errno.ESTALE and whole.startswith(data)
    assert "level=error" not in log_text(tmp_path)


def test_what_is_mounted_alone_stays(mounted: Mounted, run_fsview: RunFsview, mount_view: MountView) -> None:
    alone = mount_view(mounted.repo, "--root", f"{mounted.old}:/own0")
    mounted.prune()
    assert (alone / "f").read_bytes() == b"0" and (mounted.old_root / "own0/deep/er/x").read_bytes() == b"x0"
    refused = run_fsview("prune", "--repo", mounted.repo, "--delete-commit", mounted.old, status=1)
    assert f"it is mounted at {alone}; unmount that first (fsview umount {alone})" in refused.stderr
    run_fsview("umount", alone)
    mounted.prune()
    assert not mounted.old_root.exists()


@needs_root
def test_a_mount_of_a_pruned_commit_alone(
    mounted: Mounted, run_fsview: RunFsview, tmp_path: Path, mount_view: MountView
) -> None:
    """Whoever prunes in another mount namespace does not see it."""
    alone = mount_view(mounted.repo, "--root", mounted.old)
    names = sorted(os.listdir(alone))
    assert (alone / "own0" / "f").read_bytes() == b"0"
    prune = [sys.executable, "-m", "tools", "prune", "--repo", str(mounted.repo), "--refs-only", "--depth=0"]
    elsewhere = ["unshare", "-m", "sh", "-ec", f'umount {alone}; exec "$@"', "sh", *prune]
    subprocess.run(elsewhere, env=clean_environment(tmp_path), cwd=PROJECT, check=True)
    assert error_of(os.listdir, alone / "own0" / "deep") in (errno.ESTALE, errno.ENOENT)
    assert listed_or_stale(alone) in (names, errno.ESTALE)  # what the kernel holds stays right
    assert error_of(os.stat, alone / "nothing") == errno.ESTALE
    assert "level=error" not in log_text(tmp_path)


def test_a_commit_that_comes_back(mounted: Mounted, run_fsview: RunFsview, tree_factory: TreeFactory) -> None:
    tree = tree_factory({"d": {"f": b"back"}})

    def commit() -> str:
        return run_fsview("commit", "--repo", mounted.repo, "--orphan", "--timestamp=@5", tree).stdout.strip()

    first = commit()
    path = mounted.point / "commits" / first / "d" / "f"
    before = path.stat().st_ino
    mounted.prune()
    assert not path.exists()
    assert commit() == first
    assert path.read_bytes() == b"back" and path.stat().st_ino > before
