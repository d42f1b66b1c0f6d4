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
from store.refs import find_ref
from store.revisions import Place, find_named_ref, find_place, split_path
from store.schema import CommitNumber
from store.tree import commit_of, commit_record
from tools.sysroot.data_versions import declared_versions

_LATEST_S: Final = 253_402_300_799  # the end of the year 9999, where the calendar of datetime ends
HEAD: Final = "@{0}"  # behind a ref that is also the beginning of a checksum: the ref
VERSION_KEYS: Final = ("version", "ostree.version")


@dataclass(frozen=True, slots=True)
class Target:
    """A commit to be deployed; ref is what `upgrade` will follow, source how it was named, a path in full."""

    place: Place
    checksum: str
    raw: bytes
    commit: Commit
    ref: str | None
    source: str

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
    ref = _ref_of(reading, source, revision, place.commit)
    named = source if source == revision else os.path.abspath(source)  # a relative path means something only here
    return Target(place, record.checksum.hex(), record.raw, commit_of(reading, record), ref, named)


def _ref_of(reading: Reading, source: str, revision: str, commit: CommitNumber) -> str | None:
    """Return the ref that was named: as a revision, or as MNT/refs/REF."""
    if source == revision:
        named = find_named_ref(reading, split_path(reading, revision)[0].removesuffix(HEAD))
        return named[0] if named else None
    for name in _ref_names(source):
        record = find_ref(reading, name)
        if record is not None and record.commit == commit:
            return name
    return None


def _ref_names(path: str) -> list[str]:
    """Return what a path in a view says of a ref; symlinks in it are not followed, as refs are such."""
    from fsview.mountinfo import mount_over, mounts

    whole = os.path.abspath(path)
    parts = whole.split("/")
    everything = mounts()
    for count in range(len(parts), 0, -1):
        above = os.path.realpath("/".join(parts[:count]) or "/")
        mount = mount_over(everything, above)
        if mount is not None and mount.point == above:
            inside = parts[count:]
            if inside[:1] == ["refs"]:
                return ["/".join(inside[1:])]
            if inside[:1] == ["remotes"] and len(inside) > 2:
                return [f"{inside[1]}:{'/'.join(inside[2:])}"]
    return []
