"""A writable stand-in for a directory, to be thrown away: an overlay over it, or where none can be had, a copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsview import overlay
from fsview.mountinfo import mount_of
from fsview.mounting import KIND
from fsview.mountpoint import STATUS_MARK
from fsview.status import parse_status
from store.errors import FormatError, FsviewError, MountError, SandboxError
from store.walking.copy import copy_directory


def throwaway(source: Path, home: Path) -> Path:
    """Return a directory below *home*, which is made, with all that is in *source*; what is written stays in *home*.

    *source* may lead there through /proc/PID/fd.

    Raises:
        SandboxError: it can't be read, or there is no room.
    """
    home.mkdir()
    point = home / "merged"
    if _may_be_overlaid(source):
        for name in ("upper", "work", point.name):
            (home / name).mkdir()
        with suppress(MountError):
            (home / "lower").symlink_to(source)
            overlay.take_over_the_root(home / "upper", source)
            overlay.mount_writable(point, home, "lower", by_kernel=os.geteuid() == 0)
            return point
        point.rmdir()
    _copy(source, point)
    return point


def _may_be_overlaid(source: Path) -> bool:
    """Whether writing to an overlay over *source* changes one file at a time: see docs/workspaces.md."""
    mount = mount_of(source)
    if os.geteuid() != 0 and shutil.which(overlay.FUSE_PROGRAM) is None:
        return False
    if mount is None or mount.kind != KIND:
        return mount is not None
    try:
        options = parse_status(os.getxattr(mount.point, STATUS_MARK))["options"].split(",")
    except (OSError, FormatError):
        return False
    return "place-inodes=stat" in options or (os.geteuid() == 0 and "place-inodes" in options)


def _copy(source: Path, target: Path) -> None:
    try:
        target.mkdir(0o700)
        with _opened(source) as top, _opened(target) as copy:
            copy_directory(top, copy, os.fsencode(os.path.realpath(source)), os.fsencode(target))
    except (OSError, FsviewError) as error:
        shown = os.path.realpath(source)
        raise SandboxError(f"{shown} can't be copied for the time of the command: {error}") from error


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)
