"""Which files may have a second name, by who can write to them.

Whoever can write to one name of a file writes to all, and sets the mtime back; each link changes the ctime, so that
can't tell either. So who can write is the whole defence: a file that others than root and this user can write, or may
have open for writing since they could, is never linked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from pathlib import Path
from typing import Final

from store.objects import Xattrs

# With a POSIX ACL the bits of the group are its mask, so a named user who may write shows in them, too.
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
_CAPABILITIES: Final = b"security.capability"
_POSIX_ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")


def may_link(mode: int, xattrs: Xattrs) -> bool:
    """Whether a file or symlink of this mode, and with these xattrs, may have a second name.

    Not one that gives rights to who runs it: each tree has its own, so that to take these from one takes them from no
    other. Nor one with an ACL of another kind (NFSv4), which the mode says nothing of.
    """
    names = [name for name, _ in xattrs]
    odd = any(name == _CAPABILITIES or (name.startswith(b"system.") and name not in _POSIX_ACLS) for name in names)
    return not odd and (stat.S_ISLNK(mode) or not mode & (_OTHERS_WRITE | _SET_ID))


def is_closed(status: os.stat_result) -> bool:
    """Whether nobody but root and this user can write to a file or a directory, or change what a symlink tells."""
    return status.st_uid in (0, os.geteuid()) and (stat.S_ISLNK(status.st_mode) or not status.st_mode & _OTHERS_WRITE)


def is_closed_directory(path: Path, *below: str) -> bool:
    """Whether nobody else can exchange what is in a directory and in those *below* it, each in the one before."""
    for name in ("", *below):
        path = path / name
        try:
            status = os.stat(path) if not name and below else os.lstat(path)
        except OSError:
            return False
        if not stat.S_ISDIR(status.st_mode) or not is_closed(status):
            return False
    return True


def is_written_to(file: int) -> bool:
    """Whether somebody has an open file open for writing as well, or mapped so: then he can go on, whatever its mode.

    A read lease is to be had only where nobody has. It is given back at once; who opens the file in that moment waits,
    and this process would get a signal: one that nobody minds. Where there are no leases, nobody can tell.
    """
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def link_opened(file: int, name: bytes, directory: int) -> None:
    """Make *name* in *directory* a hard link of the file, or the symlink, that is open: of what was looked at."""
    os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=directory, follow_symlinks=True)
