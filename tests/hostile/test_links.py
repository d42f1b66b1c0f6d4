"""Hard links of what others can write: who writes to one name of a file writes to all, and sets the mtime back.

So what somebody else than root can write, or could and still has open, is never linked: neither loose files of the
repository nor files of earlier deployments; and what is linked is what was looked at.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checking import assert_sound
from tests.running import RunFsview
from tests.sysroot.rig import LARGE, Machine
from tests.trees import Directory, File, Spec, Symlink
from tests.users import NOBODY, try_as_nobody
from tools import neighbours
from tools.linking import can_reflink
from tools.recipe import read_xattrs

SMALL = b"small and harmless\n"
OTHER = random.Random(7).randbytes(len(LARGE))


def _acl(mask: int) -> bytes:
    """Return a POSIX ACL that lets nobody write, as far as the mask does: version, then (tag, permissions, id) each."""
    none = 0xFFFFFFFF
    entries = [(1, 6, none), (2, 6, NOBODY), (4, 4, none), (16, mask, none), (32, 4, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture
def machine(run_fsview: RunFsview, open_path: Path) -> Machine:
    """Return a machine whose deployments others can look into, without reflinks."""
    if _has_reflinks(open_path):
        pytest.skip("this file system has reflinks")
    return Machine.make(run_fsview, open_path)


def _has_reflinks(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return can_reflink(descriptor)
    finally:
        os.close(descriptor)


def _loose(machine: Machine) -> set[int]:
    return {path.stat().st_ino for path in (machine.repository / "objects").rglob("*") if path.is_file()}


def _overwrite(path: Path, data: bytes) -> None:
    """Change a file so that size and mtime tell nothing, if its owner does it."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(data[: before.st_size])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _of_nobody(content: bytes) -> File:
    return File(content, owner=(NOBODY, 0))


def _for_all(content: bytes) -> File:
    return File(content, mode=0o666)


def _for_the_group(content: bytes) -> File:
    return File(content, mode=0o664, owner=(0, NOBODY))


def _by_an_acl(content: bytes) -> File:
    return File(content, mode=0o664, xattrs={"system.posix_acl_access": _acl(6)})


OPEN = {one.__name__.strip("_"): one for one in (_of_nobody, _for_all, _for_the_group, _by_an_acl)}


@pytest.mark.parametrize("content", [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("how", OPEN)
def test_what_others_can_write_is_not_linked(machine: Machine, how: str, content: bytes) -> None:
    """A large file is loose in the repository; a small one could be linked from deployment to deployment."""
    machine.commit("os/a", {"usr": {"file": OPEN[how](content)}})
    for _ in range(2):
        machine.run("deploy", "os/a")
    first, second = (machine.root.resolve().with_name(path) / "usr/file" for path in machine.deployments())
    assert first.stat().st_nlink == second.stat().st_nlink == 1
    try_as_nobody(lambda: _overwrite(first, OTHER))
    assert first.read_bytes() != content  # that was allowed
    assert second.read_bytes() == content
    machine.run("deploy", "os/a")
    assert (machine.root / "usr/file").read_bytes() == content
    assert_sound(machine.repository)


def test_an_acl_whose_mask_lets_nobody_write_is_no_reason(machine: Machine) -> None:
    acl = {"system.posix_acl_access": _acl(4)}
    machine.commit("os/a", {"usr": {"file": File(LARGE, xattrs=acl)}})
    machine.run("deploy", "os/a")
    assert (machine.root / "usr/file").stat().st_ino in _loose(machine)
    assert try_as_nobody(lambda: _overwrite(machine.root / "usr/file", OTHER)) != 0


@pytest.mark.parametrize("content", [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_what_gives_rights_is_not_linked(machine: Machine, mode: int, content: bytes) -> None:
    """To take them away in one tree is meant for that alone; and a tree that is gone must not live on in another."""
    machine.commit("os/a", {"usr": {"file": File(content, mode=mode)}})
    for _ in range(2):
        machine.run("deploy", "os/a")
    assert (machine.root / "usr/file").stat().st_nlink == 1
    assert stat.S_IMODE((machine.root / "usr/file").stat().st_mode) == mode


def test_capabilities_are_not_linked(machine: Machine) -> None:
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep
    machine.commit("os/a", {"usr": {"file": File(SMALL, mode=0o755, xattrs={"security.capability": capability})}})
    for _ in range(2):
        machine.run("deploy", "os/a")
    assert (machine.root / "usr/file").stat().st_nlink == 1
    assert os.getxattr(machine.root / "usr/file", "security.capability") == capability


def test_symlinks_of_others_are_not_linked(machine: Machine) -> None:
    machine.commit("os/a", {"usr": {"theirs": Symlink("x", owner=(NOBODY, NOBODY)), "own": Symlink("x")}})
    for _ in range(2):
        machine.run("deploy", "os/a")
    assert {name: (machine.root / "usr" / name).lstat().st_nlink for name in ("theirs", "own")} == {
        "theirs": 1,
        "own": 2,
    }


def test_what_somebody_could_write_once_is_compared(machine: Machine) -> None:
    """An admin gave a file away, and took it back; owner, mode, size and mtime are those of before."""
    machine.commit("os/a", {"usr": {"file": SMALL, "same": b"same"}})
    machine.run("deploy", "os/a")
    file = machine.root / "usr/file"
    os.chown(file, NOBODY, 0)
    assert try_as_nobody(lambda: _overwrite(file, OTHER)) == 0
    os.chown(file, 0, 0)
    machine.run("deploy", "os/a")
    assert (machine.root / "usr/file").read_bytes() == SMALL
    assert (machine.root / "usr/same").stat().st_nlink == 2


@pytest.mark.parametrize("content", [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("mapped", [False, True])
def test_what_somebody_still_has_open_for_writing_is_not_linked(machine: Machine, content: bytes, mapped: bool) -> None:
    """The owner and the mode are root's again, but who opened the file before can go on, a mapping without a trace."""
    machine.commit("os/a", {"usr": {"file": content}})
    machine.run("deploy", "os/a")
    file = machine.root.resolve() / "usr/file"
    if content is LARGE:
        file = next(path for path in (machine.repository / "objects").rglob("*") if path.is_file())
    descriptor = os.open(file, os.O_RDWR)
    write = _mapping(descriptor) if mapped else lambda: os.pwrite(descriptor, b"X", 0)
    if mapped:
        os.close(descriptor)
    machine.run("deploy", "os/a")
    write()
    assert file.read_bytes() != content  # that was done
    assert (machine.root / "usr/file").read_bytes() == content
    if not mapped:
        os.close(descriptor)


def _mapping(descriptor: int) -> Callable[[], object]:
    """Map a file for writing; Python's own mmap would keep a descriptor of it open."""
    library = ctypes.CDLL(None)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = library.mmap(None, 1, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, descriptor, 0)
    return lambda: (ctypes.memset(address, ord("X"), 1), library.munmap(ctypes.c_void_p(address), 1))


def test_what_was_looked_at_is_what_is_linked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns a directory in a deployment exchanges a name in it between the look and the link."""
    machine.commit("os/a", {"usr": {"theirs": Directory({"file": SMALL, "next": b"next"}, owner=(NOBODY, NOBODY))}})
    machine.run("deploy", "os/a")
    theirs = machine.root.resolve() / "usr/theirs"
    look = read_xattrs

    def exchange(file: int | bytes) -> object:
        found = look(file)
        if (theirs / "next").exists():
            try_as_nobody(lambda: os.rename(theirs / "next", theirs / "file"))
        return found

    monkeypatch.setattr(neighbours, "read_xattrs", exchange)
    machine.run("deploy", "os/a")
    assert theirs.joinpath("file").read_bytes() == b"next"  # that was done
    new = machine.root / "usr/theirs"
    assert (new / "file").read_bytes() == SMALL and (new / "next").read_bytes() == b"next"


def test_a_repository_that_others_can_write_to_is_not_linked_with(machine: Machine) -> None:
    """They could put any file of root's there under the name of another."""
    machine.commit("os/a", {"usr": {"file": LARGE}})
    machine.run("deploy", "os/a")
    assert (machine.root / "usr/file").stat().st_ino in _loose(machine)
    for closed in (machine.repository, machine.repository / "objects"):
        closed.chmod(0o775)
        words = ("checkout", "--repo", machine.repository, "-H", "os/a", machine.where / "checkout")
        said = machine.fsview(*words, status=1).stderr
        assert "others than root and this user can write to the repository" in said
        machine.run("deploy", "--dest", machine.where / "once", "os/a")
        assert (machine.where / "once/usr/file").stat().st_nlink == 1
        shutil.rmtree(machine.where / "once")
        closed.chmod(0o755)


def test_root_links_nothing_of_another_users_repository(run_fsview: RunFsview, nobodys: Path, tmp_path: Path) -> None:
    repo, tree = nobodys / "repo", nobodys / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(LARGE)
    run_fsview("init", repo)
    run_fsview("commit", "--repo", repo, "-b", "main", tree)
    for path in (repo, *repo.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    env = {"FSVIEW_TRUST_OWNER": str(NOBODY)}
    run_fsview("checkout", "--repo", repo, "-H", "main", nobodys / "out", status=1, env=env)
    run_fsview("checkout", "--repo", repo, "main", nobodys / "out", env=env)
    assert (nobodys / "out/file").stat().st_nlink == 1


PLACES: Spec = {
    "usr": {"bin": {"tool": LARGE, "small": SMALL}, "local": {"bin": {"mine": LARGE + b"1"}, "small": SMALL}},
    "opt": {"app": LARGE + b"2", "small": SMALL},
    "home": {"user": LARGE + b"3"},
    "boot": {"vmlinuz": LARGE + b"4"},
    "etc": {"large": LARGE + b"5", "small": SMALL},
    "bin": Symlink("usr/bin"),
    "top": LARGE + b"6",
    "link": Symlink("top"),
}


def test_a_deployment_links_below_usr_alone(machine: Machine) -> None:
    """All else is edited by somebody, some day: in one deployment, and not in all."""
    machine.commit("os/a", PLACES)
    for _ in range(2):
        machine.run("deploy", "os/a")
    shared = {path.relative_to(machine.root).as_posix() for path in machine.root.rglob("*") if _is_shared(path)}
    assert shared == {"usr/bin/tool", "usr/bin/small"}
    pristine = machine.root.resolve().with_name(machine.root.resolve().name + ".etc-pristine")
    assert not any(map(_is_shared, pristine.rglob("*")))


def _is_shared(path: Path) -> bool:
    return not stat.S_ISDIR(path.lstat().st_mode) and path.lstat().st_nlink > 1


def test_a_deployment_elsewhere_links_below_usr_alone(machine: Machine) -> None:
    machine.commit("os/a", PLACES)
    once = machine.where / "once"
    machine.run("deploy", "--dest", once, "os/a")
    assert [path for path in once.rglob("*") if _is_shared(path)] == [once / "usr/bin/tool"]


def test_a_checkout_shares_nothing_unless_it_is_told_to(machine: Machine) -> None:
    machine.commit("os/a", PLACES)
    out = [machine.where / name for name in ("auto", "H", "link")]
    for path, options in zip(out, ([], ["-H"], ["--link=hardlink"]), strict=True):
        said = machine.fsview("checkout", "--repo", machine.repository, *options, "os/a", path).stderr
        warned = [line for line in said.splitlines() if "to write to one in place damages it for all commits" in line]
        assert len(warned) == bool(options)
        assert bool(_loose(machine) & {file.lstat().st_ino for file in path.rglob("*")}) is bool(options)
    with (out[0] / "usr/bin/tool").open("r+b") as file:
        file.write(b"edited")
    assert_sound(machine.repository)
    words = ("checkout", "--repo", machine.repository, "-H", "--link=copy", "os/a", machine.where / "x")
    assert "ask for different things" in machine.fsview(*words, status=2).stderr
    words = ("checkout", "--repo", machine.repository, "-H", "--json", "os/a", machine.where / "json")
    assert json.loads(machine.fsview(*words).stdout)["hardlinked"] == 6
