"""MNT/refs and MNT/remotes, and what other views have in common with them: the directories that refs' names make.

    MNT/refs/<ref>                  symlink to ../…/commits/<sha256>
    MNT/refs/<ref>^ ~2 @{1} @{…}    unlisted: the same
    MNT/remotes/<remote>/<ref>      the same for the refs of a remote, which the store names remote:ref

Only names are remembered, by their ids, to which others are added (store/presence.py). A row's cookie is an id that is
never given out again: of a ref or a directory of refs; rows come in the order of ids, so that reading a directory can
go on after anything came or went. A remote has no id: a keyed hash of its name is its number and its cookie.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from bisect import bisect_right, insort
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from fsview.attributes import FOREVER_S, STEADY_NAME_S, Attributes, Row
from fsview.nodeid import (
    REFS,
    REMOTES,
    ROOT,
    Fixed,
    HistoryDirectory,
    RefDirectory,
    Remote,
    StaleNodeError,
    VersionsDirectory,
    Virtual,
    name_hash,
    virtual_node,
)  # fmt: skip
from fsview.rooms.room import ROWS_AT_A_TIME, Ground, Mine, Room, is_file_name
from store.database import Reading
from store.errors import CorruptionError, PrunedError
from store.presence import check_no_refdir, known_remotes, living_below
from store.refs import NAME_BYTES_MAX, find_ref, has_shown_refs
from store.revisions import resolve
from store.schema import CommitNumber, RefId, RefName, RefRecord, id_key, key_id
from store.tree import commit_record

_STEPS = re.compile(r"[\^~@]")

Named = RefDirectory | HistoryDirectory | VersionsDirectory


class Child(NamedTuple):
    """A name right below a prefix of refs' names; the commit of a directory of refs is None."""

    ref_id: RefId
    name: bytes
    commit: CommitNumber | None


def ref_name(reading: Reading, node: Named) -> RefName:
    """Return the name of the ref, or the directory of refs, that *node* shows.

    Raises:
        StaleNodeError: it is gone.
    """
    key = id_key(node.ref_id)
    value = reading.get(b"refid", key)
    if value is None and node.ref_id >= reading.counter("ref"):
        raise StaleNodeError(virtual_node(node))
    name = RefName.unpack(value or reading.need(b"refid", key))
    if not name.is_alive:
        raise StaleNodeError(virtual_node(node))
    return name


def outer_directory(reading: Reading, name: bytes) -> RefId | None:
    """Return the directory of refs that *name* lies in; None if it is in none."""
    outer, slash, _ = name.rpartition(b"/")
    return RefId(key_id(reading.need(b"refdir", outer))) if slash else None


def directory_prefix(reading: Reading, node: Named) -> bytes:
    """Return what the names of the refs in a directory begin with: b"debian/12/".

    Raises:
        StaleNodeError: it is gone, or is a ref.
    """
    name = ref_name(reading, node)
    if not name.is_directory:
        raise StaleNodeError(virtual_node(node))
    return name.name + b"/"


def _child(reading: Reading, prefix: bytes, ref_id: RefId, ref: RefName) -> Child | None:
    """Return a living ref, or a directory of refs, right below *prefix*; None if it is not to be shown."""
    name = ref.name[len(prefix) :]
    if not _can_be_shown(name):
        return None
    if not ref.is_directory:
        return Child(ref_id, name, RefRecord.unpack(reading.need(b"ref", ref.name)).commit)
    reading.need(b"refdir", ref.name)
    return Child(ref_id, name, None) if has_shown_refs(reading, ref.name) else None


def _can_be_shown(name: bytes) -> bool:
    """Whether a ref can be called so; a name that somebody forged is left out here, and told of by fsck."""
    try:
        return is_file_name(name) and bool(name.decode())
    except UnicodeDecodeError:
        return False


def find_child(reading: Reading, prefix: bytes, name: bytes) -> Child | None:
    """Return what is called *name* right below *prefix*: a ref, or a directory of refs."""
    if not name or b":" in name or b"/" in name or len(prefix + name) > NAME_BYTES_MAX:
        return None
    ref = find_ref(reading, (prefix + name).decode())
    if ref is not None:
        return Child(ref.ref_id, name, ref.commit)
    directory = reading.get(b"refdir", prefix + name)
    if directory is None:
        check_no_refdir(reading, prefix + name)
        return None
    return Child(RefId(key_id(directory)), name, None)


def find_revision(reading: Reading, prefix: bytes, name: bytes, now_s: int) -> CommitNumber | None:
    """Return the commit that a ref right below *prefix* leads to with the steps in *name* behind it.

    Raises:
        NotFoundError, InvalidNameError, UnicodeDecodeError: there is none.
    """
    match = _STEPS.search(text := name.decode())
    if match is None:
        return None
    child = find_child(reading, prefix, text[: match.start()].encode())
    if child is None or child.commit is None:
        return None
    if match[0] == "@":
        return resolve(reading, prefix.decode() + text, now_s=now_s)
    checksum = commit_record(reading, child.commit).checksum.hex()  # the ref's name may be an abbreviation, too
    return resolve(reading, checksum + text[match.start() :], now_s=now_s)


class RefTree(Room[Mine]):
    """Directories that refs' names make, with something in the place of each ref."""

    @abstractmethod
    def prefix(self, reading: Reading, directory: Mine) -> bytes:
        """Return what the names of the refs in *directory* begin with; raise StaleNodeError if it is gone."""

    @abstractmethod
    def directory_of(self, ref_id: RefId) -> Virtual:
        """Return a directory of refs."""

    @abstractmethod
    def of_ref(self, prefix: bytes, ref_id: RefId, commit: CommitNumber) -> Attributes:
        """Return what stands in the place of a ref right below *prefix*."""

    @abstractmethod
    def of_revision(self, prefix: bytes, commit: CommitNumber) -> Attributes | None:
        """Return what an unlisted name right below *prefix* leads to."""

    def attributes(self, node: Mine) -> Attributes:
        """Return the attributes of a directory of refs."""
        with self._database.reading() as reading:
            self.prefix(reading, node)
        return self._ground.directory(virtual_node(node), FOREVER_S if isinstance(node, Fixed) else STEADY_NAME_S)

    def find(self, directory: Mine, name: bytes) -> Attributes | None:
        """Return a ref, a directory of refs, or what a ref with steps behind it leads to."""
        with self._database.reading() as reading:
            prefix = self.prefix(reading, directory)
            child = find_child(reading, prefix, name)
            commit = None if child else find_revision(reading, prefix, name, self._ground.now_s())
        if child is not None:
            return self._of_child(prefix, child)
        return None if commit is None else self.of_revision(prefix, commit)

    def rows(self, directory: Mine, after: int) -> Iterator[Row]:
        """Yield refs and directories of refs."""
        count = ROWS_AT_A_TIME
        while count == ROWS_AT_A_TIME:
            with self._database.reading() as reading:
                prefix = self.prefix(reading, directory)
                living = living_below(reading, prefix, after, ROWS_AT_A_TIME)
                children = [_child(reading, prefix, *one) for one in living]
            for child in filter(None, children):
                with suppress(PrunedError):  # the ref was moved, and its commit pruned, a moment ago
                    yield Row(child.name, self._of_child(prefix, child), child.ref_id)
            count, after = len(living), living[-1][0] if living else after

    def _of_child(self, prefix: bytes, child: Child) -> Attributes:
        if child.commit is None:
            return self._ground.directory(virtual_node(self.directory_of(child.ref_id)))
        return self.of_ref(prefix, child.ref_id, child.commit)


class RemoteNames:
    """The remotes by a keyed hash of their names, which is their number and their cookie."""

    def __init__(self, secret: bytes) -> None:
        """*secret* is the repository's."""
        self._secret = secret
        self._names: dict[int, bytes] = {}
        self._sorted: list[int] = []
        self._seen = 0

    def hash(self, name: bytes) -> int:
        """Return what stands for a name."""
        return name_hash(self._secret, name)

    def find(self, reading: Reading, hashed: int) -> bytes | None:
        """Return the remote that *hashed* stands for, if a ref of it is here."""
        self._refresh(reading)
        name = self._names.get(hashed)
        return name if name is not None and has_remote(reading, name) else None

    def after(self, reading: Reading, hashed: int, count: int) -> list[int]:
        """Return the first *count* that are greater than *hashed*, sorted; of some there may be no ref any more."""
        self._refresh(reading)
        start = bisect_right(self._sorted, hashed)
        return self._sorted[start : start + count]

    def _refresh(self, reading: Reading) -> None:
        known = known_remotes(reading)
        for name in islice(known, self._seen, None):
            self._names[self.hash(name)] = name
            insort(self._sorted, self.hash(name))
        self._seen = len(known)


def has_remote(reading: Reading, name: bytes) -> bool:
    """Whether there is a ref of the remote *name*."""
    if b":" in name or len(name) >= NAME_BYTES_MAX:
        return False
    if next(reading.items(b"ref", prefix=name + b":"), None) is not None:
        return True
    if living_below(reading, name + b":", 0, 1):
        raise CorruptionError(
            f"the refs of remote {name.decode('utf-8', 'backslashreplace')}", reading.where, "a record", "none"
        )
    return False


class Refs(RefTree[Fixed | RefDirectory | Remote]):
    """MNT/refs and MNT/remotes/<remote>, and the directories in them."""

    def __init__(self, ground: Ground, remotes: RemoteNames) -> None:
        """Share what is known of remotes with MNT/remotes."""
        super().__init__(ground)
        self._remotes = remotes

    def prefix(self, reading: Reading, directory: Fixed | RefDirectory | Remote) -> bytes:
        """Return what the names of the refs in *directory* begin with: b"debian/12/", b"origin:", b"origin:debian/"."""
        match directory:
            case Fixed():
                return b""
            case RefDirectory():
                return directory_prefix(reading, directory)
        remote = self._remotes.find(reading, directory.name_hash)
        if remote is None:
            raise StaleNodeError(virtual_node(directory))
        return remote + b":"

    def directory_of(self, ref_id: RefId) -> RefDirectory:
        """Return a directory of refs."""
        return RefDirectory(ref_id)

    def of_ref(self, prefix: bytes, ref_id: RefId, commit: CommitNumber) -> Attributes:
        """Return the symlink to a ref's commit."""
        return self.of_revision(prefix, commit)

    def of_revision(self, prefix: bytes, commit: CommitNumber) -> Attributes:
        """Return a symlink to a commit from the directory with this prefix."""
        return self._ground.commit_link(1 + prefix.count(b"/") + prefix.count(b":"), commit)

    def parent(self, directory: Fixed | RefDirectory | Remote) -> Virtual:
        """Return the directory of refs that a directory of refs lies in."""
        if not isinstance(directory, RefDirectory):
            return Fixed(ROOT if isinstance(directory, Fixed) else REMOTES)
        with self._database.reading() as reading:
            name = ref_name(reading, directory).name
            outer = outer_directory(reading, name)
        if outer is not None:
            return RefDirectory(outer)
        remote, colon, _ = name.partition(b":")
        return Remote(self._remotes.hash(remote)) if colon else Fixed(REFS)


class Remotes(Room[Fixed]):
    """MNT/remotes."""

    def __init__(self, ground: Ground, names: RemoteNames) -> None:
        """Share what is known of remotes with MNT/remotes/<remote>."""
        super().__init__(ground)
        self._names = names

    def attributes(self, node: Fixed) -> Attributes:
        """Return its attributes."""
        return self._ground.directory(node.node, FOREVER_S)

    def find(self, directory: Fixed, name: bytes) -> Attributes | None:
        """Return the directory of the remote *name*, if a ref of it is here."""
        with self._database.reading() as reading:
            return self._directory(self._names.hash(name)) if has_remote(reading, name) else None

    def rows(self, directory: Fixed, after: int) -> Iterator[Row]:
        """Yield the remotes."""
        some = [after]
        while some:
            with self._database.reading() as reading:
                some = self._names.after(reading, some[-1], ROWS_AT_A_TIME)
                found = [(self._names.find(reading, hashed), hashed) for hashed in some]
            for name, hashed in found:
                if name is not None and _can_be_shown(name):
                    yield Row(name, self._directory(hashed), hashed)

    def parent(self, directory: Fixed) -> Fixed:
        """Return MNT."""
        return Fixed(ROOT)

    def _directory(self, hashed: int) -> Attributes:
        return self._ground.directory(virtual_node(Remote(hashed)))
