"""A repository on disk: where its parts are, its settings, its lock.

    REPO/fsview.toml    format = 1, mtime = "first-seen" | "zero", shared = "no" | "group"; written last when it is made
    REPO/index/         store/database.py
    REPO/objects/       loose contents: objects/ab/cd…, 2 and 62 hex digits of the file object's checksum
    REPO/tmp/           staging of commits under way (store/staging.py)
    REPO/damaged/       what was found damaged when it was read (store/damage.py); made when it is needed
    REPO/lock           shared by writers and by whoever reads many objects; exclusive for who deletes them

Nobody but its owner, or his group, gets into one; whose it must be store/entrance.py says.
A directory is a repository from the moment that fsview.toml is renamed into place: the atomic step of `init`.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from store import entrance
from store.database import Database, Writing
from store.errors import AccessError, FormatError, FsviewError, NotFoundError
from store.locking import LockFile
from store.objects import Checksum
from store.own_files import create_anew
from store.schema import FORMAT_VERSION, KNOWN_INCOMPATIBLE, KNOWN_RO_COMPATIBLE, FormatRecord

SETTINGS_FILE: Final = "fsview.toml"
MTIME_RULES: Final = ("first-seen", "zero")
SHARED_WITH: Final = ("no", "group")
_SECRET_BYTES: Final = 32
_LOCK, _GATE = 0, 1  # bytes of REPO/lock


@dataclass(frozen=True, slots=True)
class Settings:
    """What fsview.toml says."""

    format: int = FORMAT_VERSION
    mtime: str = "first-seen"
    shared: str = "no"

    @property
    def is_shared(self) -> bool:
        """Whether the members of a group commit here."""
        return self.shared != "no"

    @property
    def modes(self) -> entrance.Modes:
        """Which modes its parts have."""
        return entrance.SHARED if self.is_shared else entrance.PRIVATE

    def to_toml(self) -> str:
        """Return the file's text."""
        return (
            "# An fsview repository. 'fsview doctor REPO' checks it.\n"
            f"format = {self.format}\n\n"
            '# Times of files in views, checkouts and deployments: "first-seen" (that of the source when a file\n'
            '# was first committed here) or "zero" (as OSTree). Chosen when the repository is made.\n'
            f'mtime = "{self.mtime}"\n\n'
            '# Who may enter: "no" (its owner alone) or "group" (its group, too, which may commit). After a change:\n'
            "# fsview doctor --fix REPO\n"
            f'shared = "{self.shared}"\n'
        )

    @classmethod
    def parse(cls, text: bytes, path: Path) -> Settings:
        """Parse what is in the file *path*.

        Raises:
            FormatError: not TOML, a newer format, or a value that is not valid.
        """
        try:
            values = tomllib.loads(text.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"{path}: {error}; correct the file by hand") from error
        if "sysroot" in values and "format" not in values:
            raise FormatError(f"{path.parent} is a sysroot, not a repository; 'fsview status' shows what is in it")
        version = values.get("format")
        if type(version) is not int or version < 1:  # true is an int, too
            raise FormatError(f"{path}: 'format' must be a number from 1, not {version!r}")
        if version > FORMAT_VERSION:
            raise FormatError(
                f"{path}: the repository has format {version}, but this fsview knows formats up to "
                f"{FORMAT_VERSION}; use a newer fsview"
            )
        mtime = values.get("mtime", "first-seen")
        if mtime not in MTIME_RULES:
            raise FormatError(f"{path}: 'mtime' must be one of {', '.join(MTIME_RULES)}, not {mtime!r}")
        shared = values.get("shared", "no")
        if shared not in SHARED_WITH:
            raise FormatError(f"{path}: 'shared' must be one of {', '.join(SHARED_WITH)}, not {shared!r}")
        return cls(version, mtime, shared)


class Repository:
    """An open repository. Use as a context manager, or close it."""

    def __init__(self, path: Path, settings: Settings, database: Database) -> None:
        """Use Repository.create or Repository.open."""
        self.path, self.settings, self.database = path, settings, database
        with database.reading() as reading:
            self._check_features(FormatRecord.unpack(reading.need(b"head", b"format")))
            self.secret = reading.need(b"head", b"secret")

    @classmethod
    def create(cls, path: Path, *, mtime: str = "first-seen", shared: str = "no") -> Repository:
        """Make a repository at *path*, which must not exist, be empty, or be an earlier `init` that was killed.

        Shared with "group": with that of the directory *path*.

        Raises:
            FsviewError: there is a repository, or something else, already.
            AccessError: the directory is another user's.
        """
        if (path / SETTINGS_FILE).exists():
            raise FsviewError(f"{path} is a repository already; nothing was changed")
        path.mkdir(mode=entrance.PRIVATE.directory, parents=True, exist_ok=True)
        foreign = {entry.name for entry in path.iterdir()} - {"index", "objects", "tmp", "lock", SETTINGS_FILE + ".tmp"}
        if foreign:
            raise FsviewError(
                f"{path} is not empty (it has {min(foreign)!r}); name a new or an empty directory for the repository"
            )
        settings = Settings(mtime=mtime, shared=shared)
        _close_to_others(path, settings.modes)
        os.close(os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, settings.modes.file))
        (path / "lock").chmod(settings.modes.file)
        for name in ("objects", "tmp", "index"):
            entrance.make_directory(path / name, settings.modes)
        database = Database.create(path / "index")
        database.write(_initialise)
        for name in entrance.INDEX_FILES:
            (path / "index" / name).chmod(settings.modes.file)
        sync_directory(path / "index")
        _write_durably(path / SETTINGS_FILE, settings.to_toml())
        return cls(path, settings, database)

    @classmethod
    def open(cls, path: Path) -> Repository:
        """Open the repository at *path*.

        Raises:
            NotFoundError: there is none.
            FormatError: it is of a newer format, or damaged beyond opening.
            AccessError: it, or a part of it, belongs to somebody who isn't trusted, or this user may not enter it.
        """
        with opened_directory(path) as (top, settings):
            entrance.check_parts(top, path, shared=settings.is_shared)
            try:
                index = entrance.open_index(top, path, shared=settings.is_shared)
            except FileNotFoundError:
                text = f"{path} has no index/: the repository is damaged; restore index/ from a copy"
                raise FormatError(text) from None
        database = Database.open(path / "index", descriptor=index)
        try:
            return cls(path, settings, database)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close the index."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def loose_path(self, checksum: Checksum) -> Path:
        """Return where the contents of this file object are, if they are loose."""
        name = checksum.hex()
        return self.path / "objects" / name[:2] / name[2:]

    @contextmanager
    def lock(self, *, exclusive: bool = False) -> Iterator[None]:
        """Hold the repository's lock: shared while objects are added or many read, exclusive to delete any.

        An open-file-description lock, so that it excludes other threads too and ends with the process. Its first byte
        is the lock; the second is the gate to it, which whoever waits for the exclusive lock keeps shut, or new sharers
        would keep it waiting for ever. So nobody may take the lock a second time while holding it.

        Raises:
            AccessError: the lock file isn't this user's to use, or no plain file.
        """
        with LockFile(self.path / "lock") as file:
            file.take(_GATE, exclusive=True)
            file.take(_LOCK, exclusive=exclusive)
            if not exclusive:
                file.release(_GATE)
            yield

    def _check_features(self, record: FormatRecord) -> None:
        unknown = (record.ro_compatible & ~KNOWN_RO_COMPATIBLE) | (record.incompatible & ~KNOWN_INCOMPATIBLE)
        if record.version > FORMAT_VERSION or unknown:
            raise FormatError(
                f"{self.path}: the index has format {record.version} with feature bits {unknown:#x} that this fsview "
                f"(format {FORMAT_VERSION}) does not know; use a newer fsview"
            )


def _initialise(writing: Writing) -> None:
    if writing.get(b"head", b"format") is None:
        writing.put(b"head", b"format", FormatRecord(FORMAT_VERSION, 0, 0, 0).pack())
        writing.put(b"head", b"secret", os.urandom(_SECRET_BYTES))


@contextmanager
def opened_directory(path: Path) -> Iterator[tuple[int, Settings]]:
    """Yield the descriptor of the directory *path*, which is a repository's, and its settings; nothing else is read.

    Raises:
        NotFoundError: it is none.
        FormatError, AccessError: its settings can't be read, or it belongs to somebody who isn't trusted.
    """
    with ExitStack() as stack:
        try:
            top = stack.enter_context(entrance.entered(path))
            text = entrance.read_text(top, SETTINGS_FILE, path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(
                f"{path} is not an fsview repository (it has no {SETTINGS_FILE}); make one with 'fsview init {path}'"
            ) from None
        yield top, Settings.parse(text, path / SETTINGS_FILE)


def _close_to_others(path: Path, modes: entrance.Modes) -> None:
    """Give the directory *path* the mode of a repository, whatever the umask is, or that it was made with."""
    with entrance.entered(path) as top:
        mode = stat.S_IMODE(os.fstat(top).st_mode)
        try:
            if mode != modes.directory:
                os.chmod(f"/proc/self/fd/{top}", modes.directory)
        except PermissionError as error:
            raise AccessError(
                f"{path} is not yours, so it can't be closed to others (mode {mode:04o}); make a directory of your own"
            ) from error


def _write_durably(path: Path, text: str) -> None:
    """Write a small file so that after a power failure it is there whole, or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with open(create_anew(temporary, 0o644), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in the directory *path* durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
