"""`fsview packages` and `fsview packages-diff`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Fsview
from tests.conftest import TreeFactory

OLD = {"bash": "5.2-1", "curl": "8.0-1", "libc6": "2.36-9", "zlib": "1.3-1"}
NEW = {"bash": "5.2-2", "curl": "8.0~rc1-1", "libc6": "2.36-9", "yes": "1-1"}


def _status(packages: dict[str, str]) -> bytes:
    form = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n\n"
    return "".join(form.format(*each) for each in packages.items()).encode()


@pytest.fixture
def commit_status(fsview: Fsview, repo: Path, tree_factory: TreeFactory) -> Callable[[str, bytes], None]:
    """Return a function: (ref, content) -> a commit with this database of dpkg's."""

    def commit(ref: str, content: bytes) -> None:
        tree = tree_factory({"var": {"lib": {"dpkg": {"status": content}}}, "etc": {"passwd": b"x\n"}})
        fsview("commit", "-b", ref, "-s", "a tree", tree)

    return commit


@pytest.fixture
def both(commit_status: Callable[[str, bytes], None]) -> None:
    """Have two releases, on the refs old and new."""
    commit_status("old", _status(OLD))
    commit_status("new", _status(NEW))


@pytest.mark.usefixtures("both")
def test_packages_are_listed(fsview: Fsview) -> None:
    assert fsview("packages", "old").lines[:2] == ["dpkg  bash   5.2-1   amd64", "dpkg  curl   8.0-1   amd64"]
    found = json.loads(fsview("packages", "--json", "old").stdout)
    assert found[3] == {"manager": "dpkg", "name": "zlib", "version": "1.3-1", "architecture": "amd64"}
    assert len(found) == len(OLD)


@pytest.mark.usefixtures("both")
def test_what_differs_is_told_as_rpm_ostree_tells_it(fsview: Fsview) -> None:
    assert fsview("packages-diff", "old", "new").lines == [
        "Upgraded:", "  bash 5.2-1 -> 5.2-2", "Downgraded:", "  curl 8.0-1 -> 8.0~rc1-1",
        "Removed:", "  zlib 1.3-1", "Added:", "  yes 1-1",
    ]  # fmt: skip
    assert fsview("packages-diff", "--summary", "old", "new").lines == ["1 upgraded, 1 downgraded, 1 added, 1 removed"]
    found = json.loads(fsview("packages-diff", "--json", "old", "new").stdout)
    assert found["upgraded"] == [
        {"manager": "dpkg", "name": "bash", "architecture": "amd64", "old": "5.2-1", "new": "5.2-2"}
    ]
    assert [one["name"] for one in found["removed"] + found["added"]] == ["zlib", "yes"]


@pytest.mark.usefixtures("both")
def test_the_exit_status_of_a_difference_is_asked_for(fsview: Fsview) -> None:
    assert fsview("packages-diff", "old", "old").stdout == fsview("packages-diff", "--exit-code", "old", "old").stdout
    fsview("packages-diff", "--exit-code", "old", "new", status=1)


@pytest.mark.usefixtures("both")
def test_what_has_no_packages_is_named(fsview: Fsview) -> None:
    assert "old:/etc has no package in it" in fsview("packages", "old:/etc", status=1).stderr
    assert "/etc/passwd is no directory" in fsview("packages", "old:/etc/passwd", status=1).stderr
    assert "has no package in it" in fsview("packages-diff", "old", "new:/etc", status=1).stderr
    assert "exclude each other" in fsview("packages-diff", "--json", "--summary", "old", "new", status=2).stderr


def test_architectures_are_told_where_there_are_several(
    fsview: Fsview, commit_status: Callable[[str, bytes], None]
) -> None:
    status = _status({"libc6": "1"})
    commit_status("old", status)
    commit_status("new", _status({"libc6": "2"}) + _status({"libc6": "2"}).replace(b"amd64", b"i386"))
    assert fsview("packages-diff", "old", "new").lines == [
        "Upgraded:", "  libc6 (amd64) 1 -> 2", "Added:", "  libc6 (i386) 2",
    ]  # fmt: skip


def test_a_damaged_database_is_told_of_and_read_as_far_as_it_goes(
    fsview: Fsview, commit_status: Callable[[str, bytes], None]
) -> None:
    commit_status("cut", _status(OLD)[:-15])
    done = fsview("packages", "cut", status=1)
    assert len(done.lines) == len(OLD) - 1
    assert "the dpkg database /var/lib/dpkg/status is damaged" in done.stderr


def test_names_can_do_nothing_to_a_terminal(fsview: Fsview, commit_status: Callable[[str, bytes], None]) -> None:
    commit_status("odd", b"Package: a\x1b[31m\xff\nVersion: 1\n")
    assert b"\x1b" not in fsview("packages", "odd").stdout
    assert json.loads(fsview("packages", "--json", "odd").stdout)[0]["name"] == "a\x1b[31m\udcff"
