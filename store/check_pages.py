"""Check LMDB's two meta pages, which say where everything is, and which nothing guards; and the roots of the tables.

LMDB writes them in turn: transaction N goes to page N & 1, so the two always hold neighbouring numbers. A bit that
flips there can make the state before the last commit look like the present one, which no other check would notice.
A page that the disk refused looks the same (LMDB gives it back its old number, but not its databases), and is reported
too, though the next commit overwrites it.

In the same way the number of a root, of which there is one for each table, may lead to a page that was the root before.
Such a page is among the free ones.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from store.findings import Finding, error
from store.meta_pages import DATABASE, DATABASES_AT, MAGIC, META, META_FLAG, ROOTS_AT, VERSION, page_bytes_of
from store.raw_pages import NO_PAGE, TABLE, PageError, leaf_nodes

_TRIES, _PAUSE_S = 5, 0.02  # a commit may be writing one just now …
_TRIES_MAX: Final = 250  # … and another one
_FREEING_FROM: Final = 3


def check_pages(index: Path) -> Iterator[Finding]:
    """Yield what is wrong with the meta pages of the index in the directory *index*."""
    path, tries, before = index / "data.mdb", 0, b""
    for _ in range(_TRIES_MAX):
        problems, metas = _problems(path)
        tries = tries + 1 if metas == before else 1
        if not problems or tries == _TRIES:
            break
        before = metas
        time.sleep(_PAUSE_S)
    for what in problems:
        yield error(what, str(path))


def _problems(path: Path) -> tuple[list[str], bytes]:
    """Return what is wrong, and the meta pages with which it is."""
    metas = b""
    try:
        with path.open("rb") as file:
            page_bytes = page_bytes_of(file.read(4096))
            pages = [os.pread(file.fileno(), page_bytes, number * page_bytes) for number in range(2)]
            metas = b"".join(pages)
            problems = _wrong_metas(pages, page_bytes)
            if not problems:  # else these numbers lead anywhere
                newest = max(pages, key=lambda page: int(META.unpack_from(page)[-1]))
                for page in pages:
                    problems += _wrong_trees(file.fileno(), page, page_bytes, is_newest=page is newest)
    except (OSError, struct.error, PageError) as problem:
        problems = [f"it can't be read: {problem}"]
    return problems, metas


def _wrong_metas(pages: list[bytes], page_bytes: int) -> list[str]:
    metas = [META.unpack_from(page) for page in pages]
    problems = [what for number, meta in enumerate(metas) for what in _wrong_meta(number, meta)]
    transactions = [meta[-1] for meta in metas]
    for number, (page, meta) in enumerate(zip(pages, metas, strict=True)):
        problems += [f"meta page {number}: {what}" for what in _wrong_databases(page, page_bytes, meta[-2])]
    if abs(transactions[0] - transactions[1]) != 1 and transactions != [0, 0]:
        problems.append(f"the meta pages are of the transactions {transactions}, which are not neighbours")
    return problems


def _wrong_trees(file: int, meta_page: bytes, page_bytes: int, *, is_newest: bool) -> list[str]:
    """Check what hangs on a meta page: its tree of free pages, and that no table has one of these for a root."""
    transaction = META.unpack_from(meta_page)[-1]
    free_root, main_root = (struct.unpack_from("@Q", meta_page, at)[0] for at in ROOTS_AT)
    last, free = 0, set[int]()
    for node in leaf_nodes(file, page_bytes, free_root):
        (last,) = struct.unpack("@Q", node.key)
        (count,) = struct.unpack_from("@Q", node.data)
        free |= set(struct.unpack_from(f"@{count}Q", node.data, 8))
    if last != transaction and (last or transaction >= _FREEING_FROM):
        return [f"a meta page is of transaction {transaction}, its tree of free pages of {last}"]
    return list(_free_roots(file, page_bytes, main_root, free)) if is_newest else []


def _free_roots(file: int, page_bytes: int, main_root: int, free: set[int]) -> Iterator[str]:
    """Yield what has a free page for its root: there is what was in it before a transaction wrote it anew elsewhere."""
    if main_root in free:
        yield f"page {main_root}, the root of the table of tables, is a free page"
        return
    for node in leaf_nodes(file, page_bytes, main_root):
        if node.flags & TABLE and (root := DATABASE.unpack(node.data)[-1]) in free:
            yield f"page {root}, the root of table {node.key.decode('ascii', 'backslashreplace')}, is a free page"


def _wrong_meta(number: int, meta: tuple[int, ...]) -> list[str]:
    page, _, flags, _, _, magic, version, _, map_bytes, last_page, transaction = meta
    problems = []
    if (page, flags & META_FLAG, magic, version) != (number, META_FLAG, MAGIC, VERSION):
        problems.append(f"meta page {number} has the number {page}, flags {flags:#x}, magic {magic:#x}, v{version}")
    if transaction and transaction & 1 != number:
        problems.append(f"meta page {number} is of transaction {transaction}, which belongs to the other page")
    if not map_bytes or last_page * 512 > map_bytes:
        problems.append(f"meta page {number} has {last_page} pages in a map of {map_bytes} bytes")
    return problems


def _wrong_databases(page: bytes, page_bytes: int, last_page: int) -> list[str]:
    problems = []
    for number in range(2):
        pad, _, _, branch, leaf, overflow, _, root = DATABASE.unpack_from(page, DATABASES_AT + 48 * number)
        if number == 0 and pad != page_bytes:
            problems.append(f"the size of pages is {pad}")
        if root != NO_PAGE and root > last_page:
            problems.append(f"a root is page {root}, the last page is {last_page}")
        if branch + leaf + overflow > last_page + 1:
            problems.append(f"it counts {branch + leaf + overflow} pages, the last page is {last_page}")
    return problems
