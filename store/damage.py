"""Damage that somebody met when reading: one note for each file object, so that `fsck --quick` and `doctor` name it.

    REPO/damaged/<checksum>     what was found, and when

The name is what counts, and making it is the atomic step. Whoever serves a view may not be allowed to write here; then
there is a line in the log alone. Nobody but people delete a note.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from store.entrance import Modes, make_directory
from store.objects import Checksum
from store.repository import Repository

DIRECTORY: Final = "damaged"
_NOTES_MAX: Final = 1000  # where more is damaged, it is the disk
_DIGITS: Final = 64


def note_damage(repository: Repository, checksum: Checksum, text: str) -> None:
    """Note that a file object was found damaged, unless that is noted already.

    Raises:
        OSError: it can't be noted: this user may not, the disk is full.
    """
    directory = _open_directory(repository.path, repository.settings.modes)
    try:
        if len(os.listdir(directory)) < _NOTES_MAX:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(checksum.hex(), flags, 0o600, dir_fd=directory), "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), repository.settings.modes.file)
                file.write(text + "\n")
    except FileExistsError:
        pass
    finally:
        os.close(directory)


def noted_damage(repository: Repository) -> list[tuple[Checksum, Path]]:
    """Return the file objects that were found damaged, each with its note."""
    try:
        paths = sorted((repository.path / DIRECTORY).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(Checksum(bytes.fromhex(path.name)), path) for path in paths if _is_checksum(path.name)]


def _is_checksum(name: str) -> bool:
    return len(name) == _DIGITS and not name.strip("0123456789abcdef")


def _open_directory(repository: Path, modes: Modes) -> int:
    """Open the directory of notes, made where there is none: then it belongs to the repository's owner."""
    path = repository / DIRECTORY
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        make_directory(path, modes)
    descriptor = os.open(path, flags)
    if os.geteuid() == 0:
        owner = repository.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor
