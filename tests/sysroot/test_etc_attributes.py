"""The merge of /etc: modes, owners, xattrs and ACLs."""

from __future__ import annotations

import os
import shutil
import struct
from functools import partial
from pathlib import Path

import pytest

from store.errors import ConflictError
from tests.marks import needs_root
from tests.sysroot.etc_sides import Etc, Link, conflicts, read, write
from tests.users import NOBODY, User, try_as
from tools.sysroot.etc_merge import merge_etc
from tools.sysroot.etc_tree import ACL, opened

NEW = ".fsview-new"
_NO_ID = 0xFFFFFFFF


def test_directories_keep_what_the_admin_made_of_them(tmp_path: Path) -> None:
    etc = Etc(tmp_path, {"d": {}, "e": {}}, {"d": {}, "e": {}}, {"d": {"x": "1"}, "e": {}})
    (etc.own / "d").chmod(0o700)
    (etc.new / "e").chmod(0o711)
    os.setxattr(etc.own / "e", b"user.note", b"mine")
    etc.own.chmod(0o750)
    merge, result = etc.merge()
    modes = [(etc.target / name).stat().st_mode & 0o7777 for name in ("d", "e", ".")]
    assert (modes, result["d"]) == ([0o700, 0o711, 0o750], {"x": "1"})
    assert os.getxattr(etc.target / "e", b"user.note") == b"mine"
    assert (merge.modified, merge.conflicts) == (3, [])


@needs_root
def test_owners_and_xattrs_of_files(tmp_path: Path) -> None:
    etc = Etc(tmp_path, {"a": "1", "b": "1"}, {"a": "1", "b": "1"}, {"a": "2", "b": "2"})
    os.chown(etc.own / "a", 10, 20)
    os.setxattr(etc.own / "b", b"user.note", b"mine")
    os.setxattr(etc.new / "b", b"user.other", b"theirs")
    merge, result = etc.merge()
    status = (etc.target / "a").stat()
    assert (status.st_uid, status.st_gid, result, merge.conflicts) == (10, 20, {"a": "2", "b": "2"}, [])
    assert sorted(os.listxattr(etc.target / "b")) == ["user.note", "user.other"]
    os.setxattr(etc.new / "b", b"user.note", b"theirs")
    assert [one.what for one in merge_etc(etc.old, etc.own, etc.new, None).conflicts] == [
        "xattr user.note changed on both sides"
    ]


@needs_root
def test_xattrs_are_read_of_what_was_seen(tmp_path: Path) -> None:
    """Who may write to a directory may put a symlink in its place, to where a file is called so, too."""
    directory = write(tmp_path / "etc", {"d": {"f": "1", "l": Link("f")}}) / "d"
    secret = write(tmp_path / "secret", {"f": "1"})
    os.setxattr(directory / "f", b"user.note", b"mine")
    os.setxattr(directory / "l", b"trusted.note", b"mine", follow_symlinks=False)
    os.setxattr(secret / "f", b"user.note", b"secret")
    directory.chmod(0o777)
    with opened(tmp_path / "etc") as (top,):
        seen = top.children()[b"d"].children()
        assert {name: node.xattrs for name, node in seen.items()} == {
            b"f": ((b"user.note", b"mine"),),
            b"l": ((b"trusted.note", b"mine"),),
        }
        seen = top.children()[b"d"].children()
        directory.rename(tmp_path / "away")
        directory.symlink_to(secret)
        with pytest.raises(ConflictError, match="was replaced"):
            _ = seen[b"f"].attributes


@pytest.mark.parametrize("is_link_here", [True, False])
def test_xattrs_that_a_symlink_cannot_have(tmp_path: Path, is_link_here: bool) -> None:
    linked, noted = {"a": Link("b")}, {"a": "1"}
    etc = Etc(tmp_path, noted, *((linked, noted) if is_link_here else (noted, linked)))
    os.setxattr((etc.new if is_link_here else etc.own) / "a", b"user.note", b"x")
    merge, result = etc.merge()
    assert (result["a"], conflicts(merge)) == (Link("b") if is_link_here else "1", [("a", "a" + NEW)])
    assert os.listxattr(etc.target / (f"a{NEW}" if is_link_here else "a"), follow_symlinks=False) == ["user.note"]


def _acl(mask: int) -> bytes:
    """Return a POSIX ACL: user 10 and the mask have *mask*, all others what 0640 gives."""
    entries = [(1, 6, _NO_ID), (2, mask, 10), (4, 4, _NO_ID), (0x10, mask, _NO_ID), (0x20, 0, _NO_ID)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_an_acl_and_a_mode_changed_on_both_sides(tmp_path: Path) -> None:
    etc = Etc(tmp_path, {"a": ("1", 0o640)}, {"a": ("1", 0o640)}, {"a": ("1", 0o600)})
    os.setxattr(etc.own / "a", ACL, _acl(4))
    merge, result = etc.merge()
    assert (result, conflicts(merge)) == ({"a": ("1", 0o640)}, [("a", None)])
    assert os.getxattr(etc.target / "a", ACL) == _acl(4)


@needs_root
def test_acls_and_groups_that_a_user_may_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etc = Etc(tmp_path, {"a": "1", "b": "1"}, {"a": "1", "b": "1"}, {"a": "2", "b": "2"})
    os.setxattr(etc.own / "a", ACL, _acl(6))
    shutil.copytree(etc.new, etc.target)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    os.chown(etc.own / "b", -1, 1000)
    monkeypatch.chdir(tmp_path)  # above it is root's
    merge = partial(merge_etc, *map(Path, ("old", "own", "new", "target")))
    assert try_as(User(groups=(1000,)), merge) == 0
    assert (read(etc.target), os.getxattr(etc.target / "a", ACL)) == ({"a": ("2", 0o660), "b": "2"}, _acl(6))
    assert (etc.target / "b").stat().st_gid == 1000
