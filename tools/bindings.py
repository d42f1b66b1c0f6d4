"""What is bound into a sandbox, as arguments for bubblewrap: each directory held open since it was looked at.

By its path it could be another one by then: the owner of a tree's root, or a view's server, could put a symlink there
that leads into the machine. So no symlink is followed, and bubblewrap gets descriptors (--bind-fd).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from errno import EMFILE
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from store.errors import SandboxError
from tools.throwaway import throwaway

_MADE: Final = {b"dev", b"etc", b"proc", b"run", b"sys", b"tmp", b"var"}  # not taken from the root of the tree
_OPEN: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ETC: Final = (("etc",), ("usr", "etc"))


class Bindings:
    """To be used in a `with`; bound: the descriptors that the arguments speak of, and bubblewrap closes."""

    def __init__(self, root: Path) -> None:
        self._path = root
        self._root = -1
        self._held: list[int] = []
        self.bound: list[int] = []

    def __enter__(self) -> Self:
        try:
            self._root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError:
            raise SandboxError(f"{self._path} is no directory; name the root of a tree") from None
        except OSError as error:
            raise SandboxError(f"{self._path} can't be opened: {error.strerror}; name the root of a tree") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (self._root, *self._held):
            os.close(number)

    def root(self) -> Iterator[list[str | bytes]]:
        """Yield what binds each name of the tree's root, read-only.

        Raises:
            SandboxError: it has more names than files may be open.
        """
        for name in sorted({os.fsencode(name) for name in os.listdir(self._root)} - _MADE):
            try:
                number = self._hold(name, self._root)
            except FileNotFoundError:  # it was removed just now
                continue
            mode = os.fstat(number).st_mode
            if stat.S_ISLNK(mode):
                yield ["--symlink", os.readlink(name, dir_fd=self._root), b"/" + name]
            elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                yield self._bind("--ro-bind-fd", number, b"/" + name)

    def etc(self, *, is_written: bool, home: Path | None) -> list[str | bytes]:
        """Return what binds /etc, if *is_written* for good; with *home* a throw-away that is made there."""
        number = next((number for path in _ETC if (number := self._inner(path)) is not None), None)
        if number is None:
            return ["--dir", "/etc"]
        if home is not None:
            return ["--bind", os.fsencode(throwaway(_path(number), home / "etc")), "/etc"]
        return self._bind("--bind-fd" if is_written else "--ro-bind-fd", number, "/etc")

    def var(self, var: Path | None, home: Path | None) -> list[str | bytes]:
        """Return what binds *var*, else the tree's, at /var; with *home* a throw-away that is made there."""
        number = self._inner(("var",)) if var is None else self._hold(os.path.realpath(var))
        if number is None:
            return ["--tmpfs", "/var"]
        if home is not None:
            return ["--bind", os.fsencode(throwaway(_path(number), home / "var")), "/var"]
        return self._bind("--bind-fd", number, "/var")

    def _bind(self, option: str, number: int, place: str | bytes) -> list[str | bytes]:
        self.bound.append(number)
        return [option, str(number), place]

    def _inner(self, names: tuple[str, ...]) -> int | None:
        """Return a directory of the tree; None if there is none at this path, or a symlink is on the way."""
        number = self._root
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in names:
                number = self._hold(name, number, os.O_DIRECTORY)
            return number
        return None

    def _hold(self, name: str | bytes, below: int | None = None, flags: int = 0) -> int:
        try:
            self._held.append(os.open(name, _OPEN | flags, dir_fd=below))
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            hint = "it has more names than files may be open: ulimit -n" if error.errno == EMFILE else error.strerror
            raise SandboxError(f"{os.fsdecode(name)!r} in {self._path} can't be opened: {hint}") from error
        return self._held[-1]


def _path(number: int) -> Path:
    """Return a path by which all processes of this user come to what this one holds open."""
    return Path(f"/proc/{os.getpid()}/fd/{number}")
