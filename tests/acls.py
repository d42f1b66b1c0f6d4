"""POSIX ACLs as the kernel takes them, in the xattrs system.posix_acl_access and system.posix_acl_default."""

from __future__ import annotations

import re
import struct
from typing import Final

ACCESS: Final = "system.posix_acl_access"
DEFAULT: Final = "system.posix_acl_default"
_NO_ID: Final = 2**32 - 1
_TAGS: Final = {"u": (1, 2), "g": (4, 8), "m": (16, 16), "o": (32, 32)}  # without an id, and with one
_ENTRY: Final = re.compile(r"([ugmo]):(\d*):([r-][w-][x-])")


def acl(text: str) -> bytes:
    """Return an ACL from `getfacl`'s short form: "u::rwx,u:1234:r-x,g::r-x,m::rwx,o::---"."""
    entries = []
    for part in text.split(","):
        found = _ENTRY.fullmatch(part)
        assert found is not None, part
        kind, number, letters = found.groups()
        bits = sum(value for value, letter in zip((4, 2, 1), letters, strict=True) if letter != "-")
        entries.append((_TAGS[kind][number != ""], bits, int(number) if number else _NO_ID))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))
