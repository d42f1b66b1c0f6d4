"""fsview debug: any record, node number or object as text.

What is shown is what store/schema.py, store/listing.py, store/objects.py and fsview/nodeid.py say: read it beside them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial

import click

from fsview.rank import EntryRank, Rank, descend, descend_to_entry
from store.content import chunks, file_record
from store.database import Reading
from store.errors import InvalidNameError, NotFoundError
from store.gvariant_text import format_text
from store.listing import Entry
from store.objects import Checksum, Commit, DirMeta, DirTree, ObjectType
from store.repository import Repository
from store.revisions import format_time
from store.schema import (
    DATABASES,
    CommitNumber,
    CommitRecord,
    FileId,
    FileRecord,
    MetaId,
    RefName,
    Storage,
    TreeId,
    id_key,
    key_id,
)  # fmt: skip
from store.tree import commit_record, load_listing, meta_record, root_entry, tree_record
from tools.parameters import repository_option
from tools.records import Fields, dataclass_fields, field_lines, key_text, parse_key, record_fields, shown, text_of
from tools.render import one_line, print_json, print_json_lines, size_text, table


def find_object(reading: Reading, text: str) -> tuple[ObjectType, Checksum, int]:
    """Return kind, checksum and id of the object whose checksum begins with the hex digits *text*.

    Raises:
        NotFoundError: there is none, or several.
    """
    digits = text.lower()
    if not digits or set(digits) - set("0123456789abcdef") or len(digits) > 64:
        raise InvalidNameError(f"{text!r} is not a checksum or the beginning of one")
    found = [(kind, *one) for kind in ObjectType for one in _beginning_with(reading, kind, digits)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFoundError(f"no object here has the checksum {text}")
    listed = ", ".join(f"{kind.name.lower()} {checksum.hex()}" for kind, checksum, _ in found[:5])
    raise NotFoundError(f"{text} begins the checksums of several objects ({listed}); write more digits")


def _beginning_with(reading: Reading, kind: ObjectType, digits: str) -> Iterator[tuple[Checksum, int]]:
    prefix = bytes((kind,)) + bytes.fromhex(digits[: len(digits) & ~1])
    for key, value in reading.items(b"object", prefix=prefix):
        if key[1:].hex().startswith(digits):
            yield Checksum(key[1:]), key_id(value)


def raw_object(repository: Repository, reading: Reading, kind: ObjectType, number: int) -> Iterator[bytes]:
    """Yield the bytes whose sha256 is the object's checksum."""
    if kind == ObjectType.FILE:
        yield file_record(reading, FileId(number)).header
        yield from chunks(repository, reading, FileId(number))
        return
    if kind == ObjectType.DIRTREE:
        yield tree_record(reading, TreeId(number)).raw
    elif kind == ObjectType.DIRMETA:
        yield meta_record(reading, MetaId(number)).raw
    else:
        yield commit_record(reading, CommitNumber(number)).raw


def object_fields(repository: Repository, reading: Reading, kind: ObjectType, number: int) -> Fields:
    """Return what an object says, by field."""
    if kind == ObjectType.FILE:
        return dataclass_fields(file_record(reading, FileId(number)))
    raw = b"".join(raw_object(repository, reading, kind, number))
    if kind == ObjectType.DIRMETA:
        return dataclass_fields(DirMeta.from_bytes(raw))
    if kind == ObjectType.DIRTREE:
        tree = DirTree.from_bytes(raw)
        return {
            "files": {text_of(name): checksum.hex() for name, checksum in tree.files},
            "dirs": {text_of(name): [dirtree.hex(), dirmeta.hex()] for name, dirtree, dirmeta in tree.dirs},
        }
    commit = Commit.from_bytes(raw)
    return {
        "subject": commit.subject, "body": commit.body, "time": format_time(commit.timestamp_s),
        "parent": commit.parent.hex() if commit.parent else None, "root_dirtree": commit.root_dirtree.hex(),
        "root_dirmeta": commit.root_dirmeta.hex(), "metadata": {key: format_text(one) for key, one in commit.metadata},
    }  # fmt: skip


def node_fields(reading: Reading, number: int) -> Fields:
    """Return what a node number of the view stands for.

    Raises:
        NotFoundError: nothing.
    """
    from fsview import nodeid

    node = nodeid.parse(number)
    found: Fields = {"node": f"{number:#018x}", "kind": type(node).__name__}
    if isinstance(node, nodeid.Fixed):
        return found | {"path": f"/{nodeid.FIXED_NAMES[node.node].decode()}"}
    if isinstance(node, nodeid.File):
        record = file_record(reading, node.file_id)
        return found | {"file_id": node.file_id, "st_ino": node.file_id} | dataclass_fields(record)
    if isinstance(node, nodeid.RefDirectory | nodeid.HistoryDirectory | nodeid.VersionsDirectory):
        return found | dataclass_fields(RefName.unpack(reading.need(b"refid", id_key(node.ref_id))))
    if isinstance(node, nodeid.Remote | nodeid.Date | nodeid.StatusFile):
        return found | node._asdict()
    commit = commit_record(reading, node.commit)
    found |= {"commit_number": node.commit, "commit": commit.checksum.hex()}
    if isinstance(node, nodeid.Directory):
        return found | _directory_fields(reading, commit, node.rank)
    if isinstance(node, nodeid.PlacedFile | nodeid.Versioned | nodeid.GoneLink):
        return found | _entry_fields(reading, commit, node.rank)
    return found | {name: value for name, value in node._asdict().items() if name != "commit"}


def _directory_fields(reading: Reading, commit: CommitRecord, rank: Rank) -> Fields:
    if rank >= commit.directories:
        raise NotFoundError(f"commit {commit.checksum.hex()} has {commit.directories} directories, none of {rank}")
    way = descend(partial(load_listing, reading), root_entry(reading, commit), rank)
    return {"rank": rank, "path": _path([entry for _, entry in way])} | dataclass_fields(way[-1][1])


def _entry_fields(reading: Reading, commit: CommitRecord, rank: EntryRank) -> Fields:
    if rank > commit.entries:
        raise NotFoundError(f"commit {commit.checksum.hex()} has {commit.entries} entries, none of {rank}")
    way = descend_to_entry(partial(load_listing, reading), root_entry(reading, commit), rank)
    return {"entry_rank": rank, "path": _path([entry for _, entry in way])} | dataclass_fields(way[-1][1])


def _path(way: list[Entry]) -> str:
    return text_of(b"".join(b"/" + entry.name for entry in way[1:]) or b"/")


def stats_fields(repository: Repository, reading: Reading) -> Fields:
    """Return how much of what there is in the repository; sizes in bytes."""
    counts: dict[str, object] = {name.decode(): reading.count(name) for name in DATABASES}
    storages = {storage: [0, 0] for storage in Storage}
    for _, value in reading.items(b"file"):
        record = FileRecord.unpack(value)
        storages[record.storage][0] += 1
        storages[record.storage][1] += record.size
    files: dict[str, object] = {
        storage.name.lower(): f"{count} ({size_text(size)})" for storage, (count, size) in storages.items()
    }
    index = os.stat(repository.path / "index" / "data.mdb")
    return {
        "format": repository.settings.format,
        "mtime": repository.settings.mtime,
        "index": f"{size_text(index.st_size)}, on disk {size_text(index.st_blocks * 512)}",
        "records": counts,
        "files": files,
    }


EXAMPLES = """
\b
Examples:
  fsview debug record ref                              the keys of a table
  fsview debug record file 1024                        one record
  fsview debug record object dirtree,6e340b9cffb37a98…
  fsview debug nodeid 0x4000040000000003               what a node number (ls -i) stands for
  fsview debug object --raw 6e340b9c | sha256sum       the bytes that an object's checksum is of
  fsview debug listing 1024
"""


@click.group("debug", epilog=EXAMPLES)
def debug_command() -> None:
    """Print any record, node number or object as text."""


_JSON = click.option("--json", "in_json", is_flag=True, help="JSON.")


def _print(found: Fields, in_json: bool) -> None:
    if in_json:
        print_json(found)
    else:
        print("\n".join(field_lines(found)))


@debug_command.command("record")
@click.argument("name", metavar="TABLE", type=click.Choice([name.decode() for name in DATABASES]))
@click.argument("key", required=False)
@_JSON
@repository_option
def record_command(repository: Repository, name: str, key: str | None, in_json: bool) -> None:
    """Print the record of TABLE with this KEY, or all keys."""
    with repository.database.reading() as reading:
        if key is None:
            keys = (key_text(name, found) for found, _ in reading.items(name.encode()))
            if in_json:
                print_json_lines(keys)
            else:
                for text in keys:
                    print(one_line(text))
            return
        wanted = parse_key(name, key)
        value = reading.get(name.encode(), wanted) if wanted else None
        if value is None:
            raise NotFoundError(f"the table {name} has no record {key}")
        _print({"key": key_text(name, wanted)} | record_fields(name, wanted, value), in_json)


@debug_command.command("nodeid")
@click.argument("number")
@_JSON
@repository_option
def nodeid_command(repository: Repository, number: str, in_json: bool) -> None:
    """Print what a node NUMBER of the view stands for: decimal, or hexadecimal with 0x."""
    try:
        node = int(number, 0)
    except ValueError:
        raise click.UsageError(f"{number!r} is not a number") from None
    with repository.database.reading() as reading:
        _print(node_fields(reading, node), in_json)


@debug_command.command("object")
@click.argument("checksum")
@click.option("--raw", is_flag=True, help="Its bytes, as they are hashed.")
@_JSON
@repository_option
def object_command(repository: Repository, checksum: str, raw: bool, in_json: bool) -> None:
    """Print the object with this CHECKSUM, or the beginning of one."""
    with repository.database.reading() as reading:
        kind, whole, number = find_object(reading, checksum)
        if raw:
            for data in raw_object(repository, reading, kind, number):
                sys.stdout.buffer.write(data)
            return
        about: Fields = {"type": kind.name.lower(), "checksum": whole.hex(), "id": number}
        _print(about | object_fields(repository, reading, kind, number), in_json)


@debug_command.command("listing")
@click.argument("tree_id", type=click.IntRange(0, 2**64 - 1))
@_JSON
@repository_option
def listing_command(repository: Repository, tree_id: int, in_json: bool) -> None:
    """Print the listing of the dirtree with this id: a line an entry."""
    with repository.database.reading() as reading:
        if reading.get(b"listing", id_key(tree_id)) is None:
            raise NotFoundError(f"there is no dirtree with id {tree_id}; 'fsview debug record listing' lists the ids")
        rows = [dataclass_fields(entry) for entry in load_listing(reading, TreeId(tree_id))]
    if in_json:
        print_json_lines(rows)
    elif rows:
        print(table([list(rows[0]), *(list(map(shown, row.values())) for row in rows)]))


@debug_command.command("stats")
@_JSON
@repository_option
def stats_command(repository: Repository, in_json: bool) -> None:
    """Print how much of what there is."""
    with repository.database.reading() as reading:
        _print(stats_fields(repository, reading), in_json)
