"""Make, mount, unmount and remove workspaces: writable trees on top of commits (tools/workspace_state.py).

Everything is done by the descriptors of tools/workspace_home.py: the directory that a workspace is in may be another
user's, who renames and replaces what he likes there meanwhile.
"""

from __future__ import annotations

import os
import secrets
import shlex
import time
from contextlib import suppress
from pathlib import Path

from fsview import overlay
from fsview.mountinfo import Mount, mount_at, mount_in, mounts
from fsview.mounting import KIND
from fsview.mountpoint import STATUS_MARK, take_away
from fsview.mountpoint import unmount as unmount_view
from fsview.status import parse_status
from store.entrance import is_trusted
from store.errors import (
    AccessError,
    ConflictError,
    FormatError,
    FsviewError,
    InvalidNameError,
    MountError,
    NotFoundError,
)
from store.own_files import own_directory
from store.refs import find_ref, set_ref
from store.repository import Repository
from store.revisions import resolve
from store.schema import CommitNumber
from store.tree import commit_record
from store.walking.remove import remove_same_tree
from tools.mount import log_path_of
from tools.mount import mount as mount_view
from tools.workspace_home import Home
from tools.workspace_state import Workspace, home_of, load

_PLACED, _PLACED_STAT = "place-inodes", "place-inodes=stat"  # what fuse-overlayfs needs: see fsview/options.py
_RELEASE_S = 10  # fuse-overlayfs ends, and lets go of the view, some time after it was unmounted


def add(
    repository: Repository, revision: str, point: Path, view: Path | None, *, by_kernel: bool, suid: bool = False,
    dev: bool = False,
) -> Workspace:  # fmt: skip
    """Make a workspace on top of *revision* and mount it at *point*; *view*: over this mounted view.

    *suid*, *dev*: set-user-ID programs and devices work in it.

    Raises:
        InvalidNameError: something is in the way, or only root may have what was asked for.
        NotFoundError: there is no such revision, or no directory to put it in.
        MountError: *view* was mounted without place-inodes, or something can't be mounted.
    """
    if (suid or dev) and os.geteuid() != 0:
        raise InvalidNameError("--suid and --dev are for root only; leave them out")
    point = _free_place(point)
    with repository.database.reading() as reading:
        number = resolve(reading, revision, now_s=int(time.time()))
        checksum = commit_record(reading, number).checksum
    path, owner_me = Path(os.path.realpath(repository.path)), os.geteuid() != 0
    if view is not None:
        view = Path(os.path.realpath(view))
        _check_the_way_to_the_view(view)
        owner_me = "owner=me" in check_view(mount_at(view), view, path, by_kernel=by_kernel)
    home = Home(home_of(point), make=True)
    workspace = Workspace(point, home, path, checksum.hex(), by_kernel, view, owner_me, suid=suid, dev=dev)
    made_point = _make_point(workspace)
    try:
        for name in ("upper", "work", "view"):
            os.mkdir(name, dir_fd=workspace.home.descriptor)
        _keep(repository, workspace, number)
        _mount(workspace)
        with workspace.home.opened("upper") as upper:
            overlay.take_over_the_root(upper, workspace.home.reach / "lower")
        workspace.save()
    except BaseException:
        with suppress(MountError):
            unmount(workspace, lazy=True)
        with suppress(FsviewError, OSError):  # what went wrong first is told
            _delete(repository, workspace)
        if made_point:
            with suppress(OSError):
                os.rmdir(point.name, dir_fd=home.above)
        raise
    return workspace


def mount(workspace: Workspace) -> None:
    """Mount a workspace again: after a reboot, after `unmount`, or when its server was killed.

    Raises:
        MountError: it is mounted, or can't be.
    """
    found = _mounted(workspace)
    if found is not None and _is_dead(workspace):
        unmount(workspace, lazy=True)
    elif found is not None:
        raise MountError(f"{workspace.point} is mounted already, by {found.kind}")
    elif _own_view(workspace) is not None:  # of a command that was killed, or its server was
        unmount(workspace, lazy=True)
    _mount(workspace)


def unmount(workspace: Workspace, *, lazy: bool = False) -> None:
    """End the overlay and the view below it; what was changed is kept.

    Raises:
        MountError: it is in use.
    """
    home = workspace.home
    found = _mounted(workspace)
    if found is not None:
        _check_it_is_ours(workspace, found)
        take_away(workspace.point, lazy=lazy, command="fsview workspace umount", directory=home.above)
    if _own_view(workspace) is not None:
        unmount_view(workspace.own_view, lazy=lazy, patience_s=_RELEASE_S, directory=home.descriptor)


def remove(repository: Repository, workspace: Workspace, *, force: bool) -> None:
    """End a workspace and delete it, what was changed in it included.

    Raises:
        ConflictError: something was changed in it that was not committed, and *force* is not set.
        MountError: it is in use, or something is mounted in it.
    """
    _check_layout(workspace)
    _refuse_mounts_inside(workspace)
    with workspace.home.opened("upper") as upper:
        changed = os.listdir(upper)
    if changed and not force and workspace.fingerprint() != workspace.committed:
        raise ConflictError(
            f"{workspace.point} has changes, such as in {min(changed)}; keep them: fsview commit --workspace "
            f"{workspace.point} -b REF; to remove the workspace all the same: --force"
        )
    unmount(workspace)
    _delete(repository, workspace)
    with suppress(OSError):  # it was not empty before, or is gone
        os.rmdir(workspace.point.name, dir_fd=workspace.home.above)


def is_mounted(workspace: Workspace) -> bool:
    """Whether the workspace can be used."""
    return _mounted(workspace) is not None and not _is_dead(workspace)


def check_view(mount: Mount | None, reach: Path, repository: Path, *, by_kernel: bool) -> list[str]:
    """Refuse a view that no writable overlay must be laid over; return the options that it is mounted with.

    *mount* is what is mounted there, *reach* the path by which it is asked.

    Raises:
        MountError: it is none, of another repository or user, or was mounted without place-inodes.
    """
    if mount is None or mount.kind != KIND:
        raise MountError(f"no view is mounted at {mount.point if mount else reach}")
    if mount.owner not in (0, os.geteuid()):
        raise MountError(
            f"the view at {mount.point} is another user's, who could show anything in it; leave --view out"
        )
    try:
        status = parse_status(os.getxattr(reach, STATUS_MARK))
    except (OSError, FormatError) as error:
        raise MountError(f"the server of the view at {mount.point} does not answer as one should: {error}") from None
    if status["repository"] != os.fspath(repository):
        raise MountError(f"the view at {mount.point} is of {status['repository']}, not of {repository}")
    needed = [_PLACED_STAT] if not by_kernel else [_PLACED, _PLACED_STAT]
    options: list[str] = status["options"].split(",")
    if not set(needed) & set(options):
        raise MountError(
            f"the view at {mount.point} was mounted without {needed[0]}: in a workspace over it, writing to a file "
            f"would change all files that are equal to it; mount it with -o {needed[0]}, or leave --view out"
        )
    return options


def _make_point(workspace: Workspace) -> bool:
    """Make the directory where it is mounted, unless it is there; whether it was made."""
    try:
        os.mkdir(workspace.point.name, dir_fd=workspace.home.above)
    except FileExistsError:
        return False
    return True


def _check_layout(workspace: Workspace) -> None:
    """Refuse a workspace whose directories are something else, such as symlinks to other places.

    Raises:
        FormatError: which one is what.
    """
    for name in ("upper", "work", "view"):
        try:
            if name != "view" or _own_view(workspace) is None:  # what is mounted there may be dead
                with workspace.home.opened(name):
                    pass
        except FileNotFoundError:
            raise FormatError(f"{workspace.home.path / name} is missing: {workspace.point} can't be used") from None


def _mount(workspace: Workspace) -> None:
    from fsview.options import MountOptions

    home = workspace.home
    _check_layout(workspace)
    if workspace.view is None:
        options = MountOptions(place_inodes=True, place_st_ino=not workspace.by_kernel, owner_me=workspace.owner_me)
        with home.opened("view") as place:
            log_path = log_path_of(workspace.point)
            mount_view(workspace.repository, workspace.own_view, options, log_path=log_path, place=place)
        reach, view = home.reach / "view", _own_view(workspace)
    else:
        _check_the_way_to_the_view(workspace.view)
        reach, view = workspace.view, mount_at(workspace.view)
    check_view(view, reach, workspace.repository, by_kernel=workspace.by_kernel)
    home.link("lower", (workspace.view or Path("view")) / "commits" / workspace.commit)
    if not workspace.by_kernel:
        _check_the_way(workspace)
    with home.beside(workspace.point.name) as place:
        overlay.mount_writable(
            workspace.point, home.reach, "lower", by_kernel=workspace.by_kernel, flags=workspace.flags, place=place
        )


def _check_the_way(workspace: Workspace) -> None:
    """Refuse to have fuse-overlayfs, which goes by names, mount for root where others could lead it elsewhere.

    Raises:
        MountError: they could.
    """
    if os.geteuid() != 0:
        return  # fusermount3 lets nobody mount where he may not
    try:
        os.close(own_directory(workspace.point.parent))
    except PermissionError as error:
        raise MountError(
            f"{workspace.point} can't be mounted by fuse-overlayfs, which somebody else could lead elsewhere: "
            f"{error.strerror}; leave --fuse out"
        ) from error


def _check_the_way_to_the_view(view: Path) -> None:
    """Refuse a view below which somebody else could put another tree, between a look at it and the mount over it.

    Raises:
        MountError: somebody could.
    """
    try:
        os.close(own_directory(view.parent, is_believed=is_trusted))
    except PermissionError as error:
        raise MountError(
            f"the view at {view} is where somebody else could put another one: {error.strerror}; mount it where only "
            f"you can write, or leave --view out"
        ) from error


def _mounted(workspace: Workspace) -> Mount | None:
    """Return what is mounted where the workspace is to be."""
    return mount_in(workspace.home.above, workspace.point.name)


def _own_view(workspace: Workspace) -> Mount | None:
    return mount_in(workspace.home.descriptor, workspace.own_view.name)


def _check_it_is_ours(workspace: Workspace, found: Mount) -> None:
    if not overlay.is_ours(found):
        raise MountError(
            f"what is mounted at {workspace.point} is not this workspace, but {found.kind} ({found.source}); it stays: "
            f"umount {workspace.point}"
        )


def _refuse_mounts_inside(workspace: Workspace) -> None:
    """Refuse to remove a workspace in which something is mounted, which is no part of it.

    Raises:
        MountError: what is mounted, all of it.
    """
    home, point = os.fspath(workspace.home.place), os.fspath(workspace.point)
    inside = [mount.point for mount in mounts() if mount.point.startswith((f"{home}/", f"{point}/"))]
    foreign = [one for one in inside if one != f"{home}/{workspace.own_view.name}"]
    if foreign:
        raise MountError(
            f"{workspace.point} can't be removed: something is mounted in it, and was not touched; unmount it first: "
            + "; ".join(f"umount {shlex.quote(one)}" for one in reversed(foreign))
        )


def _free_place(point: Path) -> Path:
    real = Path(os.path.realpath(point))
    if os.path.lexists(home_of(real)):
        with suppress(NotFoundError, FormatError, AccessError):
            load(real)
            raise InvalidNameError(f"{point} is a workspace already; see: fsview workspace list")
        raise InvalidNameError(f"{home_of(real)} is in the way; remove it, or name another directory")
    if not real.parent.is_dir():
        raise NotFoundError(f"{real.parent} is not there, or no directory, so {point} can't be made in it")
    if mount_at(real) is not None or (os.path.lexists(real) and (not real.is_dir() or os.listdir(real))):
        raise InvalidNameError(f"{point} is there already, and no empty directory; name another")
    return real


def _keep(repository: Repository, workspace: Workspace, number: CommitNumber) -> None:
    """Have a ref keep the commit as long as there is a workspace on top of it."""
    message = f"workspace: {workspace.point}"
    repository.database.write(
        lambda writing: set_ref(writing, workspace.ref, number, time_s=int(time.time()), message=message)
    )


def _delete(repository: Repository, workspace: Workspace) -> None:
    """Delete what a workspace has on disk and in the repository. The rename is the atomic step."""
    home = workspace.home
    gone = f"{home.path.name}.removed-{secrets.token_hex(4)}"
    if home.is_at_its_name():
        os.rename(home.path.name, gone, src_dir_fd=home.above, dst_dir_fd=home.above)
    workspace.forget()
    with repository.database.reading() as reading:
        is_kept = find_ref(reading, workspace.ref) is not None
    if is_kept:
        now_s = int(time.time())
        repository.database.write(
            lambda writing: set_ref(writing, workspace.ref, None, time_s=now_s, message="workspace removed")
        )
    remove_same_tree(home.above, os.fsencode(gone), home.descriptor, os.fsencode(home.path.with_name(gone)))


def _is_dead(workspace: Workspace) -> bool:
    """Whether the view below no longer answers."""
    try:
        os.getxattr(workspace.view or workspace.home.reach / workspace.own_view.name, STATUS_MARK)
        os.statvfs(Path(f"/proc/self/fd/{workspace.home.above}", workspace.point.name))
    except OSError:
        return True
    return False
