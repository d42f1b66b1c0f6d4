"""Programs that compare files by size and mtime must see every change between two commits."""

from __future__ import annotations

import filecmp
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MountView
from tests.running import RunFsview
from tests.snapshots import assert_same_tree
from tests.trees import File, Spec, build_tree

CLAMPED_NS = 1_700_000_000 * 10**9


def _clamped(*contents: bytes) -> Spec:
    return {f"f{number:03}": File(content, mtime_ns=CLAMPED_NS) for number, content in enumerate(contents)}


MANY = [b"%04d" % number for number in range(150)]
PAIRS = {
    "a change of the same size": (_clamped(b"old"), _clamped(b"new")),
    "two files swapped": (_clamped(b"one", b"two"), _clamped(b"two", b"one")),
    "all files moved by one": (_clamped(*MANY), _clamped(*MANY[1:], MANY[0])),
    "the first again as another": (_clamped(b"one", b"two", b"six"), _clamped(b"six", b"one", b"two")),
    "large files": (_clamped(b"a" * 50_000, b"b" * 50_000), _clamped(b"b" * 50_000, b"c" * 50_000)),
    "fractions of a second": (
        {"f": File(b"old", mtime_ns=CLAMPED_NS + 100)},
        {"f": File(b"new", mtime_ns=CLAMPED_NS + 900_000_000)},
    ),
    "no time at all": ({"f": File(b"old", mtime_ns=0)}, {"f": File(b"new", mtime_ns=0)}),
}


@pytest.mark.parametrize("what", PAIRS)
def test_size_and_mtime_tell_every_change(
    what: str, tmp_path: Path, make_repo: Callable[..., Path], mount_view: MountView, run_fsview: RunFsview
) -> None:
    repo = make_repo()
    for name, spec in zip(("one", "two"), PAIRS[what], strict=True):
        tree = build_tree(tmp_path / name, spec)
        run_fsview("commit", "-b", name, "--timestamp=@1700000000", tree, repo=repo)
    refs = mount_view(repo) / "refs"
    target = tmp_path / "target"
    for name in ("one", "two", "one"):
        subprocess.run(["rsync", "-a", "--delete", f"{refs}/{name}/", target], check=True)
        assert_same_tree(tmp_path / name, target)
    names = sorted(PAIRS[what][0])
    filecmp.clear_cache()
    differing = [
        name for name in names if (tmp_path / "one" / name).read_bytes() != (tmp_path / "two" / name).read_bytes()
    ]
    assert filecmp.cmpfiles(refs / "one", refs / "two", names)[1] == differing


def test_ripgrep_finds_in_every_equal_file(
    tmp_path: Path, make_repo: Callable[..., Path], mount_view: MountView, run_fsview: RunFsview
) -> None:
    repo = make_repo()
    equal: Spec = {f"{number:03}": {"sub": {"same": b"needle\n"}} for number in range(60)}
    run_fsview("commit", "-b", "equal", build_tree(tmp_path / "tree", equal), repo=repo)
    found = subprocess.run(
        ["rg", "-l", "needle", f"{mount_view(repo)}/refs/equal/"], check=True, capture_output=True, text=True
    ).stdout
    assert len(found.splitlines()) == 60
