"""What a tar archive may ask for: each bound holds before memory or disk is used, whoever parses the archive.

Of the archive's own bytes nothing is bounded here but what has to be held at once: its files go to disk as they come.
What is compressed stays compressed on the way, so a gzip bomb costs what its files take in the repository, as with
`tar x`, and a full disk ends it. A hole costs the archive nothing at all, so holes are counted.
"""

from __future__ import annotations

from typing import Final

from store.errors import FormatError
from tools.render import size_text

HEADER_BYTES_MAX: Final = 1 << 20  # of a pax header, a long name or a long link target; of all global headers together
EXTENSIONS_MAX: Final = 16  # headers in a row that only tell of the next one
SPARSE_PARTS_MAX: Final = 1 << 18  # pieces of data between the holes of one file
XZ_MEMORY_BYTES_MAX: Final = 256 << 20  # `xz -9` takes 65 MiB
HOLES_BYTES_FREE: Final = 1 << 30  # so much may be holes in any archive …
HOLES_RATIO: Final = 16  # … and so many times its size


def check_header(size_bytes: int) -> None:
    """Refuse a header that has to be held in memory.

    Raises:
        FormatError: it is larger than any that describes a file.
    """
    if size_bytes > HEADER_BYTES_MAX:
        raise FormatError(
            f"the tar archive has a header of {size_text(size_bytes)}, more than {size_text(HEADER_BYTES_MAX)}; refused"
        )


def check_parts(count: int) -> None:
    """Refuse a file with more holes than are worth to be listed.

    Raises:
        FormatError: there are more.
    """
    if count > SPARSE_PARTS_MAX:
        raise FormatError(
            f"the tar archive has a sparse file in more than {SPARSE_PARTS_MAX} pieces; refused; "
            f"pack it without --sparse"
        )


class Holes:
    """Counts the holes of one archive, which are stored in full."""

    def __init__(self, *, allowed: bool) -> None:
        """*allowed*: who commits knows of them, so they are not bounded."""
        self._allowed, self._bytes = allowed, 0

    def add(self, name: str, size_bytes: int, archive_bytes: int) -> None:
        """Count a hole of the file *name* in an archive of so many bytes, as far as is known.

        Raises:
            FormatError: the holes are out of proportion.
        """
        self._bytes += size_bytes
        if not self._allowed and self._bytes > HOLES_BYTES_FREE + HOLES_RATIO * archive_bytes:
            raise FormatError(
                f"the tar archive has holes of {size_text(self._bytes)} in sparse files, up to {name!r:.200}, which "
                f"would be stored in full; nothing was committed; take them with --allow-holes, or leave it out "
                f"with --ignore"
            )
