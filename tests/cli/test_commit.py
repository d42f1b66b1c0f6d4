"""fsview commit: what it prints, what it takes and leaves out, and how it says no."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from store.objects import checksum_from_hex
from store.repository import Repository
from store.tree import commit_number, load_commit
from tests.checking import assert_sound, trusting
from tests.cli.conftest import Fsview
from tests.conftest import TreeFactory
from tests.marks import needs_root
from tests.running import RunFsview
from tests.trees import NON_UTF8_NAME, File, Spec, Special, Symlink, build_tree
from tests.users import run_as_nobody
from tools import build, hashing

SMALL: Spec = {"a": b"a\n", "d": {"b": b"b\n", "c": Symlink("b")}}


@pytest.fixture
def tree(tree_factory: TreeFactory) -> Path:
    """Return a small tree."""
    return tree_factory(SMALL, "tree")


def _paths(fsview: Fsview, revision: str) -> list[str]:
    """Return all paths but the root's."""
    return fsview("ls", "-R", "--nul-filenames-only", revision).stdout.decode().strip("\0").split("\0")[1:]


def _nothing_committed(repo: Path) -> None:
    with (
        trusting(repo.stat().st_uid),
        Repository.open(repo) as repository,
        repository.database.reading() as reading,
    ):
        assert reading.count(b"commit") == reading.count(b"ref") == reading.count(b"file") == 0
    assert list((repo / "tmp").iterdir()) == []


def test_the_checksum_alone_is_printed(run_fsview: RunFsview, make_repo: object, tmp_path: Path, tree: Path) -> None:
    run_fsview("init", tmp_path / "r")
    done = run_fsview("commit", "-b", "main", tree, repo=tmp_path / "r")
    assert len(done.stdout) == 65 and done.stderr == ""
    assert run_fsview("rev-parse", "main", repo=tmp_path / "r").stdout == done.stdout
    here = run_fsview("commit", "--orphan", "--repo", tmp_path / "r", cwd=tree).stdout  # the current directory
    with Repository.open(tmp_path / "r") as repository, repository.database.reading() as reading:
        numbers = [commit_number(reading, checksum_from_hex(line.strip())) for line in (done.stdout, here)]
        roots = {load_commit(reading, number).root_dirtree for number in numbers if number}
    assert len(roots) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tree"], "name the ref with -b REF"),
        (["-b", "main", "--orphan", "tree"], "name the ref with -b REF"),
        (["-b", "main", "tree", "--tree=dir=tree"], "not both"),
        (["-b", "main", "--tree=zip=x"], "--tree=zip=x is none of"),
        (["-b", "main", "--tree=dir="], "is none of"),
        (["-b", "main", "--add-metadata-string=novalue", "tree"], "should be KEY=VALUE"),
        (["-b", "main", "--add-metadata-string==v", "tree"], "should be KEY=VALUE"),
        (["-b", "main", "--add-metadata=k=uint32", "tree"], "uint32"),
        (["-b", "main", "--add-metadata=k=[1, 'a']", "tree"], "no type in common"),
        (["-b", "main", "-m", "x", "-F", "tree/a", "tree"], "exclude each other"),
        (["-b", "main", "--timestamp=yesteryear", "tree"], "yesteryear"),
        (["-b", "main", "--timestamp=@-1", "tree"], "-1"),
        (["-b", "main", "--owner-uid=-1", "tree"], "-1"),
        (["-b", "main", "--owner-uid=4294967296", "tree"], "4294967296"),
        (["-b", "main", "--canonical-permissions", "--owner-gid=5", "tree"], "--canonical-permissions makes root"),
        (["-b", "main", "--ignore-files", "--tree=tar=x"], "--ignore-files is for directories"),
        (["-b", "main", "--ignore=[z-a]", "tree"], "pattern"),
        (["-b", "main", "--ignore=!", "tree"], "Invalid git pattern: '!'"),
        (["-b", "main", "--skip-list=nowhere", "tree"], "nowhere"),
        (["-b", "main", "-s", "\udcff", "tree"], "the subject is not UTF-8"),
        (["-b", "main", "-m", "\udcff", "tree"], "the body is not UTF-8"),
        (["-b", "main", "--bind-ref", "\udcff", "tree"], "the ref is not UTF-8"),
        (["-b", "main", "--add-metadata-string=k=\udcff", "tree"], "is not UTF-8"),
        (["-b", "main", "--add-metadata-string=\udcff=v", "tree"], "is not UTF-8"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_options(fsview: Fsview, repo: Path, tree: Path, arguments: list[str], message: str) -> None:
    os.chdir(tree.parent)
    done = fsview("commit", *arguments, status=2)
    assert message in done.stderr and done.stdout == b"" and "Traceback" not in done.stderr
    _nothing_committed(repo)


@pytest.mark.parametrize(
    "name",
    ["", "-x", ".x", "a//b", "/a", "a/", "a b", "a/.b", "a/-b", "a\nb", "a:b:c", "a/b:c", "f" * 64, "a/" * 300 + "b",
     "a" * 256, "a\udcff"],
)  # fmt: skip
def test_names_that_no_ref_has(fsview: Fsview, repo: Path, tree: Path, name: str) -> None:
    assert fsview("commit", "-b", name, tree, status=2).stdout == b""
    _nothing_committed(repo)


@pytest.mark.parametrize("name", ["é/ü", "a..b", "a._-", "1", "_x", "remote:a/b", "a" * 255, "main.d/x", "f" * 63])
def test_names_that_refs_have(fsview: Fsview, repo: Path, tree: Path, name: str) -> None:
    fsview("commit", "-b", name, tree)
    assert fsview("refs").lines == [name]


def test_no_ref_is_a_directory_of_refs(fsview: Fsview, repo: Path, tree: Path) -> None:
    fsview("commit", "-b", "a/b", tree)
    assert "as it is a directory of refs (a/b)" in fsview("commit", "-b", "a", tree, status=2).stderr
    assert "as a/b is one" in fsview("commit", "-b", "a/b/c", tree, status=2).stderr
    assert fsview("refs").lines == ["a/b"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--parent=nowhere"], 1, "no ref, commit or abbreviation is named 'nowhere'"),
        (["--tree=ref=nowhere"], 1, "nowhere"),
        (["--tree=dir=nowhere"], 1, "nowhere: No such file or directory"),
        (["--tree=dir=tree/a"], 1, "tree/a: Not a directory"),
        (["--tree=tar=nowhere"], 1, "nowhere: No such file or directory"),
        (["--tree=tar=tree"], 1, "tree: Is a directory"),
        (["--repo=tree"], 1, "is not an fsview repository"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_not_there(
    fsview: Fsview, repo: Path, tree: Path, options: list[str], status: int, message: str
) -> None:
    os.chdir(tree.parent)
    assert message in fsview("commit", "-b", "main", *options, status=status).stderr
    _nothing_committed(repo)


def test_the_tree_of_a_commit_or_a_part_of_it(fsview: Fsview, repo: Path, tree: Path) -> None:
    fsview("commit", "-b", "main", tree)
    fsview("commit", "-b", "part", "--tree=ref=main:/d")
    assert _paths(fsview, "part") == ["/b", "/c"]
    assert "is a file" in fsview("commit", "-b", "no", "--tree=ref=main:/a", status=2).stderr
    assert "does not exist" in fsview("commit", "-b", "no", "--tree=ref=main:/x", status=1).stderr


def test_special_files_are_all_named(fsview: Fsview, repo: Path, tree_factory: TreeFactory) -> None:
    root = os.geteuid() == 0
    more: Spec = {"char": Special("char"), "deep": {"block": Special("block")}} if root else {}
    tree = tree_factory({"ok": b"", "d": {"fifo": Special("fifo")}, "socket": Special("socket"), **more})
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(tree)
        bound.bind("bound")
    said = fsview("commit", "-b", "main", tree, status=16).stderr
    for name in ("d/fifo", "socket", "bound", *(("char", "deep/block") if root else ())):
        assert f"{tree}/{name}" in said
    assert "--skip-special" in said
    _nothing_committed(repo)
    fsview("commit", "-b", "main", "--skip-special", tree)
    assert [path for path in _paths(fsview, "main") if "ok" in path or "fifo" in path] == ["/ok"]


def test_names_that_are_not_utf8_are_all_named(fsview: Fsview, repo: Path, tree_factory: TreeFactory) -> None:
    tree = tree_factory({NON_UTF8_NAME: b"", "d": {NON_UTF8_NAME: {"x": b""}, "ok": b""}, "l": Symlink(b"\xff")})
    said = fsview("commit", "-b", "main", tree, status=16).stderr
    assert f"{tree}/latin-\\xe9: its name is not UTF-8" in said and f"{tree}/d/latin-\\xe9: " in said
    assert f"{tree}/l: not the target" in said
    _nothing_committed(repo)
    fsview("commit", "-b", "main", "--ignore=latin*", "--ignore=/l", tree)


def test_the_repository_is_no_part_of_the_tree(fsview: Fsview, repo: Path, tree: Path) -> None:
    said = fsview("commit", "-b", "main", repo.parent, status=16).stderr
    assert f"{repo}: it is the repository itself; leave it out with --ignore" in said
    _nothing_committed(repo)
    fsview("commit", "-b", "main", "--ignore=/repo", repo.parent)
    assert "/tree/a" in _paths(fsview, "main")


@needs_root
def test_one_file_system(fsview: Fsview, repo: Path, tree_factory: TreeFactory) -> None:
    tree = tree_factory({"here": b"", "mnt": {"hidden": b""}})
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0750", "none", tree / "mnt"], check=True)
    try:
        (tree / "mnt/there").write_bytes(b"there")
        fsview("commit", "-b", "all", tree)
        fsview("commit", "-b", "one", "--one-file-system", tree)
        fsview("commit", "-b", "all-again", tree)
    finally:
        subprocess.run(["umount", tree / "mnt"], check=True)
    assert _paths(fsview, "one") == ["/here", "/mnt"]
    assert "/mnt/there" in _paths(fsview, "all") and "/mnt/there" in _paths(fsview, "all-again")
    assert (
        fsview("ls", "one", "/").lines[-1].startswith("d00750")
    )  # the mount point as it looks: what is below is hidden


IGNORING: Spec = {
    ".fsviewignore": b"# what nobody wants\n*.o\n/build\ncache/\n\n",
    "a.c": b"", "a.o": b"", "build": {"x": b""}, "cache": {"y": b""},
    "src": {
        ".fsviewignore": b"!keep.o\n/local\n",
        "b.o": b"", "keep.o": b"", "local": b"", "build": {"z": b""},
        "sub": {"keep.o": b"", "local": b"", "cache": b"a file", "c.o": b""},
    },
}  # fmt: skip


def test_ignore_files(fsview: Fsview, repo: Path, tree_factory: TreeFactory) -> None:
    tree = tree_factory(IGNORING)
    fsview("commit", "-b", "all", tree)
    fsview("commit", "-b", "some", "--ignore-files", tree)
    fsview("commit", "-b", "all-again", tree)
    files = [path for path in _paths(fsview, "some") if path not in ("/src", "/src/build", "/src/sub")]
    assert sorted(files) == [
        "/.fsviewignore", "/a.c", "/src/.fsviewignore", "/src/build/z", "/src/keep.o",
        "/src/sub/cache", "/src/sub/keep.o", "/src/sub/local",
    ]  # fmt: skip
    assert _paths(fsview, "all") == _paths(fsview, "all-again")


def test_ignore_files_agree_with_git(fsview: Fsview, repo: Path, tree_factory: TreeFactory) -> None:
    tree = tree_factory(IGNORING)
    fsview("commit", "-b", "some", "--ignore-files", tree)
    for path in tree.rglob(".fsviewignore"):
        shutil.copy(path, path.with_name(".gitignore"))
    subprocess.run(["git", "init", "-q", tree], check=True)
    listed = subprocess.run(
        ["git", "-C", tree, "ls-files", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    theirs = {f"/{line}" for line in listed.stdout.splitlines() if not line.endswith(".gitignore")}
    assert theirs == {path for path in _paths(fsview, "some") if Path(f"{tree}{path}").is_file()}


def test_an_ignore_file_that_is_none(fsview: Fsview, repo: Path, tree_factory: TreeFactory) -> None:
    fsview("commit", "-b", "a", "--ignore-files", tree_factory({".fsviewignore": {"x": b""}, "y": b""}))
    fsview("commit", "-b", "b", "--ignore-files", tree_factory({".fsviewignore": Symlink("/dev/zero"), "y": b""}))
    fifo = tree_factory({".fsviewignore": Special("fifo"), "y": b""})
    fsview("commit", "-b", "c", "--ignore-files", "--skip-special", fifo)
    broken = tree_factory({"d": {".fsviewignore": b"fine\n!\n"}})
    said = fsview("commit", "-b", "d", "--ignore-files", broken, status=2).stderr
    assert f"{broken}/d/.fsviewignore" in said and "Invalid git pattern" in said


def test_ignore_and_skip_list(fsview: Fsview, repo: Path, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "skip").write_bytes(b"/d/b\n/x\xff\x0b\n")
    fsview("commit", "-b", "main", f"--skip-list={tmp_path / 'skip'}", "--ignore=a", tree)
    assert _paths(fsview, "main") == ["/d", "/d/c"]


def test_a_body_that_is_no_text(fsview: Fsview, repo: Path, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\xff")
    fsview("commit", "-b", "main", "-F", tmp_path / "body", tree, status=2)
    _nothing_committed(repo)


def test_detached_metadata(fsview: Fsview, repo: Path, tree: Path) -> None:
    plain = fsview("commit", "--orphan", "--timestamp=@1", tree).stdout
    assert fsview("commit", "--orphan", "--timestamp=@1", "--add-detached-metadata-string=k=v", tree).stdout == plain
    assert "'v'" in fsview("show", plain.decode().strip()).stdout.decode()
    fsview("commit", "--orphan", "--timestamp=@1", "--add-detached-metadata-string=k=w",
           "--add-detached-metadata-string=more=m", tree)  # fmt: skip
    fsview("commit", "--orphan", "--timestamp=@1", "--add-detached-metadata-string=more=n", tree)
    shown = json.loads(fsview("show", "--json", plain.decode().strip()).stdout)
    assert shown["detached_metadata"] == {"k": "'w'", "more": "'n'"}


def test_times_beyond_what_64_bits_hold(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "t", {"future": b"f", "past": b"p", "d": {}})
    for name, second in (("future", 10**10), ("past", -(2**31)), ("d", 10**10)):
        os.utime(tree / name, ns=(second * 10**9, second * 10**9))
    if (tree / "future").stat().st_mtime < 10**10:
        pytest.skip("this file system ends before 2286")
    fsview("commit", "-b", "main", tree)
    fsview("commit", "-b", "main", tree)


def test_more_files_than_are_hashed_at_once(
    fsview: Fsview, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_BATCH_FILES", 4)
    monkeypatch.setattr(hashing, "_OUTSTANDING_BATCHES_MAX", 2)
    monkeypatch.setattr(build, "_QUEUED_MAX", 10)
    inside: Spec = {f"{number}": b"%d" % number for number in range(50)}
    tree = build_tree(tmp_path / "t", {"d": {"e": inside, "f": {}}, "g": inside, **inside})
    first = fsview("commit", "-b", "main", "--timestamp=@1", tree).stdout
    (tree / "g/7").write_bytes(b"seven")
    fsview("commit", "-b", "main", tree)
    (tree / "g/7").write_bytes(b"7")
    assert fsview("commit", "-b", "main", "--timestamp=@1", "--parent=none", tree).stdout == first


def test_what_may_not_be_read_is_all_named(fsview: Fsview, repo: Path, tree: Path, nobodys: Path) -> None:
    fsview("commit", "-b", "main", tree)  # imports what nobody may not be able to
    spec: Spec = {
        "open": b"open", "secret": File(b"s", mode=0), "d": {"secret too": File(b"s", mode=0o600), "ok": b""},
        "large": File(b"large" * 9000, owner=(65534, 0)),
    }  # fmt: skip
    theirs = build_tree(nobodys / "tree", {**spec, "closed": {}})
    (theirs / "closed").chmod(0o700)
    assert run_as_nobody(nobodys, "init", nobodys / "repo").status == 0
    commit = ("commit", "--repo", nobodys / "repo", "-b", "main", theirs)
    done = run_as_nobody(nobodys, *commit)
    assert (done.status, done.stdout) == (16, "")
    assert "can't be read, so nothing was committed" in done.stderr
    for name in ("secret", "d/secret too", "closed"):
        assert f"{theirs}/{name}: Permission denied" in done.stderr
    _nothing_committed(nobodys / "repo")
    done = run_as_nobody(nobodys, *commit, "--ignore=secret*", "--ignore=closed")
    assert (done.status, len(done.stdout), done.stderr) == (0, 65, "")
    assert_sound(nobodys / "repo")


def test_a_repository_of_somebody_elses(fsview: Fsview, repo: Path, tree: Path, nobodys: Path) -> None:
    fsview("commit", "-b", "main", tree)
    shutil.copytree(repo, nobodys / "repo")
    done = run_as_nobody(nobodys, "commit", "--repo", nobodys / "repo", "-b", "main", nobodys)
    assert done.status == 1 and "is not open to this user" in done.stderr and "Traceback" not in done.stderr
