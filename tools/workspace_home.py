"""DIR.workspace, open: whose it is, and that what is in it is what a workspace has.

It is opened once and looked at by its descriptor, and what is in it is reached by that. So whoever owns the directory
above can rename it, and put another one in its place, but not have this command use that. It is believed if it is the
caller's, and nobody else may write in it. Then all names in it are the caller's doing, and stay what they are. Root
doesn't take what another user made for a workspace of root's.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from store.errors import AccessError, ConflictError, FormatError
from store.own_files import open_plain

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BY_OTHERS: Final = 0o022
_TEXT_BYTES_MAX: Final = 1 << 16


class Home:
    """An open DIR.workspace. Its descriptors are closed when nobody has it any more.

    above: the open directory that it is in, and DIR as well; descriptor: it.
    """

    __slots__ = ("above", "descriptor", "path")

    def __init__(self, path: Path, *, make: bool = False) -> None:
        """Open the directory at *path*, made anew with *make*.

        Raises:
            FileNotFoundError: there is none.
            FileExistsError: it is to be made, and something is there.
            FormatError: it is a symlink, or a file.
            AccessError: it is not the caller's alone.
        """
        self.path = path
        self.above = self.descriptor = -1
        self.above = os.open(path.parent, _STEP)
        if make:
            os.mkdir(path.name, 0o700, dir_fd=self.above)
        self.descriptor = _open_directory(self.above, path)
        self._check()
        if make and os.listdir(self.descriptor):
            raise ConflictError(f"{path} was exchanged while it was made; nothing was done")

    def __del__(self) -> None:
        for descriptor in (self.above, self.descriptor):
            if descriptor >= 0:
                os.close(descriptor)

    @property
    def reach(self) -> Path:
        """The path to it by its descriptor, in this process and in those that inherit that."""
        return Path(f"/proc/self/fd/{self.descriptor}")

    @property
    def place(self) -> Path:
        """Where it is now, whatever was renamed."""
        return Path(os.readlink(self.reach))

    def is_at_its_name(self) -> bool:
        """Whether it still has the name by which it was opened."""
        try:
            there = os.stat(self.path.name, dir_fd=self.above, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.descriptor))

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """Open a directory in it.

        Raises:
            FileNotFoundError: there is none.
            FormatError: it is a symlink, or no directory.
        """
        descriptor = _open_directory(self.descriptor, self.path / name)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def beside(self, name: str) -> Iterator[int]:
        """Open a directory that is in the same directory as this.

        Raises:
            As `opened`.
        """
        descriptor = _open_directory(self.above, self.path.with_name(name))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, name: str) -> str:
        """Return what is in a file.

        Raises:
            FileNotFoundError: there is none.
            FormatError: it is no plain file, not text, or too long for one of fsview's.
        """
        try:
            descriptor = open_plain(name, os.O_RDONLY, directory=self.descriptor)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise FormatError(f"{self.path / name} can't be read: {error.strerror}") from error
        with open(descriptor, encoding="utf-8", errors="surrogateescape") as stream:
            text = stream.read(_TEXT_BYTES_MAX + 1)
        if len(text) > _TEXT_BYTES_MAX:
            raise FormatError(f"{self.path / name} is longer than {_TEXT_BYTES_MAX} bytes: it is not what fsview wrote")
        return text

    def write(self, name: str, text: str) -> None:
        """Write a file, durably: the rename is the atomic step."""
        new = f"{name}.new"
        with suppress(FileNotFoundError):
            os.unlink(new, dir_fd=self.descriptor)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(new, flags, 0o600, dir_fd=self.descriptor)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(new, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        os.fsync(self.descriptor)

    def link(self, name: str, target: Path) -> None:
        """Make a symlink, in place of an older one."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)
        os.symlink(target, name, dir_fd=self.descriptor)

    def _check(self) -> None:
        status = os.fstat(self.descriptor)
        if status.st_uid != os.geteuid():
            owner = _user(status.st_uid)
            raise AccessError(
                f"{self.path} belongs to {owner}, who could have this command read and write what he likes: a "
                f"workspace is its owner's alone; run the command as {owner}"
            )
        if status.st_mode & _BY_OTHERS:
            raise AccessError(
                f"{self.path} can be written by other users, who could put anything there; if none did: "
                f"chmod go-w {self.path}"
            )


def _open_directory(above: int, path: Path) -> int:
    try:
        return os.open(path.name, _DIRECTORY, dir_fd=above)
    except NotADirectoryError:  # a symlink, too
        kind = (
            "a symlink" if stat.S_ISLNK(os.stat(path.name, dir_fd=above, follow_symlinks=False).st_mode) else "a file"
        )
        raise FormatError(
            f"{path} is {kind}, where a workspace has a directory; nothing was done: put the directory itself there"
        ) from None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
