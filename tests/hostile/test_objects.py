"""Objects as only an enemy makes them: refused where they are parsed, and by the writer before anything is seen."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.content import file_record
from store.errors import FormatError, InvalidNameError
from store.gvariant import pack
from store.objects import Checksum, Commit, DirMeta, DirTree, FileHeader, ObjectType, checksum_of
from store.repository import Repository
from store.schema import DATABASES, INLINE_BYTES_MAX, FileId
from store.tree import object_id
from tests.checking import assert_sound
from tests.forge import META, forge
from tests.readback import committed_snapshot

FILE, TREE, DIRMETA = bytes([1]) * 32, bytes([2]) * 32, META.checksum
LONG = "x" * 255

BAD_NAMES = ["", ".", "..", "/", "a/b", "/etc/passwd", "../../up", "a/", LONG + "x"]
BAD_TREES: dict[str, tuple[list[tuple[str, bytes]], list[tuple[str, bytes, bytes]]]] = {
    **{f"file {name[:12]!r}": ([(name, FILE)], []) for name in BAD_NAMES},
    **{f"directory {name[:12]!r}": ([], [(name, TREE, DIRMETA)]) for name in BAD_NAMES},
    "a name twice": ([("a", FILE), ("a", FILE)], []),
    "a directory twice": ([], [("a", TREE, DIRMETA), ("a", TREE, DIRMETA)]),
    "unsorted": ([("b", FILE), ("a", FILE)], []),
    "sorted as a locale does": ([("a", FILE), ("B", FILE)], []),
    "unsorted directories": ([], [("b", TREE, DIRMETA), ("a", TREE, DIRMETA)]),
    "both a file and a directory": ([("a", FILE)], [("a", TREE, DIRMETA)]),
    "a checksum of 31 bytes": ([("a", FILE[1:])], []),
    "a checksum of 33 bytes": ([("a", FILE + b"x")], []),
    "an empty checksum": ([], [("a", b"", DIRMETA)]),
    "no dirmeta": ([], [("a", TREE, b"")]),
}


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(tmp_path / "repo") as repository:
        yield repository
    assert_sound(tmp_path / "repo")


def _is_empty(repository: Repository) -> bool:
    with repository.database.reading() as reading:
        return all(reading.count(table) == 0 for table in DATABASES if table != b"head")


@pytest.mark.parametrize("what", BAD_TREES)
def test_a_dirtree_that_no_directory_can_be(repository: Repository, what: str) -> None:
    raw = pack("(a(say)a(sayay))", BAD_TREES[what])
    with pytest.raises(FormatError, match="dirtree"):
        DirTree.from_bytes(raw)
    with forge(repository) as work, pytest.raises(FormatError, match="dirtree"):
        work.publish(work.tree({b"good": work.file(b"good")}, {b"bad": work.raw_tree(raw)}))
    assert _is_empty(repository)


@pytest.mark.parametrize("name", [b"\xff", b"a\xc3", b"nul\0in"])
def test_a_name_that_is_no_text(name: bytes) -> None:
    with pytest.raises(InvalidNameError, match="not a file name"):
        DirTree(((name, Checksum(FILE)),), ())
    raw = pack("(a(say)a(sayay))", ([("?" * len(name), FILE)], [])).replace(b"?" * len(name), name)
    with pytest.raises(FormatError):
        DirTree.from_bytes(raw)


@pytest.mark.parametrize("end", range(1, 60))
def test_a_dirtree_that_was_cut_off(end: int) -> None:
    raw = DirTree(((b"name", Checksum(FILE)),), ((b"other", Checksum(TREE), Checksum(DIRMETA)),)).to_bytes()
    with pytest.raises(FormatError):
        DirTree.from_bytes(raw[:-end])


@pytest.mark.parametrize("what", ["file", "dirtree", "dirmeta"])
def test_a_dirtree_that_names_what_is_not_here(repository: Repository, what: str) -> None:
    missing = Checksum(bytes([9]) * 32)
    with forge(repository) as work:
        good = work.tree({b"good": work.file(b"good")})
        tree = DirTree(
            ((b"f", missing if what == "file" else work.file(b"good")),),
            ((b"d", missing if what == "dirtree" else good, missing if what == "dirmeta" else work.meta),),
        )
        with pytest.raises(FormatError, match=f"the {what} object 0909.* is named, but not there"):
            work.publish(work.raw_tree(tree.to_bytes()))
    assert _is_empty(repository)


def test_a_dirtree_before_what_it_names(repository: Repository) -> None:
    """Children come first: a dirtree can't be in itself, nor in what is below it."""
    below = DirTree((), ()).to_bytes()
    with forge(repository) as work:
        root = work.raw_tree(DirTree((), ((b"d", checksum_of(below), work.meta),)).to_bytes())
        work.raw_tree(below)
        with pytest.raises(FormatError, match=r"the dirtree object .* is named, but not there"):
            work.publish(root)
    assert _is_empty(repository)


@pytest.mark.parametrize("what", ["dirtree", "dirmeta"])
def test_a_commit_whose_root_is_not_here(repository: Repository, what: str) -> None:
    missing = Checksum(bytes([9]) * 32)
    with forge(repository) as work:
        root = work.tree()
        made = Commit(
            (), None, "", "", 0, missing if what == "dirtree" else root, missing if what == "dirmeta" else work.meta
        )
        with pytest.raises(FormatError, match=f"the {what} object 0909.* is named, but not there"):
            work.writer.publish(lambda reading: made, ref="main", time_s=0, message="")
    assert _is_empty(repository)


HEADER = FileHeader(1, 2, 0o100644, ((b"user.a", b"1"), (b"user.b", b"2"))).to_bytes()
LIES: dict[str, bytes] = {
    "a size that is too large": struct.pack(">I", len(HEADER)) + HEADER[4:],
    "a size that is too small": struct.pack(">I", 1) + HEADER[4:],
    "padding that is none": HEADER[:7] + b"\1" + HEADER[8:],
    "a device": HEADER[:20] + struct.pack(">I", 0x103) + HEADER[24:],
    "a directory's mode": HEADER[:16] + struct.pack(">I", 0o040755) + HEADER[20:],
    "a device's mode": HEADER[:16] + struct.pack(">I", 0o020644) + HEADER[20:],
    "a symlink without a target": HEADER[:16] + struct.pack(">I", 0o120777) + HEADER[20:],
    "more than 32 bits of mode": HEADER[:16] + struct.pack(">I", 0xFFFFFFFF) + HEADER[20:],
    "bytes behind it": HEADER + b"\0",
    "an end that is cut off": HEADER[:-1],
    "nothing": b"",
    "xattrs in another order": HEADER.replace(b"user.a", b"user.c"),
    "an xattr twice": HEADER.replace(b"user.a", b"user.b"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_header_that_lies(lie: str) -> None:
    with pytest.raises(FormatError):
        FileHeader.from_bytes(LIES[lie])


@pytest.mark.parametrize("mode", [0, 0o644, 0o100755, 0o140755, 0xFFFFFFFF])
def test_a_dirmeta_of_something_else(mode: int) -> None:
    with pytest.raises(FormatError, match="dirmeta"):
        DirMeta.from_bytes(struct.pack(">III", 0, 0, mode))


@pytest.mark.parametrize(
    "xattrs",
    [
        ((b"user.large", bytes(range(256)) * 1024),),
        tuple((b"user.%05d" % number, b"value") for number in range(5_000)),
        ((b"user." + b"n" * 100_000, b"v"),),
        ((b"\xff\xfe not utf-8", b"v"),),
    ],
    ids=["256 KiB", "5,000", "a long name", "a name in no encoding"],
)
@pytest.mark.parametrize("size", [0, 10, INLINE_BYTES_MAX + 1])
def test_xattrs_that_no_file_system_takes_are_kept(
    repository: Repository, xattrs: tuple[tuple[bytes, bytes], ...], size: int
) -> None:
    header, meta = FileHeader(0, 0, 0o100644, xattrs), DirMeta(0, 0, 0o40755, xattrs)
    with forge(repository) as work:
        work.meta = work.writer.add_meta(meta)
        commit = work.publish(work.tree({b"f": work.stager.whole(bytes(size), header, 0)}, {b"d": work.tree()}))
    found = committed_snapshot(repository, commit)
    for path in (b".", b"f", b"d"):
        assert tuple((os.fsencode(name), value) for name, value in found[path].xattrs) == xattrs
    with repository.database.reading() as reading:
        number = object_id(reading, ObjectType.FILE, _checksum(header, bytes(size)))
        assert number is not None and file_record(reading, FileId(number)).has_xattrs


def _checksum(header: FileHeader, content: bytes) -> Checksum:
    hasher = header.hasher()
    hasher.update(content)
    return Checksum(hasher.digest())


@pytest.mark.parametrize("length", [4096, 65_535])
def test_symlinks_that_nobody_could_make(repository: Repository, length: int) -> None:
    with forge(repository) as work, pytest.raises(InvalidNameError, match="may have 4095 bytes"):
        work.symlink(b"x" * length)


@pytest.mark.parametrize("length", [1, 254, 255, 4095])
def test_long_symlinks(repository: Repository, length: int) -> None:
    target = (b"/\xc3\xa9" * length)[: length - length % 3] or b"x"
    with forge(repository) as work:
        commit = work.publish(work.tree({b"link": work.symlink(target)}))
    found = committed_snapshot(repository, commit)[b"link"]
    assert (found.kind, found.target, found.size) == ("symlink", target, len(target))


def test_names_of_255_bytes_in_each_of_many_levels(repository: Repository) -> None:
    name = "é".encode() * 127 + b"x"
    with forge(repository) as work:
        tree = work.tree({name: work.file(b"bottom")})
        for _ in range(40):
            tree = work.tree(None, {name: tree})
        commit = work.publish(tree)
    assert max(map(len, committed_snapshot(repository, commit))) == 41 * 255 + 40
