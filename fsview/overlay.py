"""Overlays: the kernel's, which root may mount, and fuse-overlayfs for everybody else."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fsview.mountinfo import Mount
from store.errors import MountError

KIND: Final = "overlay"
FUSE_PROGRAM: Final = "fuse-overlayfs"
FUSE_KIND: Final = f"fuse.{FUSE_PROGRAM}"

_LAYERS: Final = "upperdir=upper,workdir=work"
# metacopy: contents that stay below are none that a commit could read. index: node numbers of a view are no file
# handles that hold for good. redirect_dir: directories of the commit can be renamed.
_KERNEL_OPTIONS: Final = "redirect_dir=on,metacopy=off,index=off"


def mount_writable(
    point: Path, home: Path, lower: str, *, by_kernel: bool, flags: Sequence[str] = ("nosuid", "nodev"),
    place: int | None = None,
) -> None:  # fmt: skip
    """Mount an overlay at *point* over *lower*, a path below *home*, where the directories upper and work are.

    *flags* are what is not permitted there, in mount(8)'s words. *place*: the directory *point*, open; the kernel's
    overlay is then mounted there, and nowhere else.

    Raises:
        MountError: the kernel or fuse-overlayfs refused, or that is missing.
    """
    layers = ",".join([*flags, f"lowerdir={lower}", _LAYERS])  # not absolute: they need no escaping, then
    if by_kernel:
        where = os.fspath(point) if place is None else f"/proc/self/fd/{place}/."  # newer mount(8)s follow no symlink
        options = f"{layers},{_KERNEL_OPTIONS}"  # --no-canonicalize: else it would look the name up
        command = ["mount", "--no-canonicalize", "-t", KIND, KIND, "-o", options, "--", where]
    else:
        command = [FUSE_PROGRAM, "-o", layers, os.fspath(point)]
    status, text = _run(command, home, () if place is None else (place,))
    if status != 0:
        raise MountError(
            f"{point} can't be mounted: {text or command[0] + ' failed'}; the directory {home} must be on a file "
            f"system that an overlay can write to, such as ext4, xfs, btrfs or tmpfs"
        )


def is_ours(mount: Mount) -> bool:
    """Whether a mount is an overlay as `mount_writable` makes it, by this user."""
    if mount.kind == KIND:
        return set(_LAYERS.split(",")) <= set(mount.options.split(","))
    return mount.kind == FUSE_KIND and mount.owner == os.geteuid()


def take_over_the_root(upper: Path | int, lower: Path) -> None:
    """Give the root of an overlay, which is that of *upper*, a path or open, what the root of *lower* has."""
    status = os.stat(lower)
    with suppress(PermissionError):  # whoever is not root owns what is his
        os.chown(upper, status.st_uid, status.st_gid)
    os.chmod(upper, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(lower):
        os.setxattr(upper, name, os.getxattr(lower, name))
    os.utime(upper, ns=(status.st_atime_ns, status.st_mtime_ns))


def _run(command: Sequence[str], directory: Path, descriptors: tuple[int, ...]) -> tuple[int, str]:
    """Run a program in *directory*, with some *descriptors* of ours; return its exit status and what it complained of.

    It complains to a file: it may stay.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                command, cwd=directory, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, pass_fds=descriptors,
                env=os.environ | {"LC_ALL": "C"},
            )  # fmt: skip
        except FileNotFoundError:
            raise MountError(
                f"{command[0]} is missing, which everybody but root needs; install it: apt install {command[0]}"
            ) from None
        errors.seek(0)
        return done.returncode, " ".join(errors.read().decode(errors="replace").split())
