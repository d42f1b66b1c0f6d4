"""`--kernel-reads`: an overlay over a view of one commit, whose large files the kernel reads without asking us.

The view is the lower layer and REPO/objects a data-only one below it. To the view's node of a loose file overlayfs
finds two xattrs, METACOPY (empty) and REDIRECT (its path below objects/), so it takes the attributes from the view, and
open and read go to the loose file itself. The xattrs are there for who asks by name, but are not listed.

Root of a user namespace has no xattrs in "trusted.", so there they are in "user."; Linux 6.18, for one, takes them. The
mount is then seen in that namespace alone.

The overlay is mounted on the view's own mount point, over it: a dead server is ENOTCONN through it, too, and there is
no second place to look after. The table of mounts shows COVER as its source; fsview/mountinfo.py leaves it out, so the
view is found where it was mounted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fsview.mountinfo import COVER, is_covered
from fsview.mounting import OPEN, detach, mount_overlay
from store.errors import MountError
from store.objects import Checksum

METACOPY: Final = b"trusted.overlay.metacopy"
REDIRECT: Final = b"trusted.overlay.redirect"
_USER_METACOPY: Final = b"user.overlay.metacopy"
_USER_REDIRECT: Final = b"user.overlay.redirect"
NOTES: Final = {METACOPY, REDIRECT, _USER_METACOPY, _USER_REDIRECT}


def note(name: bytes, checksum: Checksum) -> bytes | None:
    """Return what overlayfs is told of a loose file when it asks for the xattr *name*.

    >>> note(REDIRECT, Checksum(bytes(32)))[:8], note(METACOPY, Checksum(bytes(32))), note(b"user.k", Checksum(b""))
    (b'/00/0000', b'', None)
    """
    if name in (METACOPY, _USER_METACOPY):
        return b""
    text = checksum.hex()
    return f"/{text[:2]}/{text[2:]}".encode() if name in (REDIRECT, _USER_REDIRECT) else None


def cover(view: int, point: Path, repository: Path, flags: Iterable[str]) -> None:
    """Lay the overlay over the view, which is open and answers already; *flags* as in `mounting.mount`.

    *point*: where it is, for errors. Who owns a directory on the way there can have it lead elsewhere by now.

    Raises:
        MountError: the kernel refused.
    """
    here = f"{OPEN}{view}"
    lower = f"{here}::{_escaped(os.path.realpath(repository / 'objects'))}"
    try:
        mount_overlay(here, point, COVER, flags, f"lowerdir={lower},metacopy=on,redirect_dir=on")
    except MountError:
        mount_overlay(here, point, COVER, flags, f"lowerdir={lower},userxattr")


def uncover(real: str, *, lazy: bool) -> None:
    """Take the overlay at *real*, a path without symlinks, away if there is one; the view below need not answer.

    Raises:
        InUseError: it is in use.
        MountError: the kernel refused.
    """
    if is_covered(real):
        detach(real, lazy=lazy)


def _escaped(path: str) -> str:
    for special in "\\:,":
        path = path.replace(special, "\\" + special)
    return path
