"""Objects made here have the bytes and checksums that OSTree gave them (README.md)."""

from __future__ import annotations

import json
import stat
import struct
import tarfile
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from store.gvariant import Variant, members, pack, unpack
from store.gvariant_text import parse_text
from store.objects import (
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    Xattrs,
    checksum_from_hex,
    content_checksum,
    pack_detached,
    unpack_detached,
)

_HERE = Path(__file__).parent
_EXPECTED: dict[str, Any] = json.loads((_HERE / "expected.json").read_text())
_EXTRA: dict[str, Any] = json.loads((_HERE / "extra.json").read_text())
_SUMMARY = "(a(s(taya{sv}))a{sv})"
_SUPERBLOCK = "(a{sv}tayay(a{sv}aya(say)sstayay)aya(uayttay)a(yaytt))"

Entry = dict[str, Any]  # one line of a tree's spec


def _names(cases: list[dict[str, Any]]) -> list[str]:
    return [case["name"] for case in cases]


def _content(entry: Entry) -> bytes:
    if "repeat_hex" in entry:
        piece = bytes.fromhex(entry["repeat_hex"])
        size: int = entry["size"]
        return (piece * (size // len(piece) + 1))[:size]
    return bytes.fromhex(entry["hex"]) if "hex" in entry else str(entry.get("text", "")).encode()


def _xattrs(entry: Entry) -> Xattrs:
    pairs = sorted((name.encode(), bytes.fromhex(value)) for name, value in entry.get("xattrs", {}).items())
    return tuple((name, value) for name, value in pairs if value)


def _header(entry: Entry) -> FileHeader:
    owner = entry.get("uid", 0), entry.get("gid", 0)
    if entry["type"] == "symlink":
        return FileHeader(*owner, stat.S_IFLNK | 0o777, _xattrs(entry), entry["target"].encode())
    return FileHeader(*owner, stat.S_IFREG | int(entry["mode"], 8), _xattrs(entry))


def _meta(entry: Entry) -> DirMeta:
    return DirMeta(entry.get("uid", 0), entry.get("gid", 0), stat.S_IFDIR | int(entry["mode"], 8), _xattrs(entry))


class _Built:
    """All objects of a tree's spec, as "checksum.kind" -> bytes; of files the bytes are empty."""

    def __init__(self, entries: list[Entry], canonical: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self._children: dict[str, list[Entry]] = {entry["path"]: [] for entry in entries if entry["type"] == "dir"}
        self._canonical = canonical
        for entry in entries[1:]:
            self._children[entry["path"].rpartition("/")[0]].append(entry)
        self.root = self._directory(entries[0])

    def _directory(self, entry: Entry) -> tuple[Checksum, Checksum]:
        files, dirs = [], []
        for child in sorted(self._children[entry["path"]], key=lambda child: child["path"].encode()):
            name = child["path"].rpartition("/")[2].encode()
            if child["type"] == "dir":
                dirs.append((name, *self._directory(child)))
            else:
                files.append((name, self._file(child)))
        tree, meta = DirTree(tuple(sorted(files)), tuple(sorted(dirs))), _meta(entry)
        meta = meta.canonical() if self._canonical else meta
        self.objects[f"{tree.checksum.hex()}.dirtree"] = tree.to_bytes()
        self.objects[f"{meta.checksum.hex()}.dirmeta"] = meta.to_bytes()
        return tree.checksum, meta.checksum

    def _file(self, entry: Entry) -> Checksum:
        header = _header(entry)
        hasher = (header.canonical() if self._canonical else header).hasher()
        hasher.update(_content(entry))
        self.objects[f"{hasher.hexdigest()}.file"] = b""
        return Checksum(hasher.digest())


def _value(signature: str, value: Any) -> Any:
    """Return a value of the JSON file as pack takes it."""
    match signature[0]:
        case "v":
            return Variant(value[0], _value(*value))
        case "a":
            return bytes(value) if signature == "ay" else [_value(signature[1:], item) for item in value]
        case "m":
            return None if value is None else _value(signature[1:], value)
        case "(" | "{":
            return tuple(_value(member, item) for member, item in zip(members(signature), value, strict=True))
    return value


def _commit(case: dict[str, Any], root: tuple[Checksum, Checksum]) -> Commit:
    metadata = tuple((key, Variant(signature, _value(signature, value))) for key, signature, value in case["metadata"])
    parent = checksum_from_hex(case["parent"]) if case["parent"] else None
    return Commit(metadata, parent, case["subject"], case["body"], case["timestamp"], *root)


@pytest.mark.parametrize("case", _EXPECTED["tree_cases"], ids=_names(_EXPECTED["tree_cases"]))
def test_tree_has_the_objects_of_ostree(case: dict[str, Any]) -> None:
    built = _Built(case["tree"])
    expected = {name: bytes.fromhex(data["hex"]) for name, data in case["metadata_objects"].items()}
    expected |= dict.fromkeys(case["file_objects"], b"")
    expected.pop(f"{case['commit']}.commit", None)
    assert built.objects == expected
    assert tuple(checksum.hex() for checksum in built.root) == (case["root_dirtree"], case["root_dirmeta"])
    commit = _commit(case, built.root)
    assert (commit.to_bytes().hex(), commit.checksum.hex()) == (case["commit_hex"], case["commit"])


@pytest.mark.parametrize("case", _EXPECTED["tree_cases"], ids=_names(_EXPECTED["tree_cases"]))
def test_metadata_objects_survive_parsing(case: dict[str, Any]) -> None:
    kinds: dict[str, type[DirTree] | type[DirMeta]] = {"dirtree": DirTree, "dirmeta": DirMeta}
    for name, data in case["metadata_objects"].items():
        checksum, _, kind = name.partition(".")
        value = kinds[kind].from_bytes(bytes.fromhex(data["hex"]))
        assert (value.to_bytes().hex(), value.checksum.hex()) == (data["hex"], checksum)


@pytest.mark.parametrize("case", _EXPECTED["tree_cases"], ids=_names(_EXPECTED["tree_cases"]))
def test_canonical_permissions_give_the_same_commit(case: dict[str, Any]) -> None:
    commit = _commit(case, _Built(case["tree"], canonical=True).root)
    assert commit.checksum.hex() == case["commit_canonical"]
    assert commit.checksum.hex() == case["commit_canonical_no_xattrs"]
    assert commit.checksum.hex() == case["commit_bare_user_only"]


@pytest.mark.parametrize("case", _EXPECTED["commit_cases"], ids=_names(_EXPECTED["commit_cases"]))
def test_commit_has_the_bytes_of_ostree(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["commit_hex"])
    commit = Commit.from_bytes(raw)
    assert (commit.to_bytes(), commit.checksum.hex()) == (raw, case["commit"])
    assert (commit.subject, commit.body, commit.timestamp_s) == (case["subject"], case["body"], case["timestamp"])
    if case["metadata"] is not None:
        assert _commit(case, (commit.root_dirtree, commit.root_dirmeta)) == commit


_TEXT_CASES = [case for case in _EXPECTED["commit_cases"] if case["name"].startswith("gvariant ")]


@pytest.mark.parametrize("case", _TEXT_CASES, ids=_names(_TEXT_CASES))
def test_metadata_text_means_what_it_means_to_ostree(case: dict[str, Any]) -> None:
    (option,) = (option for option in case["options"] if option.startswith("--add-metadata="))
    key, _, text = option.removeprefix("--add-metadata=").partition("=")
    assert ((key, parse_text(text)),) == Commit.from_bytes(bytes.fromhex(case["commit_hex"])).metadata


def _read_filez(raw: bytes) -> tuple[FileHeader, int, bytes]:
    """Return a .filez file's header, the size of the content that it says, and the content."""
    (length, zero), end = struct.unpack_from(">II", raw), 8 + int.from_bytes(raw[:4], "big")
    size, uid, gid, mode, rdev, target, pairs = unpack("(tuuuusa(ayay))", raw[8:end])
    assert (length, zero, rdev) == (end - 8, 0, 0)
    swapped = [int.from_bytes(number.to_bytes(4, "little"), "big") for number in (uid, gid, mode)]
    xattrs = tuple((name.removesuffix(b"\0"), value) for name, value in pairs)
    header = FileHeader(swapped[0], swapped[1], swapped[2], xattrs, target.encode())
    inflater = zlib.decompressobj(-15)
    content = b"" if header.symlink_target else inflater.decompress(raw[end:])
    assert (raw[end:] == b"") if header.symlink_target else (inflater.eof and not inflater.unused_data)
    return header, int.from_bytes(size.to_bytes(8, "little"), "big"), content


@pytest.mark.parametrize("case", _EXPECTED["filez"], ids=[case["entry"]["path"] for case in _EXPECTED["filez"]])
def test_filez_is_the_file_object(case: dict[str, Any]) -> None:
    header, size, content = _read_filez(bytes.fromhex(case["filez_hex"]))
    assert (header, content, size) == (_header(case["entry"]), _content(case["entry"]), len(content))
    hasher = header.hasher()
    hasher.update(content)
    assert hasher.hexdigest() == case["checksum"]
    assert FileHeader.from_bytes(header.to_bytes()) == header


@pytest.mark.parametrize("case", _EXPECTED["bare_user"], ids=[case["entry"]["path"] for case in _EXPECTED["bare_user"]])
def test_bare_user_metadata_are_the_file_header(case: dict[str, Any]) -> None:
    header, raw = _header(case["entry"]), bytes.fromhex(case["ostreemeta_hex"])
    fields = unpack("(uuua(ayay))", raw)
    assert pack("(uuua(ayay))", fields) == raw
    assert struct.unpack_from(">III", raw) == (header.uid, header.gid, header.mode)
    assert tuple((name.removesuffix(b"\0"), value) for name, value in fields[3]) == header.xattrs
    hasher = header.hasher()
    hasher.update(_content(case["entry"]))
    assert f"{hasher.hexdigest()}.file" == case["object"]


@pytest.mark.parametrize("name", ["commit1", "commit2"])
def test_extra_commits_survive_parsing(name: str) -> None:
    raw = bytes.fromhex(_EXTRA[f"{name}_hex"])
    commit = Commit.from_bytes(raw)
    assert (commit.to_bytes(), commit.checksum.hex()) == (raw, _EXTRA[name])
    assert content_checksum(commit) == sha256(commit.root_dirtree + commit.root_dirmeta).digest()


_DETACHED = {name: raw for name, raw in _EXTRA.items() if name.startswith("commitmeta") and isinstance(raw, str)}
_DETACHED |= {"summary_sig_hex": _EXTRA["summary_sig_hex"], **_EXTRA["tombstone_files"]}


@pytest.mark.parametrize("name", _DETACHED)
def test_detached_metadata_survive_parsing(name: str) -> None:
    raw = bytes.fromhex(_DETACHED[name])
    assert pack_detached(unpack_detached(raw)) == raw


def test_signed_commit_has_one_signature_and_the_other_key() -> None:
    entries = dict(unpack_detached(bytes.fromhex(_EXTRA["commitmeta_one_sig_plus_detached_key"])))
    assert entries["note"] == Variant("s", "detached")
    assert entries["ostree.gpgsigs"].signature == "aay" and len(entries["ostree.gpgsigs"].value) == 1


def test_tombstone_names_its_commit() -> None:
    (raw,) = _EXTRA["tombstone_files"].values()
    expected = Variant("ay", _EXTRA["tombstone_of"].encode() + b"\0")
    assert unpack_detached(bytes.fromhex(raw)) == (("commit", expected),)


@pytest.mark.parametrize("name", ["summary_hex", "collection_summary_hex"])
def test_summary_survives_parsing(name: str) -> None:
    raw = bytes.fromhex(_EXTRA[name])
    value = unpack(_SUMMARY, raw)
    assert pack(_SUMMARY, value) == raw
    assert [ref for ref, _ in value[0]] == sorted(ref for ref, _ in value[0])


@pytest.mark.parametrize("path", _EXTRA["superblocks"])
def test_superblock_survives_parsing(path: str) -> None:
    raw = bytes.fromhex(_EXTRA["superblocks"][path])
    value = unpack(_SUPERBLOCK, raw)
    assert pack(_SUPERBLOCK, value) == raw
    assert dict(value[0])["ostree.endianness"] == Variant("y", ord("l"))


def _archive() -> dict[str, bytes]:
    with tarfile.open(_HERE / "tiny-archive-repo.tar.gz") as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers() if member.isfile()}
        return {name.partition("/")[2]: file.read() for name, file in members.items() if file is not None}


def _archived_checksum(kind: str, raw: bytes) -> Checksum | None:
    """Return the checksum of an object's file; None of one that is not named by its content."""
    match kind:
        case "filez":
            header, size, content = _read_filez(raw)
            hasher = header.hasher()
            hasher.update(content)
            assert size == len(content)
            return Checksum(hasher.digest())
        case "dirtree":
            return DirTree.from_bytes(raw).checksum
        case "dirmeta":
            return DirMeta.from_bytes(raw).checksum
        case "commit":
            return Commit.from_bytes(raw).checksum
    assert kind == "commitmeta"
    unpack_detached(raw)
    return None


def test_archive_repository_holds_what_its_names_say() -> None:
    objects = {path: raw for path, raw in _archive().items() if path.startswith("objects/")}
    kinds: dict[str, int] = {}
    for path, raw in objects.items():
        name, _, kind = path.removeprefix("objects/").replace("/", "").partition(".")
        kinds[kind] = kinds.get(kind, 0) + 1
        checksum = _archived_checksum(kind, raw)
        assert checksum is None or checksum.hex() == name
    assert kinds["commit"] == 3 and set(kinds) == {"commit", "commitmeta", "dirmeta", "dirtree", "filez"}


def test_archive_repository_has_all_that_its_refs_need() -> None:
    files = _archive()
    heads = {path: raw.decode().strip() for path, raw in files.items() if path.startswith("refs/heads/")}
    wanted = [(checksum_from_hex(head), "commit") for head in heads.values()]
    assert len(wanted) == 2
    while wanted:
        checksum, kind = wanted.pop()
        raw = files[f"objects/{checksum.hex()[:2]}/{checksum.hex()[2:]}.{kind}"]
        if kind == "commit":
            commit = Commit.from_bytes(raw)
            wanted += [(commit.root_dirtree, "dirtree"), (commit.root_dirmeta, "dirmeta")]
        elif kind == "dirtree":
            tree = DirTree.from_bytes(raw)
            wanted += [(file, "filez") for _, file in tree.files]
            wanted += [pair for _, child, meta in tree.dirs for pair in ((child, "dirtree"), (meta, "dirmeta"))]
