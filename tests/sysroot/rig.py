"""What the tests of sysroots share: a repository, a sysroot, and the commands that change it."""

from __future__ import annotations

import json
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.running import RunFsview
from tests.sysroot.forked import run_forked
from tests.trees import Directory, File, Spec, Symlink, build_tree

MOMENT_S = 1_790_000_000
# Loose in the repository; what is smaller is in its index. The same in each run, and so is every commit's checksum.
LARGE = random.Random(1).randbytes(40_000)


def release(version: str, etc: Spec | None = None, **more: Any) -> dict[str, Any]:
    """Return a small tree of a release."""
    tree: dict[str, Any] = {
        "usr": {
            "bin": {"tool": File(f"tool {version}\n".encode(), mode=0o4755), "same": File(b"same\n", mode=0o755)},
            "lib": {"large": LARGE, "own": f"lib {version}".encode(), "empty": b"", "link": Symlink("large")},
        },
        "var": Directory({"lib": {"seed": f"seed {version}".encode()}}, mode=0o755),
    }
    if etc is not None:
        tree["etc"] = {"version": version.encode(), "hosts": b"127.0.0.1 localhost\n", "gone": b"", **etc}
    return tree | more


def keep_as_before(generation: Path) -> None:
    """Put a generation's snapshot of /var where an earlier fsview had it."""
    (generation / "snapshot/var").rename(generation / "var-snapshot")
    (generation / "snapshot").rmdir()


@dataclass
class Machine:
    """A sysroot with one stateroot, and its repository."""

    fsview: RunFsview
    where: Path

    @classmethod
    def make(cls, fsview: RunFsview, where: Path, *options: str | Path) -> Machine:
        """Make a repository and a sysroot, by *options*, with the stateroot main."""
        machine = cls(fsview, where)
        run_forked(where, "init", machine.repository, status=0)
        run_forked(where, "sysroot", "init", machine.path, "--repo", machine.repository, *options, status=0)
        machine.run("os-init", "main")
        return machine

    @property
    def repository(self) -> Path:
        """Where the repository is."""
        return self.where / "repo"

    @property
    def path(self) -> Path:
        """Where the sysroot is."""
        return self.where / "sysroot"

    @property
    def stateroot(self) -> Path:
        """Where the stateroot is."""
        return self.path / "deploy" / "main"

    @property
    def root(self) -> Path:
        """The current tree."""
        return self.stateroot / "current" / "root"

    @property
    def var(self) -> Path:
        """The shared /var."""
        return self.stateroot / "var"

    def commit(self, ref: str, tree: Spec, *options: str, second: int = 0) -> str:
        """Commit a tree; return the checksum."""
        number = sum(1 for _ in self.where.glob("tree-*"))
        path = build_tree(self.where / f"tree-{number}", tree)
        arguments: list[str | Path] = [
            "commit",
            "--repo",
            self.repository,
            "-b",
            ref,
            "--timestamp",
            f"@{MOMENT_S + second}",
            *options,
        ]
        return run_forked(self.where, *arguments, path, status=0).stdout.strip()

    def run(self, *arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command on this sysroot."""
        return run_forked(self.where, *arguments, "--sysroot", self.path, status=status)

    def json(self, *arguments: str) -> Any:
        """Run a command on this sysroot and return what it says in JSON."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def status(self) -> Any:
        """Return what `status --json` says of the stateroot."""
        return self.json("status")[0]

    def state(self) -> tuple[str, set[str]]:
        """Return which generation is current, and all names in the stateroot: what a refusal must not change."""
        names = {str(path.relative_to(self.stateroot)) for path in self.stateroot.glob("*/*")}
        current = os.readlink(self.stateroot / "current") if self.root.parent.exists() else ""
        return current, names

    def own_refs(self) -> list[str]:
        """Return the deployments whose commits are kept from a prune."""
        found = run_forked(self.where, "refs", "--repo", self.repository, "--list", "fsview", status=0).stdout.split()
        return sorted(name.rpartition("/")[2] for name in found)

    def deployments(self) -> list[str]:
        """Return the names of the deployments."""
        return sorted(path.name for path in (self.stateroot / "deployments").iterdir() if "etc" not in path.name)


def sign(machine: Machine, ref: str, key: Path, *options: str) -> None:
    """Sign the commit of a ref."""
    run_forked(machine.where, "certify", ref, "--key", key, *options, "--repo", machine.repository, status=0)
