"""Remove what commands that were killed left, and what no generation needs any more. The caller holds the lock.

Copies of /var that an earlier fsview made, where all could enter, are moved to where nobody can.

What is removed gets a temporary name first, so that nothing half removed ever has a name that means something. A tree
in which something is mounted is left as it is. Of what can't be removed, for whatever reason, a line is said: it must
keep nobody from an upgrade, or from rolling back.
"""

from __future__ import annotations

import os
from pathlib import Path

from store.errors import FsviewError
from tools.render import say
from tools.sysroot.in_use import unless_used
from tools.sysroot.layout import PRISTINE, SNAPSHOT, TEMPORARY, Generation, Stateroot
from tools.sysroot.removing import remove
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
            _sweep_one(stateroot.generations_directory / name)
    deployments = {generation.deployment for generation in kept}
    for name in os.listdir(stateroot.deployments):
        if name.removesuffix(PRISTINE) not in deployments:
            _sweep_one(stateroot.deployments / name, stateroot)
    for generation in kept:
        _sweep_generation(generation, is_current=generation is kept[-1])
    for name in (VAR_NEW, "current" + TEMPORARY):
        if os.path.lexists(stateroot.path / name):
            _sweep_one(stateroot.path / name)
    return deployments


def left_over(stateroot: Stateroot) -> list[Path]:
    """Return the trees of deployments that no generation has: what is in use, or could not be removed."""
    deployments = {generation.deployment for generation in stateroot.generations()}
    names = sorted(os.listdir(stateroot.deployments))
    return [stateroot.deployments / name for name in names if name.removesuffix(PRISTINE) not in deployments]


def _sweep_one(path: Path, stateroot: Stateroot | None = None) -> None:
    """Remove garbage; of a *stateroot* a deployment, where a command that runs in it leaves it for the next sweep."""
    try:
        if stateroot is None or path.is_symlink() or not path.is_dir():
            remove(path)
            return
        with unless_used(stateroot.sysroot.path, path) as is_free:
            if is_free:
                remove(path)
    except (OSError, FsviewError) as error:
        say(f"what is left of {path} stays, until a later command can remove it: {error}")


def _sweep_generation(generation: Generation, *, is_current: bool) -> None:
    """Remove what is half made in a generation. A snapshot of /var is made when one is left: the current one is not."""
    for name in os.listdir(generation.path):
        if name.endswith(TEMPORARY) or (is_current and name == SNAPSHOT):
            _sweep_one(generation.path / name)
