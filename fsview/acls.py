"""POSIX ACLs as the kernel is told of them, where it heeds them (fsview/options.py says where that is).

An ACL is stored as it stood on disk, in the kernel's form of the xattrs ACCESS and DEFAULT: version u32, then entries
of tag u16, permissions u16 and id u32, by tag. Where the kernel can't read one it refuses the file to everybody, root
too, with an errno that says nothing. So these are amended here:

* One that no file system could have set, or that is too long for the kernel: nobody but the owner gets anything.
* In a user namespace, entries for users and groups that don't exist in it: they are left out.
* With owner=me, whoever is named in one gets no more than everybody does, as the owning group (fsview/ownership.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from fsview.ownership import Ownership
from store.objects import Xattrs

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20  # the tags, in their order

_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_NO_ID: Final = 0xFFFFFFFF
_BYTES_MAX: Final = 4096  # the least of what kernels have room for


class Entry(NamedTuple):
    """What one user, or some of them, may do."""

    tag: int
    permissions: int
    id: int = _NO_ID


Acl = tuple[Entry, ...]


def maps_every_id() -> bool:
    """Whether all users and groups exist here: not so in most user namespaces."""
    return all(sum(map(len, _mapped(kind))) >= _NO_ID for kind in ("uid", "gid"))


def unpack(value: bytes) -> Acl | None:
    """Return the entries of an ACL; None if it is none that a file system could have set.

    >>> unpack(pack((Entry(OWNER, 7), Entry(GROUP, 5), Entry(OTHER, 0))))[1].permissions, unpack(b"?") is None
    (5, True)
    """
    body = value[len(_VERSION) :]
    if not value.startswith(_VERSION) or len(body) % _ENTRY.size or len(value) > _BYTES_MAX:
        return None
    acl = tuple(map(Entry._make, _ENTRY.iter_unpack(body)))
    tags = [entry.tag for entry in acl]
    needed = [OWNER, GROUP, OTHER] if not {USER, NAMED_GROUP} & set(tags) else [OWNER, GROUP, MASK, OTHER]
    single = [tag for tag in tags if tag not in (USER, NAMED_GROUP)]
    is_sound = tags == sorted(tags) and single in (needed, [OWNER, GROUP, MASK, OTHER])
    return acl if is_sound and all(map(_can_be, acl)) else None


def pack(acl: Acl) -> bytes:
    """Return an ACL as the kernel takes it."""
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in acl)


def heeded(xattrs: Xattrs, mode: int, gid: int, ownership: Ownership) -> Xattrs:
    """Return the xattrs of a file or directory, committed with this mode and owning group, as the kernel gets them."""
    if not any(name in (ACCESS, DEFAULT) for name, _ in xattrs):
        return xattrs
    return tuple(
        (name, _amended(value, mode, gid, ownership) if name in (ACCESS, DEFAULT) else value) for name, value in xattrs
    )


def _amended(value: bytes, mode: int, gid: int, ownership: Ownership) -> bytes:
    acl = unpack(value)
    if acl is None:
        return pack((Entry(OWNER, mode >> 6 & 7), Entry(GROUP, 0), Entry(OTHER, 0)))
    amended = tuple(entry for entry in acl if _exists(entry))
    if ownership.by_mode and gid != ownership.gid:
        amended = _as_everybody(amended)
    return value if amended == acl else pack(amended)


def _as_everybody(acl: Acl) -> Acl:
    """Take from the owning group, and by the mask from all who are named, what not everybody has."""
    most = acl[-1].permissions
    return tuple(
        entry._replace(permissions=entry.permissions & most) if entry.tag in (GROUP, MASK) else entry for entry in acl
    )


def _can_be(entry: Entry) -> bool:
    return entry.permissions <= 7 and (entry.tag not in (USER, NAMED_GROUP) or entry.id != _NO_ID)


def _exists(entry: Entry) -> bool:
    if entry.tag not in (USER, NAMED_GROUP):
        return True
    return any(entry.id in ids for ids in _mapped("uid" if entry.tag == USER else "gid"))


@cache
def _mapped(kind: str) -> Sequence[range]:
    """Return the users (uid) or groups (gid) that exist in this process's user namespace."""
    lines = Path(f"/proc/self/{kind}_map").read_text().splitlines()
    numbers = [[int(word) for word in line.split()] for line in lines]
    return [range(first, first + count) for first, _, count in numbers]
