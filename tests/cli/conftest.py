"""Fixtures for commands that only read: two releases in one repository, and the command line in this process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checking import assert_sound
from tests.trees import Directory, File, Spec, Symlink, build_tree
from tools.cli import run

OLD_TIME_S, NEW_TIME_S = 1_577_836_800, 1_580_515_200  # 2020-01-01, 2020-02-01
LARGE = b"".join(b"line %d\n" % number for number in range(60_000))  # a loose file, of several blocks

OLD: Spec = {
    "bin": {"tool": b"#!/bin/sh\necho 1\n", "sh": Symlink("tool")},
    "etc": {"motd": b"hello\nold world\n", "passwd": b"root:x:0:0\n", "noted": File(b"n\n", xattrs={"user.k": b"v"})},
    "gone": {"x": {"y": b"1\n"}},
    "tofile": {"z": b"2\n"},
    "todir": b"was a file\n",
    "link": Symlink("bin/tool"),
    "same": {"deep": {"f": b"equal\n"}, "again": {"deep": {"f": b"equal\n"}}},
    "binary": b"\0\1old\n",
    "large": LARGE,
    b"new\nline": b"odd name\n",
}
NEW: Spec = {
    "bin": {"tool": File(b"#!/bin/sh\necho 1\n", mode=0o755), "sh": Symlink("tool")},
    "etc": Directory(
        {"motd": b"hello\nnew world\n", "passwd": b"root:x:0:0\n", "noted": File(b"n\n", xattrs={"user.k": b"w"})},
        mode=0o750,
    ),
    "new": {"in": {"j": b"3\n"}},
    "tofile": b"is a file\n",
    "todir": {"i": b"4\n"},
    "link": Symlink("bin/sh"),
    "same": {"deep": {"f": b"equal\n"}, "again": {"deep": {"f": b"equal\n"}}},
    "binary": b"\0\1new\n",
    "large": LARGE.replace(b"line 30000\n", b"LINE 30000\n"),
    b"new\nline": b"odd name\n",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What a command wrote, and its exit status."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.stdout.decode().splitlines()


Fsview = Callable[..., Done]  # (*arguments: str | Path, status: int = 0)


@dataclass(frozen=True, slots=True)
class Releases:
    """A repository where the ref "rel" went from *old* to *new*, as did the trees on disk beside it."""

    repo: Path
    trees: dict[str, Path]
    old: str
    new: str


@pytest.fixture
def fsview(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, releases: Releases) -> Fsview:
    """Return a function that runs the command line in this process, on `releases` unless there is a --repo."""
    monkeypatch.setenv("FSVIEW_REPO", str(releases.repo))

    def run_here(*arguments: str | Path, status: int = 0) -> Done:
        capsysbinary.readouterr()
        found = run([str(argument) for argument in arguments])
        captured = capsysbinary.readouterr()
        done = Done(found, captured.out, captured.err.decode())
        assert found == status, done
        return done

    return run_here


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Return two releases, which no test may change."""
    root = tmp_path_factory.mktemp("releases")
    repo = root / "repo"
    trees = {name: build_tree(root / name, spec) for name, spec in (("old", OLD), ("new", NEW))}
    assert run(["init", str(repo)]) == 0
    for name, time_s, body in (("old", OLD_TIME_S, "About the\nold one."), ("new", NEW_TIME_S, "")):
        options = ["--timestamp", f"@{time_s}", "-s", f"The {name} one", "-m", body]
        options += ["--add-metadata-string", f"version={name}"]
        assert run(["commit", "--repo", str(repo), "-b", "rel", *options, str(trees[name])]) == 0
    return Releases(repo, trees, *(_checksum(repo, name) for name in ("rel^", "rel")))


def _checksum(repo: Path, revision: str) -> str:
    from store.repository import Repository
    from tools.refs import object_checksum

    with Repository.open(repo) as repository, repository.database.reading() as reading:
        return object_checksum(reading, revision, now_s=0).hex()


@pytest.fixture
def own_releases(releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsview: Fsview) -> Releases:
    """Return a copy of the releases that the test may change; `fsview` works on it."""
    repo = tmp_path / "own"
    shutil.copytree(releases.repo, repo)
    monkeypatch.setenv("FSVIEW_REPO", str(repo))
    return Releases(repo, releases.trees, releases.old, releases.new)


@pytest.fixture(scope="session")
def ostree_repo(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of the real ostree with the same two commits."""
    import subprocess

    if os.geteuid() != 0:
        pytest.skip("a bare repository of ostree takes root")
    repo = tmp_path_factory.mktemp("ostree") / "repo"
    subprocess.run(["ostree", "init", f"--repo={repo}", "--mode=bare"], check=True)
    for name, time_s, body in (("old", OLD_TIME_S, "About the\nold one."), ("new", NEW_TIME_S, "")):
        options = [f"--timestamp=@{time_s}", f"--subject=The {name} one", f"--add-metadata-string=version={name}"]
        options += [f"--body={body}"] if body else []
        subprocess.run(
            ["ostree", "commit", f"--repo={repo}", "-b", "rel", *options, releases.trees[name]],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return repo


@pytest.fixture
def repo(tmp_path: Path, fsview: Fsview, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a new repository, on which `fsview` works; checked at the end."""
    path = tmp_path / "repo"
    fsview("init", path)
    monkeypatch.setenv("FSVIEW_REPO", str(path))
    yield path
    assert_sound(path)
