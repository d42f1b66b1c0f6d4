"""How deep a tree may be, how long its paths, and how large what is held whole: nothing beyond comes in, and who reads
what is there already says so.

A walk keeps the path of every directory that it is in, so the product of the two is what it may cost: 320 MB. All that
fsview does with trees goes by open directories, name by name, so a path may well be longer than the 4095 bytes that
the kernel takes at a time; 32 KiB are eight times that, and 10,000 levels of names of two letters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from store.errors import FormatError

LEVELS_MAX: Final = 10_000  # directories inside each other, the root not counted
PATH_BYTES_MAX: Final = 32 << 10  # of a path in a tree, with its leading "/"
METADATA_BYTES_MAX: Final = 10 << 20  # of a commit object, and of its detached metadata; as OSTree has had it
XATTRS_BYTES_MAX: Final = 1 << 20  # of a file's names and values together; the kernel lets there be 4000 times 64 KiB
SMALL_FILE_BYTES_MAX: Final = 1 << 20  # of files that hold settings, notes or keys
_SHOWN_BYTES: Final = 255


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


def read_small(path: Path, bytes_max: int = SMALL_FILE_BYTES_MAX) -> bytes:
    """Return what is in a file that is held whole.

    Raises:
        FormatError: it is larger than any such file is, or has no end.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise FormatError(f"{path} has more than {bytes_max:,} bytes, so it is not what it should be; it was not read")
    return data
