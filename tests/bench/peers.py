"""The others: kernel erofs, and every FUSE file system that Debian ships and that shows a stored or another tree."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.bench.contender import Contender, Fsview, KernelReads, Plain
from tests.bench.timing import shell

_FUSERMOUNT = ("fusermount3", "fuse3")
_STARTS_WITHIN_S = 60.0


class _OneTree(Contender):
    """Shows one tree, at the mount point."""

    unmounting = "fusermount3 -u {point}"
    mounting = ""  # a format of the attributes below
    preparing = "true"

    def prepare(self, trees: Mapping[str, Path]) -> None:
        (self.tree,) = trees.values()
        self.point.mkdir(parents=True)
        self._run(self.preparing)

    def mount(self) -> None:
        self._run(self.mounting)

    def path(self, name: str) -> Path:
        return self.point

    def _run(self, command: str) -> str:
        return shell(command.format(tree=self.tree, work=self.work, point=self.point))


class Erofs(_OneTree):
    """The kernel's read-only file system, not compressed, on a loop device."""

    name = "erofs"
    is_fuse = False
    needs = (("mkfs.erofs", "erofs-utils"),)
    preparing = "mkfs.erofs {work}/image {tree}"
    mounting = "mount -t erofs -o ro,loop {work}/image {point}"
    unmounting = "umount {point}"

    def missing(self) -> str | None:
        shell("modprobe erofs", ok=range(256))
        in_kernel = "\terofs\n" in Path("/proc/filesystems").read_text()
        return super().missing() or (None if in_kernel else "missing: this kernel has no erofs")


class Squashfuse(_OneTree):
    """Compressed as mksquashfs does by default."""

    name = "squashfuse"
    needs = (("mksquashfs", "squashfs-tools"), ("squashfuse_ll", "squashfuse"), _FUSERMOUNT)
    preparing = "mksquashfs {tree} {work}/image -noappend -quiet -no-progress"
    mounting = "squashfuse_ll {work}/image {point}"


class SquashfusePlain(Squashfuse):
    """The same without compression: quicker to read where the disk is quick."""

    name = "squashfuse-0"
    preparing = Squashfuse.preparing + " -noI -noD -noF -noX"


class Rofiles(_OneTree):
    """What OSTree has for looking at a checkout without harm."""

    name = "rofiles-fuse"
    needs = (("ostree", "ostree"), ("rofiles-fuse", "ostree"), _FUSERMOUNT)
    preparing = (
        "ostree init --repo={work}/repo --mode=bare && ostree commit --repo={work}/repo -b bench {tree} && "
        "ostree checkout --repo={work}/repo -H bench {work}/checkout"
    )
    mounting = "rofiles-fuse {work}/checkout {point}"


class Bindfs(_OneTree):
    """A directory through FUSE, with several threads."""

    name = "bindfs"
    needs = (("bindfs", "bindfs"), _FUSERMOUNT)
    mounting = "bindfs --multithreaded -o ro {tree} {point}"


class FuseOverlayfs(_OneTree):
    """A directory over an empty one, read-only."""

    name = "fuse-overlayfs"
    needs = (("fuse-overlayfs", "fuse-overlayfs"), _FUSERMOUNT)
    preparing = "mkdir {work}/empty"
    mounting = "fuse-overlayfs -o lowerdir={tree}:{work}/empty {point}"


class Borg(_OneTree):
    """An archive of a backup."""

    name = "borg"
    needs = (("borg", "borgbackup"), _FUSERMOUNT)
    _borg = "BORG_BASE_DIR={work}/base BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes borg"
    preparing = f"{_borg} init -e none {{work}}/repo && cd {{tree}} && {_borg} create {{work}}/repo::bench ."
    mounting = _borg + " mount {work}/repo::bench {point}"


class Bup(_OneTree):
    """A backup in git's packs."""

    name = "bup"
    needs = (("bup", "bup"), _FUSERMOUNT)
    _bup = "BUP_DIR={work}/repo bup"
    preparing = f"{_bup} init && {_bup} index {{tree}} && {_bup} save -q --strip -n bench {{tree}}"
    mounting = _bup + " fuse --meta {point}"

    def missing(self) -> str | None:
        has_fuse = shell("/usr/bin/python3 -c 'import fuse' && echo yes", ok=(0, 1)).strip() == "yes"
        return super().missing() or (None if has_fuse else "missing: apt install python3-fuse")

    def path(self, name: str) -> Path:
        return (self.point / "bench" / "latest").resolve()


class Restic(_OneTree):
    """A snapshot of a backup; its server stays in the foreground."""

    name = "restic"
    needs = (("restic", "restic"), _FUSERMOUNT)
    _restic = "RESTIC_PASSWORD=bench restic -q -r {work}/repo --cache-dir {work}/cache"
    preparing = f"{_restic} init && cd {{tree}} && {_restic} backup ."
    mounting = f"exec env {_restic} mount {{point}}"

    _server: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        command = self.mounting.format(work=self.work, point=self.point)
        with open(os.devnull, "r+b") as null:
            self._server = subprocess.Popen(
                ["bash", "-c", command], stdin=null, stdout=null, stderr=null, start_new_session=True
            )
        give_up_s = time.monotonic() + _STARTS_WITHIN_S
        while not (self.point / "snapshots").is_dir():
            assert self._server.poll() is None, f"restic mount ended with status {self._server.returncode}"
            assert time.monotonic() < give_up_s, f"restic mount didn't answer within {_STARTS_WITHIN_S:.0f} s"
            time.sleep(0.01)

    def path(self, name: str) -> Path:
        return (self.point / "snapshots" / "latest").resolve()

    def unmount(self) -> None:
        super().unmount()
        if self._server is not None:
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(10)
            self._server.send_signal(signal.SIGKILL)
            self._server.wait()
            self._server = None


class Hardlinked(Contender):
    """Checkouts of OSTree that share equal files by hard links."""

    name = "hardlinked"
    is_fuse = False
    needs = (("ostree", "ostree"),)

    def prepare(self, trees: Mapping[str, Path]) -> None:
        shell(f"mkdir -p {self.work} && ostree init --repo={self.work}/repo --mode=bare")
        for name, tree in trees.items():
            shell(
                f"ostree commit --repo={self.work}/repo -b {name} {tree} && "
                f"ostree checkout --repo={self.work}/repo -H {name} {self.work}/{name}"
            )

    def mount(self) -> None:
        """Nothing to do."""

    def path(self, name: str) -> Path:
        return self.work / name

    def unmount(self) -> None:
        """Nothing to do."""


READERS: tuple[type[Contender], ...] = (
    Plain, Fsview, KernelReads, Erofs, Squashfuse, SquashfusePlain, Rofiles, Bindfs, FuseOverlayfs, Borg, Restic, Bup,
)  # fmt: skip
DIFFERS: tuple[type[Contender], ...] = (Plain, Fsview, Hardlinked)
FUSE_PEERS = [kind.name for kind in READERS if kind.is_fuse and kind is not Fsview]
