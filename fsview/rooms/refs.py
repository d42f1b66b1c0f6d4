"""MNT/refs and MNT/remotes, and what other views have in common with them: the directories that refs' names make.

    MNT/refs/<ref>                  symlink to ../…/commits/<sha256>
    MNT/refs/<ref>^ ~2 @{1} @{…}    unlisted: the same
    MNT/remotes/<remote>/<ref>      the same for the refs of a remote, which the store names remote:ref

Nothing here is cached. A row's cookie is an id that is never given out again: of a ref or a directory of refs; rows
come in the order of ids, so that reading a directory can go on after anything came or went. A remote has no id: a
keyed hash of its name is its number and its cookie.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
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
from fsview.rooms.room import Mine, Room, is_file_name
from store.database import Reading
from store.errors import PrunedError
from store.presence import check_found, check_no_refdir, known_remotes, names_below
from store.refs import NAME_BYTES_MAX, find_ref, has_shown_refs
from store.revisions import resolve
from store.schema import CommitNumber, RefId, RefName, RefRecord, id_key, key_id
from store.tree import commit_record

_STEPS = re.compile(r"[\^~@]")
_BEHIND_SLASH, _BEHIND_COLON = b"0", b";"  # the byte after it: where the keys go on behind those that begin so

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


def children_after(reading: Reading, prefix: bytes, after: int) -> list[Child]:
    """Return what is right below *prefix* and has a greater id than *after*, by id."""
    return sorted(child for child in _children(reading, prefix) if child.ref_id > after)


def _children(reading: Reading, prefix: bytes) -> Iterator[Child]:
    """Yield what is right below *prefix*: a key that begins with it is enough, those behind that are passed over."""
    start, missing = prefix, set(names_below(reading, prefix))
    while item := next(reading.items(b"ref", start, prefix), None):
        key, value = item
        name, slash, _ = key[len(prefix) :].partition(b"/")
        remote, colon, _ = name.partition(b":")
        missing.discard(prefix + name)
        if colon:
            start = prefix + remote + _BEHIND_COLON
        elif slash:
            start = prefix + name + _BEHIND_SLASH
            if _can_be_shown(name) and has_shown_refs(reading, prefix + name):
                yield Child(RefId(key_id(reading.need(b"refdir", prefix + name))), name, None)
        else:
            start = key + b"\0"
            record = RefRecord.unpack(value)
            if _can_be_shown(name):
                yield Child(record.ref_id, name, record.commit)
    check_found(reading, missing)


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
        with self._database.reading() as reading:
            prefix = self.prefix(reading, directory)
            children = children_after(reading, prefix, after)
        for child in children:
            with suppress(PrunedError):  # the ref was moved, and its commit pruned, a moment ago
                yield Row(child.name, self._of_child(prefix, child), child.ref_id)

    def _of_child(self, prefix: bytes, child: Child) -> Attributes:
        if child.commit is None:
            return self._ground.directory(virtual_node(self.directory_of(child.ref_id)))
        return self.of_ref(prefix, child.ref_id, child.commit)


class Refs(RefTree[Fixed | RefDirectory | Remote]):
    """MNT/refs and MNT/remotes/<remote>, and the directories in them."""

    def prefix(self, reading: Reading, directory: Fixed | RefDirectory | Remote) -> bytes:
        """Return what the names of the refs in *directory* begin with: b"debian/12/", b"origin:", b"origin:debian/"."""
        match directory:
            case Fixed():
                return b""
            case RefDirectory():
                return directory_prefix(reading, directory)
        for remote in remotes(reading):
            if name_hash(self._ground.repository.secret, remote) == directory.name_hash:
                return remote + b":"
        raise StaleNodeError(virtual_node(directory))

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
        return Remote(name_hash(self._ground.repository.secret, remote)) if colon else Fixed(REFS)


class Remotes(Room[Fixed]):
    """MNT/remotes."""

    def attributes(self, node: Fixed) -> Attributes:
        """Return its attributes."""
        return self._ground.directory(node.node, FOREVER_S)

    def find(self, directory: Fixed, name: bytes) -> Attributes | None:
        """Return the directory of the remote *name*, if a ref of it is here."""
        with self._database.reading() as reading:
            if b":" in name or not self._is_here(reading, name + b":"):
                return None
        return self._ground.directory(virtual_node(Remote(name_hash(self._ground.repository.secret, name))))

    def rows(self, directory: Fixed, after: int) -> Iterator[Row]:
        """Yield the remotes."""
        with self._database.reading() as reading:
            found = sorted((name_hash(self._ground.repository.secret, name), name) for name in remotes(reading))
        for cookie, name in found:
            if cookie > after and _can_be_shown(name):
                yield Row(name, self._ground.directory(virtual_node(Remote(cookie))), cookie)

    def parent(self, directory: Fixed) -> Fixed:
        """Return MNT."""
        return Fixed(ROOT)

    def _is_here(self, reading: Reading, prefix: bytes) -> bool:
        if next(reading.items(b"ref", prefix=prefix), None) is not None:
            return True
        check_found(reading, names_below(reading, prefix))
        return False


def remotes(reading: Reading) -> Iterator[bytes]:
    """Yield the remotes of which there are refs, by name."""
    start, missing = b"", known_remotes(reading)
    while item := next(reading.items(b"ref", start), None):
        first, slash, _ = item[0].partition(b"/")
        remote, colon, _ = first.partition(b":")
        if colon:
            missing.discard(remote)
            yield remote
        start = remote + _BEHIND_COLON if colon else first + _BEHIND_SLASH if slash else first + b"\0"
    check_found(reading, missing)
