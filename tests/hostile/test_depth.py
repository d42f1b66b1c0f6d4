"""Trees that are too deep, or have too long a path: by no way they come in, and who reads an older one says so."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from store import publication
from store.bounds import LEVELS_MAX, PATH_BYTES_MAX
from store.errors import FormatError
from store.reach import Reach
from store.repository import Repository
from store.schema import TreeId
from tests.conftest import MountView
from tests.forge import Forge, forge
from tests.peak import run_measured
from tests.running import RunFsview

PEAK_MIB_MAX = 250
LONG = b"d" * 255
LONG_LEVELS = PATH_BYTES_MAX // 256  # so many of these fill a path


def _chain(work: Forge, levels: int, name: bytes = b"d", file: bytes = b"bottom") -> bytes:
    """Stage so many directories inside each other below a root, with one file at the bottom."""
    tree = work.tree({file: work.file(b"bottom")})
    for _ in range(levels):
        tree = work.tree(None, {name: tree})
    return tree


def _publish(repo: Path, levels: int, name: bytes = b"d", *, file: bytes = b"bottom") -> None:
    with Repository.create(repo) as repository, forge(repository) as work:
        work.publish(_chain(work, levels, name, file))  # type: ignore[arg-type]  # a checksum is bytes


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish whatever is asked for, as versions of before there were bounds did."""

    class Anything:
        def __init__(self, reading: object) -> None:
            pass

        def problem(self, root: TreeId) -> str:
            return ""

    monkeypatch.setattr(publication, "Reach", Anything)


@pytest.mark.parametrize(
    ("levels", "name", "file"),
    [(LEVELS_MAX, b"d", b"bottom"), (LONG_LEVELS - 1, LONG, LONG), (LONG_LEVELS, LONG, b"")],
    ids=["levels", "path of a file", "path of a directory"],
)
def test_up_to_the_bound(tmp_path: Path, levels: int, name: bytes, file: bytes) -> None:
    with Repository.create(tmp_path / "repo") as repository, forge(repository) as work:
        tree = work.tree({file: work.file(b"x")} if file else {})
        for _ in range(levels):
            tree = work.tree(None, {name: tree})
        work.publish(tree)


@pytest.mark.parametrize(
    ("levels", "name", "file", "what"),
    [
        (LEVELS_MAX + 1, b"d", b"bottom", "more than 10,000 levels"),
        (LONG_LEVELS, LONG, b"f", "a path of more than 32,768 bytes"),
        (LEVELS_MAX, b"ddd", b"f", "a path of more than 32,768 bytes"),
    ],
    ids=["levels", "path of a file", "both"],
)
def test_beyond_it_nothing_is_published(tmp_path: Path, levels: int, name: bytes, file: bytes, what: str) -> None:
    with pytest.raises(FormatError, match=what):
        _publish(tmp_path / "repo", levels, name, file=file)


def test_wide_trees_cost_few_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has few directories can't reach far: 1,000 directories of 60 each are two looks."""
    looks = []

    def counting(self: Reach, name: bytes, tree_id: TreeId) -> object:
        looks.append(tree_id)
        return original(self, name, tree_id)

    original = Reach._frame
    monkeypatch.setattr(Reach, "_frame", counting)
    with Repository.create(tmp_path / "repo") as repository, forge(repository) as work:
        leaves = {b"%d" % number: work.tree({b"%d" % number: work.file(b"%d" % number)}) for number in range(60)}
        work.publish(work.tree(None, {b"%03d" % number: work.tree(None, leaves) for number in range(1000)}))
    assert len(looks) == 1


def _deep_directory(top: Path, levels: int, name: bytes) -> Path:
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    return top


def _deep_tar(path: Path, name: str) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


WAYS_IN: dict[str, Callable[[Path], str]] = {
    "directory, levels": lambda tmp: f"dir={_deep_directory(tmp / 'tree', LEVELS_MAX + 1, b'd')}",
    "directory, path": lambda tmp: f"dir={_deep_directory(tmp / 'tree', LONG_LEVELS + 1, LONG)}",
    "tar, levels": lambda tmp: f"tar={_deep_tar(tmp / 'a.tar', 'd/' * 60_000 + 'f')}",
    "tar, path": lambda tmp: f"tar={_deep_tar(tmp / 'a.tar', ('d' * 255 + '/') * LONG_LEVELS + 'f')}",
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_ways_in(tmp_path: Path, make_repo: Callable[..., Path], way: str) -> None:
    repo, source = make_repo(), WAYS_IN[way](tmp_path)
    status = 10 if source.startswith("tar") else 16
    found = run_measured(tmp_path, repo, "commit", "-b", "main", f"--tree={source}", status=status)
    subprocess.run(["rm", "-rf", tmp_path / "tree"], check=True)  # pytest's own way is a recursion
    assert "more than 10,000 levels" in found.stderr or "a path of more than 32,768 bytes" in found.stderr
    assert len(found.stderr) < 2000 and found.peak_mib < PEAK_MIB_MAX
    assert list((repo / "tmp").iterdir()) == []


@pytest.mark.unchecked
@pytest.mark.usefixtures("unbounded")
@pytest.mark.parametrize("shape", [[], ["--owner-uid=7"]], ids=["as it is", "shaped anew"])
def test_from_an_older_commit(tmp_path: Path, run_fsview: RunFsview, shape: list[str]) -> None:
    repo = tmp_path / "repo"
    _publish(repo, LEVELS_MAX + 1)
    status = 16 if shape else 10
    options = ("commit", "-b", "new", "--tree=ref=main", *shape)
    assert "more than 10,000 levels" in run_fsview(*options, repo=repo, status=status).stderr
    run_fsview("commit", "-b", "mended", "--tree=ref=main", "--ignore=/d/d/d", repo=repo)


READERS = [
    (("ls", "-R", "main"), 10),
    (("grep", "no such text", "main"), 10),
    (("diff", "main", "main:/d"), 10),
    (("checkout", "main", "out"), 10),
    (("packages", "main"), 1),
    (("fsck",), 12),
    (("log", "main", "--", "/d/d"), 0),
]


@pytest.mark.unchecked
@pytest.mark.usefixtures("unbounded")
def test_readers_of_an_older_commit(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    _publish(repo, 25_000)
    for arguments, status in READERS:
        found = run_measured(tmp_path, repo, *arguments, status=status)
        assert found.peak_mib < PEAK_MIB_MAX, (arguments, found)
        assert status not in (10, 12) or "more than 10,000 levels" in found.stderr + found.stdout, (arguments, found)
    assert not (tmp_path / "out").exists()


@pytest.mark.unchecked
@pytest.mark.usefixtures("unbounded")
def test_a_view_of_an_older_commit(tmp_path: Path, mount_view: MountView) -> None:
    """Below the bound all is as ever, beyond it is EIO."""
    repo = tmp_path / "repo"
    _publish(repo, LONG_LEVELS + 2, LONG)
    here = os.open(mount_view(repo) / "refs/main", os.O_RDONLY)
    try:
        for _ in range(LONG_LEVELS):
            below = os.open(LONG, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        with pytest.raises(OSError) as caught:
            os.open(LONG, os.O_RDONLY, dir_fd=here)
        assert caught.value.errno == errno.EIO
    finally:
        os.close(here)
