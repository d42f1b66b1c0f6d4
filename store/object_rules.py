"""What the fields of an object may be. Each check raises InvalidNameError, and says what is wrong.

OSTree's own fsck passes unsorted names, a name twice, the empty name and a name that is both a file and a directory;
its other commands then fail or abort. Here none of these gets in.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from operator import lt
from typing import Final

from store.bounds import METADATA_BYTES_MAX
from store.errors import InvalidNameError
from store.gvariant import Variant

CHECKSUM_BYTES: Final = 32
NAME_BYTES_MAX: Final = 255
TARGET_BYTES_MAX: Final = 4095  # of a symlink: what the kernel takes
PERMISSION_BITS: Final = 0o7777

_U32_MAX: Final = 2**32 - 1
_NEVER_NAMES: Final = frozenset((b"", b".", b".."))
_NEVER_BYTES: Final = frozenset(b"/\0")


def check_names(names: list[bytes]) -> None:
    """Raise unless *names* can stand in a directory, in this order. All at once: this runs for every entry."""
    joined = b"\0".join(names)
    try:
        joined.decode()
        fine = joined.count(b"\0") == max(len(names) - 1, 0) and b"/" not in joined
    except UnicodeDecodeError:
        fine = False
    if not fine or max(map(len, names), default=0) > NAME_BYTES_MAX or not _NEVER_NAMES.isdisjoint(names):
        raise InvalidNameError(f"not a file name: {next(name for name in names if not _is_name(name))!r:.300}")
    if not all(map(lt, names, islice(names, 1, None))):
        first, second = next(pair for pair in pairwise(names) if pair[0] >= pair[1])
        raise InvalidNameError(f"names are not in order or not unique: {second!r} after {first!r}")


def _is_name(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return name not in _NEVER_NAMES and len(name) <= NAME_BYTES_MAX and not _NEVER_BYTES.intersection(name)


def check_digests(digests: Iterable[bytes]) -> None:
    """Raise unless each is a sha256."""
    wrong = set(map(len, digests)) - {CHECKSUM_BYTES}
    if wrong:
        raise InvalidNameError(f"a checksum has 32 bytes, not {min(wrong)}")


def check_owner(uid: int, gid: int) -> None:
    """Raise unless both are 32 bits wide."""
    if not (0 <= uid <= _U32_MAX and 0 <= gid <= _U32_MAX):
        raise InvalidNameError(f"an owner's numbers have 32 bits, unlike {uid} and {gid}")


def check_target(mode: int, target: bytes) -> None:
    """Raise unless *mode* is a symlink's or a regular file's, and *target* fits it."""
    kind = mode & ~PERMISSION_BITS
    if kind not in (stat.S_IFREG, stat.S_IFLNK):
        raise InvalidNameError(f"not the mode of a regular file or symlink: {mode:#o}")
    try:
        fits = bool(target) == (kind == stat.S_IFLNK) and "\0" not in target.decode()
    except UnicodeDecodeError:
        fits = False
    if not fits:
        raise InvalidNameError(f"not the target of a file with mode {mode:#o}: {target!r:.300}")


def check_xattrs(xattrs: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise unless the names are sorted, unique, not empty and without NUL."""
    names = [name for name, _ in xattrs]
    if b"" in names or any(b"\0" in name for name in names):
        raise InvalidNameError(f"not the names of xattrs: {names!r:.300}")
    if not all(map(lt, names, islice(names, 1, None))):
        raise InvalidNameError(f"xattrs are not in order or not unique: {names!r:.300}")


def check_keys(entries: Iterable[tuple[str, Variant]]) -> None:
    """Raise if a key of the metadata is empty."""
    if any(not key for key, _ in entries):
        raise InvalidNameError("a metadata key is empty")


def check_metadata_size(what: str, size_bytes: int) -> None:
    """Raise if a commit object or its detached metadata are larger than any may be: they are held whole."""
    if size_bytes > METADATA_BYTES_MAX:
        raise InvalidNameError(f"{what} may have {METADATA_BYTES_MAX:,} bytes, not {size_bytes:,}")


def check_target_size(target: bytes) -> None:
    """Raise if no system can have a symlink with this target: the object is valid, but nobody could check it out."""
    if len(target) > TARGET_BYTES_MAX:
        raise InvalidNameError(
            f"a symlink's target may have {TARGET_BYTES_MAX} bytes, not {len(target)}: {target[:40]!r}…"
        )
