"""What /proc/self/mountinfo says of the file system that a path is on."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

COVER: Final = "fsview-kernel-reads"  # the source of overlays over views, see fsview/kernel_reads.py
_OWNER: Final = re.compile(r"\buser_id=([0-9]+)")
_NETWORK: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "afs", "gfs2", "ocfs2", "lustre", "virtiofs"}
_KEEPING_CTIMES: Final = {
    "ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "zfs", "f2fs", "jfs", "nilfs2", "reiserfs", "tmpfs", "ramfs",
    "overlay",
}  # fmt: skip
_PLUGGED: Final = re.compile(r"loop[0-9]+|sr[0-9]+|usb[0-9]+")


class Mount(NamedTuple):
    """One mounted file system; root: which directory of it is seen at the point, "/" unless only a part is."""

    point: str
    kind: str
    source: str
    device: str = ""
    root: str = "/"
    options: str = ""
    number: int = 0

    @property
    def owner(self) -> int | None:
        """The user who mounted it, of FUSE; None of all else, which takes root."""
        match = _OWNER.search(self.options)
        return int(match[1]) if match is not None and self.kind.startswith("fuse") else None


def mounts() -> list[Mount]:
    """Return all mounts of this namespace, in the order in which they were made, but for what covers views."""
    return [mount for mount in _all_mounts() if not _is_cover(mount)]


def is_covered(real: str) -> bool:
    """Whether the topmost mount at *real*, a path without symlinks, covers a view; asks no file system for that."""
    return next((_is_cover(mount) for mount in reversed(_all_mounts()) if mount.point == real), False)


def mount_at(point: Path) -> Mount | None:
    """Return what is mounted at *point*, the topmost; None if nothing is."""
    real = real_point(point)
    return next((mount for mount in reversed(mounts()) if mount.point == real), None)


def real_point(point: Path) -> str:
    """Return the path *point* without symlinks; what is mounted there is not asked: it might never answer."""
    above, name = os.path.split(os.path.join(os.getcwd(), point))
    if name not in ("", ".", ".."):
        real = os.path.join(os.path.realpath(above), name)
        if any(mount.point == real for mount in _all_mounts()):
            return real
    return os.path.realpath(point)


def mount_in(directory: int, name: str) -> Mount | None:
    """Return what is mounted at *name* in an open directory, whatever becomes of the way there; None if nothing is.

    A symlink of that name is not followed. No file system is asked for anything, so a dead one can't hinder.
    """
    try:
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        number = _mount_number(found)
    finally:
        os.close(found)
    if number == _mount_number(directory):
        return None
    return next((mount for mount in _all_mounts() if mount.number == number), None)


def mount_points_in(path: Path) -> list[str]:
    """Return where something is mounted at or below *path*, the outermost first."""
    real = os.path.realpath(path)
    return sorted({one.point for one in _all_mounts() if one.point == real or one.point.startswith(f"{real}/")})


def mount_of(path: Path) -> Mount | None:
    """Return the mount that *path* lies in; of two at one place the later, which hides the other."""
    return mount_over(mounts(), os.path.realpath(path))


def mount_over(all_mounts: list[Mount], real: str) -> Mount | None:
    """Return the mount of *all_mounts* that a path without symlinks lies in."""
    inside = [mount for mount in all_mounts if real == mount.point or real.startswith(mount.point.rstrip("/") + "/")]
    return max(reversed(inside), key=lambda mount: len(mount.point), default=None)


def is_shared(path: Path) -> bool:
    """Whether *path* is on FUSE or a network file system: others may change it behind the kernel's back."""
    mount = mount_of(path)
    return mount is None or _is_served(mount)


def has_reliable_times(descriptor: int) -> bool:
    """Whether an unchanged device, inode and ctime mean an unchanged file, where something is open.

    So it is on file systems that set the ctime at each change and store it; FAT, say, stores none, and those that are
    read-only have times that whoever made the image chose. A disk that can be exchanged for another one, such as an
    image in a file, may have two files with the same numbers.
    """
    number = _mount_number(descriptor)
    mount = next((one for one in _all_mounts() if one.number == number), None)
    return mount is not None and mount.kind in _KEEPING_CTIMES and not _may_be_exchanged(mount)


def _is_served(mount: Mount) -> bool:
    return mount.kind.startswith("fuse") or mount.kind in _NETWORK


def _may_be_exchanged(mount: Mount) -> bool:
    """Whether the disk is an image in a file, or one that is plugged in."""
    device = mount.device
    with suppress(OSError):  # tmpfs has no disk; btrfs has one, and another device number
        status = os.stat(mount.source)
        if stat.S_ISBLK(status.st_mode):
            device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    names = os.path.realpath(f"/sys/dev/block/{device}").split("/")
    return any(_PLUGGED.fullmatch(name) for name in names)


def _all_mounts() -> list[Mount]:
    # A mount point may have "\r" in its name, which the kernel does not escape: to others that would end a line.
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        return [_parse(line) for line in lines]


def _mount_number(descriptor: int) -> int:
    with Path(f"/proc/self/fdinfo/{descriptor}").open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def _is_cover(mount: Mount) -> bool:
    return mount.source == COVER and mount.kind == "overlay"


def _parse(line: str) -> Mount:
    left, _, right = line.rstrip("\n").partition(" - ")
    number, _, device, root, point, options, *_ = left.split(" ")
    kind, source, superblock = right.split(" ", 2)
    everything = f"{options},{superblock}"
    return Mount(_unescape(point), kind, _unescape(source), device, _unescape(root), everything, int(number))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
