"""The real ostree, to compare with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.repository import Repository
from tests.checking import assert_sound
from tools.cli import run

TIME = "--timestamp=@1577836800"


@dataclass
class Pair:
    """A bare repository of ostree's and one of ours, to which the same commands are given."""

    theirs: Path
    ours: Path
    run_ours: Callable[..., tuple[int, str]]

    def commit_theirs(self, *arguments: str | Path) -> tuple[int, str]:
        """Return exit status and output of `ostree commit`; both streams, of which a checksum is the last line."""
        command = ["ostree", "commit", f"--repo={self.theirs}", "--fsync=no", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, os.fsdecode(done.stdout).rstrip("\n")

    def commit_ours(self, *arguments: str | Path) -> tuple[int, str]:
        """Return the same of `fsview commit`."""
        return self.run_ours("commit", "--repo", self.ours, *arguments)

    def same(self, *arguments: str | Path, ostree_only: tuple[str, ...] = ()) -> str:
        """Commit with both and return the checksum, which must be the same."""
        status, theirs = self.commit_theirs(TIME, *ostree_only, *arguments)
        assert status == 0, theirs
        status, ours = self.commit_ours(TIME, *arguments)
        assert (status, ours) == (0, theirs.splitlines()[-1]), arguments
        return ours

    def refused(self, *arguments: str | Path) -> tuple[str, str]:
        """Commit with both; return what they say, neither of them having done it."""
        status, theirs = self.commit_theirs(TIME, *arguments)
        assert status != 0, theirs
        status, ours = self.commit_ours(TIME, *arguments)
        assert status != 0, ours
        return theirs, ours


@pytest.fixture
def pair(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Return two new repositories; ours is checked at the end."""
    if os.geteuid() != 0:
        pytest.skip("a bare repository of ostree takes root")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)

    def run_ours(*arguments: str | Path) -> tuple[int, str]:
        capfdbinary.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capfdbinary.readouterr()
        return status, os.fsdecode(captured.out + captured.err).rstrip("\n")

    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    subprocess.run(["ostree", "init", f"--repo={theirs}", "--mode=bare"], check=True)
    Repository.create(ours).close()
    return Pair(theirs, ours, run_ours)


@pytest.fixture(autouse=True)
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """Check our repository after each test."""
    yield
    if "pair" in request.fixturenames:
        assert_sound(tmp_path / "ours")
