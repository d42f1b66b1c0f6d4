"""What the server does about a damaged file object besides refusing to serve it: note it, and find a path for the log.

A file's node has no path, for it is the same in every commit. So that the log can name one, commits are searched, those
at which refs point first, and no longer than a reader can wait; `fsview doctor REPO`, which finds the note, names all.
"""

from __future__ import annotations

import logging
import time
from errno import EIO
from typing import Final

from fsview.cache import BoundedCache
from store.content import file_record
from store.damage import note_damage
from store.errors import CorruptionError, FsviewError
from store.findings import Subject
from store.objects import ObjectType
from store.places import find_places
from store.repository import Repository
from store.revisions import format_time
from store.schema import FileId

_log = logging.getLogger(__name__)

_ENTRIES_MAX: Final = 100_000  # looked at for a path: well under a second
_REMEMBERED_MAX: Final = 1000


class Damage:
    """The damaged file objects that this process has met."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._noted: BoundedCache[FileId, bool] = BoundedCache(_REMEMBERED_MAX)
        self._descriptions: BoundedCache[FileId, str] = BoundedCache(_REMEMBERED_MAX)

    def note(self, file_id: FileId, error: CorruptionError | OSError) -> None:
        """Leave a note that the file object is damaged, as *error* says; never raises."""
        is_damage = isinstance(error, CorruptionError) or error.errno == EIO  # else it may be for want of descriptors
        if is_damage and self._noted.get(file_id) is None:
            self._noted.put(file_id, True)
            self._note(file_id, error)

    def describe(self, file_id: FileId) -> str:
        """Return a file object's checksum and one path where it shows, if that is soon found."""
        found = self._descriptions.get(file_id)
        if found is None:
            found = self._describe(file_id)
            self._descriptions.put(file_id, found)
        return found

    def _describe(self, file_id: FileId) -> str:
        subject = Subject(ObjectType.FILE, file_id)
        with self._repository.database.reading() as reading:
            checksum = file_record(reading, file_id).checksum.hex()
            places = find_places(reading, {subject}, each=1, entries_max=_ENTRIES_MAX).get(subject)
        shown = f"which shows as {places[0]}" if places else "of which no path was found soon"
        return f"file object {checksum}, {shown}"

    def _note(self, file_id: FileId, error: Exception) -> None:
        try:
            with self._repository.database.reading() as reading:
                checksum = file_record(reading, file_id).checksum
            note_damage(self._repository, checksum, f"{format_time(int(time.time()))}: {error}")
        except (FsviewError, OSError) as problem:
            _log.warning("the damage can't be noted for 'fsview doctor': %s", problem)
