"""fsview fsck: exit status, JSON, and no traceback whatever is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Fsview, Releases

pytestmark = pytest.mark.unchecked


def _loose(releases: Releases) -> list[Path]:
    return sorted((releases.repo / "objects").glob("*/*"))


@pytest.mark.parametrize("options", [(), ("--quick",)])
def test_a_sound_repository(fsview: Fsview, options: tuple[str, ...]) -> None:
    done = fsview("fsck", *options)
    assert done.stdout == b"" and done.stderr.endswith(": no errors\n")
    assert json.loads(fsview("fsck", "--json", *options).stdout) == {
        "errors": 0,
        "open": 0,
        "garbage": 0,
        "findings": [],
    }


def test_an_error(fsview: Fsview, own_releases: Releases) -> None:
    damaged = _loose(own_releases)[0]
    damaged.chmod(0o644)
    with damaged.open("r+b") as file:
        file.write(b"L!")
    lines = fsview("fsck", status=12).lines
    assert lines[0].startswith("error: ") and str(damaged) in lines[0] and ":/large" in lines[0]
    assert lines[1].startswith("  to mend: put a good copy of the file there")
    found = json.loads(fsview("fsck", "--json", status=12).stdout)
    assert (found["errors"], found["garbage"]) == (1, 0)
    assert found["findings"][0]["object"]["type"] == "file"
    assert [place.partition(":")[2] for place in found["findings"][0]["visible"]] == ["/large"]
    fsview("fsck", "--quick")  # which looks at sizes only


def test_garbage_is_no_error(fsview: Fsview, own_releases: Releases) -> None:
    (own_releases.repo / "objects/leftover").touch()
    done = fsview("fsck")
    assert done.lines[0].startswith("garbage: ") and "1 piece of garbage" in done.stderr
    assert json.loads(fsview("fsck", "--json").stdout)["garbage"] == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "text", "gone"])
def test_an_index_that_is_none(fsview: Fsview, own_releases: Releases, damage: str) -> None:
    data = own_releases.repo / "index/data.mdb"
    size = data.stat().st_size
    if damage == "gone":
        data.unlink()
    else:
        good = data.read_bytes()
        data.write_bytes({"empty": b"", "cut": good[: size // 2], "zeros": bytes(size), "text": b"x" * size}[damage])
    done = fsview("fsck", status=12)
    assert done.lines[0].startswith("error: ") and "Traceback" not in done.stderr
    assert json.loads(fsview("fsck", "--json", status=12).stdout)["errors"] >= 1


def test_not_a_repository(fsview: Fsview, tmp_path: Path) -> None:
    assert "not an fsview repository" in fsview("fsck", "--repo", tmp_path, status=1).stderr


def test_a_newer_format_is_not_damage(fsview: Fsview, own_releases: Releases) -> None:
    (own_releases.repo / "fsview.toml").write_text("format = 99\n")
    assert "newer fsview" in fsview("fsck", status=10).stderr
