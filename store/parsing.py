"""A stored value is guarded, so it is what was written; but who can write to the index can forge guards as well."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

from store.errors import CorruptionError, FormatError

T = TypeVar("T")


def parsed(what: str, where: str, value: bytes, parse: Callable[[bytes], T]) -> T:
    """Return a record as *parse* makes it of a stored value; *what* is stored *where*, for the message.

    Raises:
        CorruptionError: it is no such record.
    """
    try:
        return parse(value)
    except (struct.error, ValueError, FormatError) as problem:
        raise CorruptionError(what, where, "a record", str(problem)) from None
