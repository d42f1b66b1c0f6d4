"""Mount points: whether a view can be mounted there, what is mounted there, and how it ends.

A view is told by its type, fuse.fsview; its source is the repository's path, quoted as in a URL where it has other
characters than those that every option parser on the way leaves alone. While its server answers, the mount point has
unlisted xattrs that tell of it: PID_MARK, REPOSITORY_MARK, STATUS_MARK, and with --root ROOT_MARK, the checksum of the
commit with the path in it right behind. A server that was killed leaves its mount in place, where every access is
ENOTCONN: an empty directory in its place would have a mirroring program delete its copy.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import time
from collections.abc import Iterator
from errno import ECONNABORTED, ENOTCONN
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fsview.asking import ask
from fsview.kernel_reads import uncover
from fsview.mountinfo import Mount, mount_at, mount_in, real_point
from fsview.mounting import DEVICE, HELPER, KIND, OPEN, InUseError, detach, open_unfollowed
from store.errors import MountError

PID_MARK: Final = b"user.fsview.pid"
REPOSITORY_MARK: Final = b"user.fsview.repository"
ROOT_MARK: Final = b"user.fsview.root"
STATUS_MARK: Final = b"user.fsview.status"  # JSON, see fsview/status.py

_HELPER_SETTINGS: Final = Path("/etc/fuse.conf")
_END_TIMEOUT_S: Final = 15
_PATIENCE_S: Final = 3  # somebody's df, or a prune, looks at everything that is mounted, and lets go of it
_TRY_AGAIN_S: Final = 0.02
_USERS_SHOWN_MAX: Final = 5


def source_name(repository: Path) -> str:
    """Return the source under which a view of *repository* is listed in the table of mounts.

    >>> source_name(Path("/srv/releases")), source_name(Path("/a b,c"))
    ('/srv/releases', '/a%20b%2Cc')
    """
    return quote(os.fsencode(repository), safe="/+-_.@:~=")


def open_mount_point(point: Path, repository: Path, place: int | None = None) -> int:
    """Open the directory *point*, a path without symlinks, or take it as it is open already as *place*.

    A directory that a view can't be mounted on is refused; a view there whose server was killed is ended. Who owns a
    directory on the way may exchange it at any time: what counts is what is open.

    Raises:
        MountError: it is missing, not an empty directory, or something is mounted there.
    """
    mount = mount_at(point)
    if mount is not None and mount.kind == KIND and _is_dead(point):
        uncover(mount.point, lazy=True)
        detach(mount.point, lazy=True)
        mount = mount_at(point)
    if mount is not None:
        raise MountError(_in_the_way(mount, point, repository))
    try:
        place = open_unfollowed(point) if place is None else place
        is_empty = not os.listdir(f"{OPEN}{place}")
    except FileNotFoundError:
        raise MountError(f"the mount point {point} does not exist; make it: mkdir -p {point}") from None
    except NotADirectoryError:
        raise MountError(f"the mount point {point} is not a directory; name an empty directory") from None
    except OSError as error:
        raise MountError(f"the mount point {point} can't be read: {error.strerror}") from error
    if not is_empty:
        raise MountError(f"the mount point {point} is not empty, and a mount would hide what is there; name another")
    if os.geteuid() != 0 and not os.access(point, os.W_OK):
        raise MountError(f"the mount point {point} is not yours: only root mounts where it can't write; name another")
    return place


def check_machine(*, allow_other: bool, suid_or_dev: bool = False, kernel_reads: bool = False) -> None:
    """Refuse a machine on which nothing can be mounted by this user, or not in this way.

    Raises:
        MountError: FUSE is missing or not permitted, or a part of it.
    """
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        raise MountError(
            f"{DEVICE} may not be opened by this user; as root: chmod 666 {DEVICE}; "
            f"in a container: start it with --device {DEVICE} --cap-add SYS_ADMIN"
        ) from None
    except OSError as error:
        raise MountError(
            f"{DEVICE} can't be opened ({error.strerror}); load the module: modprobe fuse; "
            f"in a container: start it with --device {DEVICE} --cap-add SYS_ADMIN"
        ) from None
    if os.geteuid() == 0:
        return
    if kernel_reads:
        raise MountError("kernel-reads is for root only: only root may lay an overlay over a view; leave it out")
    if suid_or_dev:
        raise MountError("the mount options suid and dev are for root only; leave them out")
    if shutil.which(HELPER) is None:
        raise MountError(f"{HELPER} is missing, without which only root can mount; install it: apt install fuse3")
    if allow_other and not _user_allow_other():
        raise MountError(
            f"allow_other is for root only, unless {_HELPER_SETTINGS} has a line 'user_allow_other'; "
            f"have it added, or leave the option out"
        )


def unmount(
    point: Path, *, lazy: bool = False, patience_s: float = _PATIENCE_S, directory: int | None = None
) -> None:  # fmt: skip
    """End the view at *point* and wait until its server is gone; *lazy*: take it away even if it is in use.

    Who uses it is given *patience_s* to let go of it. *directory*: as in `take_away`.

    Raises:
        MountError: there is no view, it is in use, or this user may not.
    """
    real = _real(point, directory)  # once: who owns a directory on the way may have it lead elsewhere next time
    mount = mount_at(Path(real)) if directory is None else mount_in(directory, point.name)
    if mount is None:
        raise MountError(f"nothing is mounted at {point}; 'fsview mounts' lists the views")
    if mount.kind != KIND:
        raise MountError(f"what is mounted at {point} is no view but {mount.kind} ({mount.source}): umount {point}")
    server = None if lazy else _open_server(_reach(point, directory))
    try:
        _take_away(real, point, lazy, "fsview umount", patience_s, directory)
        if server is not None and not select.select([server], [], [], _END_TIMEOUT_S)[0]:
            raise MountError(f"{point} is unmounted, but its server still runs after {_END_TIMEOUT_S} s; see its log")
    finally:
        if server is not None:
            os.close(server)


def take_away(
    point: Path, *, lazy: bool, command: str, patience_s: float = _PATIENCE_S, directory: int | None = None
) -> None:  # fmt: skip
    """Unmount what is at *point*, and the overlay of --kernel-reads over it; *command* is what does so, for the error.

    *directory*: the one that *point* is in, open. Root then unmounts there, and nowhere else, even if somebody who may
    do so puts another directory, or a symlink, on the way to it. For all others fusermount3 looks after that.

    Raises:
        MountError: it is in use after *patience_s*, or this user may not.
    """
    _take_away(_real(point, directory), point, lazy, command, patience_s, directory)


def _take_away(
    real: str, point: Path, lazy: bool, command: str, patience_s: float, directory: int | None
) -> None:  # fmt: skip
    give_up_s = time.monotonic() + patience_s
    where = real if directory is None or os.geteuid() != 0 else os.fspath(_reach(point, directory))
    while True:
        try:
            if directory is None:
                uncover(real, lazy=lazy)
            detach(where, lazy=lazy)
            return
        except InUseError:
            if time.monotonic() >= give_up_s:
                raise MountError(
                    f"{point} is in use{_users(real)}; end that, or take it away all the same: {command} -l {point}"
                ) from None
        time.sleep(_TRY_AGAIN_S)


def _real(point: Path, directory: int | None) -> str:
    return real_point(point) if directory is None else os.path.realpath(_reach(point, directory))


def _reach(point: Path, directory: int | None) -> Path:
    return point if directory is None else Path(f"{OPEN}{directory}", point.name)


def server_pid(point: Path) -> int | None:
    """Return the process that serves the view at *point*, or None if none does."""
    try:
        return int(os.getxattr(point, PID_MARK))
    except (OSError, ValueError):
        return None


def _is_dead(point: Path) -> bool:
    answer = ask(real_point(point), PID_MARK)  # what stat tells the kernel may still know
    return answer in (ENOTCONN, ECONNABORTED)  # the latter: just now


def _in_the_way(mount: Mount, point: Path, repository: Path) -> str:
    if mount.kind != KIND:
        return f"{point} is a mount point already, of {mount.kind} ({mount.source}); name another directory"
    if mount.source == source_name(repository):
        return f"{repository} is mounted at {point} already; to end that: fsview umount {point}"
    return f"a view of {mount.source} is mounted at {point}; to end that: fsview umount {point}"


def _open_server(point: Path) -> int | None:
    """Return a descriptor of the process that serves the view; None if it doesn't say in time which that is."""
    try:
        return os.pidfd_open(int(ask(real_point(point), PID_MARK)))
    except (OSError, ValueError, OverflowError):
        return None


def _users(real: str) -> str:
    """Return " by …" with some of the processes that hold *real* open, of those that this user may look at."""
    found = [f"{pid} ({name})" for pid, name in _processes_in(real)]
    more = " and others" if len(found) > _USERS_SHOWN_MAX else ""
    return f" by process {', '.join(found[:_USERS_SHOWN_MAX])}{more}" if found else ""


def _processes_in(real: str) -> Iterator[tuple[str, str]]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid == str(os.getpid()):
            continue
        try:
            links = [f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe")]
            links += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
            if any((os.readlink(link) + "/").startswith(real + "/") for link in links):
                yield pid, Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
        except OSError:
            continue


def _user_allow_other() -> bool:
    try:
        return re.search(r"^\s*user_allow_other\s*$", _HELPER_SETTINGS.read_text(), re.MULTILINE) is not None
    except OSError:
        return False
