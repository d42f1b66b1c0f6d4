"""Small files that are there whole, or not at all, also after a power failure."""

from __future__ import annotations

import os
from pathlib import Path

from store.own_files import create_anew
from store.repository import sync_directory


def write_durably(path: Path, text: str) -> None:
    """Write *text* to *path*, over what is there, for all to read: the rename is the atomic step."""
    temporary = path.with_name(path.name + ".tmp")
    with open(create_anew(temporary, 0o644), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)
