"""Check LMDB's two meta pages, which say where everything is, and which nothing guards.

LMDB writes them in turn: transaction N goes to page N & 1, so the two always hold neighbouring numbers. A bit that
flips there can make the state before the last commit look like the present one, which no other check would notice.
A page that the disk refused looks the same (LMDB gives it back its old number, but not its databases), and is reported
too, though the next commit overwrites it.

    page        number u64, padding u16, flags u16, lower u16, upper u16         native byte order
    then        magic u32, version u32, address u64, map size u64,
                two databases of 48 bytes (free pages; the table of tables), last page u64, transaction u64
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from store.findings import Finding, error

_META = struct.Struct("@QHHHH IIQQ 96x QQ")
_DATABASE = struct.Struct("@IHHQQQQQ")  # pad (page size), flags, depth, branch, leaf, overflow pages, entries, root
_DATABASES_AT: Final = 40
_MAGIC, _VERSION, _META_FLAG = 0xBEEFC0DE, 1, 0x08
_TRIES, _PAUSE_S = 5, 0.02  # a commit may be writing one just now
_NO_PAGE: Final = 2**64 - 1
_PAGE = struct.Struct("@QHHHH")
_NODE = struct.Struct("@HHHH")
_BRANCH, _LEAF = 0x01, 0x02
_FREE_ROOT_AT: Final = _DATABASES_AT + 40
_FREEING_FROM: Final = 3
_DEPTH_MAX: Final = 32  # LMDB's own
assert _META.size == 152 and _DATABASE.size == 48


def check_pages(index: Path) -> Iterator[Finding]:
    """Yield what is wrong with the meta pages of the index in the directory *index*."""
    path = index / "data.mdb"
    for tries_left in reversed(range(_TRIES)):
        try:
            problems = _problems(path)
        except (OSError, struct.error) as problem:
            problems = [f"it can't be read: {problem}"]
        if not problems or not tries_left:
            break
        time.sleep(_PAUSE_S)
    for what in problems:
        yield error(what, str(path))


def _problems(path: Path) -> list[str]:
    with path.open("rb") as file:
        page_bytes = _page_bytes(file.read(4096))
        pages = [os.pread(file.fileno(), page_bytes, number * page_bytes) for number in range(2)]
        problems = _wrong_metas(pages, page_bytes)
        if not problems:  # else these numbers lead anywhere
            problems = [what for page in pages for what in _wrong_free(file.fileno(), page, page_bytes)]
    return problems


def _wrong_metas(pages: list[bytes], page_bytes: int) -> list[str]:
    metas = [_META.unpack_from(page) for page in pages]
    problems = [what for number, meta in enumerate(metas) for what in _wrong_meta(number, meta)]
    transactions = [meta[-1] for meta in metas]
    for number, (page, meta) in enumerate(zip(pages, metas, strict=True)):
        problems += [f"meta page {number}: {what}" for what in _wrong_databases(page, page_bytes, meta[-2])]
    if abs(transactions[0] - transactions[1]) != 1 and transactions != [0, 0]:
        problems.append(f"the meta pages are of the transactions {transactions}, which are not neighbours")
    return problems


def _wrong_free(file: int, meta_page: bytes, page_bytes: int) -> list[str]:
    """Compare a meta page's transaction with the last that its tree of free pages knows."""
    transaction = _META.unpack_from(meta_page)[-1]
    (number,) = struct.unpack_from("@Q", meta_page, _FREE_ROOT_AT)
    for _ in range(_DEPTH_MAX):
        if number == _NO_PAGE:
            return [] if transaction < _FREEING_FROM else [f"transaction {transaction} has no record of freed pages"]
        page = os.pread(file, page_bytes, number * page_bytes)
        own_number, _, flags, lower, _ = _PAGE.unpack_from(page)
        if own_number != number or flags & (_BRANCH | _LEAF) == 0 or not _PAGE.size < lower <= page_bytes:
            return [f"page {number} is not the page of the tree of free pages that it should be"]
        (at,) = struct.unpack_from("@H", page, lower - 2)
        low, middle, high, _ = _NODE.unpack_from(page, at)
        if flags & _LEAF:
            (last,) = struct.unpack_from("@Q", page, at + _NODE.size)
            return [] if last == transaction else [f"a meta page is of transaction {transaction}, its tree of {last}"]
        number = low | middle << 16 | high << 32
    return ["the tree of free pages is too deep"]


def _page_bytes(start: bytes) -> int:
    pad: int = _DATABASE.unpack_from(start, _DATABASES_AT)[0]
    return pad if pad in (1 << power for power in range(9, 17)) else os.sysconf("SC_PAGE_SIZE")


def _wrong_meta(number: int, meta: tuple[int, ...]) -> list[str]:
    page, _, flags, _, _, magic, version, _, map_bytes, last_page, transaction = meta
    problems = []
    if (page, flags & _META_FLAG, magic, version) != (number, _META_FLAG, _MAGIC, _VERSION):
        problems.append(f"meta page {number} has the number {page}, flags {flags:#x}, magic {magic:#x}, v{version}")
    if transaction and transaction & 1 != number:
        problems.append(f"meta page {number} is of transaction {transaction}, which belongs to the other page")
    if not map_bytes or last_page * 512 > map_bytes:
        problems.append(f"meta page {number} has {last_page} pages in a map of {map_bytes} bytes")
    return problems


def _wrong_databases(page: bytes, page_bytes: int, last_page: int) -> list[str]:
    problems = []
    for number in range(2):
        pad, _, _, branch, leaf, overflow, _, root = _DATABASE.unpack_from(page, _DATABASES_AT + 48 * number)
        if number == 0 and pad != page_bytes:
            problems.append(f"the size of pages is {pad}")
        if root != _NO_PAGE and root > last_page:
            problems.append(f"a root is page {root}, the last page is {last_page}")
        if branch + leaf + overflow > last_page + 1:
            problems.append(f"it counts {branch + leaf + overflow} pages, the last page is {last_page}")
    return problems
