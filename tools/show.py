"""`fsview show`: one commit, or one object in it, in full."""

from __future__ import annotations

import stat
import time
from typing import Final

import click

from store.commit_facts import commit_json, detached_metadata, refs_at
from store.database import Reading
from store.errors import NotFoundError
from store.gvariant import Variant
from store.gvariant_text import format_text
from store.repository import Repository
from store.revisions import Place, find_place, format_time, split_path
from store.schema import CommitNumber, TreeId
from store.tree import commit_of, commit_record, load_commit, tree_record
from tools.facts import facts_json, load_facts
from tools.log import heading, message
from tools.ls import xattrs_text
from tools.parameters import REVISION, repository_option
from tools.render import count_text, one_line, print_json, quote_path

_SIGNATURES: Final = {"ostree.sign.ed25519": "aay", "ostree.gpgsigs": "aay", "fsview.sign.made": "a(ayay)"}


def commit_lines(reading: Reading, number: CommitNumber) -> list[str]:
    """Return all that is known of a commit, as lines."""
    record = commit_record(reading, number)
    commit = commit_of(reading, record)
    lines = heading(record.checksum, commit)
    lines += [f"Dirtree:  {commit.root_dirtree.hex()}", f"Dirmeta:  {commit.root_dirmeta.hex()}"]
    lines.append(f"Entries:  {record.entries}, of these {count_text(record.directories - 1, 'directory')}")
    refs = refs_at(reading, number)
    lines += [f"Refs:  {one_line(' '.join(refs))}"] if refs else []
    for title, metadata in (("Metadata", commit.metadata), ("Detached metadata", detached_metadata(reading, number))):
        lines += [f"{title}:"] if metadata else []
        lines += [f"    {one_line(key)}: {one_line(_value_text(key, value))}" for key, value in metadata]
    return [*lines, *message(commit)]


def _value_text(key: str, value: Variant) -> str:
    """Return a value in GVariant's text form; signatures, whose bytes tell nobody anything, are counted."""
    if key in _SIGNATURES and value.signature == _SIGNATURES[key]:
        return f"{count_text(len(value.value), 'signature')}; 'fsview verify' says by whom"
    return format_text(value)


def object_lines(reading: Reading, place: Place) -> list[str]:
    """Return all that is known of one entry of a commit, as lines."""
    entry, facts = place.entry, load_facts(reading, place.entry)
    names = ("dirtree", "dirmeta") if entry.is_directory else ("file",)
    lines = [f"{name} {checksum.hex()}" for name, checksum in zip(names, facts.checksums, strict=True)]
    lines.append(f"Path:  {quote_path(place.path or b'/')}")
    lines.append(f"Kind:  {facts.kind}, mode {stat.S_IMODE(entry.mode):05o}, owner {entry.uid}:{entry.gid}")
    if facts.letter == "d":
        record = tree_record(reading, TreeId(entry.id))
        lines.append(f"Entries:  {record.entries}, of these {count_text(record.directories - 1, 'directory')}")
    elif facts.letter == "l":
        lines.append(f"Target:  {quote_path(facts.target)}")
    else:
        lines.append(f"Size:  {entry.size}")
    lines.append(f"Mtime:  {format_time(entry.mtime_ns // 10**9)}")
    return lines + ([f"Xattrs:  {one_line(xattrs_text(facts))}"] if facts.xattrs else [])


def object_json(reading: Reading, place: Place) -> dict[str, object]:
    """Return all that is known of one entry of a commit as a JSON object."""
    return facts_json(place.path, load_facts(reading, place.entry))


def _print_key(reading: Reading, number: CommitNumber, key: str) -> None:
    metadata = dict(load_commit(reading, number).metadata)
    if key not in metadata:
        has = ", ".join(metadata) or "none"
        raise NotFoundError(f"the commit has no metadata {key!r}; it has: {has}")
    print(one_line(format_text(metadata[key])))


EXAMPLES = """
\b
Examples:
  fsview show debian/12                            the commit, its refs and metadata
  fsview show debian/12:/etc/passwd                a file: checksum, mode, owner, xattrs
  fsview show --print-metadata-key=version main    one value
  fsview show --json main | jq .refs
"""


@click.command("show", epilog=EXAMPLES)
@click.argument("revision", type=REVISION)
@click.option("--print-metadata-key", "key", metavar="KEY", help="Print this metadata value alone.")
@click.option("--json", "in_json", is_flag=True, help="A JSON object.")
@repository_option
def show_command(repository: Repository, revision: str, key: str | None, in_json: bool) -> None:
    """Show the commit REVISION in full, or with REVISION:/PATH what is there."""
    with repository.database.reading() as reading:
        place = find_place(reading, revision, now_s=int(time.time()))
        is_object = split_path(reading, revision)[1] is not None
        if key is not None:
            _print_key(reading, place.commit, key)
        elif in_json:
            print_json(object_json(reading, place) if is_object else commit_json(reading, place.commit))
        else:
            print("\n".join(object_lines(reading, place) if is_object else commit_lines(reading, place.commit)))
