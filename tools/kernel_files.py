"""What a command in a tree sees of the kernel: /proc, /sys and /dev, as arguments for bubblewrap.

/proc is that of the command's own processes, and read-only. Much in it is the machine's and heeds no capability, only
the user: /proc/sys, /proc/sysrq-trigger, the tables of an NFS server in /proc/net. And a mode that root changes in one
/proc is changed in all. What is lost is little: a process can't set its own OOM score. What tells too much is hidden,
as in containers (the paths that OCI runtimes mask), and so is what is mounted in /sys (debugfs, tracefs, securityfs,
efivars), but for cgroups. The device nodes are the machine's: root's are shown so that their mode and owner stay.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Final

from fsview.mountinfo import mounts
from tools.guardian import Guardian

_HIDDEN: Final = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
_CGROUPS: Final = "/sys/fs/cgroup"
_NODES: Final = ("full", "null", "random", "tty", "urandom", "zero")  # which bubblewrap shows


def kernel_arguments(guardian: Guardian, *, may_mount: bool) -> Iterator[list[str]]:
    """Yield what makes /proc, /dev and /sys.

    *may_mount*: the command could undo what is read-only, and new user namespaces take a /proc that isn't.
    """
    yield ["--unshare-pid", "--proc", "/proc"]
    yield from _devices(guardian)
    yield ["--ro-bind-try", "/sys", "/sys"]
    yield from _hide(guardian, itertools.chain(_HIDDEN, _mounted_in_sys()))
    if not may_mount:
        yield ["--remount-ro", "/proc"]


def _mounted_in_sys() -> Iterator[str]:
    points = sorted({mount.point for mount in mounts() if mount.point.startswith("/sys/")})
    outer = [one for one in points if not any(one.startswith(f"{other}/") for other in points)]
    return (one for one in outer if one != _CGROUPS)


def _hide(guardian: Guardian, paths: Iterable[str]) -> Iterator[list[str]]:
    """Yield what puts an empty file or directory over each of *paths* that there is."""
    directory, file = guardian.path / "nothing", guardian.path / "empty"
    directory.mkdir(0o555)
    file.touch(0o444)
    for path in paths:
        if os.path.isdir(path):
            yield ["--ro-bind", os.fspath(directory), path]
        elif os.path.exists(path):
            yield ["--ro-bind", os.fspath(file), path]


def _devices(guardian: Guardian) -> Iterator[list[str]]:
    yield ["--dev", "/dev"]
    shown = guardian.bind_read_only("/dev", "dev")
    if shown is not None:
        yield from (["--dev-bind", os.fspath(shown / name), f"/dev/{name}"] for name in _NODES)
