"""The view above the commits: where names come and go.

    MNT/commits/<sha256>           a commit's root, the only directory with this tree in it
    MNT/commits/<abbreviation…>    unlisted: symlink to <sha256>; also <abbreviation>^ and ~2
    MNT/refs/<ref>                 symlink to ../…/commits/<sha256>; of remotes' refs none
    MNT/refs/<ref>^ ~2 @{1} @{…}   unlisted: the same

Nothing here is cached. A row's cookie is an id that is never given out again: of a commit, a ref or a directory of
refs; rows come in the order of ids, so that reading a directory can go on after anything came or went.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from fsview.attributes import (
    DOT_COOKIE,
    DOT_DOT_COOKIE,
    FOREVER_S,
    MOVING_NAME_S,
    READ_ONLY_DIRECTORY,
    STEADY_NAME_S,
    SYMLINK,
    Attributes,
    Row,
)  # fmt: skip
from fsview.commit_tree import CommitTrees
from fsview.nodeid import (
    COMMITS,
    REFS,
    ROOT,
    Fixed,
    Ino,
    Link,
    NodeId,
    RefDirectory,
    StaleNodeError,
    link_node,
    ref_directory_node,
)  # fmt: skip
from store.database import Reading
from store.errors import InvalidNameError, NotFoundError
from store.objects import Checksum
from store.refs import NAME_BYTES_MAX, find_ref
from store.repository import Repository
from store.revisions import resolve
from store.schema import CommitNumber, CommitRecord, RefId, RefName, RefRecord, id_key, key_id
from store.tree import commit_number, commit_record

Virtual = Fixed | RefDirectory

_FIXED_NAMES: Final = {b"commits": COMMITS, b"refs": REFS}
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_ABBREVIATION = re.compile(r"([0-9a-f]{1,64})((?:\^|~[0-9]*)*)")
_COMMITS_AT_A_TIME: Final = 256
_STEPS = re.compile(r"[\^~@]")
_AFTER_SLASH: Final = b"0"  # the byte behind "/": where the keys go on behind a directory's


class Names:
    """The virtual directories and symlinks of a view."""

    def __init__(
        self, repository: Repository, trees: CommitTrees, uid: int, gid: int, now_s: Callable[[], int]
    ) -> None:
        """*uid* and *gid* own what is shown here; *now_s* is the clock, for "@{2 days ago}"."""
        self._database, self._trees = repository.database, trees
        self._index, self._zero_mtime = repository.database.path / "data.mdb", repository.settings.mtime == "zero"
        self._uid, self._gid, self._now_s = uid, gid, now_s

    def attributes(self, node: Virtual | Link) -> Attributes:
        """Return the attributes of a node.

        Raises:
            StaleNodeError: it is gone.
        """
        if isinstance(node, Fixed):
            return self._directory(node.node)
        if isinstance(node, Link):
            return self._link(node.depth, node.commit)
        with self._database.reading() as reading:
            _prefix(reading, node)
        return self._directory(ref_directory_node(node.ref_id))

    def find(self, directory: Virtual, name: bytes) -> Attributes | None:
        """Return what is called *name* in *directory*, listed or not; None if nothing is."""
        if directory == Fixed(ROOT):
            return self._directory(_FIXED_NAMES[name]) if name in _FIXED_NAMES else None
        try:
            return self._find_commit(name.decode()) if directory == Fixed(COMMITS) else self._find_ref(directory, name)
        except StaleNodeError:
            raise
        except (NotFoundError, InvalidNameError, UnicodeDecodeError):
            return None

    def rows(self, directory: Virtual, after: int) -> Iterator[Row]:
        """Yield the rows of *directory* whose cookie is greater than *after*."""
        if after < DOT_COOKIE:
            yield Row(b".", self.attributes(directory), DOT_COOKIE)
        if after < DOT_DOT_COOKIE:
            yield Row(b"..", self.attributes(self.parent(directory)), DOT_DOT_COOKIE)
        if directory == Fixed(ROOT):
            yield from (Row(name, self._directory(node), node) for name, node in _FIXED_NAMES.items() if node > after)
        elif directory == Fixed(COMMITS):
            yield from self._commit_rows(after)
        else:
            yield from self._ref_rows(directory, after)

    def parent(self, directory: Virtual) -> Virtual:
        """Return the directory that *directory* stands in; of the root, itself."""
        if isinstance(directory, Fixed):
            return Fixed(ROOT)
        with self._database.reading() as reading:
            outer, slash, _ = _prefix(reading, directory).rstrip("/").rpartition("/")
            if not slash:
                return Fixed(REFS)
            return RefDirectory(RefId(key_id(reading.need(b"refdir", outer.encode()))))

    def target(self, link: Link) -> bytes:
        """Return where a symlink leads."""
        with self._database.reading() as reading:
            if link.commit >= reading.counter("commit"):
                raise StaleNodeError(link_node(*link))
            checksum = commit_record(reading, link.commit).checksum
        way = b"../" * link.depth + b"commits/" if link.depth else b""
        return way + checksum.hex().encode()

    def _directory(self, node: NodeId) -> Attributes:
        """Return the attributes of a virtual directory; its mtime tells when anything was committed or moved."""
        mtime_ns = 0 if self._zero_mtime else os.stat(self._index).st_mtime_ns
        name_s = FOREVER_S if node in (COMMITS, REFS) else STEADY_NAME_S
        owner = (self._uid, self._gid)
        return Attributes(node, Ino(node), READ_ONLY_DIRECTORY, *owner, 0, mtime_ns, name_s, STEADY_NAME_S)

    def _link(self, depth: int, commit: CommitNumber) -> Attributes:
        node, size = link_node(depth, commit), 64 + (3 * depth + len("commits/") if depth else 0)
        mtime_ns = self._trees.root(commit).mtime_ns
        return Attributes(node, Ino(node), SYMLINK, self._uid, self._gid, size, mtime_ns, MOVING_NAME_S)

    def _find_commit(self, name: str) -> Attributes | None:
        with self._database.reading() as reading:
            if _CHECKSUM.fullmatch(name):
                number = commit_number(reading, Checksum(bytes.fromhex(name)))
            else:
                number = self._abbreviated(reading, name)
        if number is None:
            return None
        return self._trees.root(number) if _CHECKSUM.fullmatch(name) else self._link(0, number)

    def _abbreviated(self, reading: Reading, name: str) -> CommitNumber | None:
        match = _ABBREVIATION.fullmatch(name)
        if match is None:
            return None
        checksum = commit_record(reading, resolve(reading, match[1], now_s=self._now_s())).checksum.hex()
        if not checksum.startswith(match[1]):  # a ref has this name
            return None
        return resolve(reading, checksum + match[2], now_s=self._now_s())

    def _find_ref(self, directory: Virtual, name: bytes) -> Attributes | None:
        with self._database.reading() as reading:
            prefix = _prefix(reading, directory)
            full = prefix + name.decode()
            base = _STEPS.split(full, maxsplit=1)[0]
            if ":" in base or len(base.encode()) > NAME_BYTES_MAX:
                return None
            ref = find_ref(reading, base)
            commit = ref.commit if ref is not None else None
            if commit is not None and base != full:
                commit = resolve(reading, full, now_s=self._now_s())
            ref_id = reading.get(b"refdir", full.encode()) if base == full else None
        if commit is not None:
            return self._link(_depth(prefix), commit)
        return None if ref_id is None else self._directory(ref_directory_node(RefId(key_id(ref_id))))

    def _commit_rows(self, after: int) -> Iterator[Row]:
        while True:
            with self._database.reading() as reading:
                found = [
                    (CommitNumber(key_id(key)), CommitRecord.unpack(value).checksum)
                    for key, value in islice(reading.items(b"commit", id_key(after + 1)), _COMMITS_AT_A_TIME)
                ]
            if not found:
                return
            for number, checksum in found:
                yield Row(checksum.hex().encode(), self._trees.root(number), number)
            after = found[-1][0]

    def _ref_rows(self, directory: Virtual, after: int) -> Iterator[Row]:
        with self._database.reading() as reading:
            prefix = _prefix(reading, directory)
            children = sorted(child for child in _children(reading, prefix) if child[0] > after)
        for ref_id, name, commit in children:
            if commit is None:
                yield Row(name, self._directory(ref_directory_node(ref_id)), ref_id)
            else:
                yield Row(name, self._link(_depth(prefix), commit), ref_id)


def _prefix(reading: Reading, directory: Virtual) -> str:
    """Return what the names of the refs in *directory* begin with: "" or "debian/12/"."""
    if isinstance(directory, Fixed):
        return ""
    value = reading.get(b"refid", id_key(directory.ref_id))
    name = None if value is None else RefName.unpack(value)
    if name is None or not (name.is_directory and name.is_alive):
        raise StaleNodeError(ref_directory_node(directory.ref_id))
    return name.name.decode() + "/"


def _depth(prefix: str) -> int:
    """Return how many levels below MNT the directory of refs with this prefix is."""
    return 1 + prefix.count("/")


def _children(reading: Reading, prefix: str) -> Iterator[tuple[RefId, bytes, CommitNumber | None]]:
    """Yield (id, name, commit) of the refs right below *prefix*; the commit of a directory of refs is None."""
    start = encoded = prefix.encode()
    while item := next(reading.items(b"ref", start, encoded), None):
        key, value = item
        name, slash, _ = key[len(encoded) :].partition(b"/")
        start = key + b"\0" if not slash else encoded + name + _AFTER_SLASH
        if b":" in name:
            continue
        if slash:
            yield RefId(key_id(reading.need(b"refdir", encoded + name))), name, None
        else:
            record = RefRecord.unpack(value)
            yield record.ref_id, name, record.commit
