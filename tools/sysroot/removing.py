"""Remove trees of a sysroot, or refuse to, where something is mounted in them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from store.errors import SysrootError
from tools.sysroot.layout import TEMPORARY


def refuse_mounts(paths: Iterable[Path], what: str) -> None:
    """Refuse to remove or move trees in which something is mounted: it would go along, or be erased.

    Raises:
        SysrootError: where, all of it; *what* says what can't be done to it.
    """
    from fsview.mountinfo import mount_points_in  # seldom needed

    points = [point for path in paths for point in mount_points_in(path)]
    if points:
        listed = "; ".join(f"umount {shlex.quote(point)}" for point in reversed(points))
        raise SysrootError(f"{what}: something is mounted there, and nothing was changed; unmount it first: {listed}")


def remove(path: Path) -> None:
    """Remove a file or a whole tree; what has to go must be gone for all others at once.

    Raises:
        SysrootError: something is mounted in it; nothing was changed.
        OSError: something can't be removed; all else is.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    from store.walking.remove import remove_tree  # seldom needed

    refuse_mounts([path], f"{path} can't be removed")
    temporary = path if path.name.endswith(TEMPORARY) else path.with_name(path.name + TEMPORARY)
    if temporary != path:
        if temporary.is_dir():  # of a removal that was killed
            remove_tree(temporary)
        path.rename(temporary)
    remove_tree(temporary)
