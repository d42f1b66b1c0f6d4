"""All that is known of a commit, as `fsview show --json` prints it and info/ in the view shows it."""

from __future__ import annotations

from dataclasses import dataclass

from store.database import Reading
from store.gvariant_text import format_text
from store.objects import Checksum, Commit, Metadata, content_checksum, unpack_detached
from store.presence import check_no_detached
from store.refs import list_refs
from store.schema import CommitNumber, id_key
from store.tree import commit_number, commit_of, commit_record


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A commit on the way back; parent is None where there is none, or it is not in this repository."""

    number: CommitNumber
    checksum: Checksum
    commit: Commit
    parent: CommitNumber | None

    @property
    def is_cut(self) -> bool:
        """Whether the commit has a parent that is not here."""
        return self.parent is None and self.commit.parent is not None


def log_entry(reading: Reading, number: CommitNumber) -> LogEntry:
    """Return a commit that is here."""
    record = commit_record(reading, number)
    commit = commit_of(reading, record)
    parent = None if commit.parent is None else commit_number(reading, commit.parent)
    return LogEntry(number, record.checksum, commit, parent)


def commit_version(commit: Commit) -> str | None:
    """Return the commit's metadata "version", if it is text."""
    value = dict(commit.metadata).get("version")
    return value.value if value is not None and value.signature == "s" else None


@dataclass(frozen=True, slots=True)
class _Pointing:
    """The names of the refs that point at each commit, as of the last move of any."""

    moves: int
    names: dict[CommitNumber, list[str]]


def refs_at(reading: Reading, number: CommitNumber) -> list[str]:
    """Return the names of the refs that point at a commit. They are kept, of all commits, until a ref moves."""
    moves = reading.counter("reflog")
    kept = reading.kept.get(b"ref")
    if not isinstance(kept, _Pointing) or kept.moves != moves:
        names: dict[CommitNumber, list[str]] = {}
        for name, record in list_refs(reading):
            names.setdefault(record.commit, []).append(name)
        kept = reading.kept[b"ref"] = _Pointing(moves, names)
    return list(kept.names.get(number, ()))


def detached_metadata(reading: Reading, number: CommitNumber) -> Metadata:
    """Return the metadata that were added to a commit after it was made, such as signatures."""
    raw = raw_detached(reading, number)
    return unpack_detached(raw) if raw else ()


def raw_detached(reading: Reading, number: CommitNumber) -> bytes:
    """Return the same as bytes, none if there are none."""
    raw = reading.get(b"detached", id_key(number))
    if raw is None:
        check_no_detached(reading, number)
    return raw or b""


def commit_entry_json(entry: LogEntry) -> dict[str, object]:
    """Return a commit as a JSON object."""
    commit = entry.commit
    return {
        "commit": entry.checksum.hex(),
        "parent": commit.parent.hex() if commit.parent else None,
        "parent_is_here": not entry.is_cut,
        "content_checksum": content_checksum(commit).hex(),
        "timestamp": commit.timestamp_s,
        "version": commit_version(commit),
        "subject": commit.subject,
        "body": commit.body,
    }


def commit_json(reading: Reading, number: CommitNumber) -> dict[str, object]:
    """Return all that is known of a commit as a JSON object; metadata in GVariant's text form."""
    record, entry = commit_record(reading, number), log_entry(reading, number)
    return commit_entry_json(entry) | {
        "dirtree": entry.commit.root_dirtree.hex(),
        "dirmeta": entry.commit.root_dirmeta.hex(),
        "entries": record.entries,
        "directories": record.directories - 1,
        "refs": refs_at(reading, number),
        "metadata": {key: format_text(value) for key, value in entry.commit.metadata},
        "detached_metadata": {key: format_text(value) for key, value in detached_metadata(reading, number)},
    }
