"""Trees in which others may write, walked by descriptors: opening, walking, removing and copying."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store import libc
from store.errors import ConflictError, FsviewError
from store.walking import beneath, walk
from store.walking.beneath import DIRECTORY, FILE, open_beneath, open_same
from store.walking.copy import copy_tree
from store.walking.remove import remove_same_tree, remove_tree
from store.walking.walk import Walk
from tests.acls import ACCESS, DEFAULT, acl
from tests.leaks import open_descriptors
from tests.marks import needs_root
from tests.snapshots import assert_same_tree, snapshot

LEVELS = 2200  # their path is more than the kernel takes, 4096 bytes


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture(params=["openat2", "without openat2"])
def top(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small tree, for a kernel that has openat2 and for one that has not."""
    if request.param != "openat2":
        monkeypatch.setattr(beneath, "openat2", _unknown)
    path = tmp_path / "top"
    (path / "a/b").mkdir(parents=True)
    (path / "a/b/file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    return path


def _unknown(*_: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def make_deep(top: Path, levels: int = LEVELS) -> None:
    """Make a directory with so many levels below it, more than a path can have."""
    top.mkdir()
    here = os.open(top, DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("end", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here))
    os.close(here)


# --- opening


def test_what_is_below_is_opened(top: Path) -> None:
    with opened(top) as directory:
        file = open_beneath(directory, b"a/b/file", FILE)
        assert os.read(file, 100) == b"inside"
        os.close(file)
        itself = open_beneath(directory, b"", DIRECTORY)
        assert os.path.samestat(os.fstat(itself), os.fstat(directory))
        os.close(itself)


@pytest.mark.parametrize("path", [b"out/secret", b"a/up/secret", b"../secret", b"a/../../secret", b"a/b/leaf"])
def test_no_way_leads_out(top: Path, path: bytes) -> None:
    (top / "out").symlink_to(top.parent)
    (top / "a/up").symlink_to("../..")
    (top / "a/b/leaf").symlink_to(top.parent / "secret")
    before = open_descriptors()
    with opened(top) as directory, pytest.raises(OSError, match=r"levels|link|directory"):
        open_beneath(directory, path, FILE)
    assert open_descriptors() == before


@needs_root
def test_what_is_mounted_is_entered_only_if_that_is_meant(top: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_text("mounted")
    subprocess.run(["mount", "--bind", tmp_path / "elsewhere", top / "a/b"], check=True)
    try:
        with opened(top) as directory:
            os.close(open_beneath(directory, b"a/b/file", FILE))
            with pytest.raises(OSError, match="link") as caught:
                open_beneath(directory, b"a/b/file", FILE, one_mount=True)
            assert caught.value.errno == errno.EXDEV
    finally:
        subprocess.run(["umount", top / "a/b"], check=True)


def test_something_else_by_the_same_name_is_not_opened(top: Path) -> None:
    seen = os.lstat(top / "a/b/file")
    (top / "a/b/other").write_text("other")
    (top / "a/b/other").rename(top / "a/b/file")
    with opened(top) as directory, pytest.raises(OSError, match="replaced") as caught:
        open_same(directory, b"a/b/file", FILE, seen)
    assert caught.value.errno == errno.ESTALE


def test_a_path_may_be_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    make_deep(tmp_path / "deep")
    with opened(tmp_path / "deep") as directory:
        file = open_beneath(directory, b"/".join([b"d"] * LEVELS) + b"/end", FILE)
        assert stat.S_ISREG(os.fstat(file).st_mode)
        os.close(file)
    remove_tree(tmp_path / "deep")


# --- walking


def test_a_deep_walk_holds_few_descriptors_and_finds_back(tmp_path: Path) -> None:
    make_deep(tmp_path / "deep")
    before = open_descriptors()
    with opened(tmp_path / "deep") as directory, Walk(directory, b"deep", one_mount=True) as deep:
        held = 0
        for number, found in enumerate(deep.entries()):
            if number % 500 == 0:
                held = max(held, open_descriptors() - before)
            last = found.name
        assert last == b"end"
        assert held <= walk._HELD_MAX + 3
        assert os.path.samestat(os.fstat(deep.here), os.fstat(directory))
    assert open_descriptors() == before
    remove_tree(tmp_path / "deep")


def test_a_directory_that_was_moved_leads_nowhere(tmp_path: Path) -> None:
    make_deep(tmp_path / "deep", 2 * walk._HELD_MAX)
    (tmp_path / "elsewhere").mkdir()
    with opened(tmp_path / "deep") as directory, Walk(directory, b"deep", one_mount=True) as deep:
        for _ in range(2 * walk._HELD_MAX):
            deep.enter(b"d")
        moved = tmp_path / "deep" / "/".join("d" * 10)
        moved.rename(tmp_path / "elsewhere/d")
        with pytest.raises(ConflictError, match=r"deep/d/d/d.* was moved elsewhere"):
            for _ in range(2 * walk._HELD_MAX):
                deep.leave()


# --- removing


def test_all_of_a_tree_is_removed(top: Path) -> None:
    (top / "link").symlink_to(top.parent)
    (top / "a").chmod(0)
    os.mkfifo(top / "fifo")
    remove_tree(top)
    assert sorted(os.listdir(top.parent)) == ["secret"]
    remove_tree(top)
    remove_tree(top / "not" / "there")


def test_a_symlink_is_no_tree(top: Path) -> None:
    (top.parent / "link").symlink_to(top)
    with pytest.raises(OSError, match=r"link|directory"):
        remove_tree(top.parent / "link")
    assert (top / "a/b/file").read_text() == "inside"


@needs_root
@pytest.mark.parametrize("at", [".", "a", "a/b"])
def test_nothing_is_removed_from_what_is_mounted(top: Path, tmp_path: Path, at: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").write_text("data")
    subprocess.run(["mount", "--bind", tmp_path / "data", top / at], check=True)
    try:
        with pytest.raises(FsviewError, match=f"{top / at} can't be removed: something is mounted there"):
            remove_tree(top)
        assert (tmp_path / "data/precious").read_text() == "data"
    finally:
        subprocess.run(["umount", top / at], check=True)


@needs_root
def test_what_can_not_be_removed_is_named_with_its_path(top: Path) -> None:
    subprocess.run(["chattr", "+i", top / "a/b/file"], check=True)
    try:
        with pytest.raises(PermissionError, match=f"{top}/a/b/file"):
            remove_tree(top)
    finally:
        subprocess.run(["chattr", "-i", top / "a/b/file"], check=True)


def test_what_has_the_name_now_stays_if_it_is_another_directory(top: Path) -> None:
    with opened(top) as directory, opened(top.parent) as above:
        top.rename(top.parent / "moved")
        (top / "theirs").mkdir(parents=True)
        remove_same_tree(above, b"top", directory, bytes(top))
        assert (top / "theirs").is_dir()
        assert os.listdir(top.parent / "moved") == []


# --- copying


@needs_root
def test_a_copy_has_all_that_the_tree_has(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub/deeper").mkdir(parents=True)
    file = source / "sub/file"
    file.write_bytes(b"x" * 3_000_000)
    os.link(file, source / "linked")
    os.chown(file, 12, 34)
    file.chmod(0o6755)
    os.setxattr(file, "user.a", b"1")
    os.setxattr(file, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(source / "sub", ACCESS, acl("u::rwx,u:1234:r-x,g::r-x,m::rwx,o::r--"))
    os.setxattr(source / "sub", DEFAULT, acl("u::rwx,g::r-x,g:99:-w-,m::rwx,o::r--"))
    (source / "link").symlink_to("nowhere")
    os.setxattr(source / "link", "trusted.t", b"2", follow_symlinks=False)
    os.utime(source / "link", (5, 6), follow_symlinks=False)
    os.mkfifo(source / "fifo", 0o640)
    os.mknod(source / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(source / "socket"))
    (source / "sub/deeper").chmod(0o1777)
    for path in (source / "sub/deeper", source / "sub", source):
        os.utime(path, (1, 2))
    copy_tree(source, tmp_path / "copy")
    assert_same_tree(snapshot(source), snapshot(tmp_path / "copy"), mtimes=True)
    assert (tmp_path / "copy/linked").samefile(tmp_path / "copy/sub/file")
    copy_tree(source, tmp_path / "apart", keeps_links=False)
    assert not (tmp_path / "apart/linked").samefile(tmp_path / "apart/sub/file")


def test_holes_stay_holes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with open(tmp_path / "source/holes", "wb") as file:
        file.seek(1 << 30)
        file.write(b"middle")
        file.truncate(1 << 31)
    copy_tree(tmp_path / "source", tmp_path / "copy")
    copied = (tmp_path / "copy/holes").stat()
    assert copied.st_size == 1 << 31
    assert copied.st_blocks * 512 < 1 << 20
    with open(tmp_path / "copy/holes", "rb") as file:
        file.seek(1 << 30)
        assert file.read(6) == b"middle"


@needs_root
def test_nothing_is_copied_from_what_is_mounted(top: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top / "a/b"], check=True)
    try:
        with pytest.raises(FsviewError, match=f"{top}/a/b can't be copied: something is mounted there"):
            copy_tree(top, tmp_path / "copy")
    finally:
        subprocess.run(["umount", top / "a/b"], check=True)


def test_a_tree_that_is_deep_is_copied_and_removed(tmp_path: Path) -> None:
    make_deep(tmp_path / "deep")
    before = open_descriptors()
    copy_tree(tmp_path / "deep", tmp_path / "copy")
    remove_tree(tmp_path / "deep")
    remove_tree(tmp_path / "copy")
    assert open_descriptors() == before
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_mount_ids_is_an_error_not_a_guess() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        libc.identity(-2)
