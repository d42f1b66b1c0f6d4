"""A signed commit whose derived listing somebody forged, as one can who may write to the repository but has no key.

The tree has no /var, so a deployment gets an empty directory of fsview's own: nothing of the listing may be there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.listing import pack_listing
from store.repository import Repository
from store.revisions import find_place
from store.schema import TreeId, id_key
from store.tree import load_listing
from tests.acls import DEFAULT, acl
from tests.marks import needs_root
from tests.running import RunFsview
from tests.sysroot.forked import run_forked
from tests.sysroot.rig import Machine, release, sign
from tests.trees import Directory, File, Node, Spec, Symlink, build_tree

pytestmark = [needs_root, pytest.mark.unchecked]

VARS: dict[str, Node] = {
    "a set-user-ID program": File(b"#!/bin/sh\nid\n", mode=0o4755),
    "a symlink": Symlink("/home"),
    "a directory for everybody": Directory({}, mode=0o1777),
    "a directory of another user": Directory({}, owner=(65534, 0)),
    "a directory with an xattr": Directory({}, xattrs={"user.x": b"1"}),
}


@pytest.fixture
def strict(run_fsview: RunFsview, tmp_path: Path, keys: Path) -> Iterator[Machine]:
    """Return a machine that takes only what "release" signed; os/a, which it did, has no /var."""
    machine = Machine.make(run_fsview, tmp_path, "--require-certified", "--trust", keys / "release.pub")
    machine.commit("os/a", _without_var())
    sign(machine, "os/a", keys / "release")
    yield machine


def _without_var() -> Spec:
    return {name: node for name, node in release("a", {}).items() if name != "var"}


def _take_over(repository: Repository, name: bytes, source: str, target: str) -> None:
    """Add an entry of *source*'s root to the listing of *target*'s: it is in no dirtree that anybody signed."""
    with repository.database.reading() as reading:
        odd = load_listing(reading, TreeId(find_place(reading, source, now_s=0).entry.id)).find(name)
        root = find_place(reading, target, now_s=0).entry.id
        rows = [
            (one.name, one.id, one.meta_id, one.mode, one.uid, one.gid, one.size, one.mtime_ns, *_counts(one.meta_id))
            for one in (*load_listing(reading, TreeId(root)), odd)
            if one is not None
        ]
    repository.database.write(lambda writing: writing.put(b"listing", id_key(root), pack_listing(sorted(rows))))


def _counts(meta_id: int) -> tuple[int, int]:
    return (1, 0) if meta_id else (0, 0)


@pytest.mark.parametrize("how", VARS)
def test_no_var_that_nobody_signed(strict: Machine, how: str) -> None:
    strict.commit("os/forged", {"var": VARS[how], "usr": {}})
    with Repository.open(strict.repository) as repository:
        _take_over(repository, b"var", "os/forged", "os/a")
    said = strict.run("deploy", "os/a", status=12).stderr
    assert "what was to be deployed in /var of the commit " in said
    assert strict.deployments() == [] and not (strict.stateroot / "current").exists()


def test_a_var_of_its_own(strict: Machine, keys: Path) -> None:
    """The root may have an ACL that what is made in it inherits, and its group."""
    wants = acl("u::rwx,u:65534:rwx,g::rwx,m::rwx,o::rwx")
    root = Directory(_without_var(), mode=0o2775, owner=(0, 42), xattrs={DEFAULT: wants})
    top = build_tree(strict.where / "above", {"root": root}) / "root"
    run_forked(strict.where, "commit", "--repo", strict.repository, "-b", "os/b", top, status=0)
    sign(strict, "os/b", keys / "release")
    strict.run("deploy", "os/b")
    status = os.lstat(strict.root / "var")
    assert DEFAULT in os.listxattr(strict.root) and os.listxattr(strict.root / "var") == []
    assert (stat.S_IMODE(status.st_mode) & 0o777, status.st_uid, os.listdir(strict.root / "var")) == (0o755, 0, [])
