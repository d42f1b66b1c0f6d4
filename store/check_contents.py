"""Check contents: that they are where the index says, that each block has its XXH3, and each file object its sha256.

What a view's server found damaged (damaged/abcd…) is read again. What is left over (store/leftovers.py) is garbage.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from xxhash import xxh3_64_intdigest, xxh3_128

from store.content import chunks, file_record
from store.damage import noted_damage
from store.database import Reading
from store.errors import CorruptionError, FsviewError
from store.findings import RESTORE, Finding, Subject, error, garbage
from store.leftovers import strangers, temporary_files, unnamed_files
from store.objects import Checksum, ObjectType
from store.own_files import open_plain
from store.repository import Repository
from store.schema import FIRST_ID, FileId, FileRecord, MtimeRecord, Storage, mtime_key
from store.tree import object_id

_LINE_BYTES_MAX: Final = 4096
_FILES_A_READING: Final = 256  # so that what others delete meanwhile can be reused
_PRUNE: Final = "it takes space only; 'fsview prune' removes it"


def check_contents(
    repository: Repository,
    *,
    quick: bool = False,
    stripe: int = 0,
    stripes: int = 1,
    advance: Callable[[int], object] = lambda step: None,
) -> Iterator[Finding]:
    """Yield which file objects are not what their checksum says; *quick* looks at sizes only.

    Of every *stripes* file objects the one at *stripe* is read, so that several processes can share the work.
    """
    number, end = FIRST_ID + stripe, count_files(repository) + FIRST_ID
    while number < end:
        with repository.database.reading() as reading:
            for file_id in range(number, min(end, number + stripes * _FILES_A_READING), stripes):
                problem = _problem(repository, reading, FileId(file_id), quick)
                if problem is not None:
                    yield problem
                advance(1)
        number += stripes * _FILES_A_READING


def check_noted(repository: Repository, *, again: bool) -> Iterator[Finding]:
    """Yield what somebody found damaged: read it, if *again*, and say where a note is out of date."""
    for checksum, note in noted_damage(repository):
        with repository.database.reading() as reading:
            file_id = _id_or_none(reading, checksum)
            problem = None if file_id is None else _problem(repository, reading, file_id, quick=False)
        if problem is not None and again:
            yield problem
        elif problem is None:
            found = "this file object is gone" if file_id is None else "now it is as it should be; was it the disk?"
            yield garbage(f"damage was noted: {_first_line(note)}; {found}", str(note), f"rm {note}")


def _id_or_none(reading: Reading, checksum: Checksum) -> FileId | None:
    number = object_id(reading, ObjectType.FILE, checksum)
    return None if number is None else FileId(number)


def _first_line(path: Path) -> str:
    try:
        with open(open_plain(path, os.O_RDONLY), "rb") as note:
            return note.readline(_LINE_BYTES_MAX).decode("utf-8", "backslashreplace").rstrip("\n")
    except OSError:
        return "unreadable"


def count_files(repository: Repository) -> int:
    """Return how many file objects there are; 0 where that is damaged, which the check of the index reports."""
    try:
        with repository.database.reading() as reading:
            return reading.counter("file") - FIRST_ID
    except FsviewError:
        return 0


def _problem(repository: Repository, reading: Reading, file_id: FileId, quick: bool) -> Finding | None:
    try:
        record = file_record(reading, file_id)
    except (FsviewError, ValueError, struct.error):
        return None  # reported where the index is checked
    subject, where = Subject(ObjectType.FILE, file_id), _where(repository, record)
    try:
        what = _wrong_file(repository, record) if quick else _wrong_content(repository, reading, file_id, record)
    except CorruptionError as problem:
        if problem.where == str(repository.database.path):
            return None  # a value of the index, reported there
        what, where = f"expected {problem.expected}, found {problem.found}", problem.where
    except OSError as problem:
        what = f"it can't be read: {problem.strerror}"
    if what is None:
        return None
    mend = f"put a good copy of the file there, or {RESTORE}" if record.storage == Storage.LOOSE else RESTORE
    return error(f"file object {record.checksum.hex()}: {what}", where, mend, subject)


def _where(repository: Repository, record: FileRecord) -> str:
    inside = repository.path / "index"
    return str(repository.loose_path(record.checksum) if record.storage == Storage.LOOSE else inside)


def _wrong_file(repository: Repository, record: FileRecord) -> str | None:
    if record.storage != Storage.LOOSE:
        return None
    try:
        status = os.lstat(repository.loose_path(record.checksum))
    except FileNotFoundError:
        return "the loose file is gone"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    return None if status.st_size == record.size else f"expected {record.size} bytes, found {status.st_size}"


def _wrong_content(repository: Repository, reading: Reading, file_id: FileId, record: FileRecord) -> str | None:
    hasher, key = sha256(record.header), xxh3_128(seed=xxh3_64_intdigest(repository.secret))
    size = 0
    for data in chunks(repository, reading, file_id):
        hasher.update(data)
        key.update(data)
        size += len(data)
    if hasher.digest() != record.checksum:
        return f"its sha256 is {hasher.hexdigest()}"
    return _wrong_second(repository, reading, record, key.digest()) if size else None


def _wrong_second(repository: Repository, reading: Reading, record: FileRecord, content: bytes) -> str | None:
    """Check the rule of mtimes: no other content of this size has this second."""
    if repository.settings.mtime != "first-seen":
        return None
    second = record.mtime_ns // 10**9
    value = reading.get(b"mtime", mtime_key(record.size, second))
    if value is None or MtimeRecord.unpack(value).content == content:
        return None  # a record that is missing is reported where the index is checked
    return f"other contents of {record.size} bytes have its second, {second}"


def check_leftovers(repository: Repository) -> Iterator[Finding]:
    """Yield what takes space for nothing (store/leftovers.py)."""
    for checksum in unnamed_files(repository):
        yield garbage("no record names this file", str(repository.loose_path(checksum)), _PRUNE)
    for path in strangers(repository):
        yield garbage("it is not part of a repository", str(path), "it takes space only; remove it by hand")
    for path in temporary_files(repository):
        yield garbage("it is a leftover of a process that was killed", str(path), _PRUNE)
