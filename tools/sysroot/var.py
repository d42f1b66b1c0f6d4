"""/var of a stateroot: seeded once, shared by all deployments, never rolled back unless that is asked for.

Snapshots are copies, reflinked where the file system can, each made beside under a temporary name.

A restore changes two things, `current` and var/, with two renames. The first decides: the new generation's origin says
that var/ is to be exchanged with its directory var-restored, which is complete by then, and which inode that has. The
exchange (renameat2) follows; a command that was killed in between is finished by the next one. The inode tells whether
it has happened already. What was replaced becomes the snapshot of the generation that was left.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from store.errors import NotFoundError, SysrootError
from store.repository import sync_directory
from tools.sysroot.layout import TEMPORARY, Generation, Stateroot

VAR_NEW: Final = "var" + TEMPORARY
RESTORED: Final = "var-restored"


def is_empty(var: Path) -> bool:
    """Whether nothing is in a directory."""
    with os.scandir(var) as entries:
        return next(entries, None) is None


def seed(var: Path, new: Path) -> bool:
    """Make the directory *new* the stateroot's /var if that is still empty: the rename is the atomic step."""
    try:
        os.rename(new, var)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):  # EBUSY: something is mounted there
            return False
        raise
    sync_directory(var.parent)
    return True


def take_snapshot(stateroot: Stateroot, generation: Generation) -> None:
    """Keep /var as it is now with *generation*, which is about to be left."""
    from tools.sysroot.sweep import remove

    temporary = generation.path / (generation.snapshot.name + TEMPORARY)
    for old in (temporary, generation.snapshot):  # of a command that was killed before it switched
        if old.exists():
            remove(old)
    _copy(stateroot.var, temporary)
    temporary.rename(generation.snapshot)


def check_restore(stateroot: Stateroot, source: Generation) -> None:
    """Refuse to restore what can't be.

    Raises:
        NotFoundError: it has none.
        SysrootError: /var can't be exchanged.
    """
    if not source.snapshot.is_dir():
        raise NotFoundError(
            f"generation {source.number} has no snapshot of /var: --snapshot-var makes one when a generation is left"
        )
    if os.path.ismount(stateroot.var):
        raise SysrootError(f"{stateroot.var} is a mount point, so it can't be exchanged; unmount it first")


def prepare_restore(source: Generation, new: Path) -> int:
    """Copy the snapshot of *source* into the directory *new* of a generation; return the copy's inode."""
    _copy(source.snapshot, new / RESTORED)
    return (new / RESTORED).stat().st_ino


def finish_restore(stateroot: Stateroot, current: Generation) -> None:
    """Exchange var/ with what the current generation's origin says, unless that has happened."""
    restored = current.path / RESTORED
    if not current.origin.restore_inode or not restored.is_dir():
        return
    if stateroot.var.stat().st_ino != current.origin.restore_inode:
        _exchange(stateroot.var, restored)
        sync_directory(stateroot.path)
    left = stateroot.generations_directory / str(current.origin.previous)
    target = left / current.snapshot.name
    if left.is_dir() and not target.exists():
        restored.rename(target)  # if the generation that was left is gone, it stays here, and goes with this one


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
