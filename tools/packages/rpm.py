"""rpm's database: SQLite, with one header a package (rpm 4.16 and newer; Fedora 33, openSUSE, RHEL 9).

SQLite opens files only, and takes what is in the write-ahead log beside them for committed, as rpm itself would; so
both are copied to a temporary directory. What SQLite is then asked is bounded: the file may be anybody's work.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from store.errors import FormatError
from tools.packages.package import Package
from tools.packages.rpm_header import Header
from tools.packages.stanzas import checked
from tools.packages.tree import Tree, bounded, find_file
from tools.render import size_text

DIRECTORIES: Final = (b"usr/lib/sysimage/rpm", b"usr/share/rpm", b"var/lib/rpm")
_SQLITE: Final = b"/rpmdb.sqlite"
_OLDER: Final = {b"/Packages.db": "ndb", b"/Packages": "Berkeley DB"}
_DATABASE_BYTES_MAX: Final = 2 << 30
_HEADER_BYTES_MAX: Final = 64 << 20
_MEMORY_BYTES_MAX: Final = 256 << 20  # of SQLite
_STEPS_MAX: Final = 100_000_000  # of SQLite's machine; a database of 10,000 packages takes about 10^5
_STEPS_BETWEEN: Final = 1_000_000
_KEYS: Final = "gpg-pubkey"  # a key that rpm trusts, kept as if it were a package


def read_rpm(tree: Tree) -> Iterator[Package] | None:
    """Return the packages, or None if there is no database of rpm's.

    Raises:
        FormatError: it is in an older format; while packages are read: it is damaged.
    """
    path = find_file(tree, *(directory + _SQLITE for directory in DIRECTORIES))
    if path is not None:
        return _read(tree, path)
    for name, kind in _OLDER.items():
        older = find_file(tree, *(directory + name for directory in DIRECTORIES))
        if older is not None:
            raise FormatError(f"the rpm database /{os.fsdecode(older)} is {kind}; only those in SQLite can be read")
    return None


def _read(tree: Tree, path: bytes) -> Iterator[Package]:
    with tempfile.TemporaryDirectory(prefix="fsview-rpm-") as directory:
        copy = Path(directory, "rpmdb.sqlite")
        _copy(tree, path, copy)
        log = find_file(tree, path + b"-wal")
        if log is not None:
            _copy(tree, log, copy.with_name(copy.name + "-wal"))
        try:
            for blob in _blobs(copy):
                yield from _package(blob, path)
        except (sqlite3.Error, ValueError, MemoryError) as error:
            why = str(error) or f"it takes more than {size_text(_MEMORY_BYTES_MAX)} of memory"
            raise FormatError(f"the rpm database /{os.fsdecode(path)} is damaged: {why}") from None


def _copy(tree: Tree, path: bytes, to: Path) -> None:
    with open(to, "wb") as file:
        for data in bounded(tree, path, _DATABASE_BYTES_MAX):
            file.write(data)


def _blobs(path: Path) -> Iterator[bytes]:
    """Yield the headers; only from a real table, as a view may be a computation without end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += _STEPS_BETWEEN
            return steps > _STEPS_MAX

        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _HEADER_BYTES_MAX)
        database.set_progress_handler(count, _STEPS_BETWEEN)
        database.execute(f"PRAGMA hard_heap_limit = {_MEMORY_BYTES_MAX}")
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
        made = database.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'Packages'").fetchone()
        if made is None or not str(made[0]).upper().startswith("CREATE TABLE"):
            raise sqlite3.DatabaseError("it has no table 'Packages'")
        for (blob,) in database.execute("SELECT blob FROM Packages ORDER BY hnum"):
            if not isinstance(blob, bytes):
                raise ValueError("a header is no bytes")
            yield blob


def _package(blob: bytes, path: bytes) -> Iterator[Package]:
    header = Header(blob)
    if header.name != _KEYS:
        epoch = f"{header.epoch}:" if header.epoch else ""
        version = f"{epoch}{header.version}-{header.release}" if header.version and header.release else ""
        yield checked(Package("rpm", header.name, header.architecture, version), path)
