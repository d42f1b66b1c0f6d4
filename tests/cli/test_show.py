"""`fsview show`, `ls` and `cat`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import LARGE, Fsview, Releases


def _ostree(repo: Path, *arguments: str) -> bytes:
    return subprocess.run(["ostree", f"--repo={repo}", *arguments], capture_output=True, check=True).stdout


def test_show_tells_everything_of_a_commit(fsview: Fsview, releases: Releases) -> None:
    lines = fsview("show", "rel^").lines
    assert lines[0] == f"commit {releases.old}"
    for line in ("Date:  2020-01-01 00:00:00 +0000", "Version: old", "    version: 'old'", "    About the"):
        assert line in lines
    assert "    ostree.ref-binding: ['rel']" in lines
    assert "Entries:  23, of these 9 directories" in lines
    assert not [line for line in lines if line.startswith("Refs:")]
    assert "Refs:  rel" in fsview("show", "rel").lines


def test_show_json(fsview: Fsview, releases: Releases) -> None:
    shown = json.loads(fsview("show", "--json", "rel").stdout)
    assert (shown["commit"], shown["parent"], shown["refs"]) == (releases.new, releases.old, ["rel"])
    assert shown["metadata"] == {"version": "'new'", "ostree.ref-binding": "['rel']"}
    assert shown["dirtree"] == fsview("rev-parse", "rel:/").lines[0]


def test_show_of_one_metadata_value(fsview: Fsview) -> None:
    assert fsview("show", "--print-metadata-key=version", "rel").lines == ["'new'"]
    assert "it has: version" in fsview("show", "--print-metadata-key=x", "rel", status=1).stderr


def test_show_of_objects(fsview: Fsview) -> None:
    tool = fsview("show", "rel:/bin/tool").lines
    assert tool[0].startswith("file ") and "Size:  17" in tool
    assert any(line.startswith("Kind:  file, mode 00755, owner ") for line in tool)
    assert "Target:  tool" in fsview("show", "rel:/bin/sh").lines
    assert "Entries:  1, of these 0 directories" in fsview("show", "rel:/same/deep").lines
    assert "Xattrs:  [(b'user.k', [byte 0x77])]" in fsview("show", "rel:/etc/noted").lines
    assert json.loads(fsview("show", "--json", "rel:/etc/noted").stdout)["xattrs"] == {"user.k": "77"}


@pytest.mark.parametrize(
    "arguments",
    [(), ("-R",), ("-C",), ("-X",), ("-R", "-C", "-X"), ("-d",), ("/etc", "/bin"), ("-d", "/etc"), ("/etc/motd",)],
    ids=" ".join,
)
def test_ls_prints_what_ostree_prints(fsview: Fsview, ostree_repo: Path, arguments: tuple[str, ...]) -> None:
    options = [argument for argument in arguments if argument.startswith("-")]
    paths = [argument for argument in arguments if not argument.startswith("-")]
    expected = _ostree(ostree_repo, "ls", *options, "rel", *paths)
    quoted = expected.replace(b"/new\nline", b'"/new\\nline"')  # our lines stay lines
    assert fsview("ls", *options, "rel", *paths).stdout == quoted


def test_ls_of_a_path_in_a_revision(fsview: Fsview) -> None:
    assert fsview("ls", "rel:/bin").lines == fsview("ls", "rel", "bin/").lines
    assert fsview("ls", "rel:/same", "deep").lines == fsview("ls", "rel", "/same/deep").lines


def test_ls_with_nul_gives_the_names_as_they_are(fsview: Fsview, ostree_repo: Path) -> None:
    names = fsview("ls", "-Rz", "rel").stdout
    assert b"\0/new\nline\0" in names
    assert names == _ostree(ostree_repo, "ls", "-R", "--nul-filenames-only", "rel")


def test_ls_json(fsview: Fsview) -> None:
    entries = {entry["path"]: entry for entry in json.loads(fsview("ls", "-R", "--json", "rel").stdout)}
    assert entries["/bin/sh"]["target"] == "tool"
    assert entries["/large"]["size"] == len(LARGE)
    assert entries["/"]["type"] == "directory" and "/new\nline" in entries


def test_cat_writes_exactly_the_bytes(fsview: Fsview) -> None:
    assert fsview("cat", "rel^", "/large").stdout == LARGE
    assert fsview("cat", "rel:/binary").stdout == b"\0\1new\n"
    assert fsview("cat", "rel", "/new/in/j", "bin/tool").stdout == b"3\n#!/bin/sh\necho 1\n"
    assert fsview("cat", "rel:/etc", "passwd").stdout == b"root:x:0:0\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("cat", "rel", "/etc"), 1, "/etc is a directory; 'fsview ls' lists it"),
        (("cat", "rel", "/bin/sh"), 1, "/bin/sh is a symlink to tool"),
        (("cat", "rel", "/etc/passwd", "/nowhere"), 1, "/nowhere does not exist in this commit"),
        (("cat", "rel", "/etc/passwd/x"), 1, "/etc/passwd is not a directory"),
        (("cat", "rel"), 2, "name a file"),
        (("ls", "rel", "/../etc"), 1, "/.. does not exist"),
        (("ls", "nowhere"), 1, "no ref, commit or abbreviation"),
        (("ls", "rel~7"), 1, "is the first commit and has no parent"),
        (("show", "rel:/nowhere"), 1, "/nowhere does not exist"),
    ],
    ids=repr,
)
def test_what_is_not_there_is_named(fsview: Fsview, arguments: tuple[str, ...], status: int, message: str) -> None:
    done = fsview(*arguments, status=status)
    assert message in done.stderr and done.stdout == b""
