"""`fsview diff`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from store.database import Reading
from store.listing import Listing
from store.repository import Repository
from store.schema import TreeId
from store.tree import load_listing
from tests.cli.conftest import NEW, OLD, Fsview, Releases
from tests.snapshots import differences
from tests.trees import build_tree
from tools.changes import diff_revisions

STATUS = {
    "/bin/tool": "M", "/binary": "M", "/etc": "M", "/etc/motd": "M", "/etc/noted": "M", "/gone": "D", "/gone/x": "D",
    "/gone/x/y": "D", "/large": "M", "/link": "M", "/new": "A", "/new/in": "A", "/new/in/j": "A", "/todir": "T",
    "/todir/i": "A", "/tofile": "T", "/tofile/z": "D",
}  # fmt: skip


def test_it_prints_the_lines_of_ostree(fsview: Fsview, ostree_repo: Path) -> None:
    expected = subprocess.run(
        ["ostree", "diff", f"--repo={ostree_repo}", "rel^", "rel"], capture_output=True, check=True
    )
    assert sorted(fsview("diff", "rel^", "rel").stdout.splitlines()) == sorted(expected.stdout.splitlines())


def test_name_status_lists_everything_in_order(fsview: Fsview) -> None:
    assert fsview("diff", "--name-status", "rel^", "rel").lines == [f"{kind}\t{path}" for path, kind in STATUS.items()]


def test_backwards_it_is_the_mirror_image(fsview: Fsview) -> None:
    mirrored = {path: {"A": "D", "D": "A"}.get(kind, kind) for path, kind in STATUS.items()}
    assert fsview("diff", "--name-status", "rel", "rel^").lines == [
        f"{kind}\t{path}" for path, kind in mirrored.items()
    ]


def test_with_z_names_are_as_they_are(fsview: Fsview) -> None:
    raw = fsview("diff", "-z", "--name-status", "rel^", "rel").stdout
    assert raw == "".join(f"{kind}\0{path}\0" for path, kind in STATUS.items()).encode()
    assert "-z goes with --name-status" in fsview("diff", "-z", "rel^", "rel", status=2).stderr


def test_stat_says_what_changed(fsview: Fsview) -> None:
    lines = dict(line.strip().split(" | ") for line in fsview("diff", "--stat", "rel^", "rel").lines[:-1])
    assert {path.strip(): text for path, text in lines.items()} == {
        "/bin/tool": "mode 00644 -> 00755",
        "/binary": "6 bytes, other content",
        "/etc": "mode 00755 -> 00750",
        "/etc/motd": "16 bytes, other content",
        "/etc/noted": "xattr user.k changed",
        "/gone": "directory deleted",
        "/gone/x": "directory deleted",
        "/gone/x/y": "file deleted, 2 bytes",
        "/large": "633.7 KiB, other content",
        "/link": "target bin/tool -> bin/sh",
        "/new": "directory added",
        "/new/in": "directory added",
        "/new/in/j": "file added, 2 bytes",
        "/todir": "file -> directory; mode 00644 -> 00755",
        "/todir/i": "file added, 2 bytes",
        "/tofile": "directory -> file; mode 00755 -> 00644",
        "/tofile/z": "file deleted, 2 bytes",
    }
    assert fsview("diff", "--stat", "rel^", "rel").lines[-1] == " 17 paths changed, 14 bytes added, 15 bytes removed"


def test_json_has_both_sides(fsview: Fsview) -> None:
    changes = {change["path"]: change for change in json.loads(fsview("diff", "--json", "rel^", "rel").stdout)}
    assert {path: change["status"] for path, change in changes.items()} == STATUS
    assert changes["/etc/motd"]["changed"] == ["content"]
    assert changes["/bin/tool"]["changed"] == ["mode 00644 -> 00755"]
    assert changes["/gone"]["new"] is None and changes["/new"]["old"] is None
    assert (changes["/etc"]["old"]["mode"], changes["/etc"]["new"]["mode"]) == ("00755", "00750")
    assert fsview("diff", "--json", "rel", "rel").stdout == b"[]\n"


def test_git_applies_the_patch(fsview: Fsview, tmp_path: Path) -> None:
    patch = fsview(
        "diff", "-p", "rel^", "rel", "--", "etc", "gone", "large", "link", "new", "todir", "tofile", "bin"
    ).stdout
    old = build_tree(tmp_path / "old", OLD)
    subprocess.run(["git", "init", "-q", old], check=True)
    subprocess.run(["git", "apply", "-"], input=patch, cwd=old, check=True)
    subprocess.run(["rm", "-r", old / ".git"], check=True)
    left = differences(old, build_tree(tmp_path / "new", NEW))
    assert {line.split(":")[0] for line in left} <= {"b'binary'", "b'etc'", "b'etc/noted'"}  # what a patch can't say


def test_patch_names_what_a_patch_cannot_say(fsview: Fsview) -> None:
    lines = fsview("diff", "-u", "rel^", "rel").lines
    for line in (
        "# /etc: mode 00755 -> 00750",
        "# /etc/noted: xattr user.k changed",
        "Binary files a/binary and b/binary differ",
        "+new world",
        "+LINE 30000",
        "old mode 100644",
        "new mode 100755",
    ):
        assert line in lines
    assert "diff --git a/etc/noted b/etc/noted" not in lines  # its content is the same


def test_no_program_named_diff(fsview: Fsview, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt install diffutils" in fsview("diff", "-p", "rel^", "rel", status=1).stderr


def test_paths_narrow_it(fsview: Fsview) -> None:
    assert fsview("diff", "--name-status", "rel^", "rel", "/etc").lines == ["M\t/etc", "M\t/etc/motd", "M\t/etc/noted"]
    assert fsview("diff", "--name-status", "rel^", "rel", "--", "gone/x", "new").lines == [
        "D\t/gone/x", "D\t/gone/x/y", "A\t/new", "A\t/new/in", "A\t/new/in/j",
    ]  # fmt: skip
    assert fsview("diff", "rel^", "rel", "/same").lines == []
    assert "neither in rel^ nor in rel" in fsview("diff", "rel^", "rel", "/nowhere", status=1).stderr


def test_places_in_revisions_are_compared(fsview: Fsview) -> None:
    assert fsview("diff", "--name-status", "rel^:/etc", "rel:/etc").lines == [
        "M\t/etc",
        "M\t/etc/motd",
        "M\t/etc/noted",
    ]
    assert fsview("diff", "--name-status", "rel:/same/deep", "rel:/same/again/deep").lines == []
    assert fsview("diff", "--name-status", "rel:/same", "rel:/same/again").lines == [
        "D\t/again",
        "D\t/again/deep",
        "D\t/again/deep/f",
    ]
    assert fsview("diff", "--stat", "rel:/etc/passwd", "rel:/etc/motd").lines[0] == " /etc/motd | 11 bytes -> 16 bytes"


@pytest.mark.parametrize(
    ("arguments", "status", "is_silent"),
    [
        (("rel^", "rel"), 0, False),
        (("--exit-code", "rel^", "rel"), 1, False),
        (("-q", "rel^", "rel"), 1, True),
        (("--exit-code", "rel", "rel"), 0, True),
        (("-q", "rel", "rel"), 0, True),
    ],
    ids=repr,
)
def test_exit_status(fsview: Fsview, arguments: tuple[str, ...], status: int, is_silent: bool) -> None:
    assert (fsview("diff", *arguments, status=status).stdout == b"") == is_silent


def test_equal_subtrees_are_not_looked_into(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no content is: the bytes of files are not even there."""
    loaded = 0

    def counting(reading: Reading, tree_id: TreeId) -> Listing:
        nonlocal loaded
        loaded += 1
        return load_listing(reading, tree_id)

    monkeypatch.setattr("tools.changes.load_listing", counting)
    with Repository.open(releases.repo) as repository, repository.database.reading() as reading:
        changes = list(diff_revisions(reading, "rel^", "rel", now_s=0))
    assert len(changes) == len(STATUS)
    assert loaded == 2 * len(("/", "/bin", "/etc")) + len(("/gone", "/gone/x", "/new", "/new/in", "/todir", "/tofile"))
