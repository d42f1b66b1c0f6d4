"""Whether data.mdb is as long as LMDB believes: it maps the file, and who reads behind its end is killed by SIGBUS.

A sound file may end before the last page that the meta page counts: pages at the end that became free before they were
written. Then it is as long as it must be if it has the highest page that the trees reach; they are walked only then.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from store.errors import CorruptionError
from store.meta_pages import MAGIC, META, ROOTS_AT, page_bytes_of

_START_BYTES: Final = 8192  # both meta pages, where pages are as long as usual


def check_length(index: Path, shown: Path) -> None:
    """Refuse the data.mdb in the directory *index*, which errors call *shown*, if a page of it was cut off.

    What has no meta pages is left to LMDB to complain of.

    Raises:
        CorruptionError: it was.
        OSError: it can't be read.
    """
    file = os.open(index / "data.mdb", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        cut, before = _missing(file), None
        while cut is not None and (before is None or cut.meta != before.meta):
            before, cut = cut, _missing(file)  # again: somebody may have committed while the trees were walked
        if cut is not None:
            raise CorruptionError("the index", str(shown / "data.mdb"), f"at least {cut.needed} bytes", cut.found)
    finally:
        os.close(file)


class _Cut(NamedTuple):
    """What a file lacks: by which meta page, how many bytes it must have, and what there is."""

    meta: bytes
    needed: int
    found: str


def _missing(file: int) -> _Cut | None:
    meta = _newest_meta(file)  # first: what it counts was written before it
    if meta is None:
        return None
    page, page_bytes = meta
    size = os.fstat(file).st_size
    last_page: int = META.unpack_from(page)[-2]
    if (last_page + 1) * page_bytes <= size:
        return None
    needed = (_highest(file, page, page_bytes, size) + 1) * page_bytes
    return _Cut(page, needed, f"{size}: it was cut off") if needed > size else None


def _newest_meta(file: int) -> tuple[bytes, int] | None:
    """Return the meta page that holds, and how long pages are; None if it is no file of LMDB's."""
    start = os.pread(file, _START_BYTES, 0)
    try:
        page_bytes = page_bytes_of(start)
        if 2 * page_bytes > len(start):
            start = os.pread(file, page_bytes + META.size, 0)
        pages = [start[:page_bytes], start[page_bytes:]]
        metas = [META.unpack_from(page) for page in pages]
    except struct.error:
        return None
    if any(meta[5] != MAGIC for meta in metas):
        return None
    return pages[metas[1][-1] > metas[0][-1]], page_bytes


def _highest(file: int, meta: bytes, page_bytes: int, size: int) -> int:
    from store.raw_pages import PageError, highest_page  # seldom needed

    try:
        return max(highest_page(file, page_bytes, *struct.unpack_from("@Q", meta, at)) for at in ROOTS_AT)
    except (PageError, struct.error):  # a tree ends behind the end of the file, or in other damage
        return size // page_bytes
