"""The merge of /etc where another user owns a directory: each thing that he can do there, at the worst moment."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from store.errors import ConflictError, SysrootError
from tests.acls import ACCESS, acl
from tests.hostile.attacker import SECRET, make_his
from tests.marks import needs_root
from tests.running import RunFsview
from tests.sysroot.etc_sides import Etc, write
from tests.sysroot.rig import Machine, release
from tests.users import NOBODY
from tools.sysroot import etc_text, etc_writing
from tools.sysroot.etc_changes import find_changes
from tools.sysroot.etc_merge import Merge, merge_etc
from tools.sysroot.etc_tree import Node, has_same_content, opened
from tools.sysroot.merging import merge_lines

pytestmark = needs_root


@contextmanager
def mounted(*words: str | Path) -> Iterator[None]:
    subprocess.run(["mount", *words], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", words[-1]], check=True)


@pytest.fixture
def his(tmp_path: Path) -> Path:
    """Return a directory d of nobody's in an /etc, with a file f, and beside the /etc a secret with the same names."""
    etc = write(tmp_path / "etc", {"d": {"f": "his", "e": {"f": "his"}}})
    make_his(etc / "d")
    write(tmp_path / "secret", {"f": SECRET.decode(), "e": {"f": SECRET.decode()}})
    return etc / "d"


def _seen(his: Path, *names: bytes) -> Iterator[Node]:
    with opened(his.parent) as (node,):
        for name in (b"d", *names):
            node = node.children()[name]
        yield node


def _become_symlink(his: Path) -> None:
    his.rename(his.parent.parent / "away")
    his.symlink_to(his.parent.parent / "secret")


def _become_hard_link(his: Path) -> None:
    (his / "f").unlink()
    os.link(his.parent.parent / "secret/f", his / "f")


def _become_fifo(his: Path) -> None:
    (his / "f").unlink()
    os.mkfifo(his / "f")


def _become_device(his: Path) -> None:
    (his / "f").unlink()
    os.mknod(his / "f", 0o666 | 0o020000, os.makedev(1, 5))


READS: dict[str, Callable[[Node, Path], object]] = {
    "compared": lambda node, to: has_same_content(node, node),
    "merged as text": lambda node, to: etc_text.merge_text(node, node, node),
    "copied": lambda node, to: etc_writing._copy(node, os.fsencode(to)),
    "xattrs": lambda node, to: node.xattrs,
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("become", [_become_symlink, _become_hard_link, _become_fifo, _become_device])
def test_what_was_replaced_is_not_read(his: Path, read: str, become: Callable[[Path], None], tmp_path: Path) -> None:
    node = next(seen := _seen(his, b"f"))
    become(his)
    with pytest.raises(ConflictError, match="etc/d/f was replaced while /etc was read"):
        READS[read](node, tmp_path / "copy")
    seen.close()  # type: ignore[attr-defined]  # it is a generator
    assert not (tmp_path / "copy").exists() or (tmp_path / "copy").read_bytes() == b""


def test_a_symlink_in_a_directory_that_leads_elsewhere_is_not_read(his: Path, tmp_path: Path) -> None:
    (his / "l").symlink_to("f")
    (tmp_path / "secret/l").symlink_to("secret-name")
    node = next(seen := _seen(his, b"l"))
    assert node.target() == b"f"
    _become_symlink(his)
    with pytest.raises(ConflictError, match="was replaced"):
        node.target()
    seen.close()  # type: ignore[attr-defined]  # as above


def test_the_same_inode_number_on_another_disk_is_something_else(tmp_path: Path) -> None:
    """Numbers of a tmpfs are small and begin anew in each: the user makes files until one has the number."""
    ours, other = tmp_path / "etc", tmp_path / "secret"
    for path in (ours, other):
        path.mkdir()
    with mounted("-t", "tmpfs", "none", ours), mounted("-t", "tmpfs", "none", other):
        for top in (ours, other):
            (top / "d").mkdir()
            (top / "d/f").write_bytes(SECRET.swapcase() if top == ours else SECRET)
            os.utime(top / "d/f", (1, 1))
        assert (ours / "d/f").stat().st_ino == (other / "d/f").stat().st_ino
        make_his(ours / "d")
        node = next(seen := _seen(ours / "d", b"f"))
        (ours / "d").rename(ours / "away")
        (ours / "d").symlink_to(other / "d")
        with pytest.raises(ConflictError, match="was replaced"):
            etc_writing._copy(node, os.fsencode(tmp_path / "copy"))
        seen.close()  # type: ignore[attr-defined]  # as above
    assert SECRET not in (tmp_path / "copy").read_bytes()


def test_what_is_mounted_over_meanwhile_is_not_read(his: Path, tmp_path: Path) -> None:
    """Who owns a directory can mount a file system of his own there, which answers as it likes, or never."""
    node, file = next(seen := _seen(his, b"e")), next(other := _seen(his, b"f"))
    with (
        mounted("--bind", tmp_path / "secret/e", his / "e"),
        mounted("--bind", tmp_path / "secret/f", his / "f"),
    ):
        for read in (node.children, lambda: node.xattrs, lambda: file.xattrs, lambda: has_same_content(file, file)):
            with pytest.raises(ConflictError, match="was replaced"):
                read()
    for one in (seen, other):
        one.close()  # type: ignore[attr-defined]  # as above


def test_the_top_is_what_was_opened(his: Path, tmp_path: Path) -> None:
    etc = his.parent
    with opened(etc) as (top,):
        etc.rename(tmp_path / "was-etc")
        write(etc, {"other": "x"})
        assert list(top.children()) == [b"d"] and top.xattrs == ()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: None, True),
        (lambda d: d.chmod(0o775), False),
        (lambda d: d.chmod(0o757), False),
        (lambda d: os.chown(d, NOBODY, 0), False),
        (lambda d: os.setxattr(d, ACCESS, acl(f"u::rwx,u:{NOBODY}:rwx,g::r-x,m::rwx,o::r-x")), False),
        (lambda d: os.setxattr(d, ACCESS, acl(f"u::rwx,u:{NOBODY}:r-x,g::r-x,m::r-x,o::r-x")), False),
    ],
    ids=["root's", "group", "all", "owner", "ACL", "ACL to read"],
)
def test_only_what_nobody_else_can_replace_is_read_by_its_path(
    tmp_path: Path, change: Callable[[Path], Any], expected: bool
) -> None:
    etc = write(tmp_path / "etc", {"d": {"f": "1", "e": {"f": "1"}}})
    change(etc / "d")
    for names in ((b"f",), (b"e", b"f")):
        node = next(seen := _seen(etc / "d", *names))
        assert (node.stays, node.is_ours) == (expected, expected)
        seen.close()  # type: ignore[attr-defined]  # as above


# --- what a merge makes of what is there


def _merge(etc: Etc, *, text: bool = False) -> tuple[Merge, Path]:
    for side in (etc.old, etc.own, etc.new):
        make_his(side / "d")
    told = merge_etc(etc.old, etc.own, etc.new, None, text=text)
    subprocess.run(["cp", "-a", etc.new, etc.target], check=True)
    done = merge_etc(etc.old, etc.own, etc.new, etc.target, text=text)
    assert told == done
    return done, etc.target


def test_roots_file_that_is_linked_there_is_not_laid_open(tmp_path: Path) -> None:
    """Its mode and owner are those that the old release had there; the new release's file is for all to read."""
    etc = Etc(tmp_path, {"d": {"f": ("old", 0o600)}}, {"d": {"f": ("old", 0o600)}}, {"d": {"f": "new"}})
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    (etc.own / "d/f").unlink()
    os.link(secret, etc.own / "d/f")
    for side in (etc.old, etc.own, etc.new):
        os.chown(side / "d", NOBODY, NOBODY)
    subprocess.run(["cp", "-a", etc.new, etc.target], check=True)
    merge = merge_etc(etc.old, etc.own, etc.new, etc.target)
    assert (etc.target / "d/f").read_bytes() == b"new"
    assert merge.linked == [b"d/f"] and "  d/f: a file with more names, in a directory where others" in "\n".join(
        merge_lines(merge)
    )


def test_roots_file_whose_other_name_is_gone_is_not_laid_open(tmp_path: Path) -> None:
    etc = Etc(tmp_path, {"d": {"f": ("old", 0o600)}}, {"d": {"f": ("secret", 0o600)}}, {"d": {"f": "new"}})
    for side in (etc.old, etc.own, etc.new):
        os.chown(side / "d", NOBODY, NOBODY)
    subprocess.run(["cp", "-a", etc.new, etc.target], check=True)
    merge = merge_etc(etc.old, etc.own, etc.new, etc.target, text=True)
    status = (etc.target / "d/f").stat()
    assert ((etc.target / "d/f").read_text(), status.st_mode & 0o777, status.st_uid) == ("secret", 0o600, 0)
    assert [(one.path, one.kept) for one in merge.conflicts] == [(b"d/f", "yours"), (b"d/f", "yours")]


def test_his_contents_do_not_become_setuid_root(tmp_path: Path) -> None:
    etc = Etc(tmp_path, {"d": {"f": "old"}}, {"d": {"f": "his"}}, {"d": {"f": ("old", 0o4755)}})
    for side in (etc.old, etc.own):
        make_his(side / "d")
    os.chown(etc.new / "d", NOBODY, NOBODY)
    subprocess.run(["cp", "-a", etc.new, etc.target], check=True)
    merge = merge_etc(etc.old, etc.own, etc.new, etc.target)
    status = (etc.target / "d/f").stat()
    assert ((etc.target / "d/f").read_text(), status.st_mode & 0o7777, status.st_uid) == ("his", 0o644, NOBODY)
    assert "where others may write" in merge.conflicts[0].what


def test_the_new_releases_contents_are_not_opened_by_him(tmp_path: Path) -> None:
    etc = Etc(tmp_path, {"d": {"f": ("old", 0o640)}}, {"d": {"f": ("old", 0o644)}}, {"d": {"f": ("new", 0o600)}})
    merge, target = _merge(etc)
    assert (target / "d/f").stat().st_mode & 0o777 == 0o600
    assert [(one.path, one.kept) for one in merge.conflicts] == [(b"d/f", "the new release's")]


def test_where_nothing_else_is_at_stake_texts_are_merged_there_too(tmp_path: Path) -> None:
    old, own, new = "1\n2\n3\n4\n5\n", "ONE\n2\n3\n4\n5\n", "1\n2\n3\n4\nFIVE\n"
    merge, target = _merge(Etc(tmp_path, {"d": {"f": old}}, {"d": {"f": own}}, {"d": {"f": new}}), text=True)
    assert ((target / "d/f").read_text(), merge.conflicts) == ("ONE\n2\n3\n4\nFIVE\n", [])


def test_a_file_without_end_is_mostly_a_hole(tmp_path: Path) -> None:
    etc = Etc(tmp_path, {"d": {}}, {"d": {}}, {"d": {}})
    with (etc.own / "d/huge").open("wb") as file:
        file.truncate(1 << 42)
    begun = time.process_time()
    _, target = _merge(etc)
    assert (target / "d/huge").stat().st_size == 1 << 42
    assert (target / "d/huge").stat().st_blocks * 512 < 1 << 20 and time.process_time() - begun < 60


@pytest.mark.parametrize("what", [merge_etc, find_changes])
def test_what_is_too_deep_is_an_error(tmp_path: Path, what: Callable[..., object]) -> None:
    etc = Etc(tmp_path, {"d": {}}, {"d": {}}, {"d": {}})
    (etc.own / "d" / "/".join("x" * 400)).mkdir(parents=True)
    sides = (etc.old, etc.own) if what is find_changes else (etc.old, etc.own, etc.new, None)
    with pytest.raises(SysrootError, match=r"own/d/x/x.* is below more than 100 directories"):
        what(*sides)


# --- mounts, with the commands


@pytest.fixture
def two(run_fsview: RunFsview, tmp_path: Path) -> Machine:
    """Return a machine with one of two releases deployed."""
    machine = Machine.make(run_fsview, tmp_path)
    for second, ref in enumerate(("os/a", "os/b")):
        tree = release(ref, {"resolv.conf": ref.encode(), "secrets": {"of-release": b"1"}, "dropped": {"x": b"1"}})
        if ref == "os/b":
            del tree["etc"]["dropped"]
        machine.commit(ref, tree, second=second)
    machine.run("deploy", "os/a")
    return machine


def test_what_is_mounted_is_told_and_not_carried_over(two: Machine, tmp_path: Path) -> None:
    etc, elsewhere = two.root.resolve() / "etc", write(tmp_path / "elsewhere", {"conf": "mounted"})
    (etc / "added").mkdir()
    (etc / "added-file").touch()
    (etc / "mine").write_text("mine")
    with (
        mounted("--bind", elsewhere / "conf", etc / "resolv.conf"), mounted("-t", "tmpfs", "none", etc / "secrets"),
        mounted("--bind", elsewhere, etc / "added"), mounted("--bind", elsewhere / "conf", etc / "added-file"),
        mounted("--bind", elsewhere, etc / "dropped"),
    ):  # fmt: skip
        (etc / "secrets/token").write_bytes(SECRET)
        assert two.run("etc-diff").stdout == "A    mine\n"
        told = two.run("switch", "--dry-run", "os/b").stdout
        said = two.run("switch", "--strict", "os/b").stderr
        for text in (told, said):
            for name in ("resolv.conf", "secrets", "added", "added-file", "dropped"):
                assert f"  {name}: something is mounted there, which is not carried over, nor is what it hides" in text
        assert (etc / "secrets/token").read_bytes() == SECRET
        new = two.root.resolve() / "etc"
        assert (new / "resolv.conf").read_text() == "os/b" and os.listdir(new / "secrets") == ["of-release"]
        assert os.listdir(new / "added") == [] and (new / "added-file").read_bytes() == b""
        assert os.listdir(new / "dropped") == [] and (new / "mine").read_text() == "mine"
        assert two.json("deploy", "os/b")["etc"]["mounted"] == []


def test_a_mount_alone_is_no_change(two: Machine, tmp_path: Path) -> None:
    etc = two.root.resolve() / "etc"
    (tmp_path / "conf").write_text("mounted")
    two.run("switch", "os/b")
    with mounted("--bind", tmp_path / "conf", etc / "resolv.conf"):
        assert two.json("switch", "os/a")["reused"] is True
