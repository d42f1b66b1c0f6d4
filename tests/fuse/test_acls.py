"""POSIX ACLs bind other users wherever others get in: in views, and in kernel overlays over views.

What each user may do to each file is what he may do to it in the tree on disk that was committed.
"""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from fsview.acls import ACCESS, DEFAULT, GROUP, MASK, NAMED_GROUP, OTHER, OWNER, USER, Entry, pack
from store.objects import DirMeta, DirTree, FileHeader
from store.repository import Repository
from tests.forge import forge
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview, clean_environment, run_cli
from tests.trees import Directory, File, Spec, build_tree
from tests.users import User, as_user

pytestmark = [needs_fuse, needs_root]

NAMED, MEMBER, IN_NAMED_GROUP, SECOND = User(1234, 99), User(2000, 50), User(2001, 99, (77,)), User(1234, 50, (77,))
OWNER_OF_SOME, ANYBODY = User(1000, 1000), User(2002, 98)
USERS = (NAMED, MEMBER, IN_NAMED_GROUP, SECOND, OWNER_OF_SOME, ANYBODY)
LARGE = b"large " * 4000  # a loose file


def acl(owner: int, group: int, other: int, *named: Entry, mask: int | None = None) -> bytes:
    """Return an ACL as an xattr; *named* are users, then groups."""
    users = [entry for entry in named if entry.tag == USER]
    groups = [entry for entry in named if entry.tag == NAMED_GROUP]
    masks = [] if mask is None else [Entry(MASK, mask)]
    return pack((Entry(OWNER, owner), *users, Entry(GROUP, group), *groups, *masks, Entry(OTHER, other)))


def one(content: bytes, mode: int, value: bytes, owner: tuple[int, int] = (0, 50)) -> File:
    """Return a file with an ACL."""
    return File(content, mode=mode, owner=owner, xattrs={os.fsdecode(ACCESS): value})


USER_READS, USER_NOTHING = Entry(USER, 4, 1234), Entry(USER, 0, 1234)
FILES: Spec = {
    "named user": one(b"1", 0o600, acl(6, 0, 0, USER_READS, mask=4)),
    "named user, large": one(LARGE, 0o600, acl(6, 0, 0, USER_READS, mask=4)),
    "named user writes": one(b"2", 0o600, acl(6, 0, 0, Entry(USER, 6, 1234), mask=6)),
    "named group": one(b"3", 0o600, acl(6, 0, 0, Entry(NAMED_GROUP, 6, 77), mask=6)),
    "the mask takes": one(b"4", 0o640, acl(6, 6, 0, Entry(USER, 6, 1234), Entry(NAMED_GROUP, 6, 77), mask=4)),
    "the mask takes all": one(b"5", 0o604, acl(6, 6, 4, Entry(USER, 6, 1234), mask=0)),
    "refused by name": one(b"6", 0o644, acl(6, 4, 4, USER_NOTHING, Entry(NAMED_GROUP, 0, 77), mask=4), owner=(7, 50)),
    "refused by name, large": one(LARGE + b"6", 0o644, acl(6, 4, 4, USER_NOTHING, mask=4)),
    "group and mask differ": one(b"7", 0o660, acl(6, 4, 0, mask=6)),
    "somebody's": one(b"8", 0o600, acl(6, 0, 0, USER_READS, mask=4), owner=(1000, 50)),
    "no ACL": File(b"9", mode=0o640, owner=(0, 50)),
    "program": one(b"#!/bin/true\n", 0o700, acl(7, 0, 0, Entry(USER, 5, 1234), mask=5)),
}
TREE: Spec = {
    "files": FILES,
    "for a named user": Directory(
        {"f": b"in it", "deeper": {"g": b"deeper"}}, mode=0o700, owner=(0, 50),
        xattrs={os.fsdecode(ACCESS): acl(7, 0, 0, Entry(USER, 5, 1234), mask=5)},
    ),
    "for a named group": Directory(
        {"f": b"in it, too"}, mode=0o700, owner=(0, 50),
        xattrs={
            os.fsdecode(ACCESS): acl(7, 0, 0, Entry(NAMED_GROUP, 7, 77), mask=7),
            os.fsdecode(DEFAULT): acl(7, 0, 0, Entry(NAMED_GROUP, 7, 77), mask=7),
        },
    ),
    "listed, not entered": Directory(
        {"f": b"unreachable"}, mode=0o755, owner=(0, 50),
        xattrs={os.fsdecode(ACCESS): acl(7, 5, 5, Entry(USER, 4, 1234), mask=5)},
    ),
}  # fmt: skip


def rights(root: Path, *, writing: bool) -> dict[str, dict[str, str]]:
    """Return what each of USERS may do with each path of TREE below *root*."""
    paths = ["files", *(f"files/{name}" for name in FILES)]
    paths += [f"{name}{below}" for name in list(TREE)[1:] for below in ("", "/f")] + ["for a named user/deeper/g"]

    def ask() -> dict[str, str]:
        return {path: _rights(root / path, writing) for path in paths}

    return {str(user): as_user(user, ask) for user in USERS}


def _rights(path: Path, writing: bool) -> str:
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except PermissionError:
        return "unreachable"
    found = ["reads"] * _may(path, os.O_RDONLY) + ["executes"] * os.access(path, os.X_OK)
    if is_directory:
        return " ".join(found + ["writes"] * (writing and os.access(path, os.W_OK)))
    return " ".join(found + ["writes"] * (writing and _may(path, os.O_WRONLY)))


def _may(path: Path, flags: int) -> bool:
    try:
        os.close(os.open(path, flags))
        return True
    except PermissionError:
        return False


@pytest.fixture
def place(nobodys: Path, run_fsview: RunFsview) -> Path:
    """Return a directory that all users get to, with a repository and the tree in it."""
    os.chown(nobodys, 0, 0)
    tree = build_tree(nobodys / "tree", TREE)
    tree.chmod(0o755)
    run_fsview("init", nobodys / "repo")
    run_fsview("commit", "--repo", nobodys / "repo", "-b", "r", tree)
    return nobodys


class Shown:
    """Shows the ref r of PLACE/repo in a way of many, and ends that."""

    def __init__(self, place: Path, undo: ExitStack) -> None:
        self._place, self._undo, self._repo = place, undo, place / "repo"

    def view(self, *options: str) -> Path:
        """Return the tree in a view."""
        point = self._mounted(*options)
        return point if "--root" in options else point / "commits" / os.readlink(point / "refs" / "r").split("/")[-1]

    def workspace(self, *options: str) -> Path:
        """Return a workspace."""
        point = self._place / "workspace"
        run_cli(self._place, "workspace", *options, "--repo", self._repo, "r", point)
        self._undo.callback(run_cli, self._place, "workspace", "remove", "--force", point)
        return point

    def workspace_over_a_view(self) -> Path:
        """Return a workspace over a view that was there before."""
        return self.workspace("--view", str(self._mounted("-o", "place-inodes")))

    def own_overlay(self) -> Path:
        """Return an overlay as somebody would mount one himself."""
        lower = self.view("-o", "place-inodes")
        point, upper, work = (self._place / name for name in ("merged", "upper", "work"))
        for directory in (point, upper, work):
            directory.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work},index=off,metacopy=off"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, point], check=True)
        self._undo.callback(lambda: subprocess.run(["umount", point], check=True))
        return point

    def _mounted(self, *options: str) -> Path:
        point = self._place / "view"
        point.mkdir()
        run_cli(self._place, "mount", *options, self._repo, point)
        self._undo.callback(run_cli, self._place, "umount", point)
        return point


KINDS: dict[str, tuple[bool, Callable[[Shown], Path]]] = {  # whether it can be written to
    "allow_other": (False, lambda shown: shown.view("-o", "allow_other")),
    "one commit alone": (False, lambda shown: shown.view("--root", "r", "-o", "allow_other")),
    "place-inodes": (False, lambda shown: shown.view("-o", "allow_other,place-inodes=stat")),
    "kernel-reads": (False, lambda shown: shown.view("--root", "r", "--kernel-reads")),
    "kernel-reads, too": (False, lambda shown: shown.view("--root", "r", "--kernel-reads", "-o", "allow_other")),
    "workspace": (True, lambda shown: shown.workspace()),
    "workspace over a view": (True, lambda shown: shown.workspace_over_a_view()),
    "overlay of one's own": (True, lambda shown: shown.own_overlay()),
}  # fmt: skip


@pytest.fixture
def shown(place: Path) -> Iterator[Shown]:
    with ExitStack() as undo:
        yield Shown(place, undo)


@pytest.mark.parametrize("kind", KINDS)
def test_each_user_may_do_what_he_may_do_on_disk(place: Path, shown: Shown, kind: str) -> None:
    writing, show = KINDS[kind]
    root = show(shown)
    on_disk = rights(place / "tree", writing=writing)
    assert on_disk[str(NAMED)]["files/named user"] == "reads" and "unreachable" in on_disk[str(NAMED)].values()
    assert rights(root, writing=writing) == on_disk
    for path in ("files/named group", "for a named group"):
        assert os.getxattr(root / path, ACCESS) == os.getxattr(place / "tree" / path, ACCESS)
    assert (root / "files" / "the mask takes").read_bytes() == b"4"  # root passes all of them


def test_what_was_changed_in_a_workspace_keeps_its_acl(place: Path, shown: Shown) -> None:
    root = shown.workspace()
    for where in (root, place / "tree"):
        with open(where / "files" / "named group", "ab") as stream:
            stream.write(b"more")
        (where / "for a named group" / "new").write_bytes(b"inherits")
    assert rights(root, writing=True) == rights(place / "tree", writing=True)
    new = "for a named group/new"
    assert as_user(IN_NAMED_GROUP, lambda: _rights(root / new, True)) == "reads writes"
    assert as_user(MEMBER, lambda: _rights(root / new, True)) == "unreachable"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("uid=1000", {NAMED: "r", OWNER_OF_SOME: "r", MEMBER: "", IN_NAMED_GROUP: "r", ANYBODY: ""}),
        ("uid=1000,gid=98", {NAMED: "r", OWNER_OF_SOME: "r", MEMBER: "", IN_NAMED_GROUP: "r", ANYBODY: "g"}),
        ("owner=me", {NAMED: "o", OWNER_OF_SOME: "o", MEMBER: "o", IN_NAMED_GROUP: "o", ANYBODY: "o"}),
    ],
)
def test_with_other_owners(nobodys: Path, run_fsview: RunFsview, options: str, expected: dict[User, str]) -> None:
    """uid= and gid= say who owner and owning group are; with owner=me an ACL gives nobody more than everybody has."""
    os.chown(nobodys, 0, 0)
    named = (USER_READS, Entry(NAMED_GROUP, 4, 77))
    tree = build_tree(nobodys / "tree", {
        "r": one(b"r", 0o600, acl(6, 0, 0, *named, mask=4), owner=(7, 8)),
        "g": one(b"g", 0o600, acl(6, 4, 0, mask=4), owner=(7, 8)),
        "o": one(b"o", 0o644, acl(6, 4, 4, *named, mask=4), owner=(7, 8)),
        "d": Directory({"f": b"f"}, mode=0o754, owner=(7, 8),
                       xattrs={os.fsdecode(ACCESS): acl(7, 5, 4, Entry(USER, 5, 1234), mask=5)}),
    })  # fmt: skip
    tree.chmod(0o755)
    run_fsview("init", nobodys / "repo")
    run_fsview("commit", "--repo", nobodys / "repo", "-b", "r", tree)
    with ExitStack() as undo:
        root = Shown(nobodys, undo).view("-o", f"allow_other,{options}")
        for user, reads in expected.items():
            found = as_user(user, lambda: [name for name in "rg" if _may(root / name, os.O_RDONLY)])
            by_number = {"r": ["r"], "g": ["g"], "": [], "o": []}[reads]
            assert found == (["r", "g"] if user is OWNER_OF_SOME and "uid" in options else by_number), user
            assert as_user(user, lambda: _may(root / "o", os.O_RDONLY))
        enters = as_user(NAMED, lambda: os.access(root / "d", os.X_OK))
        assert enters == ("owner" not in options)


BROKEN = {
    "no ACL": b"junk", "empty": b"", "cut": acl(6, 4, 4)[:-1], "no other": acl(6, 4, 4)[:-8],
    "another version": struct.pack("<I", 3) + acl(6, 4, 4)[4:],
    "unknown tag": acl(6, 4, 4, mask=4).replace(b"\x10\0\4", b"\x11\0\4"),
    "nobody named": acl(6, 4, 4, Entry(USER, 4, 0xFFFFFFFF), mask=4), "no mask": acl(6, 4, 4, USER_READS),
    "too long": acl(6, 4, 4, *(Entry(USER, 4, number) for number in range(600)), mask=4),
    "odd rights": acl(6, 12, 4), "out of order": pack(tuple(Entry(tag, 4) for tag in (GROUP, OWNER, OTHER))),
    "an owner twice": pack(tuple(Entry(tag, 4) for tag in (OWNER, OWNER, GROUP, OTHER))),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["allow_other", "kernel-reads", "workspace"])
def test_an_acl_that_is_none_lets_nobody_in_but_the_owner_and_root(nobodys: Path, kind: str) -> None:
    """No file system could have had it, so a stranger made it; to root and the owner the file is as any other."""
    os.chown(nobodys, 0, 0)
    with Repository.create(nobodys / "repo") as repository, forge(repository) as work:
        files = {}
        for name, value in BROKEN.items():
            header = FileHeader(1000, 50, 0o100644, ((ACCESS, value),))
            files[name.encode()] = work.stager.whole(name.encode(), header, 0)
        meta = work.writer.add_meta(DirMeta(1000, 50, 0o40755, ((ACCESS, b"junk"),)))
        below = work.tree({b"f": work.file(b"f")})
        root = work.raw_tree(DirTree(tuple(sorted(files.items())), ((b"directory", below, meta),)).to_bytes())
        work.publish(root, "r")
    with ExitStack() as undo:
        point = KINDS[kind][1](Shown(nobodys, undo))
        for name in BROKEN:
            assert (point / name).read_bytes() == name.encode()
            assert [as_user(user, partial(_may, point / name, os.O_RDONLY)) for user in USERS] == [
                user is OWNER_OF_SOME for user in USERS
            ]  # fmt: skip
        assert (point / "directory" / "f").read_bytes() == b"f"
        assert as_user(ANYBODY, lambda: os.access(point / "directory", os.X_OK)) is False


def test_in_a_user_namespace_who_is_not_there_is_left_out(place: Path) -> None:
    """The kernel can't read an ACL that names a user who doesn't exist, and would refuse the file to everybody."""
    (place / "mnt").mkdir()
    script = """
    "$0" -P -m tools mount --root r --kernel-reads "$1/repo" "$1/mnt"
    stat -c %a "$1/mnt/files/refused by name"; cat "$1/mnt/files/refused by name"
    "$0" -P -m tools umount "$1/mnt"
    """
    command: list[str | Path] = ["unshare", "-Urm", "sh", "-ec", script, sys.executable, place]
    done = subprocess.run(command, env=clean_environment(place), capture_output=True, text=True)
    if "unshare" in done.stderr or "6.6 or newer" in done.stderr:
        pytest.skip("no user namespaces, or a kernel without userxattr for data-only layers")
    assert (done.returncode, done.stdout, done.stderr) == (0, "644\n6", "")
