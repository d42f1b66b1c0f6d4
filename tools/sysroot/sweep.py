"""Remove what commands that were killed left, and what no generation needs any more. The caller holds the lock.

Copies of /var that an earlier fsview made, where all could enter, are moved to where nobody can.

What is removed gets a temporary name first, so that nothing half removed ever has a name that means something.
"""

from __future__ import annotations

import os
from pathlib import Path

from tools.sysroot.in_use import unless_used
from tools.sysroot.layout import PRISTINE, SNAPSHOT, TEMPORARY, Generation, Stateroot
from tools.sysroot.var import VAR_NEW, finish_restore, hide_old_copies


def sweep(stateroot: Stateroot) -> set[str]:
    """Finish a restore of /var that was killed, remove garbage; return the names of the deployments that stay.

    Raises:
        SysrootError: an origin can't be understood: what it names would be lost.
    """
    kept = stateroot.generations()
    for generation in kept:
        hide_old_copies(generation)
    if kept:
        finish_restore(stateroot, kept[-1])
    for name in os.listdir(stateroot.generations_directory):
        if name not in {str(generation.number) for generation in kept}:
            remove(stateroot.generations_directory / name)
    deployments = {generation.deployment for generation in kept}
    for name in os.listdir(stateroot.deployments):
        if name.removesuffix(PRISTINE) not in deployments:
            _remove_unless_used(stateroot, stateroot.deployments / name)
    for generation in kept:
        _sweep_generation(generation, is_current=generation is kept[-1])
    for name in (VAR_NEW, "current" + TEMPORARY):
        if os.path.lexists(stateroot.path / name):
            remove(stateroot.path / name)
    return deployments


def _remove_unless_used(stateroot: Stateroot, path: Path) -> None:
    """Remove a deployment, or what belongs to one; where a command runs in it, that is for the next sweep."""
    if path.is_symlink() or not path.is_dir():
        remove(path)
        return
    with unless_used(stateroot.sysroot.path, path) as is_free:
        if is_free:
            remove(path)


def _sweep_generation(generation: Generation, *, is_current: bool) -> None:
    """Remove what is half made in a generation. A snapshot of /var is made when one is left: the current one is not."""
    for name in os.listdir(generation.path):
        if name.endswith(TEMPORARY) or (is_current and name == SNAPSHOT):
            remove(generation.path / name)


def remove(path: Path) -> None:
    """Remove a file or a whole tree; what has to go must be gone for all others at once."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    from store.walking.remove import remove_tree  # seldom needed

    temporary = path if path.name.endswith(TEMPORARY) else path.with_name(path.name + TEMPORARY)
    if temporary != path:
        if temporary.is_dir():  # of a removal that was killed
            remove_tree(temporary)
        path.rename(temporary)
    remove_tree(temporary)
