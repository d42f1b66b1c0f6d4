"""OSTree's objects: what may be in them, known bytes, and the widths of offsets."""

from __future__ import annotations

import doctest
import stat
from collections.abc import Callable
from typing import Any

import pytest

from store import objects
from store.errors import FormatError, InvalidNameError
from store.gvariant import Variant, pack
from store.objects import (
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    ObjectType,
    checksum_from_hex,
    content_checksum,
    pack_detached,
    unpack_detached,
)

ONE, TWO = Checksum(b"\1" * 32), Checksum(b"\2" * 32)
EMPTY_TREE = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
ROOT_META = "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488"


def _commit(**fields: Any) -> Commit:
    defaults: dict[str, Any] = {
        "metadata": (),
        "parent": None,
        "subject": "",
        "body": "",
        "timestamp_s": 1577836800,
        "root_dirtree": checksum_from_hex(EMPTY_TREE),
        "root_dirmeta": checksum_from_hex(ROOT_META),
    }
    return Commit(**{**defaults, **fields})


def test_documented_bytes() -> None:
    assert doctest.testmod(objects).failed == 0


def test_objects_have_the_checksums_of_ostree() -> None:
    assert DirTree((), ()).checksum.hex() == EMPTY_TREE
    assert DirMeta(0, 0, 0o40755).checksum.hex() == ROOT_META
    commit = _commit()
    assert commit.checksum.hex().startswith("ce5c1004") and len(commit.to_bytes()) == 86
    assert commit.to_bytes().endswith(bytes.fromhex("300201000000"))
    hasher = FileHeader(0, 0, 0o100644).hasher()
    hasher.update(b"hello world\n")
    assert hasher.hexdigest() == "81381808c56d4f3d643ec12f6a18fcf2993af8daba7c2a1b2cbfc315b39424c6"


def test_types_have_the_numbers_of_ostree() -> None:
    assert [(kind.name, kind.value) for kind in ObjectType] == [
        ("FILE", 1),
        ("DIRTREE", 2),
        ("DIRMETA", 3),
        ("COMMIT", 4),
    ]


@pytest.mark.parametrize(
    "text", ["", "ab", EMPTY_TREE.upper(), EMPTY_TREE + "0", EMPTY_TREE[:-1] + "g", EMPTY_TREE + "\n"]
)
def test_checksum_is_64_lower_case_hex_digits(text: str) -> None:
    with pytest.raises(InvalidNameError, match="checksum"):
        checksum_from_hex(text)


NO_NAMES = [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"\0", b"\xff", b"\xc3", b"n" * 256, "é".encode("latin-1")]


@pytest.mark.parametrize("name", NO_NAMES)
def test_dirtree_rejects_unusable_name(name: bytes) -> None:
    with pytest.raises(InvalidNameError, match="not a file name"):
        DirTree(files=((name, ONE),), dirs=())
    with pytest.raises(InvalidNameError, match="not a file name"):
        DirTree(files=(), dirs=((b"!", ONE, ONE), (name, ONE, TWO)))


def test_bytes_that_look_like_a_name_across_two_names_are_refused() -> None:
    with pytest.raises(InvalidNameError, match="not a file name"):
        DirTree(files=((b"a\xc3", ONE), (b"\xa9b", ONE)), dirs=())


NAMES_OF_A_KIND = [
    b"\n",
    b"\t",
    b"\\",
    b".hidden",
    b"..two",
    b"...",
    b" ",
    b"n" * 255,
    "日本".encode(),
    "\U0001f600".encode(),
]


def test_dirtree_takes_every_other_name() -> None:
    names = sorted(NAMES_OF_A_KIND)
    tree = DirTree(tuple((name, ONE) for name in names), ())
    assert DirTree.from_bytes(tree.to_bytes()) == tree


def test_order_of_names_is_that_of_their_bytes() -> None:
    names = [b"UPPER", b"a", b"a!", b"a-b", b"a.b", b"a0", "\uffee".encode(), "\U0001f600".encode()]
    assert DirTree(tuple((name, ONE) for name in names), ()).files[0][0] == b"UPPER"


@pytest.mark.parametrize("names", [(b"b", b"a"), (b"a", b"a"), (b"a", b"c", b"b")])
def test_names_out_of_order_or_twice_are_refused(names: tuple[bytes, ...]) -> None:
    with pytest.raises(InvalidNameError, match="not in order or not unique"):
        DirTree(tuple((name, ONE) for name in names), ())
    with pytest.raises(InvalidNameError, match="not in order or not unique"):
        DirTree((), tuple((name, ONE, TWO) for name in names))


def test_name_that_is_a_file_and_a_directory_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="both a file and a directory: b'x'"):
        DirTree(files=((b"x", ONE),), dirs=((b"x", ONE, TWO),))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_digests_have_32_bytes(size: int) -> None:
    wrong = Checksum(bytes(size))
    makers: list[Callable[[], object]] = [
        lambda: DirTree(files=((b"x", wrong),), dirs=()),
        lambda: DirTree(files=(), dirs=((b"x", wrong, ONE),)),
        lambda: DirTree(files=(), dirs=((b"x", ONE, wrong),)),
        lambda: _commit(root_dirtree=wrong),
        lambda: _commit(root_dirmeta=wrong),
        lambda: _commit(parent=wrong),
        lambda: _commit(related=(("a", wrong),)),
    ]
    for make in makers:
        with pytest.raises(InvalidNameError, match="32 bytes"):
            make()


# Each would be a dirtree to a reader who trusts; ostree's fsck passes the first four.
HOSTILE_TREES: list[tuple[list[tuple[str, bytes]], list[tuple[str, bytes, bytes]]]] = [
    ([("b", ONE), ("a", ONE)], []),
    ([("a", ONE), ("a", TWO)], []),
    ([("a", ONE)], [("a", ONE, TWO)]),
    ([("", ONE)], []),
    ([(".", ONE)], []),
    ([], [("..", ONE, TWO)]),
    ([("a/b", ONE)], []),
    ([("n" * 256, ONE)], []),
    ([("n" * 100_000, ONE)], []),
    ([("a", b"")], []),
    ([("a", bytes(31))], []),
    ([("a", bytes(33))], []),
    ([], [("a", bytes(31), bytes(33))]),
    ([], [("a", bytes(33), bytes(31))]),
]


@pytest.mark.parametrize("value", HOSTILE_TREES)
def test_hostile_dirtree_is_refused(value: Any) -> None:
    with pytest.raises(FormatError, match="dirtree"):
        DirTree.from_bytes(pack("(a(say)a(sayay))", value))


@pytest.mark.parametrize(
    "raw", [b"", b"\1", b"\0\0", b"\xff", b"\0" * 300, b"\xff" * 300, b"\1" * 70_000, b"\0" * 100 + b"\x64"]
)
def test_bytes_that_are_no_dirtree_are_refused(raw: bytes) -> None:
    with pytest.raises(FormatError):
        DirTree.from_bytes(raw)


@pytest.mark.parametrize("count", [1, 6, 7, 1400, 1631, 1638])  # 1638: only the inner table widens
def test_dirtree_widens_offsets_as_the_general_codec_does(count: int) -> None:
    widths = set()
    for length in range(4, 256, 3):
        names = sorted([f"n{number:03x}" for number in range(count - 1)] + ["z" * length])
        files = [(name, bytes(ONE)) for name in names]
        dirs = [(name.upper(), bytes(ONE), bytes(TWO)) for name in names[: count % 7 + 1]]
        tree = DirTree(
            tuple((name.encode(), Checksum(digest)) for name, digest in files),
            tuple((name.encode(), Checksum(digest), Checksum(meta)) for name, digest, meta in dirs),
        )
        raw = tree.to_bytes()
        widths.add(1 if len(raw) < 256 else 2 if len(raw) < 65536 else 4)
        assert raw == pack("(a(say)a(sayay))", (files, dirs))
        assert DirTree.from_bytes(raw) == tree
    assert widths == {1: {1, 2}, 1631: {2, 4}, 1638: {4}}.get(count, {2})


@pytest.mark.parametrize("length", [*range(220, 260), 65515, 65516, 65517, 65518, 65519, 65520])
def test_symlink_target_widens_offsets_as_the_general_codec_does(length: int) -> None:
    header = FileHeader(0, 0, stat.S_IFLNK | 0o777, (), b"t" * length)
    mode = int.from_bytes((stat.S_IFLNK | 0o777).to_bytes(4, "big"), "little")
    raw = header.to_bytes()
    assert raw[8:] == pack("(uuuusa(ayay))", (0, 0, mode, 0, "t" * length, []))
    assert raw[:8] == len(raw[8:]).to_bytes(4, "big") + bytes(4)
    assert FileHeader.from_bytes(raw) == header


def test_offset_that_is_too_narrow_is_refused() -> None:
    raw = FileHeader(0, 0, stat.S_IFLNK | 0o777, (), b"t" * 238).to_bytes()
    narrow = (256).to_bytes(4, "big") + raw[4:-2] + b"\xff"
    with pytest.raises(FormatError, match="normal form"):
        FileHeader.from_bytes(narrow)


BAD_XATTRS = [
    ((b"", b"x"),),
    ((b"a\0", b"x"),),
    ((b"b", b""), (b"a", b"")),
    ((b"a", b"1"), (b"a", b"2")),
]


@pytest.mark.parametrize("xattrs", BAD_XATTRS)
def test_xattrs_are_sorted_unique_and_named(xattrs: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(InvalidNameError, match="xattrs"):
        FileHeader(0, 0, 0o100644, xattrs)
    with pytest.raises(InvalidNameError, match="xattrs"):
        DirMeta(0, 0, 0o40755, xattrs)
    packed = pack("a(ayay)", [(name + b"\0", value) for name, value in xattrs])
    with pytest.raises(FormatError, match="xattrs"):
        DirMeta.from_bytes(DirMeta(0, 0, 0o40755).to_bytes() + packed)


def test_xattr_name_without_its_nul_is_refused() -> None:
    with pytest.raises(FormatError, match="NUL"):
        DirMeta.from_bytes(DirMeta(0, 0, 0o40755).to_bytes() + pack("a(ayay)", [(b"user.a", b"x")]))


def test_xattr_may_be_empty_and_any_bytes() -> None:
    xattrs = ((b"security.capability", bytes(range(256))), (b"user.\xff", b""))
    for value in (DirMeta(1, 2, 0o42775, xattrs), FileHeader(1, 2, 0o104755, xattrs)):
        assert type(value).from_bytes(value.to_bytes()) == value


@pytest.mark.parametrize("mode", [0, 0o755, 0o100755, 0o120777, 0o240755, 0o1040755, -1, 1 << 32])
def test_dirmeta_has_the_mode_of_a_directory(mode: int) -> None:
    with pytest.raises(InvalidNameError, match="mode of a directory"):
        DirMeta(0, 0, mode)


@pytest.mark.parametrize(
    "mode", [0, 0o644, 0o40755, 0o20644, 0o60644, 0o10644, 0o140644, 0o300644, 0o1100644, -1, 1 << 32]
)
def test_file_header_has_the_mode_of_a_file_or_symlink(mode: int) -> None:
    for target in (b"", b"x"):
        with pytest.raises(InvalidNameError, match="mode of a regular file"):
            FileHeader(0, 0, mode, (), target)


@pytest.mark.parametrize(
    ("mode", "target"), [(0o100644, b"x"), (0o120777, b""), (0o120777, b"a\0"), (0o120777, b"\xff"), (0o100644, b"\0")]
)
def test_symlink_has_a_target_and_a_file_none(mode: int, target: bytes) -> None:
    with pytest.raises(InvalidNameError, match="not the target"):
        FileHeader(0, 0, mode, (), target)


@pytest.mark.parametrize("owner", [(-1, 0), (0, -1), (1 << 32, 0), (0, 1 << 32)])
def test_owners_have_32_bits(owner: tuple[int, int]) -> None:
    with pytest.raises(InvalidNameError, match="32 bits"):
        FileHeader(*owner, 0o100644)
    with pytest.raises(InvalidNameError, match="32 bits"):
        DirMeta(*owner, 0o40755)


PLAIN = FileHeader(0, 0, 0o100644).to_bytes()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        PLAIN[:-1],
        PLAIN + b"\0",
        PLAIN[8:],
        b"\0\0\0\x13" + PLAIN[4:],
        PLAIN[:7] + b"\1" + PLAIN[8:],
        PLAIN[:23] + b"\1" + PLAIN[24:],  # rdev
        PLAIN[:16] + b"\0\0\x41\xed" + PLAIN[20:],  # a directory
        PLAIN[:-1] + b"\x10",
        b"\0\0\0\x14" + PLAIN[4:24] + b"a\0\0\x12",  # what looks like xattrs
        b"\0\0\0\x13" + PLAIN[4:24] + b"a\0\x12",  # a file with a target
    ],
)
def test_bytes_that_are_no_file_header_are_refused(raw: bytes) -> None:
    with pytest.raises(FormatError):
        FileHeader.from_bytes(raw)


def test_canonical_drops_owner_xattrs_and_write_bits() -> None:
    xattrs = ((b"user.a", b"x"),)
    assert FileHeader(5, 6, 0o106777, xattrs).canonical() == FileHeader(0, 0, 0o100755)
    assert FileHeader(5, 6, 0o120777, xattrs, b"t").canonical() == FileHeader(0, 0, 0o120777, (), b"t")
    assert DirMeta(5, 6, 0o43775, xattrs).canonical() == DirMeta(0, 0, 0o40755)


def test_commit_keeps_the_order_of_its_metadata() -> None:
    metadata = (("z", Variant("u", 1)), ("a", Variant("as", ["x"])), ("z", Variant("s", "again")))
    commit = _commit(metadata=metadata, parent=ONE, related=(("r", TWO),), subject="s", body="b\n")
    assert Commit.from_bytes(commit.to_bytes()) == commit


def test_commits_time_is_big_endian() -> None:
    assert (1577836800).to_bytes(8, "big") in _commit().to_bytes()
    assert Commit.from_bytes(_commit(timestamp_s=2**64 - 1).to_bytes()).timestamp_s == 2**64 - 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"timestamp_s": -1}, "64 bits"),
        ({"timestamp_s": 2**64}, "64 bits"),
        ({"metadata": (("", Variant("u", 1)),)}, "metadata key is empty"),
        ({"metadata": (("k", Variant("u", -1)),)}, "no GVariant u"),
        ({"metadata": (("k", Variant("uu", 1)),)}, "not one GVariant type"),
        ({"subject": "a\0b"}, "no GVariant s"),
        ({"body": "\udc80"}, "no GVariant s"),
    ],
)
def test_commit_that_can_not_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidNameError, match=message):
        _commit(**fields).to_bytes()


@pytest.mark.parametrize("parent", [b"x", bytes(31), bytes(33)])
def test_commit_with_half_a_parent_is_refused(parent: bytes) -> None:
    value: Any = ([], parent, [], "", "", 0, bytes(ONE), bytes(TWO))
    with pytest.raises(FormatError, match="32 bytes"):
        Commit.from_bytes(pack("(a{sv}aya(say)sstayay)", value))


def test_equal_trees_have_one_content_checksum() -> None:
    assert content_checksum(_commit(subject="a")) == content_checksum(_commit(subject="b", timestamp_s=1))
    assert content_checksum(_commit()) != content_checksum(_commit(root_dirtree=ONE))


def test_detached_metadata_keep_their_order() -> None:
    entries = (("b", Variant("aay", [b"\1\2"])), ("a", Variant("s", "x")))
    assert unpack_detached(pack_detached(entries)) == entries
    assert (pack_detached(()), unpack_detached(b"")) == (b"", ())


def test_detached_metadata_without_a_key_are_refused() -> None:
    with pytest.raises(InvalidNameError, match="key is empty"):
        pack_detached((("", Variant("s", "x")),))
    with pytest.raises(FormatError, match="key is empty"):
        unpack_detached(pack("a{sv}", [("", Variant("s", "x"))]))


@pytest.mark.parametrize("value", [DirTree((), ()), DirMeta(0, 0, 0o40755), FileHeader(0, 0, 0o100644), _commit()])
def test_objects_are_frozen_and_small(value: object) -> None:
    with pytest.raises(AttributeError):
        setattr(value, next(iter(type(value).__slots__)), None)  # type: ignore[attr-defined]
    assert not hasattr(value, "__dict__")
