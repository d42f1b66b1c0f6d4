"""The merge of /etc: each rule by name, and trees of three sides at random."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import ConflictError, SysrootError
from tests.sysroot.etc_sides import Etc, Link, Tree, conflicts, read, write
from tools.sysroot.etc_changes import Change, Kind, find_changes
from tools.sysroot.etc_merge import Merge, fingerprint, merge_etc

D: dict[str, Any] = {"x": "1"}
NEW = ".fsview-new"
RULES: dict[str, tuple[Tree, Tree, Tree, Tree, list[tuple[str, str | None]]]] = {
    # name: old, own, new, merged, conflicts
    "nothing changed here": ({"a": "1"}, {"a": "1"}, {"a": "2", "b": "3"}, {"a": "2", "b": "3"}, []),
    "removed by the release": ({"a": "1"}, {"a": "1"}, {}, {}, []),
    "changed here": ({"a": "1"}, {"a": "2"}, {"a": "1"}, {"a": "2"}, []),
    "changed on both sides": ({"a": "1"}, {"a": "2"}, {"a": "3"}, {"a": "2", "a" + NEW: "3"}, [("a", "a" + NEW)]),
    "changed alike": ({"a": "1"}, {"a": "2"}, {"a": "2"}, {"a": "2"}, []),
    "changed here, removed there": ({"a": "1"}, {"a": "2"}, {}, {"a": "2"}, [("a", None)]),
    "changed here, a directory there": (
        {"a": "1"}, {"a": "2"}, {"a": D}, {"a": "2", "a" + NEW: D}, [("a", "a" + NEW)]),
    "changed here, a symlink there": (
        {"a": "1"}, {"a": "2"}, {"a": Link("b")}, {"a": "2", "a" + NEW: Link("b")}, [("a", "a" + NEW)]),
    "mode here, a symlink there": (
        {"a": "1"}, {"a": ("1", 0o600)}, {"a": Link("b")}, {"a": ("1", 0o600), "a" + NEW: Link("b")},
        [("a", "a" + NEW)]),
    "a file made a symlink, mode there": (
        {"a": "1"}, {"a": Link("b")}, {"a": ("1", 0o600)}, {"a": Link("b"), "a" + NEW: ("1", 0o600)},
        [("a", "a" + NEW)]),
    "a symlink made a file, retargeted there": (
        {"a": Link("b")}, {"a": ("2", 0o600)}, {"a": Link("c")}, {"a": ("2", 0o600), "a" + NEW: Link("c")},
        [("a", "a" + NEW)]),
    "mode here, content there": ({"a": "1"}, {"a": ("1", 0o600)}, {"a": "2"}, {"a": ("2", 0o600)}, []),
    "content here, mode there": ({"a": "1"}, {"a": "2"}, {"a": ("1", 0o600)}, {"a": ("2", 0o600)}, []),
    "mode on both sides": ({"a": "1"}, {"a": ("1", 0o600)}, {"a": ("1", 0o640)}, {"a": ("1", 0o600)}, [("a", None)]),
    "deleted here": ({"a": "1"}, {}, {"a": "1"}, {}, []),
    "deleted here, changed there": ({"a": "1"}, {}, {"a": "2"}, {"a" + NEW: "2"}, [("a", "a" + NEW)]),
    "deleted on both sides": ({"a": "1"}, {}, {}, {}, []),
    "a deleted directory that got more": (
        {"d": D}, {}, {"d": {**D, "y": "2"}}, {"d" + NEW: {**D, "y": "2"}}, [("d", "d" + NEW)]),
    "added here": ({}, {"a": "1", "d": {"e": {}}, "l": Link("a")}, {}, {"a": "1", "d": {"e": {}}, "l": Link("a")}, []),
    "added on both sides": ({}, {"a": "1"}, {"a": "2"}, {"a": "1", "a" + NEW: "2"}, [("a", "a" + NEW)]),
    "added alike": ({}, {"a": "1"}, {"a": "1"}, {"a": "1"}, []),
    "directories added on both sides": (
        {}, {"d": {"a": "1"}}, {"d": {"b": "2"}}, {"d": {"a": "1", "b": "2"}}, []),
    "a file here, a directory there": ({}, {"a": "1"}, {"a": D}, {"a": "1", "a" + NEW: D}, [("a", "a" + NEW)]),
    "a directory here, a file there": ({}, {"a": D}, {"a": "1"}, {"a": D, "a" + NEW: "1"}, [("a", "a" + NEW)]),
    "a file made a directory": ({"a": "1"}, {"a": D}, {"a": "1"}, {"a": D}, []),
    "a file made a directory, changed there": (
        {"a": "1"}, {"a": D}, {"a": "2"}, {"a": D, "a" + NEW: "2"}, [("a", "a" + NEW)]),
    "a directory made a symlink": ({"d": D}, {"d": Link("e")}, {"d": D}, {"d": Link("e")}, []),
    "a directory made a symlink, changed there": (
        {"d": D}, {"d": Link("e")}, {"d": {"x": "2"}}, {"d": Link("e"), "d" + NEW: {"x": "2"}}, [("d", "d" + NEW)]),
    "a symlink retargeted": ({"l": Link("a")}, {"l": Link("b")}, {"l": Link("a")}, {"l": Link("b")}, []),
    "a symlink on both sides": (
        {"l": Link("a")}, {"l": Link("b")}, {"l": Link("c")}, {"l": Link("b"), "l" + NEW: Link("c")},
        [("l", "l" + NEW)]),
    "changed in a directory that is gone": (
        {"d": {"x": "1", "y": "1"}}, {"d": {"x": "2", "y": "1"}}, {}, {"d": {"x": "2"}}, [("d", None), ("d/x", None)]),
    "changed in a directory that is a file now": (
        {"d": {"x": "1"}}, {"d": {"x": "1", "z": "3"}}, {"d": "file"}, {"d": {"z": "3"}, "d" + NEW: "file"},
        [("d", "d" + NEW)]),
    "an untouched directory that is a file now": ({"d": D}, {"d": D}, {"d": "file"}, {"d": "file"}, []),
    "left over and still of use": (
        {"a": "3"}, {"a": "2", "a" + NEW: "3"}, {"a": "3"}, {"a": "2", "a" + NEW: "3"}, []),
    "left over and of no more use": ({"a": "3"}, {"a": "3", "a" + NEW: "3"}, {"a": "3"}, {"a": "3"}, []),
    "left over from an older release": (
        {"a": "3"}, {"a": "2", "a" + NEW: "3"}, {"a": "4"}, {"a": "2", "a" + NEW: "4"}, [("a", "a" + NEW)]),
    "beside something of the admin's": (
        {"a": "1"}, {"a": "2", "a" + NEW: "mine"}, {"a": "3"},
        {"a": "2", "a" + NEW: "mine", "a" + NEW + ".2": "3"}, [("a", "a" + NEW + ".2")]),
    "left over beside something of the admin's": (
        {"a": "3"}, {"a": "2", "a" + NEW: "mine", "a" + NEW + ".2": "3"}, {"a": "4"},
        {"a": "2", "a" + NEW: "mine", "a" + NEW + ".2": "4"}, [("a", "a" + NEW + ".2")]),
    "left over beside something of the admin's, still of use": (
        {"a": "3"}, {"a": "2", "a" + NEW: "mine", "a" + NEW + ".2": "3"}, {"a": "3"},
        {"a": "2", "a" + NEW: "mine", "a" + NEW + ".2": "3"}, []),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str, tmp_path: Path) -> None:
    old, own, new, merged, found = RULES[rule]
    merge, result = Etc(tmp_path, old, own, new).merge()
    assert (result, conflicts(merge)) == (merged, found)


def test_counts_and_what_is_skipped(tmp_path: Path) -> None:
    etc = Etc(tmp_path, {"a": "1", "b": "1", "c": "1"}, {"a": "2", "b": "1", "n": {"m": "1"}}, {"a": "1", "c": "1"})
    os.mkfifo(etc.own / "fifo")
    merge, result = etc.merge()
    assert (merge.modified, merge.added, merge.deleted, merge.skipped) == (1, 2, 1, [b"fifo"])
    assert result == {"a": "2", "n": {"m": "1"}}


OLD_TEXT, OWN_TEXT, NEW_TEXT = (
    "one\ntwo\nthree\nfour\nfive\n",
    "ONE\ntwo\nthree\nfour\nfive\n",
    "one\ntwo\nthree\nfour\nFIVE\n",
)


def test_texts_whose_changes_do_not_overlap(tmp_path: Path) -> None:
    merge, result = Etc(tmp_path, {"a": OLD_TEXT}, {"a": OWN_TEXT}, {"a": (NEW_TEXT, 0o600)}).merge(text=True)
    assert result == {"a": ("ONE\ntwo\nthree\nfour\nFIVE\n", 0o600)}
    assert (merge.text_merged, merge.conflicts) == ([b"a"], [])


@pytest.mark.parametrize("new", [OWN_TEXT.lower().replace("one", "uno"), "\0" + OLD_TEXT, OLD_TEXT * 999 + "\0"])
def test_texts_that_overlap_and_what_is_no_text(new: str, tmp_path: Path) -> None:
    merge, result = Etc(tmp_path, {"a": OLD_TEXT}, {"a": OWN_TEXT}, {"a": new}).merge(text=True)
    assert (result, merge.text_merged) == ({"a": OWN_TEXT, "a" + NEW: new}, [])


def test_without_git_texts_are_not_merged_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etc = Etc(tmp_path, {"a": OLD_TEXT}, {"a": OWN_TEXT}, {"a": NEW_TEXT})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SysrootError, match="git is missing"):
        merge_etc(etc.old, etc.own, etc.new, None, text=True)


def test_etc_itself_has_a_name_in_conflicts(tmp_path: Path) -> None:
    etc = Etc(tmp_path, {}, {}, {})
    etc.own.chmod(0o700)
    etc.new.chmod(0o711)
    assert conflicts(merge_etc(etc.old, etc.own, etc.new, None)) == [(".", None)]


def test_long_names_that_are_cut_alike(tmp_path: Path) -> None:
    one, other = "n" * 254 + "1", "n" * 254 + "2"
    merge, result = Etc(tmp_path, {one: "1", other: "1"}, {}, {one: "3", other: "4"}).merge()
    beside = [next_to for _, next_to in conflicts(merge)]
    assert result == dict(zip(beside, ("3", "4"), strict=True))


def test_long_names_and_names_that_are_no_text(tmp_path: Path) -> None:
    long, odd = "n" * 255, os.fsdecode(b"\xff\xfe")
    merge, result = Etc(
        tmp_path, {long: "1", odd: "1"}, {long: "2", odd: "2"}, {long: "3", odd: "3"}
    ).merge()  # fmt: skip
    cut = "n" * (255 - len(NEW)) + NEW
    assert result == {long: "2", cut: "3", odd: "2", odd + NEW: "3"}
    assert {one.beside for one in merge.conflicts} == {os.fsencode(cut), b"\xff\xfe" + os.fsencode(NEW)}


@pytest.mark.parametrize("old", [{"a": "1"}, {}, {"a": {}}], ids=["changed", "added", "made a file"])
def test_what_differs_only_in_bytes_is_still_seen_after_the_merge(tmp_path: Path, old: Tree) -> None:
    etc = Etc(tmp_path, old, {"a": "2"}, {"a": "3"})
    for side in (etc.own, etc.new):
        os.utime(side / "a", (10, 10))
    etc.merge()
    (tmp_path / "settled").mkdir()
    shutil.copytree(etc.new, tmp_path / "pristine", copy_function=shutil.copy2)
    (etc.target / ("a" + NEW)).unlink()
    (tmp_path / "pristine").rename(tmp_path / "renamed")
    assert find_changes(tmp_path / "renamed", etc.target) == [Change(b"a", Kind.MODIFIED)]


def test_symlinks_are_never_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"a": "1"})
    etc = Etc(tmp_path, {"d": D}, {"d": Link(str(outside))}, {"d": {"x": "2"}})
    etc.merge()
    assert read(outside) == {"a": "1"}
    (tmp_path / "mode").mkdir()
    mode_here = Etc(tmp_path / "mode", {"f": "1"}, {"f": ("1", 0o600)}, {"f": Link(str(outside / "a"))})
    assert mode_here.merge()[1] == {"f": ("1", 0o600), "f" + NEW: Link(str(outside / "a"))}
    assert read(outside) == {"a": "1"}
    (tmp_path / "link").symlink_to(etc.own)
    with pytest.raises(SysrootError, match="a symlink, where an /etc should be"):
        find_changes(etc.old, tmp_path / "link")


def test_what_goes_away_meanwhile_is_a_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etc = Etc(tmp_path, {}, {"a": "1", "b": "2"}, {})
    real = os.lstat

    def lstat(path: Any, *rest: Any, **named: Any) -> os.stat_result:
        if os.fsencode(path) == os.fsencode(etc.target / "a"):
            (etc.own / "b").unlink(missing_ok=True)
        return real(path, *rest, **named)

    shutil.copytree(etc.new, etc.target)
    monkeypatch.setattr("tools.sysroot.etc_writing.os.lstat", lstat)
    with pytest.raises(ConflictError, match="went away"):
        merge_etc(etc.old, etc.own, etc.new, etc.target)


@pytest.mark.parametrize("swapped", ["d", "d/e"])
def test_who_owns_a_directory_cannot_lead_the_merge_elsewhere(
    swapped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = write(tmp_path / "secret", {"e": {"x": "secret"}, "x": "secret"})
    etc = Etc(tmp_path, {}, {"d": {"e": {"x": "1"}}}, {})
    shutil.copytree(etc.new, etc.target)

    def mkdir(path: Any, *rest: Any) -> None:
        if os.fsencode(path) == os.fsencode(etc.target / "d" / "e"):  # d/e was seen, what is in it not yet
            (etc.own / swapped).rename(tmp_path / "away")
            (etc.own / swapped).symlink_to(secret)
        real(path, *rest)

    real = os.mkdir
    monkeypatch.setattr("tools.sysroot.etc_writing.os.mkdir", mkdir)
    with pytest.raises(ConflictError, match="while /etc was read"):
        merge_etc(etc.old, etc.own, etc.new, etc.target)
    assert list((etc.target / "d" / "e").iterdir()) == []


def test_fingerprints(tmp_path: Path) -> None:
    etc = write(tmp_path / "etc", {"a": "1", "d": {"b": "2"}})
    seen = fingerprint(etc)
    assert fingerprint(etc) == seen
    for edit in (
        lambda: (etc / "a").chmod(0o600),
        lambda: (etc / "d" / "b").write_text("3"),
        lambda: (etc / "d" / "c").symlink_to("b"),
        lambda: (etc / "a").rename(etc / "z"),
    ):
        edit()
        assert fingerprint(etc) != seen
        seen = fingerprint(etc)


NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.one_of(st.sampled_from(["1", "2", "3"]), st.sampled_from([("1", 0o600), ("2", 0o640)]), st.just(Link("a")))
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3),
    lambda below: st.dictionaries(NAMES, st.one_of(LEAVES, below), max_size=3),
    max_leaves=6,
)


@given(TREES, TREES, TREES)
def test_nothing_is_lost_without_a_word(old: Tree, own: Tree, new: Tree) -> None:
    with tempfile.TemporaryDirectory() as name:
        etc = Etc(Path(name), old, own, new)
        merge, result = etc.merge()
        told = {one.path for one in merge.conflicts}
        before, mine, theirs, merged = (_flat(tree) for tree in (old, own, new, result))
        assert {one.path for one in find_changes(etc.old, etc.own)} == {
            path
            for path in before.keys() | mine.keys()
            if before.get(path) != mine.get(path) and _is_listed(path, mine)
        }
        for path in before.keys() | mine.keys() | theirs.keys():
            if told & _above(path):
                continue
            for old_one, own_one, new_one, found in zip(
                *(tree.get(path, _NOTHING) for tree in (before, mine, theirs, merged)), strict=True
            ):
                assert found == (own_one if own_one != old_one else new_one), path
        modes = {0o644, None, *(mode for tree in (before, mine, theirs) for _, mode in tree.values())}
        assert modes >= {mode for _, mode in merged.values()}
        for one in merge.conflicts:
            if one.beside is not None:
                assert _at(result, one.beside) == _at(new, one.path)


@given(TREES, TREES)
def test_where_one_side_changed_nothing_the_other_wins(one: Tree, other: Tree) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "x").mkdir()
        (Path(name) / "y").mkdir()
        merge, result = Etc(Path(name) / "x", one, one, other).merge()
        assert (result, merge) == (read(Path(name) / "x" / "new"), Merge())
        merge, result = Etc(Path(name) / "y", one, other, one).merge()
        assert (result, merge.conflicts) == (read(Path(name) / "y" / "own"), [])


_NOTHING = (None, None)


def _flat(tree: Tree, above: str = "") -> dict[bytes, tuple[object, object]]:
    """Return contents and mode by path."""
    found: dict[bytes, tuple[object, object]] = {}
    for name, value in tree.items():
        path = (above + name).encode()
        if isinstance(value, Mapping):
            found[path] = ("directory", None)
            found |= _flat(value, above + name + "/")
        elif isinstance(value, tuple):
            found[path] = value
        else:
            found[path] = (("link", str(value)), None) if isinstance(value, Link) else (value, 0o644)
    return found


def _is_listed(path: bytes, mine: Mapping[bytes, object]) -> bool:
    """Whether a change is listed: not below what was deleted, or is no directory any more."""
    above = path.rpartition(b"/")[0]
    return not above or mine.get(above) == ("directory", None)


def _at(tree: Tree, path: bytes) -> Any:
    here: Any = tree
    for name in path.decode().split("/"):
        here = here.get(name) if isinstance(here, Mapping) else None
    return here


def _above(path: bytes) -> set[bytes]:
    parts = path.split(b"/")
    return {b"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
