"""What is to be deployed: from a revision, or a path in a mounted view, to a commit and the ref to follow."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from store.database import Reading
from store.errors import InvalidNameError
from store.objects import Commit
from store.revisions import Place, find_named_ref, find_place, named_ref, split_path
from store.schema import CommitNumber
from store.tree import commit_of, commit_record
from tools.sysroot.data_versions import declared_versions

_LATEST_S: Final = 253_402_300_799  # the end of the year 9999, where the calendar of datetime ends
HEAD: Final = "@{0}"  # behind a ref that is also the beginning of a checksum: the ref
VERSION_KEYS: Final = ("version", "ostree.version")


@dataclass(frozen=True, slots=True)
class Target:
    """A commit to be deployed; ref is what `upgrade` will follow, source how it was named, a path in full.

    named is the ref in whose name it was asked for, also as "REF^" or in a view of another repository; is_head: as what
    that ref is at now.
    """

    place: Place
    checksum: str
    raw: bytes
    commit: Commit
    ref: str | None
    source: str
    named: str = ""
    is_head: bool = False

    @property
    def number(self) -> CommitNumber:
        """The commit's number in the repository."""
        return self.place.commit

    @property
    def committed(self) -> datetime:
        """The commit's time."""
        return datetime.fromtimestamp(min(self.commit.timestamp_s, _LATEST_S), UTC)

    @property
    def title(self) -> str:
        """The commit's version, else its subject."""
        metadata = dict(self.commit.metadata)
        versions = [metadata[key].value for key in VERSION_KEYS if key in metadata and metadata[key].signature == "s"]
        return str(versions[0]) if versions else self.commit.subject

    @property
    def declares(self) -> dict[str, str]:
        """The data versions that the commit declares."""
        return declared_versions(self.commit)


def find_target(reading: Reading, source: str, revision: str) -> Target:
    """Return what *source* names; *revision* is the same as a revision, if it is a path in a view.

    Raises:
        NotFoundError: nothing is called so.
        InvalidNameError: it is not a whole commit.
    """
    place = find_place(reading, revision, now_s=int(time.time()))
    if place.path:
        raise InvalidNameError(
            f"{source} is a part of a commit, and a deployment is a whole one; 'fsview checkout' writes a part of one"
        )
    record = commit_record(reading, place.commit)
    if source == revision:
        name, is_head = _named_word(reading, revision)
        ref = name if is_head else ""
    else:
        name, is_head = _named_path(source)
        ref = name if is_head and _is_at(reading, name, place.commit) else ""
        source = os.path.abspath(source)  # a relative path means something only here
    return Target(
        place, record.checksum.hex(), record.raw, commit_of(reading, record), ref or None, source, name, is_head
    )  # fmt: skip


def _named_word(reading: Reading, revision: str) -> tuple[str, bool]:
    """Return the ref that a revision names, and whether it is the ref's head; "" if it names none."""
    name, is_head = named_ref(split_path(reading, revision)[0])
    named = find_named_ref(reading, name) if name else None
    return (named[0], is_head) if named else ("", False)


def _is_at(reading: Reading, ref: str, commit: CommitNumber) -> bool:
    named = find_named_ref(reading, ref)
    return named is not None and named[0] == ref and named[1].commit == commit


def _named_path(path: str) -> tuple[str, bool]:
    """Return the same of a path in a view: MNT/refs/REF, MNT/remotes/REMOTE/REF or MNT/history/REF/COMMIT."""
    room, *names = _inside_view(path)
    if room == "refs":
        return named_ref("/".join(names))
    if room == "remotes" and len(names) > 1:
        return named_ref(f"{names[0]}:{'/'.join(names[1:])}")
    return (named_ref("/".join(names[:-1]))[0], False) if room == "history" else ("", False)


def _inside_view(path: str) -> list[str]:
    """Return the names of a path from the top of its view on; symlinks in it are not followed, as refs are such."""
    from fsview.mountinfo import mount_over, mounts

    whole = os.path.abspath(path)
    parts = whole.split("/")
    everything = mounts()
    for count in range(len(parts), 0, -1):
        above = os.path.realpath("/".join(parts[:count]) or "/")
        mount = mount_over(everything, above)
        if mount is not None and mount.point == above:
            return [name for name in (*mount.root.split("/"), *parts[count:]) if name] or [""]
    return [""]
