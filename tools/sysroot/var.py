"""/var of a stateroot: seeded once, shared by all deployments, never rolled back unless that is asked for.

Snapshots are copies by `cp -a`, reflinked where the file system can, each made beside under a temporary name.

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

from store.errors import FsviewError, NotFoundError, SysrootError
from store.repository import sync_directory
from tools.sysroot.layout import TEMPORARY, Generation, Stateroot

VAR_NEW: Final = "var" + TEMPORARY
RESTORED: Final = "var-restored"
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


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
    copy_tree(stateroot.var, temporary)
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
    copy_tree(source.snapshot, new / RESTORED)
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


def copy_tree(source: Path, target: Path, *, keeps_links: bool = True) -> None:
    """Copy a directory with all that it has; *target* is made. Without *keeps_links* each name gets a file of its own.

    Raises:
        FsviewError: that failed; cp has said why.
    """
    import subprocess  # as below: what is only switched copies nothing

    from tools.orphans import end_with

    parent = os.getpid()
    try:
        more = [] if keeps_links else ["--no-preserve=links"]
        command: list[str | Path] = ["cp", "-a", "--reflink=auto", "-T", *more, "--", source, target]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, preexec_fn=lambda: end_with(parent)
        )  # fmt: skip
    except FileNotFoundError:
        raise FsviewError("there is no 'cp' program in PATH; install it: apt install coreutils") from None
    if done.returncode:
        why = os.fsdecode(done.stderr).strip().replace("\n", "; ")
        raise FsviewError(f"{source} can't be copied to {target}: {why}")


def _exchange(one: Path, other: Path) -> None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        if number == errno.EBUSY:
            raise SysrootError(f"{one} is a mount point, so it can't be exchanged; unmount it, then repeat the command")
        raise OSError(number, os.strerror(number), os.fspath(one), None, os.fspath(other))
