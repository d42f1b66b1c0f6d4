"""`fsview grep`."""

from __future__ import annotations

import json
import re

import pytest

from store.content import Content, open_content
from store.database import Reading
from store.repository import Repository
from store.revisions import find_place
from store.schema import FileId
from tests.cli.conftest import Fsview, Releases
from tools.grep import Search, grep
from tools.searching import compile_pattern, matching_lines


def test_lines_with_revision_and_path(fsview: Fsview) -> None:
    assert fsview("grep", "world", "rel", "rel^").lines == ["rel:/etc/motd:new world", "rel^:/etc/motd:old world"]
    assert fsview("grep", "-n", "world", "rel").lines == ["rel:/etc/motd:2:new world"]
    assert fsview("grep", "^equal$", "rel").lines == ["rel:/same/again/deep/f:equal", "rel:/same/deep/f:equal"]


@pytest.mark.parametrize("revision", ["rel", "rel:", "rel:/", "rel:/etc", "rel:etc/motd", "rel@{@9999999999}:/etc"])
def test_what_it_prints_names_the_place(fsview: Fsview, revision: str) -> None:
    place = fsview("grep", "-n", "new w", revision).lines[0].rsplit(":", 2)[0]
    assert fsview("cat", place).stdout == b"hello\nnew world\n"


def test_names_and_counts(fsview: Fsview) -> None:
    assert fsview("grep", "-l", "o", "rel", "--", "/etc").lines == ["rel:/etc/motd", "rel:/etc/passwd"]
    assert fsview("grep", "-c", "o", "rel", "--", "/etc").lines == ["rel:/etc/motd:2", "rel:/etc/passwd:1"]


def test_large_files_are_numbered_across_blocks(fsview: Fsview) -> None:
    assert fsview("grep", "-n", "(?i)^line 30000$", "rel").lines == ["rel:/large:30001:LINE 30000"]
    assert fsview("grep", "-ni", "^line 59999$", "rel").lines == ["rel:/large:60000:line 59999"]


def test_fixed_strings_and_case(fsview: Fsview) -> None:
    assert fsview("grep", "-F", "x:0", "rel").lines == ["rel:/etc/passwd:root:x:0:0"]
    assert fsview("grep", "-F", "r..t", "rel", status=1).lines == []
    assert fsview("grep", "-i", "ROOT", "rel").lines == ["rel:/etc/passwd:root:x:0:0"]


def test_binary_files_and_odd_names(fsview: Fsview) -> None:
    assert fsview("grep", "new$", "rel").lines == ["Binary file rel:/binary matches"]
    assert fsview("grep", "odd name", "rel").lines == ['rel:"/new\\nline":odd name']


def test_json(fsview: Fsview) -> None:
    (match,) = json.loads(fsview("grep", "--json", "new world", "rel").stdout)
    assert match == {
        "revision": "rel", "path": "/etc/motd", "binary": False, "lines": [{"number": 2, "text": "new world"}],
    }  # fmt: skip
    assert fsview("grep", "--json", "zzz", "rel", status=1).stdout == b"[]\n"


def test_a_pattern_that_begins_with_a_dash(fsview: Fsview) -> None:
    assert fsview("grep", "-e", "-x", "rel", status=1).lines == []
    assert fsview("grep", "-e", "root", "rel", "rel^").lines == [
        "rel:/etc/passwd:root:x:0:0",
        "rel^:/etc/passwd:root:x:0:0",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("zzz", "rel"), 1, ""),
        (("(", "rel"), 2, "is not a regular expression"),
        (("x",), 2, "at least one revision"),
        ((), 2, "at least one revision"),
        (("x", "nowhere"), 1, "no ref, commit or abbreviation"),
        (("x", "rel", "--", "/nowhere"), 1, "/nowhere exists in none of rel"),
    ],
    ids=repr,
)
def test_nothing_and_errors(fsview: Fsview, arguments: tuple[str, ...], status: int, message: str) -> None:
    done = fsview("grep", *arguments, status=status)
    assert message in done.stderr and bool(message) == bool(done.stderr)


def test_a_path_in_one_of_two_revisions_is_enough(fsview: Fsview) -> None:
    assert fsview("grep", "3", "rel^", "rel", "--", "new").lines == ["rel:/new/in/j:3"]


def test_each_distinct_content_is_read_once(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counting(repository: Repository, reading: Reading, file_id: FileId) -> Content:
        read.append(file_id)
        return open_content(repository, reading, file_id)

    monkeypatch.setattr("tools.grep.open_content", counting)
    with Repository.open(releases.repo) as repository, repository.database.reading() as reading:
        places = [(text, find_place(reading, text, now_s=0)) for text in ("rel", "rel^", "rel")]
        search = Search(repository, reading, compile_pattern(b"e"))
        found = list(grep(search, places, [b""]))
    assert len(read) == len(set(read))
    assert [match.path for match in found if match.revision == "rel"].count(b"/same/deep/f") == 2


@pytest.mark.parametrize("pattern", [rb"\Aline", rb"x$", rb"a(?!\n)", rb"[^x]*+$", rb"^$", rb"\s", rb"b\Z"])
def test_a_pattern_sees_one_line(pattern: bytes) -> None:
    """What the whole block says is only a hint."""
    data = b"line x\nline a\n\nb\nlast line b"

    class OneContent:
        def read(self, offset: int, size: int) -> bytes:
            return data[offset : offset + size]

        def close(self) -> None:
            pass

    compiled = compile_pattern(pattern)
    expected = [(n, line) for n, line in enumerate(data.split(b"\n"), 1) if re.search(pattern, line)]
    found = list(matching_lines(OneContent(), compiled))
    assert found == expected
