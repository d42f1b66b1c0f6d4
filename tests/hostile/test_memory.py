"""What is read whole or by lines, of files, metadata and settings that may be anybody's: in bounded memory and time."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import bounds, gvariant
from store.bounds import METADATA_BYTES_MAX
from store.errors import FormatError, InvalidNameError, SourceError, SysrootError
from store.gvariant import Variant
from store.objects import Commit, unpack_detached
from store.repository import SETTINGS_FILE, Repository
from tests.conftest import TreeFactory
from tests.forge import forge
from tests.hostile.test_large import at_most
from tests.peak import run_measured
from tests.running import RunFsview
from tools import searching
from tools.packages import listing
from tools.packages.rpm_header import Header
from tools.packages.tree import DirectoryTree
from tools.patterns import IgnoreFiles, compile_patterns
from tools.searching import compile_pattern, matching_lines
from tools.signing.trusted import TrustedKeys
from tools.sysroot import etc_text
from tools.sysroot.etc_tree import opened
from tools.sysroot.origin import Origin
from tools.sysroot.settings import SysrootSettings
from tools.workspace_state import home_of, load

PEAK_MIB_MAX = 120
LINE_BYTES = 80 << 20
LINES = 1_100_000


@pytest.fixture
def large(tmp_path: Path, make_repo: Callable[..., Path], run_fsview: RunFsview) -> Path:
    """Return a repository in which one line of 80 MiB, and more than a million lines, change."""
    repo, tree = make_repo(), tmp_path / "tree"
    tree.mkdir()
    for last in (b"a", b"b"):
        with open(tree / "line", "wb") as file:
            file.write(b"x" * 9000)
            file.truncate(LINE_BYTES)  # zeros, but where it is looked at whether it is binary
            file.write(b"needle" + last)
            file.seek(LINE_BYTES)
            file.write(b"needle" + last)
        (tree / "lines").write_bytes(b"x\n" * LINES + last)
        run_fsview("commit", "-b", "main", tree, repo=repo)
    return repo


def test_grep_and_patches(tmp_path: Path, large: Path) -> None:
    found = run_measured(tmp_path, large, "grep", "-n", "needle", "main")
    assert "main:/line:1:(a line of more than 8.0 MiB, too large to be shown)\n" in found.stdout
    assert found.peak_mib < PEAK_MIB_MAX
    differs = "Binary files a/line and b/line differ"
    for arguments, wanted in (
        (("grep", "-c", "x", "main", "--", "lines"), [f"main:/lines:{LINES}\n"]),
        (("grep", "--json", "x$", "main", "--", "lines"), [f'{{"number": {LINES}, "text": "x"}}]}}\n]\n']),
        (
            ("diff", "-p", "main^", "main"),
            [differs, "/lines: too large to be compared line by line, which is for up to"],
        ),
        (("log", "-p", "-n1", "main"), [differs, "# /line: too large to be compared line by line"]),
    ):
        found = run_measured(tmp_path, large, *arguments)
        assert all(text in found.stdout for text in wanted) and found.peak_mib < PEAK_MIB_MAX, (arguments, found)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def close(self) -> None:
        pass


@pytest.fixture
def _short_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("LINE_BYTES_MAX", 40), ("PIECE_BYTES", 10), ("CHUNK_BYTES", 16)):
        monkeypatch.setattr(searching, name, value)
    yield


@pytest.mark.usefixtures("_short_lines")
@pytest.mark.parametrize(
    "pattern", [b"aba", b"^b?ca", b"c$", b"b{1,6}c", rb"\bab", rb"\Ac", rb"c\Z", b"(?<=ab)c", b"^$"]
)
def test_long_lines_match_as_short_ones(pattern: bytes) -> None:
    """What matches in up to PIECE_BYTES is found in a line of any length, and nothing else is."""

    @given(st.lists(st.text("abc ", max_size=200), max_size=6))
    def check(lines: list[str]) -> None:
        data = "\n".join(lines).encode()
        compiled = compile_pattern(pattern)
        expected = [n for n, line in enumerate(data.split(b"\n"), 1) if re.search(pattern, line)]
        if data.endswith(b"\n") or not data:  # no line begins there
            expected = [n for n in expected if n <= data.count(b"\n")]
        found = list(matching_lines(_Bytes(data), compiled))
        assert [line.number for line in found] == expected
        shown = {line.number: line.text for line in found if line.text is not None}
        assert all(data.split(b"\n")[number - 1] == text for number, text in shown.items())

    check()


def test_many_values_in_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gvariant, "VALUES_MAX", 100_000)
    nested = "a" + "(" * 30 + "y" + ")" * 30
    for signature, size in ((nested, 4_000), ("a()", 200_000), ("ab", 200_000), ("aay", 0)):
        data = bytes(size) + b"\0" + signature.encode()
        if signature == "aay":
            data = bytes(4 * 110_000) + data
        with at_most(60), pytest.raises(FormatError, match="more than 100,000 values"):
            gvariant.unpack("v", data)


def test_metadata_of_more_than_ten_mebibytes(tmp_path: Path) -> None:
    large = (("k", Variant("ay", bytes(METADATA_BYTES_MAX))),)
    raw = gvariant.pack("a{sv}", list(large))
    with pytest.raises(FormatError, match="may have"):
        unpack_detached(raw)
    with pytest.raises(FormatError, match="may have"):
        Commit.from_bytes(bytes(METADATA_BYTES_MAX + 1))
    too_large = pytest.raises(InvalidNameError, match="texts and metadata may have")
    with Repository.create(tmp_path / "repo") as repository, forge(repository) as work, too_large:
        work.publish(work.tree(), message=("subject", "b" * METADATA_BYTES_MAX))


def test_a_symlink_that_no_system_can_have(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "repo") as repository, forge(repository) as work:
        work.publish(work.tree({b"l": work.symlink(b"t" * 4095)}))
        with pytest.raises(InvalidNameError, match="target may have 4095 bytes"):
            work.symlink(b"t" * 4096)


@pytest.mark.unchecked
@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "#" * (2 << 20)], ids=["nested", "large"])
def test_settings(tmp_path: Path, text: str) -> None:
    path = tmp_path / SETTINGS_FILE
    path.write_text(text)
    for read in (SysrootSettings.load, Origin.load):
        with pytest.raises((FormatError, SysrootError), match=re.escape(str(path))):
            read(path)
    with pytest.raises(FormatError, match=re.escape(str(path))):
        Repository.open(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, " " * (2 << 20)], ids=["nested", "large"])
def test_a_workspace(tmp_path: Path, text: str) -> None:
    home = home_of(tmp_path / "work")
    home.mkdir()
    (home / "workspace.json").write_text(text)
    with pytest.raises(FormatError, match="workspace"):
        load(tmp_path / "work")


def test_lists_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with open(path, "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(FormatError, match="more than 64 MiB"):
        TrustedKeys.load([path])
    path.write_bytes(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" + (b"a:" * 30 + b"\n") * 30)
    with at_most(20), pytest.raises(FormatError, match="damaged"):
        TrustedKeys.load([path])


def test_more_packages_than_a_system_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_PACKAGES_MAX", 100)
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    for count in (100, 101):
        status.write_text("\n".join(f"Package: p{n}\nVersion: 1\n" for n in range(count)))
        if count == 100:
            assert len(listing.list_packages(DirectoryTree(tmp_path))) == 100
    with pytest.raises(FormatError, match="more than 100 packages"):
        listing.list_packages(DirectoryTree(tmp_path))


def test_an_rpm_header_of_very_many_entries() -> None:
    with pytest.raises(ValueError, match="70000 entries"):
        Header((70_000).to_bytes(4, "big") + bytes(4 + 16 * 70_000))


def test_patterns_of_a_tree_are_linear() -> None:
    is_ignored = compile_patterns(["*a" * 30 + "*b", "/".join(["**/a*a"] * 20) + "/b"])
    with at_most(20):
        assert not is_ignored(b"a" * 255, False)
        assert not is_ignored(b"/".join([b"a" * 20] * 1000), False)
        assert is_ignored(b"a" * 200 + b"b", False) and is_ignored(b"aa/" * 20 + b"b", False)


def _git_ignores(directory: Path, patterns: list[str], paths: list[str]) -> set[str]:
    (directory / ".gitignore").write_text("\n".join(patterns))
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin", "-z"],
        input="\0".join(paths).encode(), cwd=directory, capture_output=True,
    )  # fmt: skip
    return {name for name in done.stdout.decode().split("\0") if name}


def test_patterns_mean_what_git_means(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    patterns = ["*a*b*c", "x/**/y/**/z", "**/q*r/**/s", "/t?*u", "v*/w**"]
    paths = ["aXbXc", "abcab", "d/a-b-c", "x/y/z", "x/1/y/2/3/z", "x/z", "qr/s", "1/q22r/3/s", "qr/r", "t1u", "tu",
             "v/w", "v1/w2", "1/t1u", "abc/d"]  # fmt: skip
    expected = _git_ignores(tmp_path, patterns, paths)
    is_ignored = compile_patterns(patterns)
    assert {path for path in paths if is_ignored(path.encode(), False)} == expected and len(expected) > 6


def test_ignore_files_within_each_other(tmp_path: Path) -> None:
    """More of them than Python's stack has room for."""
    (tmp_path / "patterns").write_text("*.o\n")
    files = IgnoreFiles()
    for level in range(1500):
        files = files.with_file(b"/d" * level, os.fsencode(tmp_path / "patterns"))
    assert files(b"/d" * 1500 + b"/x.o", False) and not files(b"/d" * 1500 + b"/x.c", False)


def test_ignore_files_that_are_large(tmp_path: Path, tree_factory: TreeFactory) -> None:
    file = os.fsencode(tmp_path / "patterns")
    (tmp_path / "patterns").write_bytes(b"pattern\n" * 20_000)
    once = IgnoreFiles().with_file(b"/a", file)
    with pytest.raises(SourceError, match=r"more than 256\.0 KiB of patterns"):
        once.with_file(b"/a/b", file)


def test_texts_of_very_many_lines_are_not_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etc_text, "_TEXT_LINES_MAX", 5)
    for name, text in (("old", "a\nb\nc\nd\n"), ("own", "A\nb\nc\nd\n"), ("new", "a\nb\nc\nD\n")):
        (tmp_path / name).write_text(text)
    with opened(tmp_path) as (top,):
        nodes = [top.children()[name] for name in (b"old", b"own", b"new")]
        assert etc_text.merge_text(*nodes) == b"A\nb\nc\nD\n"
        (tmp_path / "new").write_text("a\nb\nc\nD\ne\nf\ng\n")
        nodes[2] = top.children()[b"new"]
        assert etc_text.merge_text(*nodes) is None


def test_a_long_path_is_named_by_its_beginning() -> None:
    assert bounds.shortened(b"/d" * 5000) == "/d" * 127 + "/…"
    assert bounds.shortened(b"/a\x1b[31m") == "/a\\x1b[31m"
