"""MNT/.fsview/: what tells of the view itself, as files.

Each is made when it is looked at, so its size is right at that moment. Its time is another one for other contents, by
which the kernel knows that what it keeps of them is old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from xxhash import xxh3_64_intdigest

from fsview.attributes import COOKIES_BEFORE_ENTRIES, FOREVER_S, Attributes, Row
from fsview.nodeid import ROOT, STATUS, Fixed, StaleNodeError, StatusFile, virtual_node
from fsview.rooms.room import Ground, Room, is_no
from fsview.status import program_version

_SECOND_NS: Final = 10**9


class Status(Room[Fixed | StatusFile]):
    """MNT/.fsview."""

    def __init__(self, ground: Ground, files: Mapping[bytes, Callable[[], bytes]]) -> None:
        """*files*: what makes the bytes of more of them, by name; the same in every worker of a mount."""
        super().__init__(ground)
        own: dict[bytes, Callable[[], bytes]] = {
            b"repository": lambda: bytes(ground.repository.path) + b"\n",
            b"version": lambda: f"{program_version()}\n".encode(),
        }
        self._files = sorted((own | dict(files)).items())

    def attributes(self, node: Fixed | StatusFile) -> Attributes:
        """Return the attributes of the directory, or of a file."""
        if isinstance(node, Fixed):
            return self._ground.directory(node.node, FOREVER_S)
        content = self.content(node)
        mtime_ns = (self._ground.now_s() - 1) * _SECOND_NS + xxh3_64_intdigest(content) % _SECOND_NS
        return self._ground.file(virtual_node(node), len(content), mtime_ns, 0)

    def find(self, directory: Fixed | StatusFile, name: bytes) -> Attributes | None:
        """Return a file."""
        _check(directory)
        indexes = (index for index, (known, _) in enumerate(self._files) if known == name)
        index = next(indexes, None)
        return None if index is None else self.attributes(StatusFile(index))

    def rows(self, directory: Fixed | StatusFile, after: int) -> Iterator[Row]:
        """Yield the files."""
        _check(directory)
        for index in range(max(0, after + 1 - COOKIES_BEFORE_ENTRIES), len(self._files)):
            yield Row(self._files[index][0], self.attributes(StatusFile(index)), index + COOKIES_BEFORE_ENTRIES)

    def parent(self, directory: Fixed | StatusFile) -> Fixed:
        """Return MNT."""
        return Fixed(STATUS if isinstance(directory, StatusFile) else ROOT)

    def content(self, node: Fixed | StatusFile) -> bytes:
        """Return the bytes of a file, as they are now."""
        if isinstance(node, Fixed):
            return super().content(node)
        if node.number >= len(self._files):
            raise StaleNodeError(virtual_node(node))
        return self._files[node.number][1]()


def _check(node: Fixed | StatusFile) -> None:
    if isinstance(node, StatusFile):
        raise is_no("directory", node)
