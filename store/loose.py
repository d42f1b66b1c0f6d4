"""What a loose file is published with: never more rights than the object's own owner, or who runs fsview, has anyway.

A checkout may be a hard link of a loose file, so that has the owner, mode and xattrs of its object, as far as nobody
can do anything with them in objects/:

* no setuid, setgid or sticky bit, no capabilities, nor any other xattr but those that give no rights;
* nobody but its owner may write it, and that is root or who made it: whoever could, could change all that is linked;
* in a repository that a group shares (fsview.toml: shared = "group") it is 0640, of whoever made it.

A checkout that needs more than that copies the contents.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import Final, NamedTuple

from store.objects import FileHeader, Xattrs

_KEPT_BITS: Final = 0o755
_SHARED_MODE: Final = 0o640
_PRIVATE_MODE: Final = 0o600
_SET_ID: Final = 0o6000
_WRITTEN_BY_OTHERS: Final = 0o022
_UNSETTABLE: Final = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.E2BIG, errno.ERANGE)
_HARMLESS: Final = (b"user.",)
# An ACL gives no more than the group's bits: these are its mask. Selinux's label is of the file, wherever it is linked.
_HARMLESS_NAMES: Final = (b"system.posix_acl_access", b"security.selinux")


class Dress(NamedTuple):
    """What a loose file has; owner None: it belongs to whoever makes it."""

    owner: tuple[int, int] | None
    mode: int
    xattrs: Xattrs


def published_as(header: FileHeader, *, shared: bool, uid: int) -> Dress:
    """Return what the loose file of an object has if the user *uid* makes it.

    Only root gives files away, so only then is a loose file all that a checkout may need.
    """
    if shared:
        return own(shared=True)
    mode = stat.S_IMODE(header.mode) & _KEPT_BITS
    if uid != 0:
        return Dress(None, mode | stat.S_IRUSR, ())
    if header.uid != 0:
        return Dress(None, mode, ())
    kept = tuple((name, value) for name, value in header.xattrs if _is_harmless(name))
    if header.mode & _WRITTEN_BY_OTHERS:  # an ACL's mask would give back what the mode lost
        kept = tuple((name, value) for name, value in kept if not name.startswith(b"system."))
    return Dress((header.uid, header.gid), mode, kept)


def own(*, shared: bool) -> Dress:
    """Return what a loose file has that nobody but who made it, or his group, has any use for."""
    return Dress(None, _SHARED_MODE if shared else _PRIVATE_MODE, ())


def put_on(file: int, dress: Dress) -> None:
    """Give a new loose file, an open descriptor, what can be set of it here; a checkout looks before it links."""
    if dress.owner is None or _give_to(file, *dress.owner):
        for name, value in dress.xattrs:
            try:
                os.setxattr(file, name, value)
            except OSError as error:
                if error.errno not in _UNSETTABLE:
                    raise
    os.fchmod(file, dress.mode)


def _give_to(file: int, uid: int, gid: int) -> bool:
    """Whether the file has this owner now; root of a container or of a user namespace can't give it to all."""
    try:
        os.fchown(file, uid, gid)
    except OSError as error:
        if error.errno not in _UNSETTABLE:
            raise
        return False
    return True


def excess(
    status: os.stat_result, xattrs: Iterable[bytes], *, shared: bool, owner: int, group: int
) -> str | None:  # fmt: skip
    """Return what is wrong with a loose file that gives more rights than any is published with; None if it doesn't.

    *xattrs* are the names of those that it has; *owner* and *group* are those of the repository. In a shared one, it is
    wrong as well if it gives the group fewer.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & _SET_ID:
        return f"it is {'set-user' if mode & stat.S_ISUID else 'set-group'}-ID (mode {mode:04o})"
    if mode & _WRITTEN_BY_OTHERS:
        return f"others may write it (mode {mode:04o})"
    if shared and (mode, status.st_gid) != (_SHARED_MODE, group):
        return f"its mode is {mode:04o} and its group {status.st_gid}, not {_SHARED_MODE:04o} and {group}"
    if not shared and status.st_uid not in (0, owner):
        return f"the user {status.st_uid} may write it, who owns it"
    rights = [name for name in xattrs if not _is_harmless(name)]
    return f"it has the xattr {min(rights).decode(errors='backslashreplace')}" if rights else None


def _is_harmless(name: bytes) -> bool:
    return name.startswith(_HARMLESS) or name in _HARMLESS_NAMES
