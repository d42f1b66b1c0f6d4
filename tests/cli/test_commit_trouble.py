"""fsview commit when things go wrong: a full disk, files that move under its hands, signals, killed processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.checking import assert_sound
from tests.cli.conftest import Fsview
from tests.conftest import TreeFactory
from tests.marks import needs_root
from tests.running import clean_environment
from tests.snapshots import assert_same_tree
from tests.trees import Spec, build_tree
from tools import hashing
from tools.disk_source import DiskDirectory
from tools.hashing import Hasher, ScannedDirectory, Ticket

MIB = 1 << 20


def _noise(size: int) -> bytes:
    return os.urandom(size)


FILLING: dict[str, Callable[[], Spec]] = {
    "a file read in pieces": lambda: {"big": _noise(12 * MIB)},
    "loose files": lambda: {f"{number}": _noise(MIB) for number in range(6)},
    "small files, while they are staged": lambda: {f"{number}": _noise(16_000) for number in range(400)},
    "small files, while they are published": lambda: {f"{number}": _noise(7000) for number in range(200)},
    "dirtrees": lambda: {f"{number:02}": {f"{number}{name:0240}": b"" for name in range(30)} for number in range(60)},
    "tar": lambda: {"t": {f"{number}": _noise(16_000) for number in range(400)}},
}


@needs_root
@pytest.mark.parametrize("what", FILLING)
def test_a_full_disk(fsview: Fsview, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point, repo = tmp_path / "small", tmp_path / "small/repo"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", point], check=True)
    try:
        fsview("init", repo)
        monkeypatch.setenv("FSVIEW_REPO", str(repo))
        before = fsview("commit", "-b", "main", build_tree(tmp_path / "first", {"a": b"a", "b": _noise(50_000)})).stdout
        tree = build_tree(tmp_path / "tree", FILLING[what]())
        source: list[str | Path] = [tree]
        if what == "tar":
            subprocess.run(["tar", "-cf", tmp_path / "t.tar", "-C", tree, "."], check=True)
            source = [f"--tree=tar={tmp_path / 't.tar'}"]
        done = fsview("commit", "-b", "main", *source, status=1)
        assert done.stdout == b""
        assert done.stderr == (
            f"fsview: {repo}: No space left on device; nothing was committed; make space there and commit again\n"
        )
        assert fsview("rev-parse", "main").stdout == before
        assert_sound(repo, garbage=True)
        assert list((repo / "tmp").iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=200m", point], check=True)
        fsview("commit", "-b", "main", *source)
        assert fsview("rev-parse", "main^").stdout == before
        assert_sound(repo)
        fsview("checkout", "main", tmp_path / "out")
        assert_same_tree(tree, tmp_path / "out")
    finally:
        subprocess.run(["umount", point], check=True)


@contextmanager
def _busy(script: str, *arguments: str | Path) -> Iterator[None]:
    """Run a Python script that keeps doing something, from its first line of output on."""
    with subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


GROWING = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
print(flush=True)
while True:
    os.write(file, b"x")
"""


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """Return a file system in memory, where a writer isn't held up by what else the disk has to do."""
    if os.geteuid() != 0:
        pytest.skip("takes root")
    point = tmp_path / "tmpfs"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "none", point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


def test_a_file_that_grows(fsview: Fsview, repo: Path, tmpfs: Path) -> None:
    tree = build_tree(tmpfs / "tree", {"still": b"still", "log": {"growing": b"x" * 48 * MIB}})
    path = tree / "log/growing"
    with _busy(GROWING, path):
        said = fsview("commit", "-b", "main", tree, status=16).stderr
        assert said.startswith(f"fsview: changed while it was read: {path}; nothing was committed; ")
        assert "--allow-changed" in said and fsview("refs").lines == []
        done = fsview("commit", "-b", "main", "--allow-changed", tree)
    assert done.stderr == f"fsview: changed or vanished meanwhile, stored as read last: {path}\n"
    _check_grown(fsview, tree, 48 * MIB)


@pytest.mark.parametrize("size", [0, 5, 100_000, 9 * MIB])
def test_a_file_that_grows_whenever_it_is_read(
    fsview: Fsview, repo: Path, tree_factory: TreeFactory, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_factory({"still": b"still", "log": {"growing": b"x" * size}})

    def read_late(file: int, size: int) -> bytes:
        data = os.read(file, size)
        with (tree / "log/growing").open("ab") as growing:
            growing.write(b"x" * 10)
        return data

    with monkeypatch.context() as patch:
        patch.setattr(hashing, "_read", read_late)
        assert "changed while it was read" in fsview("commit", "-b", "main", tree, status=16).stderr
        fsview("commit", "-b", "main", "--allow-changed", tree)
    _check_grown(fsview, tree, size)


def _check_grown(fsview: Fsview, tree: Path, size: int) -> None:
    """Look that what was stored is a file that once was there, and that the stat cache doesn't have it."""
    fsview("checkout", "main", tree.parent / "out")
    stored, now = (tree.parent / "out/log/growing").read_bytes(), (tree / "log/growing").read_bytes()
    assert size <= len(stored) < len(now) and now.startswith(stored)
    fsview("commit", "-b", "main", tree)
    fsview("checkout", "main", tree.parent / "again")
    assert (tree.parent / "again/log/growing").read_bytes() == now


def test_a_file_is_read_again_until_it_holds_still(
    fsview: Fsview, repo: Path, tree_factory: TreeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_factory({"f": b"0"})
    reads = 0

    def read_and_write(file: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        data = os.read(file, size)
        if reads < 3:
            (tree / "f").write_bytes(b"%d" % reads)
            os.utime(tree / "f", ns=(reads, reads))
        return data

    monkeypatch.setattr(hashing, "_read", read_and_write)
    fsview("commit", "-b", "main", tree)
    assert reads == 3 and fsview("cat", "main:/f").stdout == b"2"


def test_a_directory_that_does_not_hold_still(
    fsview: Fsview, repo: Path, tree_factory: TreeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_factory({"spool": {"a": b""}, "still": b""})
    real, changes = DiskDirectory._read, 0

    def read_late(self: DiskDirectory) -> tuple[list[tuple[bytes, os.stat_result]], list[bytes]]:
        nonlocal changes
        found = real(self)
        if self.path.endswith(b"/spool"):
            changes += 1
            (tree / f"spool/new{changes}").touch()
            os.utime(tree / "spool", ns=(changes, changes))
        return found

    monkeypatch.setattr(DiskDirectory, "_read", read_late)
    said = fsview("commit", "-b", "main", tree, status=16).stderr
    assert f"changed while it was read: {tree}/spool" in said and changes == 3
    done = fsview("commit", "-b", "main", "--allow-changed", tree)
    assert f"{tree}/spool" in done.stderr
    assert len(fsview("ls", "main", "/spool").lines) == 1 + 1 + 5  # the last listing, without what came after it


def test_a_directory_is_listed_again_until_it_holds_still(
    fsview: Fsview, repo: Path, tree_factory: TreeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is moved while the directory is listed may not be seen under either; a moved file is not lost."""
    tree = tree_factory({"d": {"old name": b"here"}})
    real = DiskDirectory._read

    def miss_it_once(self: DiskDirectory) -> tuple[list[tuple[bytes, os.stat_result]], list[bytes]]:
        found = real(self)
        if (tree / "d/old name").exists() and self.path.endswith(b"/d"):
            (tree / "d/old name").rename(tree / "d/new name")
            return [], []
        return found

    monkeypatch.setattr(DiskDirectory, "_read", miss_it_once)
    fsview("commit", "-b", "main", tree)
    assert fsview("cat", "main:/d/new name").stdout == b"here"


@pytest.fixture
def vanishing(tree_factory: TreeFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a tree whose file "gone" and directory "lost" are deleted as soon as their parents were listed."""
    inside: Spec = {"kept": b"kept", "sub": {"x": b"x"}}
    tree = tree_factory({"d": {"gone": b"gone", "lost": inside, "kept": b""}, "swapped": inside, "filed": inside})
    submit, child = Hasher.submit, DiskDirectory._child

    def submit_late(self: Hasher, directory: ScannedDirectory, name: bytes, *more: Any) -> Ticket:
        if name == b"gone":
            (tree / "d/gone").unlink()
        return submit(self, directory, name, *more)

    def child_late(self: DiskDirectory, name: bytes, *more: Any) -> DiskDirectory:
        path = tree / os.fsdecode(name)
        if name == b"lost":
            shutil.rmtree(tree / "d/lost")
        elif name == b"swapped" and not path.is_symlink():
            path.rename(tree.parent / "away")
            path.symlink_to("/etc")
        elif name == b"filed":
            shutil.rmtree(path)
            path.write_bytes(b"a file now")
        return child(self, name, *more)

    monkeypatch.setattr(Hasher, "submit", submit_late)
    monkeypatch.setattr(DiskDirectory, "_child", child_late)
    return tree


def test_what_vanishes(fsview: Fsview, repo: Path, vanishing: Path) -> None:
    said = fsview("commit", "-b", "main", vanishing, status=16).stderr
    assert said.startswith("fsview: vanished while it was read: ") and fsview("refs").lines == []
    for name in ("d/gone", "d/lost", "filed", "swapped"):
        assert f"{vanishing}/{name}" in said


def test_what_vanishes_may_be_left_out(fsview: Fsview, repo: Path, vanishing: Path) -> None:
    said = fsview("commit", "-b", "main", "--allow-changed", vanishing).stderr
    for name in ("d/gone", "d/lost", "filed", "swapped"):
        assert f"{vanishing}/{name}" in said
    paths = fsview("ls", "-R", "--nul-filenames-only", "main").stdout.strip(b"\0").split(b"\0")[1:]
    assert sorted(paths) == [b"/d", b"/d/kept"]  # and nothing of /etc


def test_a_tree_that_vanishes_as_a_whole(fsview: Fsview, repo: Path, vanishing: Path) -> None:
    """Not even --allow-changed makes an empty commit of a tree that is gone."""
    scan = DiskDirectory.scan

    def late(self: DiskDirectory) -> object:
        if vanishing.exists():
            shutil.rmtree(vanishing)
        return scan(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiskDirectory, "scan", late)
        said = fsview("commit", "-b", "main", "--allow-changed", vanishing, status=16).stderr
    assert f"{vanishing}: No such file or directory" in said and fsview("refs").lines == []


@pytest.fixture
def slow_tree(tmp_path: Path) -> Path:
    """Return a tree that takes minutes, for its four files without data."""
    tree = build_tree(tmp_path / "slow", {f"{number:03}": b"%d" % number for number in range(300)})
    for name in "abcd":
        with (tree / name).open("wb") as file:
            file.truncate(64 << 30)
    return tree


@pytest.fixture
def committing(repo: Path, slow_tree: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a running `fsview commit` that has begun to hash."""
    command: list[str | Path] = [sys.executable, "-P", "-m", "tools", "commit", "--repo", repo, "-b", "main", slow_tree]
    with subprocess.Popen(
        command, env=clean_environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 30
        while not list(repo.glob("tmp/stage-*/loose/unnamed*")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
        yield process
        if process.poll() is None:
            process.kill()


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_ctrl_c(fsview: Fsview, repo: Path, committing: subprocess.Popen[str]) -> None:
    children = _children(committing.pid)
    os.killpg(committing.pid, signal.SIGINT)  # as a terminal does
    out, err = committing.communicate(timeout=20)  # it doesn't wait for files that nobody wants
    assert (committing.returncode, out, err.strip()) == (130, "", "")
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)
    assert list((repo / "tmp").iterdir()) == [] and fsview("refs").lines == []


_INTERRUPTED_AT_BIRTH = """
import os, signal, sys
import tools.materialise
from tools.cli import run
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGINT))
tools.materialise._ALONE_ENTRIES_MAX = -1
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [("commit", "-b", "main", "tree"), ("checkout", "main", "out")], ids=" ".join)
def test_processes_leave_ctrl_c_to_the_command_from_their_first_moment(
    fsview: Fsview, repo: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    tree = build_tree(tmp_path / "tree", {f"{number:03}": b"%d" % number for number in range(300)})
    fsview("commit", "-b", "main", tree)
    environment = clean_environment(tmp_path) | {"FSVIEW_REPO": str(repo)}
    command = [sys.executable, "-P", "-c", _INTERRUPTED_AT_BIRTH, *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_a_killed_commit_leaves_what_the_next_one_sweeps(
    fsview: Fsview, repo: Path, committing: subprocess.Popen[str], tree_factory: TreeFactory
) -> None:
    children = _children(committing.pid)
    committing.kill()
    committing.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.01)  # they die with their parent
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert len(list((repo / "tmp").iterdir())) == 1
    fsview("commit", "-b", "main", tree_factory({"a": b""}))
    assert list((repo / "tmp").iterdir()) == []


def test_a_killed_hashing_process(fsview: Fsview, repo: Path, committing: subprocess.Popen[str]) -> None:
    os.kill(_children(committing.pid)[0], signal.SIGKILL)
    out, err = committing.communicate(timeout=30)
    assert (committing.returncode, out) == (16, "")
    assert err.startswith("fsview: a process that hashed files was killed") and err.count("\n") == 1
    assert list((repo / "tmp").iterdir()) == [] and fsview("refs").lines == []
