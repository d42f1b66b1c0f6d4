"""What is known of one entry of a tree: everything that OSTree stores, and what of it differs between two."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from store.content import file_header, file_record
from store.database import Reading
from store.listing import Entry
from store.objects import Checksum, DirMeta, Xattrs
from store.schema import FileId, FileRecord, MetaId, Storage, TreeId, blocks_key, id_key
from store.tree import meta_record, tree_record
from tools.render import json_path, quote_path


@dataclass(frozen=True, slots=True)
class Facts:
    """An entry with what its listing does not hold.

    checksums: of the file object; of a directory, of its dirtree and its dirmeta. target: a symlink's, else empty.
    """

    entry: Entry
    checksums: tuple[Checksum, ...]
    xattrs: Xattrs
    target: bytes

    @property
    def letter(self) -> str:
        """As `ls -l` and `ostree ls` tell the kinds: "-", "d" or "l"."""
        return stat.filemode(self.entry.mode)[0]

    @property
    def kind(self) -> str:
        """The kind in a word."""
        return {"-": "file", "d": "directory", "l": "symlink"}[self.letter]


def load_facts(reading: Reading, entry: Entry) -> Facts:
    """Return all that is known of *entry*."""
    if entry.is_directory:
        meta = meta_record(reading, MetaId(entry.meta_id))
        checksums = tree_record(reading, TreeId(entry.id)).checksum, meta.checksum
        return Facts(entry, checksums, DirMeta.from_bytes(meta.raw).xattrs, b"")
    record = file_record(reading, FileId(entry.id))
    header = file_header(record)
    return Facts(entry, (record.checksum,), header.xattrs, header.symlink_target)


def facts_json(path: bytes, facts: Facts) -> dict[str, object]:
    """Return an entry as a JSON object."""
    entry, directory = facts.entry, facts.entry.is_directory
    return {
        "path": json_path(path or b"/"),
        "type": facts.kind,
        "mode": f"{stat.S_IMODE(entry.mode):05o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": None if directory else entry.size,
        "mtime_ns": entry.mtime_ns,
        ("dirtree" if directory else "checksum"): facts.checksums[0].hex(),
        **({"dirmeta": facts.checksums[1].hex()} if directory else {}),
        "target": json_path(facts.target) if facts.letter == "l" else None,
        "xattrs": {json_path(name): value.hex() for name, value in facts.xattrs},
    }


def describe_changes(old: Facts, new: Facts) -> list[str]:
    """Return what is different but for contents: kind, mode, owner, xattrs, symlink target; a line of text each."""
    a, b = old.entry, new.entry
    lines = []
    if old.letter != new.letter:
        lines.append(f"{old.kind} -> {new.kind}")
    elif old.target != new.target:
        lines.append(f"target {quote_path(old.target)} -> {quote_path(new.target)}")
    if stat.S_IMODE(a.mode) != stat.S_IMODE(b.mode):
        lines.append(f"mode {stat.S_IMODE(a.mode):05o} -> {stat.S_IMODE(b.mode):05o}")
    if (a.uid, a.gid) != (b.uid, b.gid):
        lines.append(f"owner {a.uid}:{a.gid} -> {b.uid}:{b.gid}")
    return lines + _describe_xattrs(dict(old.xattrs), dict(new.xattrs))


def _describe_xattrs(old: dict[bytes, bytes], new: dict[bytes, bytes]) -> list[str]:
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            how = "added" if name not in old else "removed" if name not in new else "changed"
            lines.append(f"xattr {quote_path(name)} {how}")
    return lines


def have_equal_guards(reading: Reading, old: Entry, new: Entry) -> bool:
    """Return whether two regular files seem to have equal contents, without reading large ones.

    Small contents are compared, large ones by the XXH3 of each block: what differs by accident is found, what somebody
    made to collide is not.
    """
    if old.size != new.size:
        return False
    a, b = file_record(reading, FileId(old.id)), file_record(reading, FileId(new.id))
    if Storage.LOOSE not in (a.storage, b.storage):
        return _inline(reading, old, a) == _inline(reading, new, b)
    return a.storage == b.storage and _guards(reading, old) == _guards(reading, new)


def _inline(reading: Reading, entry: Entry, record: FileRecord) -> bytes:
    return reading.need(b"content", id_key(entry.id)) if record.storage == Storage.INLINE else b""


def _guards(reading: Reading, entry: Entry) -> list[bytes]:
    prefix = id_key(entry.id)
    assert blocks_key(FileId(entry.id), 0).startswith(prefix)
    return [value for _, value in reading.items(b"blocks", prefix=prefix)]
