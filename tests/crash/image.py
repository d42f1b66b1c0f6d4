"""A file system in a file, whose state at any moment is what a power failure would leave.

The kernel writes to the image only what it must (a sync), or what it likes to; the rest is in memory, and lost. So a
copy of the image file, taken while nothing is written to it, is the disk after the power failed at that moment.
noauto_da_alloc: ext4 would hide that a file wasn't synced before it was renamed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileSystem:
    """How a file system is made and mounted."""

    size: int  # bytes; its smallest
    make: tuple[str, ...]
    options: str


EXT4 = FileSystem(
    96 << 20,
    ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "noauto_da_alloc,noatime,commit=300",
)
XFS = FileSystem(340 << 20, ("mkfs.xfs", "-q", "-f"), "noatime,nouuid")  # a copy has the UUID of its original


def make_image(path: Path, kind: FileSystem = EXT4) -> Path:
    """Make an image with an empty file system."""
    with path.open("wb") as file:
        file.truncate(kind.size)
    subprocess.run([*kind.make, path], check=True)
    return path


@contextmanager
def mounted(image: Path, point: Path, kind: FileSystem = EXT4) -> Iterator[Path]:
    """Mount *image* at *point*, replaying its journal, for the length of the block."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", f"loop,{kind.options}", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["sync", "-f", point], check=True)  # a sandbox that began meanwhile may have it mounted, too
        _unmount(point)


def _unmount(point: Path) -> None:
    for _ in range(100):
        done = subprocess.run(["umount", point], capture_output=True)
        if done.returncode == 0:
            return
        time.sleep(0.05)  # somebody, such as a scanner of the system's, has it open for a moment
    raise OSError(f"{point} can't be unmounted: {done.stderr.decode()}")


def copy_image(image: Path, copy: Path) -> None:
    """Copy an image that is not written to; *copy* is a new file, for a loop device may still show what it held."""
    copy.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)


def fail_power(image: Path, copy: Path, point: Path) -> bool:
    """Copy *image*, mounted at *point*, as it is now, to *copy*; False if it was written to all the time."""
    for _ in range(20):
        before = _writes(point)
        copy_image(image, copy)
        if _writes(point) == before:
            return True
        time.sleep(0.01)
    return False


def _writes(point: Path) -> tuple[int, ...]:
    """Return the counters of the loop device that grow with each write and flush, begun or done."""
    device = os.stat(point).st_dev
    path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    fields = [int(field) for field in path.read_text().split()]
    return fields[4], fields[6], fields[8], *fields[15:16]  # writes, sectors written, in flight, flushes


def is_possible() -> bool:
    """Whether this machine can make and mount such images."""
    return (
        os.geteuid() == 0 and all(map(shutil.which, ("mkfs.ext4", "mkfs.xfs"))) and os.path.exists("/dev/loop-control")
    )
