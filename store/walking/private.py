"""New directories that nobody else gets into, nor gets what their parent wants for new files by a default ACL."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_ALL: Final = 0o700
_ACLS: Final = ("system.posix_acl_default", "system.posix_acl_access")


def make_private(directory: Path) -> None:
    """Make a directory that only this user may enter; one that he made so before is fine, too."""
    with suppress(FileExistsError):
        directory.mkdir(_ALL)
    directory.chmod(_ALL)
    forget_acls(directory)


def forget_acls(directory: int | Path) -> None:
    """Take from a new directory what its parent wants for new files: it is not what is to be in it."""
    for acl in _ACLS:
        with suppress(OSError):
            os.removexattr(directory, acl)
