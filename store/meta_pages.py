"""LMDB's two meta pages, at the beginning of data.mdb: what is in them.

    page        number u64, padding u16, flags u16, lower u16, upper u16         native byte order
    then        magic u32, version u32, address u64, map size u64,
                two databases of 48 bytes (free pages; the table of tables), last page u64, transaction u64

LMDB writes them in turn. The one of the later transaction is what holds.
"""

from __future__ import annotations

import os
import struct
from typing import Final

META: Final = struct.Struct("@QHHHH IIQQ 96x QQ")
DATABASE: Final = struct.Struct("@IHHQQQQQ")  # pad (page size), flags, depth, three counts of pages, entries, root
DATABASES_AT: Final = 40
ROOTS_AT: Final = (DATABASES_AT + 40, DATABASES_AT + 88)
MAGIC: Final = 0xBEEFC0DE
VERSION: Final = 1
META_FLAG: Final = 0x08
assert META.size == 152 and DATABASE.size == 48

_SIZES: Final = frozenset(1 << power for power in range(9, 17))


def page_bytes_of(start: bytes) -> int:
    """Return how long pages are, by what data.mdb begins with.

    Raises:
        struct.error: it is shorter than a meta page.
    """
    pad: int = DATABASE.unpack_from(start, DATABASES_AT)[0]
    return pad if pad in _SIZES else os.sysconf("SC_PAGE_SIZE")
