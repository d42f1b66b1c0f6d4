"""The way into a repository: whose it is, that its parts are what they seem, and what others may do there.

Whoever owns a repository says what is read in it, and which files are written: LMDB opens lock.mdb to write in it, and
follows a symlink. So a repository, or a part of it, that belongs neither to the caller nor to root is refused, as by
git's safe.directory, unless the caller trusts its owner (`trust`). No part is a symlink, a FIFO or the like.

A directory is opened once, looked at by its descriptor, and used by that: so nobody who owns a directory above can put
another one in its place meanwhile. In a directory that only its owner may write, names stay what they were.

    private          directories 0700, files 0600: others read through a view
    shared = group   directories 2770, files 0660, loose files 0640 (store/loose.py)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from store.errors import AccessError, FormatError

DIRECTORIES: Final = ("index", "objects", "tmp", "damaged")
FILES: Final = ("lock",)
INDEX_FILES: Final = ("data.mdb", "lock.mdb")
TRUST_VARIABLE: Final = "FSVIEW_TRUST_OWNER"

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC  # O_PATH: to look at it takes no right to list it
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not keep anybody waiting
_TEXT_BYTES_MAX: Final = 1 << 16
_FIX: Final = "fsview doctor --fix REPO"
_BY_OTHERS, _BY_GROUP = 0o002, 0o020  # who may write


class Modes(NamedTuple):
    """Which modes the parts of a repository have."""

    directory: int
    file: int


PRIVATE: Final = Modes(0o700, 0o600)
SHARED: Final = Modes(0o2770, 0o660)


class _Trust:
    """Whom this process trusts, beside root and itself; children inherit it."""

    uids: frozenset[int] = frozenset()
    everybody: bool = False


def trust(uids: Iterable[int], *, everybody: bool = False) -> None:
    """Have this process open what belongs to these users, too, or to whomever it may."""
    _Trust.uids, _Trust.everybody = _Trust.uids | frozenset(uids), _Trust.everybody or everybody


def is_trusted(uid: int) -> bool:
    """Whether this process opens what belongs to this user."""
    return uid in (0, os.geteuid()) or uid in _Trust.uids or _Trust.everybody


@contextmanager
def entered(path: Path) -> Iterator[int]:
    """Open the directory of a repository, which *path* leads to, and yield its descriptor.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        AccessError: it belongs to somebody who isn't trusted, or this user may not enter it.
    """
    descriptor = os.open(path, _DIRECTORY)
    try:
        _check_owner(os.fstat(descriptor), path)
        yield descriptor
    except PermissionError as error:
        raise AccessError(
            f"{path} is not open to this user: run fsview as the owner of the repository, or have the owner mount a "
            f"view to read in: fsview mount -o allow_other {path} MNT"
        ) from error
    finally:
        os.close(descriptor)


def read_text(top: int, name: str, path: Path) -> bytes:
    """Return what is in the file *name* of the repository *path*, which is open as *top*.

    Raises:
        FileNotFoundError: there is none.
        FormatError, AccessError: it is no file that is to be believed.
    """
    where = path / name
    try:
        file = os.open(name, _FILE, dir_fd=top)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _no_part(where, "a file") from error
        raise
    try:
        _check(os.fstat(file), where, stat.S_IFREG, os.fstat(top))
        text = os.read(file, _TEXT_BYTES_MAX + 1)
    finally:
        os.close(file)
    if len(text) > _TEXT_BYTES_MAX:
        raise FormatError(f"{where} is longer than {_TEXT_BYTES_MAX} bytes; it is not what fsview wrote")
    return text


def check_parts(top: int, path: Path, *, shared: bool) -> None:
    """Refuse a repository, open as *top*, with a part that is not to be believed, or that anybody may write in.

    Raises:
        FormatError, AccessError: what is wrong, and what would mend it.
    """
    here = os.fstat(top)
    _check_writers(here, path, shared=True)  # a group that may write here can't make parts that are believed
    for names, kind in ((DIRECTORIES, stat.S_IFDIR), (FILES, stat.S_IFREG)):
        for name in names:
            _check_part(top, here, path / name, kind, shared=shared)


def open_index(top: int, path: Path, *, shared: bool) -> int:
    """Open the directory index/ of a repository, and return its descriptor.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        FormatError, AccessError: it, or a file in it, is not to be believed.
    """
    descriptor = os.open("index", _DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        here = os.fstat(descriptor)
        _check(here, path / "index", stat.S_IFDIR, os.fstat(top), shared=shared)
        _check_writers(here, path / "index", shared=shared)
        for name in INDEX_FILES:
            _check_part(descriptor, here, path / "index" / name, stat.S_IFREG, shared=shared)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_directory(path: Path, modes: Modes) -> None:
    """Make a directory of a repository, unless it is there; whatever the umask is, it has the mode of its kind."""
    try:
        path.mkdir(PRIVATE.directory)
    except FileExistsError:
        return
    if modes != PRIVATE:
        path.chmod(modes.directory)


def _check_part(directory: int, above: os.stat_result, where: Path, kind: int, *, shared: bool) -> None:
    try:
        status = os.stat(where.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    _check(status, where, kind, above, shared=shared)


def _check(
    status: os.stat_result, where: Path, kind: int, above: os.stat_result, *, shared: bool = False
) -> None:  # fmt: skip
    """Refuse a part that is not what it should be; *above* is the directory that it is in."""
    if stat.S_IFMT(status.st_mode) != kind:
        raise _no_part(where, "a directory" if kind == stat.S_IFDIR else "a file")
    if not (shared and status.st_gid == above.st_gid):  # of a shared one, parts may be made by any member
        _check_owner(status, where)
    _check_writers(status, where, shared=True)
    if kind == stat.S_IFREG and status.st_nlink > 1 and status.st_uid != above.st_uid:
        raise FormatError(
            f"{where} is a hard link of a file of {_user(status.st_uid)}'s, in a directory of {_user(above.st_uid)}'s; "
            f"put a copy in its place"
        )


def _check_owner(status: os.stat_result, where: Path) -> None:
    if not is_trusted(status.st_uid):
        owner = _user(status.st_uid)
        raise AccessError(
            f"{where} belongs to {owner}, who could have this command read and write what he likes; "
            f"if you trust {owner}: export {TRUST_VARIABLE}={owner}, or fsview --trust-owner {owner} ..."
        )


def _check_writers(status: os.stat_result, where: Path, *, shared: bool) -> None:
    """Refuse what others may write in, or what its group may, unless it is *shared*."""
    writers = status.st_mode & (_BY_OTHERS | (0 if shared else _BY_GROUP))
    if writers and not _Trust.everybody:
        who = "all users" if writers & _BY_OTHERS else "its group"
        raise AccessError(f"{where} can be written by {who}, who could put anything there; mend it: {_FIX}")


def _no_part(where: Path, kind: str) -> FormatError:
    return FormatError(f"{where} is not {kind}, as it is in a repository: it leads elsewhere; remove it")


def _user(uid: int) -> str:
    import pwd  # seldom needed

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
