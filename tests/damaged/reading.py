"""A small repository with one of everything, and every way to read it, to be compared when it is damaged.

truth = read_all(path)                 of the sound repository: operation -> what it gives
compare(path, truth) -> Outcome        of the damaged one: RIGHT, REFUSED, GONE or WRONG; raises what is our own bug
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TypeAlias

import lmdb

from store.commit_facts import detached_metadata
from store.content import chunks
from store.database import Reading
from store.errors import FsviewError, NotFoundError
from store.gvariant import Variant
from store.listing import Entry
from store.objects import Commit, pack_detached
from store.refs import list_refs, reflog
from store.repository import Repository
from store.revisions import find_place
from store.schema import DATABASES, FileId, id_key
from store.tree import load_commit, walk
from tests.trees import File, Spec, Symlink, build_tree
from tools.cli import run
from tools.facts import load_facts

Key: TypeAlias = tuple[str | bytes, ...]
Truth: TypeAlias = dict[Key, object]

PAGE_BYTES = 4096  # of LMDB's pages
_HEADER_BYTES = 64  # of a page: its header, and the first offsets of its nodes
_META_BYTES = 160

LOOSE = bytes(range(256)) * 700  # two blocks
TREES: tuple[Spec, ...] = (
    {
        "bin": {"sh": Symlink("tool"), "tool": File(b"#!/bin/sh\n", mode=0o755)},
        "etc": {"motd": b"hello\n", "noted": File(b"n", xattrs={"user.k": b"v"})},
        "empty": b"",
        "loose": LOOSE,
        "inline": bytes(range(256)) * 40,
    },
    {
        "bin": {"sh": Symlink("tool"), "tool": File(b"#!/bin/sh\n", mode=0o755)},
        "etc": {"motd": b"hello again\n", "deep": {"er": {"x": b"x\n"}}},
        "loose": LOOSE[::-1],
        **{f"many{number}": b"file %d\n" % number for number in range(20)},
    },
)


_MAY_BE_OLDER = ("refs", "log", "detached")  # a damaged meta page brings back the state before the last commit


class Outcome(IntEnum):
    """The worst that came of reading a damaged repository."""

    RIGHT = 0
    REFUSED = 1  # an error of ours
    GONE = 2  # something is said not to exist (yet)
    WRONG = 3


def make_repository(directory: Path) -> Path:
    """Return a new repository in *directory* with two refs, three commits, a deleted ref and detached metadata."""
    repo = directory / "repo"
    assert run(["init", str(repo)]) == 0
    for number, ref in enumerate(("os/main", "os/main", "other")):
        tree = build_tree(directory / f"tree{number}", TREES[number % 2])
        options = ["-b", ref, "-s", f"Number {number}", "--timestamp", f"@{number}", "--add-metadata-string=k=v"]
        assert run(["commit", "--repo", str(repo), *options, str(tree)]) == 0
    assert run(["refs", "--repo", str(repo), "os/main", "--create=old/gone"]) == 0
    assert run(["refs", "--repo", str(repo), "--delete", "old/gone"]) == 0
    with Repository.open(repo) as repository:
        detached = pack_detached((("signature", Variant("s", "none")),))
        repository.database.write(lambda writing: writing.put(b"detached", id_key(1024), detached))
    return repo


def read_all(path: Path) -> Truth:
    """Return what each operation gives in a sound repository."""
    with Repository.open(path) as repository:
        return {key: operation() for key, operation in _operations(repository)}


def _operations(repository: Repository) -> Iterator[tuple[Key, Callable[[], object]]]:
    """Yield every operation that there is: to be called with a sound repository."""
    with repository.database.reading() as reading:
        refs = [name for name, _ in list_refs(reading)]
        commits = {commit.checksum.hex() for name in refs for commit in _history(reading, name)}
        paths = {text: [path for path, _ in _tree(reading, text)] for text in commits}
    keys: list[Key] = [("refs",), *(("log", name) for name in refs)]
    for text in commits:
        keys += [("show", text), ("detached", text), ("ls", text), *(("entry", text, path) for path in paths[text])]
    for key in keys:
        yield key, partial(perform, repository, key)


def perform(repository: Repository, key: Key) -> object:
    """Do one operation."""
    match key:
        case ("refs",):
            with repository.database.reading() as reading:
                return list(list_refs(reading))
        case ("log", str(name)):
            return _log(repository, name)
        case ("show", str(text)):
            with repository.database.reading() as reading:
                return load_commit(reading, find_place(reading, text, now_s=0).commit)
        case ("detached", str(text)):
            with repository.database.reading() as reading:
                return detached_metadata(reading, find_place(reading, text, now_s=0).commit)
        case ("ls", str(text)):
            with repository.database.reading() as reading:
                return list(_tree(reading, text))
        case ("entry", str(text), bytes(path)):
            return _entry(repository, text, path)
    raise AssertionError(key)


def _log(repository: Repository, name: str) -> object:
    with repository.database.reading() as reading:
        record = dict(list_refs(reading, name))[name]
        return list(reflog(reading, record.ref_id)), list(_history(reading, name))


def _history(reading: Reading, name: str) -> Iterator[Commit]:
    commit = load_commit(reading, find_place(reading, name, now_s=0).commit)
    yield commit
    while commit.parent is not None:
        commit = load_commit(reading, find_place(reading, commit.parent.hex(), now_s=0).commit)
        yield commit


def _tree(reading: Reading, text: str) -> Iterator[tuple[bytes, Entry]]:
    place = find_place(reading, text, now_s=0)
    yield b"/", place.entry
    yield from walk(reading, place.entry)


def _entry(repository: Repository, text: str, path: bytes) -> object:
    with repository.database.reading() as reading:
        entry = find_place(reading, text, path, now_s=0).entry
        content = b"" if entry.is_directory else b"".join(chunks(repository, reading, FileId(entry.id)))
        return load_facts(reading, entry), content


def compare(path: Path, truth: Truth) -> Outcome:
    """Return the worst that reading the repository gives, against what a sound one gave."""
    try:
        repository = Repository.open(path)
    except (FsviewError, OSError):
        return Outcome.REFUSED
    with repository:
        return max(_judge(repository, key, expected) for key, expected in truth.items())


def _judge(repository: Repository, key: Key, expected: object) -> Outcome:
    try:
        found = perform(repository, key)
        if found == expected:
            return Outcome.RIGHT
        return Outcome.GONE if key[0] in _MAY_BE_OLDER else Outcome.WRONG
    except (NotFoundError, KeyError):
        return Outcome.GONE
    except (FsviewError, OSError):
        return Outcome.REFUSED


def live_values(path: Path) -> list[tuple[bytes, bytes, int]]:
    """Return (table, key, size of the stored value) of every live value."""
    with _raw(path) as env, env.begin() as txn:
        return [
            (table, key, len(value))
            for table in DATABASES
            for key, value in txn.cursor(env.open_db(table, txn=txn, create=False))
        ]


def flip_value(path: Path, table: bytes, key: bytes, bit: int) -> None:
    """Flip one bit of a stored value, without its guard's knowledge."""
    with _raw(path) as env, env.begin(write=True) as txn:
        handle = env.open_db(table, txn=txn, create=False)
        value = bytearray(txn.get(key, db=handle) or b"")
        value[bit >> 3] ^= 1 << (bit & 7)
        txn.put(key, bytes(value), db=handle)


def flip_byte(path: Path, offset: int, bit: int) -> None:
    """Flip one bit of a file; the time of its last change stays."""
    status = path.stat()
    with path.open("r+b") as file:
        (byte,) = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes((byte ^ 1 << bit,)), offset)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def places(size: int, count: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, bit) in data.mdb: a third in the meta pages, a third in the headers of pages, a third anywhere."""
    chance = random.Random(seed)
    pages = size // PAGE_BYTES
    for number in range(count):
        page = (chance.randrange(2), chance.randrange(2, pages), chance.randrange(2, pages))[number % 3]
        within = (_META_BYTES, _HEADER_BYTES, PAGE_BYTES)[number % 3]
        yield page * PAGE_BYTES + chance.randrange(within), chance.randrange(8)


def _raw(path: Path) -> lmdb.Environment:
    """Open the index beside the store, which must have it closed."""
    return lmdb.open(str(path / "index"), max_dbs=len(DATABASES), map_size=1 << 30, sync=False)
