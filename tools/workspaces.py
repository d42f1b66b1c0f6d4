"""Make, mount, unmount and remove workspaces: writable trees on top of commits (tools/workspace_state.py)."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fsview import overlay
from fsview.mountinfo import mount_at
from fsview.mountpoint import STATUS_MARK, take_away
from fsview.mountpoint import unmount as unmount_view
from fsview.status import parse_status
from store.errors import ConflictError, FormatError, InvalidNameError, MountError, NotFoundError
from store.refs import find_ref, set_ref
from store.repository import Repository
from store.revisions import resolve
from store.schema import CommitNumber
from store.tree import commit_record
from tools.mount import log_path_of
from tools.mount import mount as mount_view
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
    real_view = None if view is None else Path(os.path.realpath(view))
    is_root, path = os.geteuid() == 0, Path(os.path.realpath(repository.path))
    workspace = Workspace(point, path, checksum.hex(), by_kernel, real_view, not is_root, suid=suid, dev=dev)
    if real_view is not None:
        options = check_view(real_view, workspace)
        workspace = replace(workspace, owner_me="owner=me" in options)
    made_point = not point.exists()
    workspace.home.mkdir(mode=0o700)
    try:
        for directory in (point, workspace.upper, workspace.home / "work", workspace.own_view):
            directory.mkdir(exist_ok=directory == point)
        _keep(repository, workspace, number)
        _mount(workspace)
        overlay.take_over_the_root(workspace.upper, workspace.home / "lower")
        workspace.save()
    except BaseException:
        with suppress(MountError):
            unmount(workspace, lazy=True)
        _delete(repository, workspace)
        if made_point:
            point.rmdir()
        raise
    return workspace


def mount(workspace: Workspace) -> None:
    """Mount a workspace again: after a reboot, after `unmount`, or when its server was killed.

    Raises:
        MountError: it is mounted, or can't be.
    """
    found = mount_at(workspace.point)
    if found is not None and _is_dead(workspace):
        unmount(workspace, lazy=True)
    elif found is not None:
        raise MountError(f"{workspace.point} is mounted already, by {found.kind}")
    _mount(workspace)


def unmount(workspace: Workspace, *, lazy: bool = False) -> None:
    """End the overlay and the view below it; what was changed is kept.

    Raises:
        MountError: it is in use.
    """
    if mount_at(workspace.point) is not None:
        take_away(workspace.point, lazy=lazy, command="fsview workspace umount")
    if mount_at(workspace.own_view) is not None:
        unmount_view(workspace.own_view, lazy=lazy, patience_s=_RELEASE_S)


def remove(repository: Repository, workspace: Workspace, *, force: bool) -> None:
    """End a workspace and delete it, what was changed in it included.

    Raises:
        ConflictError: something was changed in it that was not committed, and *force* is not set.
        MountError: it is in use.
    """
    changed = os.listdir(workspace.upper)
    if changed and not force and workspace.fingerprint() != workspace.committed:
        raise ConflictError(
            f"{workspace.point} has changes, such as in {min(changed)}; keep them: fsview commit --workspace "
            f"{workspace.point} -b REF; to remove the workspace all the same: --force"
        )
    unmount(workspace)
    _delete(repository, workspace)
    with suppress(OSError):  # it was not empty before, or is gone
        workspace.point.rmdir()


def is_mounted(workspace: Workspace) -> bool:
    """Whether the workspace can be used."""
    return mount_at(workspace.point) is not None and not _is_dead(workspace)


def check_view(view: Path, workspace: Workspace) -> list[str]:
    """Refuse a view that no writable overlay must be laid over; return the options that it is mounted with.

    Raises:
        MountError: it is none, of another repository, or was mounted without place-inodes.
    """
    try:
        status = parse_status(os.getxattr(view, STATUS_MARK))
    except (OSError, FormatError) as error:
        raise MountError(f"no view is mounted at {view}, or its server does not answer: {error}") from None
    if status["repository"] != os.fspath(workspace.repository):
        raise MountError(f"the view at {view} is of {status['repository']}, not of {workspace.repository}")
    needed = [_PLACED_STAT] if not workspace.by_kernel else [_PLACED, _PLACED_STAT]
    options: list[str] = status["options"].split(",")
    if not set(needed) & set(options):
        raise MountError(
            f"the view at {view} was mounted without {needed[0]}: in a workspace over it, writing to a file would "
            f"change all files that are equal to it; mount it with -o {needed[0]}, or leave --view out"
        )
    return options


def _mount(workspace: Workspace) -> None:
    from fsview.options import MountOptions

    if workspace.view is None:
        options = MountOptions(place_inodes=True, place_st_ino=not workspace.by_kernel, owner_me=workspace.owner_me)
        mount_view(workspace.repository, workspace.own_view, options, log_path=log_path_of(workspace.point))
    view = workspace.view or workspace.own_view
    check_view(view, workspace)
    lower = workspace.home / "lower"
    lower.unlink(missing_ok=True)
    lower.symlink_to(view / "commits" / workspace.commit)
    overlay.mount_writable(
        workspace.point, workspace.home, "lower", by_kernel=workspace.by_kernel, flags=workspace.flags
    )


def _free_place(point: Path) -> Path:
    real = Path(os.path.realpath(point))
    if home_of(real).exists():
        with suppress(NotFoundError):
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
    gone = workspace.home.with_name(workspace.home.name + ".removed")
    with suppress(FileNotFoundError):
        os.rename(workspace.home, gone)
    workspace.forget()
    with repository.database.reading() as reading:
        is_kept = find_ref(reading, workspace.ref) is not None
    if is_kept:
        now_s = int(time.time())
        repository.database.write(
            lambda writing: set_ref(writing, workspace.ref, None, time_s=now_s, message="workspace removed")
        )
    if (gone / "work" / "work").is_dir():
        os.chmod(gone / "work" / "work", 0o700)  # the kernel's has no permissions at all
    shutil.rmtree(gone, ignore_errors=True)


def _is_dead(workspace: Workspace) -> bool:
    """Whether the view below no longer answers."""
    try:
        os.getxattr(workspace.view or workspace.own_view, STATUS_MARK)
        os.statvfs(workspace.point)
    except OSError:
        return True
    return False
