"""/var of a stateroot: seeded once, shared by all deployments, never rolled back unless that is asked for.

Snapshots are copies, reflinked where the file system can, each made beside under a temporary name. They lie in a
directory that nobody else may enter: in /var there are directories of other users, who could plant something in what
will be put back, or run a setuid program that was replaced long ago.

A restore changes two things, `current` and var/, with two renames. The first decides: the new generation's origin says
that var/ is to be exchanged with its restored/var, which is complete by then, and which inode that has. The exchange
(renameat2) follows; a command that was killed in between is finished by the next one. The inode tells whether it has
happened already. What was replaced becomes the snapshot of the generation that was left: restored/ gets that name.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from store.errors import NotFoundError, SysrootError
from store.repository import sync_directory
from tools.sysroot.layout import TEMPORARY, Generation, Stateroot

VAR_NEW: Final = "var" + TEMPORARY  # a directory, nobody else's to enter, with what var/ is to be seeded from
RESTORED: Final = "restored"
_OLD_RESTORED: Final = "var-restored"  # the copy itself, which all could enter


def is_empty(var: Path) -> bool:
    """Whether nothing is in a directory."""
    with os.scandir(var) as entries:
        return next(entries, None) is None


def seed(var: Path, new: Path) -> bool:
    """Make the directory *new* the stateroot's /var if that is still empty: the rename is the atomic step."""
    from tools.sysroot.completing import completing  # what is only switched seeds nothing

    try:
        with completing(new):
            os.rename(new, var)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):  # EBUSY: something is mounted there
            return False
        raise
    sync_directory(var.parent)
    return True


def take_snapshot(stateroot: Stateroot, generation: Generation) -> None:
    """Keep /var as it is now with *generation*, which is about to be left."""
    from store.walking.private import make_private
    from tools.sysroot.removing import refuse_mounts, remove

    refuse_mounts([stateroot.var], f"{stateroot.var} can't be copied")
    temporary = generation.path / (generation.snapshot.name + TEMPORARY)
    for old in (temporary, generation.snapshot):  # of a command that was killed before it switched
        if old.exists():
            remove(old)
    make_private(temporary)
    _copy(stateroot.var, temporary / generation.snapshot_of_var.name)
    temporary.rename(generation.snapshot)


def check_restore(stateroot: Stateroot, source: Generation) -> None:
    """Refuse to restore what can't be.

    Raises:
        NotFoundError: it has none.
        SysrootError: /var can't be exchanged.
    """
    if not source.has_snapshot:
        raise NotFoundError(
            f"generation {source.number} has no snapshot of /var: --snapshot-var makes one when a generation is left"
        )
    from tools.sysroot.removing import refuse_mounts

    refuse_mounts([stateroot.var, source.snapshot_of_var], f"{stateroot.var} can't be exchanged")


def prepare_restore(source: Generation, new: Path) -> int:
    """Copy the snapshot of *source* into the directory *new* of a generation; return the copy's inode."""
    from store.walking.private import make_private

    make_private(new / RESTORED)
    copy = new / RESTORED / source.snapshot_of_var.name
    _copy(source.snapshot_of_var, copy)
    return copy.stat().st_ino


def finish_restore(stateroot: Stateroot, current: Generation) -> None:
    """Exchange var/ with what the current generation's origin says, unless that has happened."""
    restored = current.path / RESTORED
    if not current.origin.restore_inode or not restored.is_dir():
        return
    if stateroot.var.stat().st_ino != current.origin.restore_inode:
        _exchange(stateroot.var, restored / stateroot.var.name)
        sync_directory(stateroot.path)
    left = stateroot.generations_directory / str(current.origin.previous)
    target = left / current.snapshot.name
    if left.is_dir() and not target.exists():
        restored.rename(target)  # if the generation that was left is gone, it stays here, and goes with this one


def hide_old_copies(generation: Generation) -> None:
    """Move copies of /var that an earlier fsview made, where all could enter: one rename for each."""
    _hide(generation.old_snapshot, generation.snapshot_of_var)
    _hide(generation.path / _OLD_RESTORED, generation.path / RESTORED / generation.snapshot_of_var.name)


def _hide(old: Path, new: Path) -> None:
    if not old.is_dir():
        return
    from store.walking.private import make_private
    from tools.sysroot.completing import completing
    from tools.sysroot.removing import remove

    make_private(new.parent)
    if new.exists():  # of a command that was killed before it switched; a generation is left once
        remove(new)
    with completing(old):
        old.rename(new)


def _copy(source: Path, target: Path) -> None:
    from store.walking.copy import copy_tree  # what is only switched copies nothing

    copy_tree(source, target)


def _exchange(one: Path, other: Path) -> None:
    from store.libc import RENAME_EXCHANGE, renameat2  # as above

    try:
        renameat2(os.fsencode(one), os.fsencode(other), RENAME_EXCHANGE)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise SysrootError(
            f"{one} is a mount point, so it can't be exchanged; unmount it, then repeat the command"
        ) from error
