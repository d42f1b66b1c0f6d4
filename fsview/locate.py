"""From a path in a mounted view to what it shows: repository, commit, path in the commit.

Symlinks that lead to a commit are followed (refs/x, an abbreviation), and those above; the last name of a path in a
commit is not, as in "REV:/path". The repository is told by the server (REPOSITORY_MARK), so that it need not be where
the table of mounts says; a view that is mounted with --root tells its commit, too. In versions/REF/PATH a version is
PATH in the commit that the version is named by, and all else is what it is in REF's commit.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from errno import ECONNABORTED, ENODATA, ENOTCONN
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from fsview.mountinfo import Mount, mount_over, mounts
from fsview.mounting import KIND
from fsview.mountpoint import REPOSITORY_MARK, ROOT_MARK
from store.errors import MountError, NotFoundError

_DIGITS: Final = 64
_IN_COMMIT: Final = re.compile(rb"/commits/([0-9a-f]{64})((?:/.*)?)|/info/([0-9a-f]{64})(?:/.*)?", re.DOTALL)
_IN_VERSIONS: Final = re.compile(rb"/versions/([0-9a-f]{64})((?:/.*)?)", re.DOTALL)
_PINNED: Final = re.compile(rb"[0-9a-f]{64}(?:/.*)?", re.DOTALL)
_DATE: Final = re.compile(rb"([0-9]{4})-([0-9]{2})-([0-9]{2})T")  # with which a version's name begins


class Located(NamedTuple):
    """What a path shows; commit is its checksum in hex, path is as b"/a/b" (the root: b"")."""

    repository: Path
    commit: str
    path: bytes

    @property
    def revision(self) -> str:
        """The same as a revision, with a path if there is one."""
        return f"{self.commit}:{os.fsdecode(self.path)}" if self.path else self.commit


def locate(path: str) -> Located:
    """Return what *path*, in a mounted view, shows.

    Raises:
        NotFoundError: nothing is there, it is in no view, or above the commits of one.
        MountError: the view's server does not answer, or not as fsview does.
    """
    try:
        return _located(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path} does not exist") from None
    except OSError as error:
        if error.errno in (ENOTCONN, ECONNABORTED):
            raise MountError(f"{path} is in a view whose server was killed; mount it there again to mend it") from None
        raise


def is_in_view(path: str, believes: Callable[[int], bool]) -> bool:
    """Whether *path* leads into a mounted view, be there something at it, be the view's server alive, or not.

    Only views count of users whom the caller *believes*.
    """
    try:
        mount = mount_over(mounts(), os.path.realpath(path))
    except OSError:  # it is relative, and the current directory was deleted
        return False
    return mount is not None and mount.kind == KIND and mount.owner is not None and believes(mount.owner)


def view_of(path: str) -> Path:
    """Return where the view is mounted whole that *path* lies in.

    Raises:
        MountError: only a part of it is seen here, or it is no view.
    """
    everything = mounts()
    mount = mount_over(everything, os.path.realpath(path))
    top = None if mount is None or mount.kind != KIND else _top(everything, mount)
    if top is None:
        raise MountError(f"{path} is in no view that is mounted whole")
    return Path(top.point)


def _located(path: str) -> Located:
    whole = os.path.join(_here(), path)
    parent, name = os.path.split(whole)
    if name not in ("", ".", ".."):
        unfollowed = os.path.join(os.path.realpath(parent, strict=True), name)
        os.lstat(unfollowed)
        found = _find(unfollowed)
        if found is not None:
            return found
    real = os.path.realpath(whole, strict=True)
    found = _find(real)
    if found is None:
        raise NotFoundError(_not_in_a_commit(path, real))
    return found


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise NotFoundError("the current directory is not there any more; change into another: cd /") from None


def _find(real: str) -> Located | None:
    """Return what a path without symlinks (but perhaps the last name) shows; None if it is in no commit of a view."""
    everything = mounts()
    mount = mount_over(everything, real)
    if mount is None or mount.kind != KIND:
        return None
    top = _top(everything, mount)
    repository = _repository(mount, top)
    names = [*mount.root.split("/"), *real[len(mount.point) :].split("/")]  # of a bind mount, the root is not "/"
    inside = b"".join(b"/" + os.fsencode(name) for name in names if name)
    pinned = None if top is None else _root_mark(top)
    if pinned is not None:
        if not _PINNED.fullmatch(pinned):
            raise _strange(mount)
        return Located(repository, pinned[:_DIGITS].decode(), pinned[_DIGITS:] + inside)
    match = _IN_COMMIT.fullmatch(inside)
    if match is not None:
        return Located(repository, (match[1] or match[3]).decode(), match[2] or b"")
    match = _IN_VERSIONS.fullmatch(inside)
    if match is None or top is None:
        return None
    commit, path = _version(os.fsencode(top.point), match[1], match[2])
    if not _PINNED.fullmatch(commit):
        raise _strange(mount)
    return Located(repository, commit.decode(), path)


def _repository(mount: Mount, top: Mount | None) -> Path:
    """Return the repository that the server names; whose that is `Repository.open` looks at."""
    named = unquote(mount.source) if top is None else os.fsdecode(os.getxattr(top.point, REPOSITORY_MARK))
    if not named.startswith("/") or "\0" in named:
        raise _strange(mount)
    return Path(named)


def _strange(mount: Mount) -> MountError:
    return MountError(f"what is mounted at {mount.point} looks like a view, but its answers are not those of fsview")


def _version(top: bytes, commit: bytes, path: bytes) -> tuple[bytes, bytes]:
    """Return commit and path of what is in versions/: of a version, the commit that it is named by."""
    above, _, name = path.rpartition(b"/")
    date = _DATE.match(name)
    if date is not None and not stat.S_ISDIR(os.lstat(top + b"/commits/" + commit + above).st_mode):
        target = os.readlink(b"/".join((top, b"by-date", *date.groups(), name)))
        return target.rpartition(b"/")[2], above
    return commit, path


def _top(everything: list[Mount], mount: Mount) -> Mount | None:
    """Return the mount where the root of this view is seen, which has the marks; of a bind mount not itself."""
    return next((one for one in everything if (one.device, one.root) == (mount.device, "/")), None)


def _root_mark(top: Mount) -> bytes | None:
    try:
        return os.getxattr(top.point, ROOT_MARK)
    except OSError as error:
        if error.errno == ENODATA:
            return None
        raise


def _not_in_a_commit(path: str, real: str) -> str:
    mount = mount_over(mounts(), real)
    if mount is None or mount.kind != KIND:
        return f"{path} is not in a mounted view, and no ref or checksum is called so"
    return (
        f"{path} is above the commits of the view at {mount.point}; name one of them, as refs/REF or commits/CHECKSUM"
    )
