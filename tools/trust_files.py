"""Reading what says whom we trust: only what nobody but root and the user can write, as sshd's StrictModes has it.

Looked at are the file, each directory and each symlink on the way to it, from "/" down. None may be another user's, and
none writable for group or others; a directory may be if it is sticky, as /tmp is, for what is in it is looked at as
well. Where that holds nobody can put another file there between the look and the reading.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from store.errors import AccessError, FormatError
from store.own_files import is_ours

BYTES_MAX: Final = 64 << 20  # Debian's keyring of all its developers has 30 MB
_OTHERS_WRITE: Final = 0o022
_LINKS_MAX: Final = 40  # as the kernel


def read_trusted(path: Path) -> bytes:
    """Return the contents of a file of trusted keys.

    Raises:
        AccessError: somebody else could write it, or put another in its place.
        FormatError: it is no regular file, or too large.
        OSError: it can't be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FormatError(f"{path} is no regular file; name a file of public keys")
    check_nobody_else_writes(path)
    with path.open("rb") as file:
        data = file.read(BYTES_MAX + 1)
    if len(data) > BYTES_MAX:
        raise FormatError(f"{path} has more than {BYTES_MAX >> 20} MiB; no list of keys that fsview reads has")
    return data


def check_nobody_else_writes(path: Path) -> None:
    """Refuse a path at which another user could change what is there.

    Raises:
        AccessError: see the module.
        OSError: it leads nowhere.
    """
    for step, status in _steps(path):
        check_writers(step, status, f"{step}, by which {path} is reached," if step != os.path.abspath(path) else step)


def check_writers(step: str, status: os.stat_result, what: str) -> None:
    """Refuse a file, directory or symlink that another user could have written; *what* names it.

    Raises:
        AccessError: he could.
    """
    if not is_ours(status.st_uid):
        raise AccessError(
            f"{what} belongs to another user (uid {status.st_uid}), who could say whom to trust; "
            f"mend it with: chown root {step}; or use a copy of your own"
        )
    is_safe = stat.S_ISLNK(status.st_mode) or (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX)
    if status.st_mode & _OTHERS_WRITE and not is_safe:
        raise AccessError(
            f"{what} can be written by others (mode {stat.S_IMODE(status.st_mode):04o}), who could say whom to trust; "
            f"mend it with: chmod go-w {step}"
        )


def _steps(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each file on the way, as the kernel goes it: directories, symlinks and what they lead to, the last."""
    here, names, links = "/", _names(os.path.join(os.getcwd(), path)), 0
    yield here, os.lstat(here)
    while names:
        name = names.pop()
        if name == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, name)
        status = os.lstat(there)
        yield there, status
        if not stat.S_ISLNK(status.st_mode):
            here = there
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
        target = os.readlink(there)
        here = "/" if target.startswith("/") else here
        names += _names(target)


def _names(path: str) -> list[str]:
    """Return the names of a path, the first at the end."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
