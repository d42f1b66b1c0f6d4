"""Go down a tree and up again, with few descriptors, however deep it is.

The innermost directories stay open. Of one above them what it is is remembered before its descriptor is closed; the
way back to it is "..", which is believed only where it leads to that same directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

from store.errors import ConflictError
from store.libc import Identity, identity
from store.walking.beneath import DIRECTORY, open_beneath, open_same

_HELD_MAX: Final = 24


class Found(NamedTuple):
    """What is in a directory."""

    name: bytes
    status: os.stat_result


class Walk:
    """A place in a tree. Use as a context manager, which closes all that it opened.

    here: a descriptor of the directory; it is good until the next step.
    """

    def __init__(self, top: int, shown: bytes, *, one_mount: bool) -> None:
        """Begin at the open directory *top*, which stays the caller's; *shown* is its path, for messages.

        With *one_mount* what is mounted below is not entered.
        """
        self._shown, self._one_mount = shown, one_mount
        self._names: list[bytes] = []
        self._open = [top]  # of the innermost directories
        self._closed: list[Identity] = []  # of those above
        self._top = top

    @property
    def here(self) -> int:
        """A descriptor of the directory where this is."""
        return self._open[-1]

    @property
    def names(self) -> list[bytes]:
        """The names that lead from the top to the directory."""
        return self._names

    def shown(self, name: bytes = b"") -> bytes:
        """Return the path of *name* in this directory, or of the directory, for messages."""
        return b"/".join([self._shown.rstrip(b"/"), *self._names, *([name] if name else [])]) or b"/"

    def enter(self, name: bytes, expected: os.stat_result | None = None) -> None:
        """Go into a sub-directory, if it still is *expected*.

        Raises:
            OSError: it is none, or another one; EXDEV: something is mounted there.
        """
        if expected is None:
            below = open_beneath(self.here, name, DIRECTORY, one_mount=self._one_mount)
        else:
            below = open_same(self.here, name, DIRECTORY, expected, one_mount=self._one_mount)
        self._open.append(below)
        self._names.append(name)
        if len(self._open) > _HELD_MAX:
            self._closed.append(identity(self._open[0]))
            self._close(self._open.pop(0))

    def leave(self) -> bytes:
        """Go up to the directory above; return the name of the one that was left.

        Raises:
            ConflictError: the directory was moved elsewhere, so that there is no way back.
        """
        left = self._open[-1]
        if len(self._open) == 1:
            self._open.insert(0, self._above(left))
        self._close(self._open.pop())
        return self._names.pop()

    def _above(self, here: int) -> int:
        above = os.open("..", DIRECTORY, dir_fd=here)
        if identity(above) != self._closed[-1]:
            os.close(above)
            path = self.shown().decode(errors="backslashreplace")
            raise ConflictError(f"{path} was moved elsewhere while this command was in it; it went no further")
        self._closed.pop()
        return above

    def _close(self, descriptor: int) -> None:
        if descriptor != self._top:
            os.close(descriptor)

    def entries(self) -> Iterator[Found]:
        """Yield what is in the directory and all below it, a directory before what is in it.

        At each the walk is in the directory that it is in. What vanishes meanwhile is left out.
        """
        waiting = [self._look()]
        while waiting:
            found = next(waiting[-1], None)
            if found is None:
                waiting.pop()
                if waiting:
                    self.leave()
                continue
            yield found
            if stat.S_ISDIR(found.status.st_mode):
                self.enter(found.name, found.status)
                waiting.append(self._look())

    def _look(self) -> Iterator[Found]:
        with os.scandir(self.here) as entries:
            names = sorted(os.fsencode(entry.name) for entry in entries)
        for name in names:
            with suppress(FileNotFoundError):
                yield Found(name, os.stat(name, dir_fd=self.here, follow_symlinks=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._close(self._open.pop())
