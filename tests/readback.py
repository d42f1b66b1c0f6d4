"""A commit read back from the store, as tests.snapshots sees a directory: for comparison without a mount."""

from __future__ import annotations

import hashlib
import os
import stat

from store.content import chunks, file_header, file_record
from store.database import Reading
from store.listing import Entry as Row
from store.objects import Checksum, DirMeta, Xattrs
from store.refs import find_ref
from store.repository import Repository
from store.schema import FileId, MetaId
from store.tree import commit_number, commit_record, meta_record, root_entry, walk
from tests.snapshots import Entry, Snapshot


def head(repository: Repository, ref: str) -> Checksum | None:
    """Return the commit where *ref* is, or None."""
    with repository.database.reading() as reading:
        found = find_ref(reading, ref)
        return None if found is None else commit_record(reading, found.commit).checksum


def committed_snapshot(repository: Repository, checksum: Checksum) -> Snapshot:
    """Return everything in a commit, each file read through. xattrs with empty values are not there: OSTree's rule."""
    with repository.database.reading() as reading:
        number = commit_number(reading, checksum)
        assert number is not None, f"there is no commit {checksum.hex()}"
        root = root_entry(reading, commit_record(reading, number))
        found = {b".": _entry(repository, reading, root)}
        for path, row in walk(reading, root):
            found[path[1:]] = _entry(repository, reading, row)
        return found


def _entry(repository: Repository, reading: Reading, row: Row) -> Entry:
    kind, content, target = "directory", "", b""
    if row.is_directory:
        xattrs = _xattrs(DirMeta.from_bytes(meta_record(reading, MetaId(row.meta_id)).raw).xattrs)
    else:
        header = file_header(file_record(reading, FileId(row.id)))
        assert (header.uid, header.gid, header.mode) == (row.uid, row.gid, row.mode)
        xattrs, target = _xattrs(header.xattrs), header.symlink_target
        kind = "symlink" if target else "file"
    if kind == "file":
        hasher = hashlib.sha256()
        for data in chunks(repository, reading, FileId(row.id)):
            hasher.update(data)
        content = hasher.hexdigest()
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(row.mode),
        owner=(row.uid, row.gid),
        size=0 if row.is_directory else row.size,
        content=content,
        target=target,
        device=0,
        xattrs=xattrs,
        mtime_ns=row.mtime_ns,
    )


def _xattrs(pairs: Xattrs) -> tuple[tuple[str, bytes], ...]:
    return tuple((os.fsdecode(name), value) for name, value in pairs)
