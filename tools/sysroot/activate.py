"""Make a new generation and make it current.

What the generation names is complete before; then, in this order: its directory under a temporary name, the rename to
its number, all of it made durable, and the rename of `current`. That is the atomic step: before it the old generation
is current, and the new one garbage; after it the new one is, whatever happens.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from store.repository import sync_directory
from tools.sysroot.layout import TEMPORARY, Generation, Stateroot
from tools.sysroot.origin import ORIGIN_FILE, Origin
from tools.sysroot.var import finish_restore, prepare_restore


def activate(
    stateroot: Stateroot,
    origin: Origin,
    *,
    restore_from: Generation | None = None,
    is_new_tree: bool = True,
    last_look: Callable[[Origin], Origin] = lambda origin: origin,
) -> Generation:
    """Make *origin* the current generation; the caller holds the lock. /var becomes that of *restore_from*.

    *last_look* is called when all else is done: it returns the origin, a new one if it changed the deployment.

    Raises:
        OSError: the disk is full; nothing was changed, but for garbage.
    """
    number = stateroot.current_number() + 1
    path = stateroot.generations_directory / str(number)
    temporary = path.with_name(path.name + TEMPORARY)
    temporary.mkdir(0o755)
    temporary.chmod(0o755)  # whatever the umask: those who use the tree come by here
    if restore_from is not None:
        origin = replace(origin, restore_inode=prepare_restore(restore_from, temporary))
    os.symlink(f"../../deployments/{origin.deployment}", temporary / "root")
    origin.save(temporary / ORIGIN_FILE)
    temporary.rename(path)
    _make_durable(stateroot, path, everything=is_new_tree or restore_from is not None)
    while (looked := last_look(origin)) is not origin:
        origin = looked
        origin.save(path / ORIGIN_FILE)
        _make_durable(stateroot, path, everything=True)
    link = stateroot.current_link.with_name(stateroot.current_link.name + TEMPORARY)
    os.symlink(f"generations/{number}", link)
    link.rename(stateroot.current_link)  # the atomic step
    sync_directory(stateroot.path)
    generation = Generation(number, path, origin)
    finish_restore(stateroot, generation)
    return generation


def _make_durable(stateroot: Stateroot, path: Path, *, everything: bool) -> None:
    if everything:
        _sync_file_system(stateroot.path)
    for directory in (stateroot.deployments, path, stateroot.generations_directory):
        sync_directory(directory)


def _sync_file_system(path: Path) -> None:
    import ctypes  # a rollback writes no tree, and needs none of it

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(path))
    finally:
        os.close(descriptor)
