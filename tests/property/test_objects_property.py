"""The hand-written codecs of objects agree with the general one, and with themselves."""

from __future__ import annotations

import stat
import struct
from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import FormatError
from store.gvariant import Variant, pack
from store.objects import Checksum, Commit, DirMeta, DirTree, FileHeader, Xattrs, parent_and_time

_CHECKSUMS = st.integers(0, 255).map(lambda number: Checksum(sha256(bytes([number])).digest()))
_U32 = st.integers(0, 2**32 - 1)
_PERMISSIONS = st.integers(0, 0o7777)
_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0/")
_NAMES = (
    (st.text(_CHARACTERS, min_size=1, max_size=60) | st.integers(1, 255).map(lambda length: "n" * length))
    .map(lambda name: name.encode())
    .filter(lambda name: name not in (b".", b"..") and len(name) <= 255)
)
_XATTR_NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name)
_XATTR_VALUES = st.binary(max_size=40) | st.integers(180, 260).map(bytes)
_XATTRS: st.SearchStrategy[Xattrs] = st.dictionaries(_XATTR_NAMES, _XATTR_VALUES, max_size=4).map(
    lambda pairs: tuple(sorted(pairs.items()))
)
_TARGETS = (st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)).map(
    str.encode
) | st.integers(225, 300).map(lambda length: b"t" * length)
_FILES = st.builds(
    lambda *fields: FileHeader(fields[0], fields[1], stat.S_IFREG | fields[2], fields[3]),
    _U32,
    _U32,
    _PERMISSIONS,
    _XATTRS,
)
_LINKS = st.builds(
    lambda uid, gid, mode, xattrs, target: FileHeader(uid, gid, stat.S_IFLNK | mode, xattrs, target),
    _U32,
    _U32,
    _PERMISSIONS,
    _XATTRS,
    _TARGETS,
)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_METADATA = st.lists(
    st.tuples(
        _TEXTS.filter(bool),
        _TEXTS.map(lambda text: Variant("s", text))
        | st.integers(0, 2**32 - 1).map(lambda number: Variant("u", number)),
    ),
    max_size=3,
).map(tuple)


@st.composite
def dirtrees(draw: st.DrawFn) -> DirTree:
    names = sorted(draw(st.sets(_NAMES, max_size=12)))
    is_dir = draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    files = [(name, draw(_CHECKSUMS)) for name, is_one in zip(names, is_dir, strict=True) if not is_one]
    dirs = [(name, draw(_CHECKSUMS), draw(_CHECKSUMS)) for name, is_one in zip(names, is_dir, strict=True) if is_one]
    return DirTree(tuple(files), tuple(dirs))


_COMMITS = st.builds(
    Commit,
    metadata=_METADATA,
    parent=st.none() | _CHECKSUMS,
    subject=_TEXTS,
    body=_TEXTS,
    timestamp_s=st.integers(0, 2**64 - 1),
    root_dirtree=_CHECKSUMS,
    root_dirmeta=_CHECKSUMS,
    related=st.lists(st.tuples(_TEXTS, _CHECKSUMS), max_size=2).map(tuple),
)
_DIRMETAS = st.builds(
    lambda uid, gid, mode, xattrs: DirMeta(uid, gid, stat.S_IFDIR | mode, xattrs), _U32, _U32, _PERMISSIONS, _XATTRS
)
_OBJECTS: st.SearchStrategy[DirTree | DirMeta | FileHeader | Commit] = st.one_of(
    dirtrees(), _DIRMETAS, _FILES, _LINKS, _COMMITS
)


def _swapped(number: int) -> int:
    return int.from_bytes(number.to_bytes(4, "big"), "little")


def _pairs(xattrs: Xattrs) -> list[tuple[bytes, bytes]]:
    return [(name + b"\0", value) for name, value in xattrs]


@given(dirtrees())
def test_dirtree_is_what_the_general_codec_makes(tree: DirTree) -> None:
    value = (
        [(name.decode(), digest) for name, digest in tree.files],
        [(name.decode(), digest, meta) for name, digest, meta in tree.dirs],
    )
    assert tree.to_bytes() == pack("(a(say)a(sayay))", value)


@given(_DIRMETAS)
def test_dirmeta_is_what_the_general_codec_makes(meta: DirMeta) -> None:
    fields = (_swapped(meta.uid), _swapped(meta.gid), _swapped(meta.mode), _pairs(meta.xattrs))
    assert meta.to_bytes() == pack("(uuua(ayay))", fields)


@given(_FILES | _LINKS)
def test_file_header_is_what_the_general_codec_makes(header: FileHeader) -> None:
    numbers = (_swapped(header.uid), _swapped(header.gid), _swapped(header.mode), 0)
    raw = pack("(uuuusa(ayay))", (*numbers, header.symlink_target.decode(), _pairs(header.xattrs)))
    assert header.to_bytes() == struct.pack(">II", len(raw), 0) + raw
    assert header.hasher().digest() == sha256(header.to_bytes()).digest()


@given(_OBJECTS)
def test_parsing_returns_what_was_packed(value: DirTree | DirMeta | FileHeader | Commit) -> None:
    assert type(value).from_bytes(value.to_bytes()) == value


@given(_COMMITS)
def test_parent_and_time_are_those_of_the_whole_commit(commit: Commit) -> None:
    assert parent_and_time(commit.to_bytes()) == (commit.parent, commit.timestamp_s)


@settings(max_examples=60)
@given(_OBJECTS, st.data())
def test_damaged_object_is_refused_or_another(
    value: DirTree | DirMeta | FileHeader | Commit, data: st.DataObject
) -> None:
    raw = value.to_bytes()
    start = data.draw(st.integers(0, max(0, len(raw) - 60)))
    window = range(start * 8, min(len(raw), start + 60) * 8)
    damaged = [raw[: bit // 8] + bytes([raw[bit // 8] ^ 1 << bit % 8]) + raw[bit // 8 + 1 :] for bit in window]
    damaged += [raw[:end] for end in range(start, min(len(raw), start + 60))]
    for other in damaged:
        try:
            parsed = type(value).from_bytes(other)
        except FormatError:
            continue
        assert parsed.to_bytes() == other != raw


@given(st.sampled_from([DirTree, DirMeta, FileHeader, Commit]), st.binary(max_size=80))
def test_any_bytes_are_refused_or_an_object(kind: type[DirTree | DirMeta | FileHeader | Commit], raw: bytes) -> None:
    try:
        value = kind.from_bytes(raw)
    except FormatError:
        return
    assert value.to_bytes() == raw


@given(_FILES | _LINKS | _DIRMETAS)
def test_canonical_is_canonical_again(value: FileHeader | DirMeta) -> None:
    canonical = value.canonical()
    assert canonical.canonical() == canonical
    assert (canonical.uid, canonical.gid, canonical.xattrs) == (0, 0, ())
