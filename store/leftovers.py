"""What takes space in a repository and belongs to nothing: left over from processes that were killed.

objects/ab/cd…     a loose file that no record names: a commit, or a prune, did not come to its end
tmp/stage-…        a stage that no process holds
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from store.content import file_record
from store.database import Reading
from store.errors import FsviewError
from store.objects import Checksum, ObjectType
from store.repository import SETTINGS_FILE, Repository
from store.schema import FileId, Storage
from store.tree import object_id

_DIRECTORY_NAME: Final = re.compile("[0-9a-f]{2}")
_LOOSE_NAME: Final = re.compile("[0-9a-f]{62}")


def unnamed_files(repository: Repository) -> Iterator[Checksum]:
    """Yield the checksums that loose files have and no record of a loose file has.

    A commit that is being published may have moved some of them here, so look again under the exclusive lock.
    """
    for directory in _names(repository.path / "objects"):
        if _DIRECTORY_NAME.fullmatch(directory):
            names = [name for name in _names(repository.path / "objects" / directory) if _LOOSE_NAME.fullmatch(name)]
            with repository.database.reading() as reading:  # begun after the look: what was published before it counts
                for name in names:
                    checksum = Checksum(bytes.fromhex(directory + name))
                    if not is_named(reading, checksum):
                        yield checksum


def loose_files(repository: Repository) -> Iterator[Path]:
    """Yield the paths in objects/ that loose files have."""
    for directory in filter(_DIRECTORY_NAME.fullmatch, _names(repository.path / "objects")):
        path = repository.path / "objects" / directory
        yield from (path / name for name in _names(path) if _LOOSE_NAME.fullmatch(name))


def strangers(repository: Repository) -> Iterator[Path]:
    """Yield what is in objects/ and can't have come from here."""
    for directory in _names(repository.path / "objects"):
        path = repository.path / "objects" / directory
        if not _DIRECTORY_NAME.fullmatch(directory) or path.is_symlink() or not path.is_dir():
            yield path
        else:
            yield from (path / name for name in _names(path) if not _LOOSE_NAME.fullmatch(name))


def is_named(reading: Reading, checksum: Checksum) -> bool:
    """Whether a record says that the contents of this file object are loose, or is too damaged to say so."""
    try:
        number = object_id(reading, ObjectType.FILE, checksum)
        return number is not None and file_record(reading, FileId(number)).storage == Storage.LOOSE
    except (FsviewError, ValueError, struct.error):
        return True


def temporary_files(repository: Repository) -> list[Path]:
    """Return what is in tmp/ and belongs to no living process, and what a killed `init` left."""
    found = _stale(repository.path / "tmp")
    settings = repository.path / f"{SETTINGS_FILE}.tmp"
    return [*found, settings] if settings.exists() else found


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _stale(tmp: Path) -> list[Path]:
    """Return what belongs to no living process. Stages are made under the lock that is taken here."""
    try:
        descriptor = os.open(tmp, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return []
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return [tmp / name for name in _names(tmp) if not (name.startswith("stage-") and _is_held(tmp / name))]
    finally:
        os.close(descriptor)


def _is_held(stage: Path) -> bool:
    """Whether a living process has this stage."""
    try:
        descriptor = os.open(stage / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # for all that this user can tell
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
