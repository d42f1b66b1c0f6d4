"""The same tree, subject, body, time and parent give the same checksum as `ostree commit`."""

from __future__ import annotations

import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.repository import Repository
from tests.committing import commit_tree
from tests.conftest import TreeFactory
from tests.interop.conftest import Pair
from tests.leaks import open_descriptors
from tests.trees import (
    NON_UTF8_NAME,
    ODD_NAMES,
    Directory,
    File,
    Hardlink,
    Node,
    Spec,
    Special,
    Symlink,
    build_tree,
    sample_tree,
    supports_xattrs,
)

ABSENT = "1" * 64
# v2, effective, permitted: cap_net_bind_service; as `setcap cap_net_bind_service=ep` writes it
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def _everything() -> Spec:
    """Return `sample_tree` and what only root can make."""
    xattrs = {"trusted.note": b"\0\1", "security.capability": CAPABILITY, "user.empty": b"", "user.a": b"x"}
    return {
        **sample_tree(),
        "capable": File(b"ELF", mode=0o755, xattrs=xattrs),
        "trusted": Directory({"f": b"f"}, xattrs={"trusted.note": b"n" * 3000}),
        "twelve": File(b"x", mode=0o7777, owner=(2**32 - 6, 2**31)),
        "big": File(bytes(range(256)) * (9 << 12)),  # 9 MiB: read in pieces
        "limits": {f"{size}": b"\xa5" * size for size in (1, 16384, 16385, 131072, 131073)},
        "closed": Directory({"in": b"in"}, mode=0),
        "also hard": Hardlink("large"),
    }


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a small tree in which every option matters."""
    if not supports_xattrs(tmp_path):
        pytest.skip("no xattrs on this file system")
    spec: Spec = {
        "f": File(b"one\n", owner=(5, 6), xattrs={"user.a": b"x"}),
        "d": Directory({"g": File(b"two\n", mode=0o4775), "h": b"h"}, mode=0o2775, xattrs={"user.d": b"y"}),
        "e": {},
        "l": Symlink("f", owner=(7, 8)),
    }
    return build_tree(tmp_path / "tree", spec)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Return a tree to lay over `tree`."""
    spec: Spec = {
        "d": Directory({"g": b"three\n", "i": {"j": b"j"}}, mode=0o700, owner=(7, 8)),
        "k": b"k",
        "l": b"a file now",
    }
    return build_tree(tmp_path / "other", spec)


def test_a_tree_with_one_of_everything(pair: Pair, tree_factory: TreeFactory) -> None:
    tree = tree_factory(_everything())
    assert pair.same("-b", "main", "-s", "Subject ü", "-m", "Body\n\nwith lines\n", tree) != pair.same("--orphan", tree)
    for options in (["--canonical-permissions"], ["--no-xattrs"], ["--owner-uid=1", "--owner-gid=2"]):
        pair.same("--orphan", *options, tree)


def test_paths_longer_than_the_kernel_takes(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    home, open_before = os.getcwd(), open_descriptors()
    os.chdir(root)
    for level in range(80):
        for name in ("file", "d" * 100 + "/file", ".fsviewignore"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_bytes(b"ignored\n")
        os.symlink("file", "link")
        Path("ignored").touch()
        os.setxattr(b"d" * 100, "user.level", b"%d" % level)
        os.chdir("d" * 100)
    os.chdir(home)
    try:
        assert pair.same("--orphan", root) == pair.same("--orphan", root)
        status, said = pair.commit_ours("--orphan", "--ignore-files", root)
        assert status == 0, said
        assert open_descriptors() == open_before
    finally:
        subprocess.run(["rm", "-rf", root], check=True)  # which shutil.rmtree can't


def test_a_debian_tree(pair: Pair, debian_tree: Path) -> None:
    pair.same("-b", "debian/12", "-s", "Debian 12", debian_tree)


names = st.one_of(
    st.sampled_from([os.fsdecode(name) for name in ODD_NAMES]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20),
).filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255)
owners = st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
xattrs = st.dictionaries(
    st.sampled_from(["user.a", "user.A", "user.long" * 9, "trusted.b", "user.\u00e9"]),
    st.binary(max_size=300),
    max_size=3,
)
files = st.builds(
    File,
    content=st.one_of(st.binary(max_size=50), st.integers(0, 40_000).map(lambda size: b"\x5a" * size)),
    mode=st.integers(0, 0o7777),
    owner=owners,
    xattrs=xattrs,
)
targets = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300)
leaves = st.one_of(
    files, st.builds(Symlink, target=targets.filter(lambda text: len(text.encode()) < 4096), owner=owners)
)


def _directories(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(
        Directory,
        children=st.dictionaries(names, children, max_size=6),
        mode=st.integers(0, 0o7777),
        owner=owners,
        xattrs=xattrs,
    )


trees = st.dictionaries(names, st.recursive(leaves, _directories, max_leaves=15), max_size=6)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(spec=trees)
def test_any_tree(pair: Pair, tmp_path: Path, spec: Spec) -> None:
    tree = build_tree(tmp_path / f"tree{len(list(tmp_path.iterdir()))}", spec)
    status, theirs = pair.commit_theirs(
        "--orphan", "--timestamp=@1577836800", "--subject=a tree", "--no-bindings", tree
    )
    assert status == 0, theirs
    with Repository.open(pair.ours) as repository:
        from tools.make_commit import Message

        message = Message(None, "a tree", timestamp_s=1577836800, bindings=False)
        assert commit_tree(repository, tree, message=message).checksum.hex() == theirs


@pytest.mark.parametrize(
    "options",
    [
        ["--owner-uid=5"],
        ["--owner-gid=99"],
        ["--owner-uid=0", "--owner-gid=2147483647"],
        ["--canonical-permissions"],
        ["--canonical-permissions", "--owner-uid=0", "--owner-gid=0"],
        ["--no-xattrs"],
        ["--no-bindings"],
        ["--bind-ref=b", "--bind-ref=a/b", "--bind-ref=b"],
        ["--bind-ref=é", "--bind-ref=z"],
        ["--add-metadata-string=version=1.0", "--add-metadata-string=empty=", "--add-metadata-string=k=a=b"],
        ["--add-metadata=u=uint32 5", "--add-metadata=as=['a', 'b']", "--add-metadata=d={'k': <1>, 'l': <true>}"],
        ["--add-metadata=z=@ay []", "--add-metadata-string=a=1", "--add-metadata=b=(1.5, 'x', @mi nothing)"],
        ["--add-metadata-string=twice=1", "--add-metadata-string=twice=2"],
        ["--parent=none"],
        [f"--parent={ABSENT}"],
        ["--subject=", "--body="],
        ["-s", "Subject: é", "-m", "line\n\nline\n"],
        ["--timestamp=2021-03-04 05:06:07 +0000"],
        ["--timestamp=@0"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_options(pair: Pair, tree: Path, options: list[str]) -> None:
    pair.same("-b", "main", *options, tree)
    pair.same("--orphan", *options, tree)
    pair.same(*options, "-b", "main", tree)  # with a parent now


def test_skip_list(pair: Pair, tree: Path, tmp_path: Path) -> None:
    pair.same("-b", "all", tree)
    for lines in ("/d/g\n", "/d\n/f\n", "/d/g\n/d/h\n/l\n", ""):
        (tmp_path / "skip").write_text(lines)
        pair.same("--orphan", f"--skip-list={tmp_path / 'skip'}", tree)
        pair.same("--orphan", f"--skip-list={tmp_path / 'skip'}", "--tree=ref=all")


def test_body_from_a_file(pair: Pair, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "body").write_text("The body\n\nof Zoë\n")
    pair.same("--orphan", "-F", tmp_path / "body", tree)


def test_the_time_of_the_source(pair: Pair, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    assert pair.commit_theirs("--orphan", tree) == pair.commit_ours("--orphan", tree)


def test_a_branch_goes_on(pair: Pair, tree: Path) -> None:
    first = pair.same("-b", "a/b", tree)
    (tree / "new").write_bytes(b"new")
    second = pair.same("-b", "a/b", tree)
    (tree / "new").unlink()
    assert pair.same("-b", "a/b", tree) not in (first, second)
    assert pair.same("-b", "a/c", f"--parent={first}", tree) != first
    log = subprocess.run(["ostree", "log", f"--repo={pair.theirs}", "a/b"], capture_output=True, text=True, check=True)
    status, ours = pair.run_ours("rev-parse", "--repo", pair.ours, "a/b~2")
    assert (status, ours) == (0, first) and f"commit {first}" in log.stdout


@pytest.mark.parametrize(
    "options",
    [[], ["--owner-uid=3"], ["--owner-uid=3", "--owner-gid=4"], ["--canonical-permissions"], ["--no-xattrs"]],
    ids=lambda options: " ".join(options) or "none",
)  # fmt: skip
def test_trees_laid_over_each_other(pair: Pair, tree: Path, other: Path, tmp_path: Path, options: list[str]) -> None:
    (other / "l").unlink()  # ostree won't replace a symlink
    pair.same("-b", "ref", tree)
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(other, ".")
    a, b, ref, tar = f"--tree=dir={tree}", f"--tree=dir={other}", "--tree=ref=ref", f"--tree=tar={tmp_path / 't.tar'}"
    for layers in ([a, b], [b, a], [ref], [ref, b], [b, ref], [tar], [tar, a], [a, tar], [ref, tar, a, b], [a, b, ref]):
        pair.same("--orphan", *options, *layers, ostree_only=("--tar-autocreate-parents",))


@pytest.mark.parametrize("pack", [[], ["-z"], ["-J"], ["--format=pax", "--xattrs"], ["--format=ustar"]], ids=" ".join)
def test_a_tar_archive(pair: Pair, tree: Path, tmp_path: Path, pack: list[str]) -> None:
    size = 40 if "--format=ustar" in pack else 90
    names = "a" * size, "b" * size
    build_tree(tree / "more", {names[0]: {names[1]: File(b"linked", mode=0o600), "hard": Hardlink("/".join(names))}})
    subprocess.run(["tar", "-c", *pack, "-f", tmp_path / "t.tar", "-C", tree, "."], check=True)
    from_tar = pair.same("--orphan", f"--tree=tar={tmp_path / 't.tar'}", ostree_only=("--tar-autocreate-parents",))
    from_directory = pair.same("--orphan", *([] if "--xattrs" in pack else ["--no-xattrs"]), tree)
    assert from_tar == from_directory


def test_a_tar_archive_without_parents(pair: Pair, tree: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-cf", tmp_path / "t.tar", "-C", tree, "d/g", "f"], check=True)
    for options in ([], ["--owner-uid=5"], ["--canonical-permissions"]):
        pair.same("--orphan", *options, f"--tree=tar={tmp_path / 't.tar'}", ostree_only=("--tar-autocreate-parents",))


def test_a_tar_archive_names_things_twice(pair: Pair, tree: Path, other: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-cf", tmp_path / "t.tar", "-C", tree, ".", "-C", other, "./d", "./k"], check=True)
    pair.same("--orphan", f"--tree=tar={tmp_path / 't.tar'}", ostree_only=("--tar-autocreate-parents",))


def test_an_empty_tree(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pair.same("-b", "empty", tmp_path / "empty")


def test_a_name_that_is_not_utf8(pair: Pair, tree_factory: TreeFactory) -> None:
    theirs, ours = pair.refused("-b", "main", tree_factory({"d": {NON_UTF8_NAME: b""}}))
    assert "Invalid UTF-8" in theirs and "/d/latin-\\xe9: its name is not UTF-8" in ours


@pytest.mark.parametrize(
    "special", [Special("fifo"), Special("socket"), Special("char"), Special("block")], ids=lambda it: it.kind
)
def test_a_special_file(pair: Pair, tree_factory: TreeFactory, special: Special) -> None:
    tree = tree_factory({"a": b"a", "d": {"special": special}})
    theirs, ours = pair.refused("-b", "main", tree)
    assert "Not a regular file or symlink: special" in theirs and f"{tree}/d/special" in ours
    assert pair.commit_ours("--orphan", "--skip-special", tree)[0] == 0


def test_options_that_exclude_each_other(pair: Pair, tree: Path) -> None:
    pair.refused("-b", "main", "--canonical-permissions", "--owner-uid=1", tree)
    pair.refused("-b", "bad ref", tree)
    pair.refused(tree)
