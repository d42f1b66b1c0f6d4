"""fsview debug: every record, node number and object can be shown; what is none is told apart."""

from __future__ import annotations

import hashlib
import json

import pytest

from fsview import nodeid
from fsview.nodeid import COMMITS, directory_node, link_node
from fsview.rank import EntryRank, Rank
from store.schema import DATABASES, FIRST_ID, CommitNumber
from tests.cli.conftest import LARGE, Fsview, Releases


@pytest.mark.parametrize("name", [name.decode() for name in DATABASES])
def test_every_record_is_shown(fsview: Fsview, name: str) -> None:
    keys = json.loads(fsview("debug", "record", "--json", name).stdout)
    assert fsview("debug", "record", name).lines == [key for key in keys if "\n" not in key]
    for key in keys:
        found = json.loads(fsview("debug", "record", "--json", name, key).stdout)
        assert found.pop("key") == key and found
        assert fsview("debug", "record", name, key).lines[0].startswith("key: ")


def test_the_secret_is_not_shown(fsview: Fsview) -> None:
    assert fsview("debug", "record", "head", "secret").lines == ["key: secret", "bytes: (secret)"]


@pytest.mark.parametrize(
    "name, key", [("file", "x"), ("file", "-1"), ("object", "a,b"), ("reflog", "1"), ("stat", "zz")]
)
def test_a_key_that_is_none(fsview: Fsview, name: str, key: str) -> None:
    assert "is no key of" in fsview("debug", "record", name, "--", key, status=2).stderr


@pytest.mark.parametrize("name, key", [("file", "1"), ("ref", "nothing"), ("ref", ""), ("object", "file,00")])
def test_a_record_that_is_not_there(fsview: Fsview, name: str, key: str) -> None:
    assert "has no record" in fsview("debug", "record", name, key, status=1).stderr


def _row(fsview: Fsview, path: str) -> dict[str, str]:
    rows = json.loads(fsview("ls", "-R", "--json", "rel").stdout)
    return next(row for row in rows if row["path"] == path)


def test_an_object_raw_has_its_checksum(fsview: Fsview, releases: Releases) -> None:
    for path, kind in (("/large", "checksum"), ("/link", "checksum"), ("/etc", "dirtree"), ("/etc", "dirmeta")):
        checksum = _row(fsview, path)[kind]
        raw = fsview("debug", "object", "--raw", checksum).stdout
        assert hashlib.sha256(raw).hexdigest() == checksum
        assert (LARGE.replace(b"line 30000\n", b"LINE 30000\n") in raw) == (path == "/large")
    assert hashlib.sha256(fsview("debug", "object", "--raw", releases.new).stdout).hexdigest() == releases.new


def test_objects_as_text(fsview: Fsview, releases: Releases) -> None:
    commit = json.loads(fsview("debug", "object", "--json", releases.new).stdout)
    assert (commit["type"], commit["subject"], commit["parent"]) == ("commit", "The new one", releases.old)
    assert commit["metadata"] == {"version": "'new'", "ostree.ref-binding": "['rel']"}
    tree = json.loads(fsview("debug", "object", "--json", commit["root_dirtree"][:20]).stdout)
    assert set(tree["dirs"]) == {"bin", "etc", "new", "same", "todir"} and "new\nline" in tree["files"]
    assert "mode: 40755" in fsview("debug", "object", commit["root_dirmeta"]).lines
    assert "symlink_target: bin/sh" in fsview("debug", "object", _row(fsview, "/link")["checksum"]).stdout.decode()


def test_objects_that_are_none(fsview: Fsview) -> None:
    assert "no object here" in fsview("debug", "object", "0" * 64, status=1).stderr
    assert "is not a checksum" in fsview("debug", "object", "main", status=2).stderr


def test_a_short_abbreviation_may_be_of_several(fsview: Fsview) -> None:
    firsts = [key.partition(",")[2][0] for key in fsview("debug", "record", "object").lines]
    several = max(firsts, key=firsts.count)
    assert "several objects" in fsview("debug", "object", several, status=1).stderr


def test_node_numbers(fsview: Fsview, releases: Releases) -> None:
    below, top = directory_node(CommitNumber(FIRST_ID), Rank(2)), directory_node(CommitNumber(FIRST_ID + 1), Rank(0))
    found = json.loads(fsview("debug", "nodeid", "--json", str(below)).stdout)
    assert (found["kind"], found["commit"], found["path"]) == ("Directory", releases.old, "/etc")
    root = json.loads(fsview("debug", "nodeid", "--json", hex(top)).stdout)
    assert (root["path"], root["commit"]) == ("/", releases.new)
    assert "path: /commits" in fsview("debug", "nodeid", str(COMMITS)).lines
    assert f"commit: {releases.old}" in fsview("debug", "nodeid", str(link_node(1, CommitNumber(FIRST_ID)))).lines
    first = CommitNumber(FIRST_ID)
    for node, line in (
        (nodeid.Versioned(first, EntryRank(0)), "path: /"), (nodeid.GoneLink(first, EntryRank(1)), "entry_rank: 1"),
        (nodeid.Info(first, 9), "item: 9"), (nodeid.SiblingLink(2, first), "up: 2"),
        (nodeid.Date(2025, 11, 23), "month: 11"), (nodeid.Remote(7), "name_hash: 7"),
        (nodeid.StatusFile(3), "number: 3"), (nodeid.Fixed(nodeid.BY_DATE), "path: /by-date"),
    ):  # fmt: skip
        lines = fsview("debug", "nodeid", hex(nodeid.virtual_node(node))).lines
        assert line in lines and f"kind: {type(node).__name__}" in lines
    assert json.loads(fsview("debug", "nodeid", "--json", str(FIRST_ID)).stdout)["kind"] == "File"


@pytest.mark.parametrize(
    "number, status", [("5", 1), (str(2**64), 1), ("-1", 1), ("x", 2), (hex(1 << 62 | 1024 << 32 | 99), 1)]
)
def test_node_numbers_that_are_none(fsview: Fsview, number: str, status: int) -> None:
    fsview("debug", "nodeid", "--", number, status=status)


def test_a_listing(fsview: Fsview) -> None:
    tree_id = json.loads(fsview("debug", "record", "--json", "commit", str(FIRST_ID)).stdout)["tree_id"]
    rows = json.loads(fsview("debug", "listing", "--json", str(tree_id)).stdout)
    names = [row["name"] for row in rows]
    assert names == sorted(names) and "etc" in names
    assert len(fsview("debug", "listing", str(tree_id)).lines) == 1 + len(rows)
    assert "no dirtree with id 5" in fsview("debug", "listing", "5", status=1).stderr


def test_stats(fsview: Fsview) -> None:
    found = json.loads(fsview("debug", "stats", "--json").stdout)
    assert found["records"]["commit"] == 2 and found["files"]["loose"].startswith("2 (")
    assert "    commit: 2" in fsview("debug", "stats").lines
