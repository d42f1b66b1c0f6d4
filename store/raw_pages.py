"""LMDB's trees, read from data.mdb itself, page by page, past LMDB: for the checks of what LMDB trusts.

page      number u64, padding u16, flags u16, lower u16, upper u16, then the offsets of its nodes, u16, up to *lower*
node      low u16, high u16, flags u16, size of the key u16, key, data                      native byte order
          of a branch: low, high and flags are the number of the page below; of a leaf: low and high the data's size
          the data of a leaf may be the number u64 of the first of the pages that hold them, behind one page's header
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.meta_pages import DATABASE

NO_PAGE: Final = 2**64 - 1
_PAGE: Final = struct.Struct("@QHHHH")
_NODE: Final = struct.Struct("@HHHH")
_NUMBER: Final = struct.Struct("@Q")
_BRANCH, _LEAF = 0x01, 0x02  # flags of a page
_ELSEWHERE: Final = 0x01  # flags of a node
TABLE: Final = 0x02
_DATA_BYTES_MAX: Final = 1 << 30


class PageError(Exception):
    """A page is not what the one above it says."""


class Node(NamedTuple):
    """What a leaf holds."""

    flags: int
    key: bytes
    data: bytes


class _Page(NamedTuple):
    """A page of a tree, with where in it the nodes are."""

    number: int
    flags: int
    data: bytes
    places: list[int]


def leaf_nodes(file: int, page_bytes: int, root: int) -> Iterator[Node]:
    """Yield what is in the tree whose root is this page, in order.

    Raises:
        PageError, struct.error: a page is no part of a tree, or of this one twice.
    """
    for page in _pages(file, page_bytes, root):
        if page.flags & _LEAF:
            yield from (_leaf_node(file, page_bytes, page.data, place) for place in page.places)


def highest_page(file: int, page_bytes: int, root: int) -> int:
    """Return the highest page that the tree whose root is this page reaches, with the tables that are in it.

    Raises:
        PageError, struct.error: as `leaf_nodes`.
    """
    highest, roots, seen = 0, [root], set[int]()
    while roots:
        if roots[-1] in seen:
            raise PageError(f"page {roots[-1]} is the root of two tables")
        seen |= {roots[-1]} - {NO_PAGE}
        for page in _pages(file, page_bytes, roots.pop()):
            highest = max(highest, page.number)
            for place in page.places if page.flags & _LEAF else ():
                low, high, flags, key_size = _NODE.unpack_from(page.data, place)
                at = place + _NODE.size + key_size
                if flags & _ELSEWHERE:
                    (first,) = _NUMBER.unpack_from(page.data, at)
                    highest = max(highest, first + (_PAGE.size + (low | high << 16) - 1) // page_bytes)
                elif flags & TABLE:
                    roots.append(DATABASE.unpack_from(page.data, at)[-1])
    return highest


def _pages(file: int, page_bytes: int, root: int) -> Iterator[_Page]:
    """Yield the pages of the tree whose root is this page, each before those below it."""
    stack, seen = [root] if root != NO_PAGE else [], set()
    while stack:
        number = stack.pop()
        if number in seen:
            raise PageError(f"page {number} is in a tree twice")
        seen.add(number)
        data = os.pread(file, page_bytes, number * page_bytes)
        own_number, _, flags, lower, _ = _PAGE.unpack_from(data)
        if own_number != number or flags & (_BRANCH | _LEAF) == 0 or not _PAGE.size <= lower <= page_bytes:
            raise PageError(f"page {number} is not the page of a tree that it should be")
        places = [place for (place,) in struct.iter_unpack("@H", data[_PAGE.size : lower])]
        yield _Page(number, flags, data, places)
        if not flags & _LEAF:
            stack += [_below(data, place) for place in reversed(places)]


def _below(page: bytes, place: int) -> int:
    low, middle, high, _ = _NODE.unpack_from(page, place)
    number: int = low | middle << 16 | high << 32
    return number


def _leaf_node(file: int, page_bytes: int, page: bytes, place: int) -> Node:
    low, high, flags, key_size = _NODE.unpack_from(page, place)
    at, size = place + _NODE.size + key_size, low | high << 16
    data = page[at : at + size]
    if flags & _ELSEWHERE:
        (number,) = _NUMBER.unpack_from(page, at)
        data = os.pread(file, min(size, _DATA_BYTES_MAX), number * page_bytes + _PAGE.size)
    if len(data) != size:
        raise PageError("the data of a node end outside of the file")
    return Node(flags, page[at - key_size : at], data)
