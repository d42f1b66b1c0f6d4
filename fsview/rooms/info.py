"""MNT/info/<sha256>/: what is known of a commit besides its tree, as files.

    subject, body, timestamp, directories, entries     of the commit itself, for good
    parent                     symlink to ../<sha256>, also if that one is not here; absent of a first commit
    tree                       symlink to ../../commits/<sha256>
    metadata/<key>             a text as it is, anything else in GVariant's text form; keys that can be no file name
                               are in commit.json only
    object                     the commit object's bytes, which have the sha256 that the directory is called by
    signatures, refs, commit.json     these may change: the kernel believes them as briefly as a ref
    detached                          likewise; the bytes of the detached metadata, none if there are none

As in commits/ abbreviations, and steps behind one, resolve unlisted. A node's number says commit and item; the item is
the row's cookie, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from fsview.attributes import COOKIES_BEFORE_ENTRIES, FOREVER_S, MOVING_NAME_S, Attributes, Row
from fsview.cache import BoundedCache
from fsview.commit_names import END_OF_DATES_S
from fsview.commit_tree import record_below
from fsview.nodeid import INFO, ROOT, Fixed, Info, StaleNodeError, virtual_node
from fsview.rooms.commits import commits_after, find_abbreviated, find_commit
from fsview.rooms.room import Ground, Room, answered, is_file_name, is_no
from store.commit_facts import commit_json, detached_metadata, raw_detached, refs_at
from store.database import Reading
from store.gvariant import Variant
from store.gvariant_text import format_text
from store.objects import Commit
from store.schema import CommitNumber, CommitRecord
from store.tree import commit_of

_DIRECTORY: Final = 0
_PARENT, _TREE, _METADATA = 3, 4, 5
_TREE_DEPTH: Final = 2
_METADATA_AT: Final = 1024  # items from here on are the metadata, in the commit's order
_KNOWN_BYTES_MAX: Final = 4 << 20  # of commits, as they are stored and, about as large, parsed
_KNOWN_BYTES_LEAST: Final = 1024  # for what Python needs besides …
_KEY_BYTES: Final = 512  # … and for each of its metadata
_CONTENT_BYTES_MAX: Final = 8 << 20


class _Known(NamedTuple):
    """A commit as it is stored and parsed, and the items of those of its metadata that are files, by name."""

    record: CommitRecord
    commit: Commit
    metadata: dict[bytes, int]


def _subject(reading: Reading, number: CommitNumber, known: _Known) -> str:
    return known.commit.subject + "\n"


def _body(reading: Reading, number: CommitNumber, known: _Known) -> str:
    body = known.commit.body
    return body if body.endswith("\n") or not body else body + "\n"


def _timestamp(reading: Reading, number: CommitNumber, known: _Known) -> str:
    time_s = known.commit.timestamp_s
    if time_s >= END_OF_DATES_S:
        return f"@{time_s}\n"
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%SZ}\n"


def _directories(reading: Reading, number: CommitNumber, known: _Known) -> str:
    return f"{known.record.directories - 1}\n"


def _entries(reading: Reading, number: CommitNumber, known: _Known) -> str:
    return f"{known.record.entries}\n"


def _refs(reading: Reading, number: CommitNumber, known: _Known) -> str:
    return "".join(f"{name}\n" for name in refs_at(reading, number))


def _signatures(reading: Reading, number: CommitNumber, known: _Known) -> str:
    """Return a line for each: the key that it stands under, and its bytes in hex."""
    signed = [(key, value) for key, value in detached_metadata(reading, number) if value.signature == "aay"]
    return "".join(f"{key} {bytes(one).hex()}\n" for key, value in signed for one in value.value)


def _commit_json(reading: Reading, number: CommitNumber, known: _Known) -> str:
    return json.dumps(commit_json(reading, number), indent=2) + "\n"


def _object(reading: Reading, number: CommitNumber, known: _Known) -> bytes:
    return known.record.raw


def _detached(reading: Reading, number: CommitNumber, known: _Known) -> bytes:
    return raw_detached(reading, number)


Rendered = Callable[[Reading, CommitNumber, _Known], str | bytes]
_STEADY: Final[dict[int, tuple[bytes, Rendered]]] = {
    1: (b"subject", _subject), 2: (b"body", _body), 6: (b"timestamp", _timestamp),
    7: (b"directories", _directories), 8: (b"entries", _entries), 12: (b"object", _object),
}  # fmt: skip
_CHANGING: Final[dict[int, tuple[bytes, Rendered]]] = {
    9: (b"signatures", _signatures), 10: (b"refs", _refs), 11: (b"commit.json", _commit_json),
    13: (b"detached", _detached),
}  # fmt: skip
_FILES: Final = _STEADY | _CHANGING
_OTHERS: Final = {_PARENT: b"parent", _TREE: b"tree", _METADATA: b"metadata"}
_NAMES: Final = {
    name: item for item, name in sorted((_OTHERS | {item: name for item, (name, _) in _FILES.items()}).items())
}
_NAMES_OF_FIRST: Final = {name: item for name, item in _NAMES.items() if item != _PARENT}


class InfoView(Room[Fixed | Info]):
    """MNT/info."""

    def __init__(self, ground: Ground) -> None:
        """Remember nothing yet."""
        super().__init__(ground)
        self._known: BoundedCache[CommitNumber, _Known] = BoundedCache(_KNOWN_BYTES_MAX)
        self._contents: BoundedCache[tuple[Info, int], bytes] = BoundedCache(_CONTENT_BYTES_MAX)
        self._generation = 0

    def attributes(self, node: Fixed | Info) -> Attributes:
        """Return the attributes of a directory, file or symlink."""
        if isinstance(node, Fixed):
            return self._ground.directory(node.node, FOREVER_S)
        with self._database.reading() as reading:
            return self._attributes(reading, node)

    def find(self, directory: Fixed | Info, name: bytes) -> Attributes | None:
        """Return what is known of a commit, or one thing that is."""
        with self._database.reading() as reading:
            if isinstance(directory, Fixed):
                return self._find_commit(reading, name)
            item = self._names(reading, directory).get(name)
            return None if item is None else self._attributes(reading, Info(directory.commit, item))

    def rows(self, directory: Fixed | Info, after: int) -> Iterator[Row]:
        """Yield the commits, or what is known of one."""
        if isinstance(directory, Fixed):
            for number, checksum in commits_after(self._ground, after):
                yield Row(checksum.hex().encode(), self._ground.directory(virtual_node(Info(number, 0))), number)
            return
        with self._database.reading() as reading:
            names = self._names(reading, directory)
        left = ((name, item) for name, item in names.items() if item + COOKIES_BEFORE_ENTRIES > after)

        def row(reading: Reading, one: tuple[bytes, int]) -> Row:
            name, item = one
            below = self._attributes(reading, Info(directory.commit, item))
            return Row(name, below, item + COOKIES_BEFORE_ENTRIES)

        yield from answered(self._database, left, row)

    def parent(self, directory: Fixed | Info) -> Fixed | Info:
        """Return the directory that a directory lies in."""
        if isinstance(directory, Fixed):
            return Fixed(ROOT)
        return Fixed(INFO) if directory.item == _DIRECTORY else directory._replace(item=_DIRECTORY)

    def target(self, node: Fixed | Info) -> bytes:
        """Return the way to a commit's parent."""
        if isinstance(node, Fixed) or node.item != _PARENT:
            return super().target(node)
        with self._database.reading() as reading:
            return _target(node, self._commit(reading, node).commit)

    def content(self, node: Fixed | Info) -> bytes:
        """Return the bytes of a file."""
        if isinstance(node, Fixed):
            return super().content(node)
        with self._database.reading() as reading:
            return self._content(reading, node)

    def _find_commit(self, reading: Reading, name: bytes) -> Attributes | None:
        number = find_commit(reading, name)
        if number is not None:
            return self._ground.directory(virtual_node(Info(number, _DIRECTORY)))
        number = find_abbreviated(reading, name, self._ground.now_s())
        return None if number is None else self._ground.commit_link(0, number)

    def _commit(self, reading: Reading, node: Info) -> _Known:
        """Return the commit that *node* is about. What was read is kept until something is pruned."""
        generation = self._ground.trees.renew()
        if generation != self._generation:
            self._known.clear()
            self._contents.clear()
            self._generation = generation
        known = self._known.get(node.commit)
        if known is None:
            record = record_below(reading, node.commit, virtual_node(node))
            commit = commit_of(reading, record)
            known = _Known(record, commit, _file_names(commit))
            weight = _KNOWN_BYTES_LEAST + 2 * len(record.raw) + _KEY_BYTES * len(commit.metadata)
            self._known.put(node.commit, known, weight)
        return known

    def _names(self, reading: Reading, directory: Info) -> dict[bytes, int]:
        """Return the items in the directory of a commit, or of its metadata, by name; in their order."""
        known = self._commit(reading, directory)
        if directory.item == _METADATA:
            return known.metadata
        if directory.item != _DIRECTORY:
            raise is_no("directory", directory)
        return _NAMES if known.commit.parent is not None else _NAMES_OF_FIRST

    def _attributes(self, reading: Reading, node: Info) -> Attributes:
        known = self._commit(reading, node)
        number, mtime_ns = virtual_node(node), self._ground.trees.root(node.commit).mtime_ns
        if node.item in (_DIRECTORY, _METADATA):
            return self._ground.directory(number)
        if node.item == _TREE:
            return self._ground.commit_link(_TREE_DEPTH, node.commit)
        if node.item == _PARENT:
            return self._ground.symlink(number, len(_target(node, known.commit)), mtime_ns, FOREVER_S)
        size = len(self._content(reading, node))
        if node.item in _CHANGING:
            return self._ground.file(number, size, self._ground.mtime_ns(), MOVING_NAME_S)
        return self._ground.file(number, size, mtime_ns)

    def _content(self, reading: Reading, node: Info) -> bytes:
        """Return the bytes of a file: kept, as they are read by the page, until anything changes that they tell of."""
        known = self._commit(reading, node)
        key = node, reading.transaction if node.item in _CHANGING else 0
        content = self._contents.get(key)
        if content is None:
            content = self._rendered(reading, node, known)
            self._contents.put(key, content, _KNOWN_BYTES_LEAST + len(content))
        return content

    def _rendered(self, reading: Reading, node: Info, known: _Known) -> bytes:
        if node.item in (_DIRECTORY, _PARENT, _TREE, _METADATA):
            raise is_no("file", node)
        if node.item in _FILES:
            rendered = _FILES[node.item][1](reading, node.commit, known)
            return rendered if isinstance(rendered, bytes) else rendered.encode()
        metadata = known.commit.metadata
        if not 0 <= node.item - _METADATA_AT < len(metadata):
            raise StaleNodeError(virtual_node(node))
        return _value_text(metadata[node.item - _METADATA_AT][1]).encode()


def _target(node: Info, commit: Commit) -> bytes:
    if commit.parent is None:
        raise StaleNodeError(virtual_node(node))
    return b"../" + commit.parent.hex().encode()


def _file_names(commit: Commit) -> dict[bytes, int]:
    """Return the item of each of a commit's metadata whose key can be the name of a file."""
    names: dict[bytes, int] = {}
    for item, (key, _) in enumerate(commit.metadata, _METADATA_AT):
        name = key.encode()
        if is_file_name(name):
            names.setdefault(name, item)
    return names


def _value_text(value: Variant) -> str:
    return f"{value.value if value.signature == 's' else format_text(value)}\n"
