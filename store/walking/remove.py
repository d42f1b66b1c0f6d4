"""Remove a tree, however deep it is and whatever the modes are; never anything that is not in it.

Somebody who owns a directory in the tree may rename and replace what is in it meanwhile. What is mounted in it is not
entered: the removal fails there. What can't be removed stays, all else goes, and the first reason is told.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from store.errors import FsviewError
from store.walking.beneath import PLACE, open_beneath
from store.walking.walk import Walk

_ALL: Final = 0o700


def remove_tree(top: Path) -> None:
    """Remove the directory *top* and all below it; none is fine, too. A symlink there is none, and an error.

    Raises:
        FsviewError: something is mounted in it.
        ConflictError: it was moved while it was being removed.
        OSError: something can't be removed; it has the whole path.
    """
    try:
        above = os.open(top.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_tree_at(above, os.fsencode(top.name), os.fsencode(top.parent))
    finally:
        os.close(above)


def remove_tree_at(above: int, name: bytes, shown: bytes) -> None:
    """Remove the directory *name*, and all below it, in the open directory *above*; *shown*: what errors call that.

    Raises:
        As `remove_tree`.
    """
    with Walk(above, shown, one_mount=True) as walk, suppress(FileNotFoundError):
        _Removal(walk).directory(name)


def remove_same_tree(above: int, name: bytes, directory: int, shown: bytes) -> None:
    """Remove a directory that is open as *directory*, and was made as *name* in *above*, where others may write.

    If something else has that name now, that stays. *shown*: what errors call the directory.

    Raises:
        As `remove_tree`.
    """
    empty_directory(directory, shown)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.stat(name, dir_fd=above, follow_symlinks=False), os.fstat(directory)):
            os.rmdir(name, dir_fd=above)  # which removes no more than an empty directory, if it is exchanged now


def empty_directory(directory: int, shown: bytes) -> None:
    """Remove all that is in an open directory.

    Raises:
        As `remove_tree`.
    """
    with Walk(directory, shown, one_mount=True) as walk:
        _Removal(walk).contents()


class _Removal:
    """The removal of what is below a place in a tree."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._name = b""  # of what is being removed, in the directory where the walk is
        self._waiting: list[Iterator[bytes]] = []
        self._first: Exception | None = None  # why something stays

    def directory(self, name: bytes) -> None:
        """Remove a directory."""
        self._name = name
        try:
            self._enter()
        except OSError as error:
            raise self._explained(error) from error
        self._go_through()
        self._leave()
        self._tell()

    def contents(self) -> None:
        """Remove all that is in the directory where the walk is."""
        try:
            self._look()
        except OSError as error:
            raise self._explained(error) from error
        self._go_through()
        self._tell()

    def _go_through(self) -> None:
        """Remove the names that wait, and what is below them."""
        while True:
            name = next(self._waiting[-1], None)
            if name is not None:
                self._name = name
                self._remove()
                continue
            self._waiting.pop()
            if not self._waiting:
                return
            self._leave()

    def _tell(self) -> None:
        if self._first is not None:
            raise self._first

    def _stays(self, error: OSError) -> None:
        if self._first is None:
            self._first = self._explained(error)
            self._first.__cause__ = error

    def _remove(self) -> None:
        """Remove a file, or go into a directory."""
        try:
            os.unlink(self._name, dir_fd=self._walk.here)
        except FileNotFoundError:
            pass  # somebody else was faster
        except IsADirectoryError:
            try:
                self._enter()
            except FileNotFoundError:
                pass
            except OSError as error:
                self._stays(error)
        except OSError as error:
            self._stays(error)

    def _enter(self) -> None:
        try:
            self._walk.enter(self._name)
        except PermissionError:
            _let_us_in(self._walk.here, self._name)
            self._walk.enter(self._name)
        try:
            self._look()
        except OSError:
            self._name = self._walk.leave()
            raise

    def _look(self) -> None:
        here = self._walk.here
        with suppress(PermissionError):  # it is another user's: then its mode has to let us in
            os.fchmod(here, _ALL)  # for us to write there; and from now on nobody else gets in by its name
        self._waiting.append(iter([os.fsencode(name) for name in os.listdir(here)]))

    def _leave(self) -> None:
        """Go up, and remove the directory that was left: what has its name now is in the tree, and empty, or stays."""
        self._name = self._walk.leave()
        try:
            os.rmdir(self._name, dir_fd=self._walk.here)
        except FileNotFoundError:
            pass  # somebody moved it away
        except OSError as error:
            self._stays(error)

    def _explained(self, error: OSError) -> Exception:
        """Return an error with the whole path: the system knows only the last name."""
        shown = self._walk.shown(self._name)
        if error.errno in (errno.EBUSY, errno.EXDEV):
            path = shown.decode(errors="backslashreplace")
            return FsviewError(f"{path} can't be removed: something is mounted there; unmount it first")
        return OSError(error.errno, error.strerror, os.fsdecode(shown))


def _let_us_in(above: int, name: bytes) -> None:
    """Give ourselves all rights to a directory; who is not root may have forbidden himself to look in."""
    place = open_beneath(above, name, PLACE | os.O_DIRECTORY, one_mount=True)
    try:
        os.chmod(f"/proc/self/fd/{place}", _ALL)
    finally:
        os.close(place)
