"""Every object of the three bare repositories that the real ostree made has the name that we would give it."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from store.gvariant import unpack
from store.objects import Commit, DirMeta, DirTree, FileHeader
from tools.recipe import read_xattrs

_ARCHIVE = Path(__file__).with_name("bare-fixtures.tar.gz")
_PARSED: dict[str, type[Commit] | type[DirTree] | type[DirMeta]] = {
    ".commit": Commit,
    ".dirtree": DirTree,
    ".dirmeta": DirMeta,
}
_FILES = 6


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("owners and xattrs of the objects take root")
    path = tmp_path_factory.mktemp("bare")
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner"]
    subprocess.run(["tar", "xzpf", _ARCHIVE, "-C", path, *options], check=True)
    return path / "fixtures"


def _content(path: Path) -> bytes:
    return b"" if path.is_symlink() else path.read_bytes()


def _target(path: Path) -> bytes:
    return os.readlink(os.fsencode(path)) if path.is_symlink() else b""


def _bare(path: Path) -> tuple[FileHeader, bytes]:
    status = path.lstat()
    xattrs = read_xattrs(os.fsencode(path))
    return FileHeader(status.st_uid, status.st_gid, status.st_mode, xattrs, _target(path)), _content(path)


def _bare_user(path: Path) -> tuple[FileHeader, bytes]:
    fields = unpack("(uuua(ayay))", os.getxattr(path, "user.ostreemeta"))
    uid, gid, mode = (int.from_bytes(number.to_bytes(4, "little"), "big") for number in fields[:3])
    xattrs = tuple((name.removesuffix(b"\0"), value) for name, value in fields[3])
    if stat.S_ISLNK(mode):
        return FileHeader(uid, gid, mode, xattrs, path.read_bytes().removesuffix(b"\0")), b""
    return FileHeader(uid, gid, mode, xattrs), path.read_bytes()


def _bare_user_only(path: Path) -> tuple[FileHeader, bytes]:
    return FileHeader(0, 0, path.lstat().st_mode, (), _target(path)), _content(path)


@pytest.mark.parametrize(
    ("repository", "read"), [("fx-bare", _bare), ("fx-bare-user", _bare_user), ("fx-bare-user-only", _bare_user_only)]
)
def test_every_object_has_its_name(
    fixtures: Path, repository: str, read: Callable[[Path], tuple[FileHeader, bytes]]
) -> None:
    seen = dict.fromkeys((".file", *_PARSED), 0)
    for path in (fixtures / repository / "objects").glob("*/*"):
        name, suffix = path.parent.name + path.stem, path.suffix
        if suffix == ".file":
            header, content = read(path)
            hasher = header.hasher()
            hasher.update(content)
            assert hasher.hexdigest() == name
        elif suffix in _PARSED:
            raw = path.read_bytes()
            assert sha256(raw).hexdigest() == name and _PARSED[suffix].from_bytes(raw).to_bytes() == raw
        else:
            assert suffix == ".commitmeta"
            continue
        seen[suffix] += 1
    assert seen[".file"] >= _FILES and all(seen.values()), seen
