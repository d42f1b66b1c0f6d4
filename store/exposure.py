"""What a repository lets others do: that they can enter it, or have rights by a loose file; and how that is mended.

Repositories of older programs could be entered by everybody, and their loose files had all that their objects have:
set-user-ID programs of any commit could be run from objects/.

First the directory REPO itself is closed: that is the step that counts. Then each loose file that gives more rights
than it is published with (store/loose.py) is copied to REPO/tmp, made durable, and renamed over it: the atomic step.
The old file, with its bits, stays what it is in each checkout and deployment that is linked to it; to change its mode
would change it there, too. That is done under the exclusive lock: a commit might publish the same name.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import ENOTSUP
from pathlib import Path
from typing import Final, NamedTuple

from store import entrance
from store.content import file_header, file_record
from store.database import Reading
from store.errors import AccessError
from store.findings import Finding, Severity
from store.leftovers import loose_files
from store.loose import Dress, excess, own, published_as, put_on
from store.objects import Checksum, ObjectType
from store.repository import SETTINGS_FILE, Repository, Settings, opened_directory, sync_directory
from store.schema import FileId
from store.tree import object_id

MEND: Final = "fsview doctor --fix {}"
_ENTERED_BY_OTHERS: Final = 0o007
_ENTERED_BY_GROUP: Final = 0o070
_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE_BYTES: Final = 1 << 30


class Closed(NamedTuple):
    """What was mended: the mode of REPO before, if that was changed, and how many loose files are new ones."""

    mode_before: int | None
    loose: int


def open_to_others(path: Path, settings: Settings) -> str | None:
    """Return who can enter the repository *path* but should not, in words; None if nobody can."""
    mode = stat.S_IMODE(path.stat().st_mode)
    wanted = _ENTERED_BY_OTHERS | (0 if settings.is_shared else _ENTERED_BY_GROUP)
    if not mode & wanted:
        return None
    who = "all users" if mode & _ENTERED_BY_OTHERS else "the members of its group"
    return f"{who} can enter it (mode {mode:04o}), and run and read what is in objects/"


def check_rights(repository: Repository) -> Iterator[Finding]:
    """Yield what others can do with a repository, that they should not."""
    mend = MEND.format(repository.path)
    who = open_to_others(repository.path, repository.settings)
    if who is not None:
        yield Finding(Severity.OPEN, who, str(repository.path), mend)
    for path, why in _exposed(repository):
        yield Finding(Severity.OPEN, f"this loose file gives rights: {why}", str(path), mend)


def close_to_others(path: Path, report: Callable[[int], object] = lambda step: None) -> Closed:
    """Mend all that `check_rights` would find in the repository *path*; *report* hears of each loose file.

    Raises:
        NotFoundError, FormatError: it is none.
        AccessError: it belongs to somebody else.
        OSError: the disk is full.
    """
    before = _close_directory(path)
    with Repository.open(path) as repository, repository.lock(exclusive=True):
        directories, count = set(), 0
        for loose, _ in _exposed(repository):
            _renew(repository, loose)
            directories.add(loose.parent)
            count += 1
            report(1)
        for directory in directories:
            sync_directory(directory)
    return Closed(before, count)


def _close_directory(path: Path) -> int | None:
    """Give the directory *path* and the parts in it their modes; return the one that it had if it was another."""
    with entrance.entered(path) as top:
        before = stat.S_IMODE(os.fstat(top).st_mode)
        _change(top, path, before & ~_ENTERED_BY_OTHERS)  # from now on nothing is reached from outside
        with suppress(FileNotFoundError):
            _change_part(top, path / SETTINGS_FILE, lambda mode: mode & ~0o022)
    with opened_directory(path) as (top, settings):
        modes, group = settings.modes, os.fstat(top).st_gid if settings.is_shared else -1
        _change(top, path, modes.directory)
        for part in _parts(path):
            with suppress(FileNotFoundError):
                _change_part(top, part, lambda mode: modes.directory if stat.S_ISDIR(mode) else modes.file, path, group)
    return None if before == modes.directory else before


def _parts(path: Path) -> Iterator[Path]:
    yield from (path / name for name in (*entrance.DIRECTORIES, *entrance.FILES))
    yield from (path / "index" / name for name in entrance.INDEX_FILES)
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from (path / "objects" / name for name in sorted(os.listdir(path / "objects")))


def _change_part(
    top: int, part: Path, wanted: Callable[[int], int], path: Path | None = None, group: int = -1
) -> None:  # fmt: skip
    """Give a part its mode, by its descriptor; one that is a symlink, or not to be trusted, stays as it is."""
    descriptor = os.open(part.relative_to(path or part.parent), _PATH, dir_fd=top)
    try:
        status = os.fstat(descriptor)
        if entrance.is_trusted(status.st_uid) and (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            if group not in (-1, status.st_gid):
                os.chown(f"/proc/self/fd/{descriptor}", -1, group)
            _change(descriptor, part, wanted(status.st_mode))
    finally:
        os.close(descriptor)


def _change(descriptor: int, shown: Path, mode: int) -> None:
    mode = stat.S_IMODE(mode)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    except PermissionError as error:
        raise AccessError(f"{shown} is not yours to change: run this as the owner of the repository") from error


def _exposed(repository: Repository) -> Iterator[tuple[Path, str]]:
    """Yield the loose files that give more rights than they should, and why that is so."""
    top, shared = repository.path.stat(), repository.settings.is_shared
    for path in loose_files(repository):
        with suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                why = excess(status, _xattrs(path), shared=shared, owner=top.st_uid, group=top.st_gid)
                if why is not None:
                    yield path, why


def _xattrs(path: Path) -> list[bytes]:
    try:
        return [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
    except OSError as error:
        if error.errno != ENOTSUP:  # this file system has none
            raise
        return []


def _renew(repository: Repository, loose: Path) -> None:
    """Put a copy that gives no rights in the place of a loose file."""
    owner = repository.path.stat()
    with repository.database.reading() as reading:
        dress = _dress(repository, reading, Checksum(bytes.fromhex(loose.parent.name + loose.name)), owner.st_uid)
    source = os.open(loose, _READ)
    target, name = tempfile.mkstemp(prefix="renew-", dir=repository.path / "tmp")
    try:
        status = os.fstat(source)
        _copy(source, target, status.st_size)
        if os.geteuid() == 0:
            os.fchown(target, owner.st_uid, owner.st_gid)  # as if the owner had made it
        elif repository.settings.is_shared:
            os.fchown(target, -1, owner.st_gid)
        put_on(target, dress)
        os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
        os.fsync(target)
        os.rename(name, loose)
    except BaseException:
        os.unlink(name)
        raise
    finally:
        os.close(source)
        os.close(target)


def _dress(repository: Repository, reading: Reading, checksum: Checksum, owner: int) -> Dress:
    number = object_id(reading, ObjectType.FILE, checksum)
    if number is None:  # a leftover, which a prune removes
        return own(shared=repository.settings.is_shared)
    header = file_header(file_record(reading, FileId(number)))
    return published_as(header, shared=repository.settings.is_shared, uid=owner)


def _copy(source: int, target: int, size: int) -> None:
    """Copy all bytes; where the file system can, by sharing its blocks."""
    done = 0
    while done < size:
        step = os.copy_file_range(source, target, min(_PIECE_BYTES, size - done))
        if step == 0:
            break
        done += step
