"""Mounting and unmounting: the system calls as root, fusermount3 for everybody else.

Not libfuse's: it writes what went wrong to stderr, for nobody to see, and it would answer the kernel's first request
by itself (fsview/server.py has something to add there).
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
from collections.abc import Iterable
from errno import EBUSY, ENOENT, EPERM
from pathlib import Path
from typing import Final

from store.errors import MountError
from store.walking.beneath import PLACE, open_beneath

SUBTYPE: Final = "fsview"
KIND: Final = f"fuse.{SUBTYPE}"
DEVICE: Final = "/dev/fuse"
HELPER: Final = "fusermount3"

_FLAGS: Final = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}  # MS_…
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
OPEN: Final = "/proc/self/fd/"  # what is open, or in it
_REMOUNT, _BIND = 32, 4096  # MS_…


class InUseError(MountError):
    """What is to be unmounted is in use."""


def mount(
    point: str, source: str, flags: Iterable[str], options: Iterable[str], place: int | None = None
) -> int:  # fmt: skip
    """Mount a FUSE file system at *point*, an absolute path; return the descriptor on which its requests arrive.

    *flags* are any of "ro", "nosuid", "nodev" and "noexec"; *options* are FUSE's own. *place*: the directory *point*,
    open. Root then mounts there, and nowhere else, whatever becomes of the way there.

    Raises:
        MountError: the kernel or the helper refused.
    """
    if os.geteuid() != 0:
        return _mount_by_helper(point, source, flags, options)
    return _mount_as_root(point if place is None else f"{OPEN}{place}", source, flags, options)


def mount_overlay(where: str, point: Path, source: str, flags: Iterable[str], options: str) -> None:
    """Mount an overlay at *where*, an absolute path; for root. *point* is how errors call that.

    Raises:
        MountError: the kernel refused.
    """
    arguments = (source.encode(), os.fsencode(where), b"overlay", _bits(flags), os.fsencode(options))
    number = _call("mount", *arguments)
    if number:
        raise MountError(f"no overlay can be mounted at {point}: {os.strerror(number)}; it takes Linux 6.6 or newer")


def bind_read_only(source: str, point: str) -> None:
    """Show *source*, a file or a directory, also at *point*, where nobody can change it or what is right in it.

    Raises:
        MountError: the kernel refused.
    """
    number = _call("mount", os.fsencode(source), os.fsencode(point), None, _BIND, None)
    if not number:
        flags = os.statvfs(point).f_flag & _bits(("nosuid", "nodev", "noexec"))  # numbered as those of mounts
        number = _call("mount", None, os.fsencode(point), None, _REMOUNT | _BIND | flags | _bits(["ro"]), None)
    if number:
        raise MountError(f"{source} can't be shown at {point}: {os.strerror(number)}")


def open_unfollowed(directory: Path) -> int:
    """Open a directory by an absolute path, through no symlink: where there is one now, somebody has just put it.

    Raises:
        OSError: it is not there, or no directory; ELOOP: there is a symlink on the way.
    """
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(top, os.fsencode(directory).lstrip(b"/"), PLACE | os.O_DIRECTORY)
    finally:
        os.close(top)


def detach(point: str, *, lazy: bool) -> None:
    """Unmount what is at *point*, a path without symlinks or below what is open; *lazy*: even if it is in use.

    Raises:
        InUseError: it is in use.
        MountError: the kernel or the helper refused.
    """
    if os.geteuid() == 0:
        number = _unmount_as_root(point, _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0))
        text = os.strerror(number) if number else ""
    else:
        done = _run_helper(["-u", *(["-z"] if lazy else []), "--", point])
        text = done.stderr.strip() if done.returncode else ""
    if os.strerror(EBUSY) in text:
        raise InUseError(text)
    if text:
        raise MountError(f"{point} can't be unmounted: {text}")


def _unmount_as_root(point: str, flags: int) -> int:
    """Unmount what is at *point*; return the errno. A symlink on the way is new, and is not followed."""
    if point.startswith(OPEN):
        return _call("umount2", os.fsencode(point), flags)
    above, name = os.path.split(os.path.abspath(point))
    try:
        directory = open_unfollowed(Path(above))
    except OSError as error:
        return error.errno or ENOENT
    try:
        return _call("umount2", os.fsencode(f"{OPEN}{directory}/{name}"), flags)
    finally:
        os.close(directory)


def _mount_as_root(point: str, source: str, flags: Iterable[str], options: Iterable[str]) -> int:
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    data = [f"fd={descriptor}", f"rootmode={stat.S_IFDIR:o}", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
    arguments = (source.encode(), os.fsencode(point), KIND.encode(), _bits(flags), ",".join([*data, *options]).encode())
    number = _call("mount", *arguments)
    if number:
        os.close(descriptor)
        hint = "; a container needs --cap-add SYS_ADMIN for it" if number == EPERM else ""
        raise MountError(f"{point} can't be mounted: {os.strerror(number)}{hint}")
    return descriptor


def _bits(flags: Iterable[str]) -> int:
    return sum(_FLAGS[name] for name in flags)


def _mount_by_helper(point: str, source: str, flags: Iterable[str], options: Iterable[str]) -> int:
    """Have fusermount3 mount: it sends the descriptor through a socket that it inherits."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        texts = (*flags, f"fsname={source}", f"subtype={SUBTYPE}", *options)
        done = _run_helper(["-o", ",".join(texts), "--", point], theirs.fileno())
        if done.returncode != 0:
            raise MountError(f"{point} can't be mounted: {done.stderr.strip() or HELPER + ' failed'}")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def _run_helper(arguments: list[str], descriptor: int | None = None) -> subprocess.CompletedProcess[str]:
    shared = () if descriptor is None else (descriptor,)
    environment = os.environ | {"LC_ALL": "C"} | ({} if descriptor is None else {"_FUSE_COMMFD": str(descriptor)})
    command = [HELPER, *arguments]
    try:
        return subprocess.run(
            command, env=environment, pass_fds=shared, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise MountError(
            f"{HELPER} is missing, which everybody but root needs; install it: apt install fuse3"
        ) from None


def _call(name: str, *arguments: object) -> int:
    """Call a function of the C library; return its errno, 0 if it succeeded."""
    library = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if getattr(library, name)(*arguments) != 0 else 0
