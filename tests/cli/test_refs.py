"""`fsview refs`, `tag` and `rev-parse`."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Fsview, Releases


def test_refs_are_made_moved_and_deleted(fsview: Fsview, own_releases: Releases) -> None:
    fsview("refs", "--create=a/b/stable", "rel^")
    assert fsview("refs").lines == ["a/b/stable", "rel"]
    fsview("refs", "--move", "a/b/stable", "a/b")  # a/b is no directory any more, once the ref has left it
    assert fsview("refs", "-r").lines == [f"a/b\t{own_releases.old}", f"rel\t{own_releases.new}"]
    fsview("refs", "--delete", "a")
    assert fsview("refs").lines == ["rel"]


def test_a_prefix_is_left_out_as_in_ostree(fsview: Fsview, own_releases: Releases) -> None:
    for name in ("x/one", "x/two", "xy"):
        fsview("refs", f"--create={name}", "rel")
    assert fsview("refs", "x").lines == fsview("refs", "x/").lines == ["one", "two"]
    assert fsview("refs", "--list", "x").lines == ["x/one", "x/two"]
    assert fsview("refs", "rel").lines == ["rel"]
    assert json.loads(fsview("refs", "--json", "x").stdout) == {"x/one": own_releases.new, "x/two": own_releases.new}


def test_a_ref_that_exists_is_moved_by_force_only(fsview: Fsview, own_releases: Releases) -> None:
    fsview("refs", "--create=other", "rel")
    assert "the ref other exists, at " in fsview("refs", "--create=other", "rel^", status=1).stderr
    assert "the ref other exists" in fsview("refs", "--move", "rel", "other", status=1).stderr
    assert fsview("rev-parse", "other", "rel").lines == [own_releases.new] * 2
    fsview("refs", "--create=other", "rel^", "--force")
    assert fsview("rev-parse", "other", "other@{1}").lines == [own_releases.old, own_releases.new]
    fsview("refs", "-f", "--move", "rel", "other")
    assert fsview("refs", "-r").lines == [f"other\t{own_releases.new}"]


def test_several_deletions_are_all_or_nothing(fsview: Fsview, own_releases: Releases) -> None:
    assert "there is no ref nowhere" in fsview("refs", "--delete", "rel", "nowhere", status=1).stderr
    assert fsview("refs").lines == ["rel"]
    assert fsview("refs", "--delete", "/", status=1).stdout == b""


def test_the_log_of_a_ref(fsview: Fsview, own_releases: Releases) -> None:
    lines = fsview("refs", "--log", "rel").lines
    assert [line.split(":")[0] for line in lines] == [
        f"{own_releases.new[:8]} rel@{{0}}",
        f"{own_releases.old[:8]} rel@{{1}}",
    ]
    assert lines[0].endswith(" +0000 commit: The new one")
    new, old = json.loads(fsview("refs", "--json", "--log", "rel").stdout)
    assert (new["name"], new["old"], new["new"]) == ("rel@{0}", own_releases.old, own_releases.new)
    assert (old["old"], old["new"]) == (None, own_releases.old)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--create=bad name", "rel"), 2, "is not a ref name"),
        (("--create=-x", "rel"), 2, "is not a ref name"),
        (("--create=" + "a" * 64, "rel"), 2, "looks like a checksum"),
        (("--create=rel/sub", "rel"), 2, "rel is one; choose another name"),
        (("--create=x", "nowhere"), 1, "no ref, commit or abbreviation"),
        (("--create=x",), 2, "name one revision"),
        (("--delete",), 2, "name what to delete"),
        (("--delete", "--create=x", "rel"), 2, "exclude each other"),
        (("--move", "nowhere", "x"), 1, "there is no ref nowhere"),
        (("--move", "rel", "x", "y"), 2, "unexpected argument 'y'"),
        (("--log", "nowhere"), 1, "there is no ref nowhere"),
    ],
    ids=repr,
)
def test_refused(fsview: Fsview, own_releases: Releases, arguments: tuple[str, ...], status: int, message: str) -> None:
    assert message in fsview("refs", *arguments, status=status).stderr
    assert fsview("refs", "-r").lines == [f"rel\t{own_releases.new}"]


def test_a_tag_is_made_once(fsview: Fsview, own_releases: Releases) -> None:
    fsview("tag", "v1", "rel^")
    assert "the ref tags/v1 exists" in fsview("tag", "v1", "rel", status=1).stderr
    assert fsview("rev-parse", "v1", "tags/v1").lines == [own_releases.old] * 2
    assert fsview("tag").lines == ["v1"]
    fsview("tag", "-f", "v1", "rel")
    assert fsview("rev-parse", "v1").lines == [own_releases.new]
    fsview("tag", "-d", "tags/v1")
    assert fsview("tag").lines == []
    assert "there is no tag v1" in fsview("tag", "-d", "v1", status=1).stderr


@pytest.mark.parametrize("arguments", [("v1",), ("-f",), ("-d",), ("-d", "v1", "rel"), ("bad name", "rel")], ids=repr)
def test_a_tag_that_makes_no_sense(fsview: Fsview, own_releases: Releases, arguments: tuple[str, ...]) -> None:
    fsview("tag", *arguments, status=2)


def test_rev_parse(fsview: Fsview, releases: Releases) -> None:
    assert fsview("rev-parse", "rel", "rel^", releases.old[:6]).lines == [releases.new, releases.old, releases.old]
    assert fsview("rev-parse", "--short", "rel").lines == [releases.new[:8]]
    (tool,) = fsview("rev-parse", "rel:/bin/tool").lines
    assert tool == json.loads(fsview("show", "--json", "rel:/bin/tool").stdout)["checksum"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("rel", "nowhere"), 1, "no ref, commit or abbreviation is named 'nowhere'"),
        (("--verify", "rel", "rel^"), 2, "--verify takes one revision"),
        ((), 2, "Missing argument"),
        (("rel:/nowhere",), 1, "/nowhere does not exist"),
    ],
    ids=repr,
)
def test_rev_parse_refuses(fsview: Fsview, arguments: tuple[str, ...], status: int, message: str) -> None:
    done = fsview("rev-parse", *arguments, status=status)
    assert message in done.stderr and done.stdout == b""
