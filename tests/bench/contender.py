"""What is compared: ways to show trees as directories, each with the same four steps; here our own ones."""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.bench.timing import shell


class Contender(ABC):
    """A way to show trees. `prepare` once, then `mount` and `unmount` as often as wanted."""

    name = ""
    is_fuse = True  # or else in the kernel
    needs: tuple[tuple[str, str], ...] = ()  # commands, and the Debian packages that have them
    unmounting = "umount {point}"

    def __init__(self, work: Path) -> None:
        """Keep everything in the directory *work*, which is its own."""
        self.work, self.point = work, work / "mnt"

    def missing(self) -> str | None:
        """Return why it can't be tried here, or None."""
        packages = sorted({package for command, package in self.needs if not _is_there(command)})
        return f"missing: apt install {' '.join(packages)}" if packages else None

    @abstractmethod
    def prepare(self, trees: Mapping[str, Path]) -> None:
        """Make of *trees*, by name, whatever is mounted."""

    @abstractmethod
    def mount(self) -> None:
        """Mount it; return when it answers."""

    @abstractmethod
    def path(self, name: str) -> Path:
        """Return the directory that shows the tree *name*, while it is mounted."""

    def unmount(self) -> None:
        """Unmount it, by force if need be; fine if it isn't mounted."""
        for command in (self.unmounting.format(point=self.point), f"umount -l {self.point}"):
            if not self.point.is_mount():
                return
            shell(command, ok=range(256), limit_s=30)
        assert not self.point.is_mount(), f"{self.point} can't be unmounted"

    def remove(self) -> None:
        """Remove what `prepare` made."""
        self.unmount()
        shutil.rmtree(self.work, ignore_errors=True)


class Plain(Contender):
    """The directories themselves."""

    name = "plain"
    is_fuse = False

    def prepare(self, trees: Mapping[str, Path]) -> None:
        """Remember them."""
        self._trees = dict(trees)

    def mount(self) -> None:
        """Nothing to do."""

    def path(self, name: str) -> Path:
        """Return the tree."""
        return self._trees[name]

    def unmount(self) -> None:
        """Nothing to do."""


class Fsview(Contender):
    """One repository with a ref for each tree."""

    name = "fsview"
    unmounting = "fsview umount {point}"

    def prepare(self, trees: Mapping[str, Path]) -> None:
        """Commit the trees."""
        self.point.mkdir(parents=True)
        self.repository = self.work / "repo"
        shell(f"fsview init {self.repository}")
        for name, tree in trees.items():
            shell(f"fsview commit --repo {self.repository} -b {name} --skip-special {tree}")

    def mount(self) -> None:
        """Mount the view."""
        shell(f"fsview mount {self.repository} {self.point}", limit_s=60)

    def path(self, name: str) -> Path:
        """Return the commit that the ref points to: what stands behind `refs/NAME/`."""
        return (self.point / "refs" / name).resolve()


class KernelReads(Fsview):
    """One commit of a repository, where the kernel reads large files by itself."""

    name = "kernel-reads"
    is_fuse = False

    def missing(self) -> str | None:
        """Ask for the option."""
        return None if "--kernel-reads" in _mount_help() else "this fsview has no mount --kernel-reads"

    def prepare(self, trees: Mapping[str, Path]) -> None:
        """Commit the one tree."""
        (self._ref,) = trees
        super().prepare(trees)

    def mount(self) -> None:
        """Mount the commit."""
        shell(f"fsview mount {self.repository} {self.point} --root {self._ref} --kernel-reads", limit_s=60)

    def path(self, name: str) -> Path:
        """Return the mount point itself."""
        return self.point


@cache
def _mount_help() -> str:
    return subprocess.run(["fsview", "mount", "--help"], capture_output=True, text=True, check=True).stdout


def _is_there(command: str) -> bool:
    return shutil.which(command) is not None or Path("/usr/sbin", command).exists()
