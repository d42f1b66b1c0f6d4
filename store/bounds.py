"""How deep a tree may be and how long its paths: nothing comes in that is beyond, and who reads older trees says so.

A walk keeps the path of every directory that it is in, so the product of the two is what it may cost: 320 MB. All that
fsview does with trees goes by open directories, name by name, so a path may well be longer than the 4095 bytes that
the kernel takes at a time; 32 KiB are eight times that, and 10,000 levels of names of two letters.
"""

from __future__ import annotations

from typing import Final

from store.errors import FormatError

LEVELS_MAX: Final = 10_000  # directories inside each other, the root not counted
PATH_BYTES_MAX: Final = 32 << 10  # of a path in a tree, with its leading "/"
_SHOWN_BYTES: Final = 60


def shortened(path: bytes) -> str:
    """Return a path for a message, of one that is very long only the beginning."""
    text = path[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(path) <= _SHOWN_BYTES else f"{text}…"


def beyond(levels: int, path_bytes: int) -> str:
    """Return what is too much about a directory so many levels below its root, or a path of so many bytes; "": none."""
    if levels > LEVELS_MAX:
        return f"more than {LEVELS_MAX:,} levels of directories"
    if path_bytes > PATH_BYTES_MAX:
        return f"a path of more than {PATH_BYTES_MAX:,} bytes"
    return ""


def check_place(levels: int, path: bytes) -> None:
    """Refuse to go on into the directory at *path*, so many levels below the root, in a tree that is there already.

    Raises:
        FormatError: no tree that is committed now is as deep.
    """
    what = beyond(levels, len(path))
    if what:
        raise FormatError(
            f"this tree has {what}, below {shortened(path)}: no file system takes it, and fsview commits no such tree "
            f"any more; leave that out in a new commit (--tree=ref=REV --ignore=PATH)"
        )
