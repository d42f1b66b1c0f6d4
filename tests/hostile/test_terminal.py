"""Names, subjects and metadata that a stranger chose: whatever a command prints, no terminal obeys it."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

import pytest

from fsview.log import LogFormatter
from store.gvariant import Variant
from store.objects import FileHeader
from store.repository import Repository
from tests.forge import forge
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview
from tests.trees import build_tree

EVIL = "\x1b]0;owned\x07\x9b31m\u202e\nfsview: all is well"
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|^fsview: all is well", re.MULTILINE)


@pytest.fixture
def where(tmp_path: Path, run_fsview: RunFsview) -> Path:
    """Return a directory of an evil name, with a repository, a tree and a commit in it."""
    home = tmp_path / EVIL
    home.mkdir()
    with Repository.create(home / "repo") as repository, forge(repository) as work:
        name = EVIL.encode()
        xattrs = ((b"user." + name, name),)
        files = {name: work.stager.whole(name, FileHeader(0, 0, 0o100644, xattrs), 0), b"link": work.symlink(name)}
        told = ((EVIL, Variant("s", EVIL)), ("version", Variant("s", EVIL)), ("ostree.endoflife", Variant("s", EVIL)))
        first = work.publish(work.tree({b"etc": work.file(b"x")}), "os", time_s=1)
        work.publish(
            work.tree(files, {b"d" + name: work.tree(), b"etc": work.tree(), b"usr": work.tree()}), "os", time_s=2,
            parent=first, metadata=told, message=(EVIL, EVIL),
        )  # fmt: skip
    build_tree(home / "tree", {EVIL: b"evil", "d": {EVIL: b"more"}})
    return home


COMMANDS = (
    "log os", "log --oneline os", "show os", "show --print-metadata-key version os", "show --print-metadata-key x os",
    "show os^:nothing", "ls -R os", "ls -X os", "ls -RC os", "ls os:{}", "diff os^ os", "diff --stat os^ os",
    "diff --name-status os^ os", "cat os /link", "cat os /nothing{}", "checkout os {}/nowhere/below",
    "checkout os {}", "refs {}", "refs --log os", "refs --create {} os", "rev-parse {}", "rev-parse os@{{{}}}",
    "tag {} os", "grep -l owned os", "fsck", "prune --refs-only -n", "doctor {}", "commit -b x {}/nothing",
    "commit -b {} {}", "debug record ref", "debug record refid", "debug stats", "packages os", "packages {}",
    "umount {}", "mount {} {}", "mounts", "workspace mount {}", "verify os", "verify --trusted {} os",
    "certify --key {} os", "status --sysroot {}", "deploy --sysroot {} os", "os-init --sysroot {} {}",
    "init {}/a/b/c", "{}", "log --{}", "switch {}", "debug node {}", "debug object {}", "completion {}",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_says(where: Path, run_fsview: RunFsview, command: str) -> None:
    words = [word.format(*([EVIL] * word.count("{}"))) for word in command.split(" ")]
    done = run_fsview(*words, repo=where / "repo", cwd=where, status=None)
    assert done.stdout or done.stderr or done.returncode == 0
    assert not HARMFUL.search(done.stdout + done.stderr), (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr


def test_what_doctor_and_fsck_say_of_a_repository(where: Path, run_fsview: RunFsview) -> None:
    for command in (("doctor", where / "repo"), ("fsck", "--repo", where / "repo"), ("init", where / "other")):
        done = run_fsview(*command, status=None)
        assert not HARMFUL.search(done.stdout + done.stderr), (done.stdout, done.stderr)


def test_json_stays_json(where: Path, run_fsview: RunFsview) -> None:
    entries = json.loads(run_fsview("ls", "--json", "os", repo=where / "repo").stdout)
    assert f"/{EVIL}" in [entry["path"] for entry in entries]
    assert json.loads(run_fsview("log", "--json", "os", repo=where / "repo").stdout)[0]["subject"] == EVIL


def test_a_deployment_and_what_is_said_of_it(where: Path, run_fsview: RunFsview) -> None:
    sysroot = where / "sys"
    said = ""
    for words in (
        ("sysroot", "init", sysroot, "--repo", where / "repo"), ("os-init", "--sysroot", sysroot, "m"),
        ("deploy", "--sysroot", sysroot, "--dry-run", "os"), ("deploy", "--sysroot", sysroot, "os"),
        ("status", "--sysroot", sysroot), ("undeploy", "--sysroot", sysroot, "1"),
        ("cleanup", "--sysroot", sysroot, "-n"),
        ("etc-diff", "--sysroot", sysroot), ("rollback", "--sysroot", sysroot), ("upgrade", "--sysroot", sysroot),
    ):  # fmt: skip
        done = run_fsview(*words, repo=where / "repo", status=None)
        said += done.stderr + done.stdout.replace(f"{sysroot}/deploy", "")  # the path, alone, is for scripts
    assert not HARMFUL.search(said), said


@needs_fuse
@needs_root
def test_workspaces_and_views(where: Path, run_fsview: RunFsview) -> None:
    point = where / "work"
    run_fsview("workspace", "os", point, repo=where / "repo")
    try:
        listed = run_fsview("workspace", "list").stdout + run_fsview("mounts").stdout
        refused = run_fsview("workspace", "mount", point, status=17).stderr
        again = run_fsview("workspace", "os", point, repo=where / "repo", status=None).stderr
    finally:
        run_fsview("workspace", "remove", "--force", point)
    assert "work" in listed and not HARMFUL.search(listed + refused + again), (listed, refused, again)
    assert json.loads(run_fsview("workspace", "list", "--json").stdout) == []


def test_the_log_of_a_server(tmp_path: Path) -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "lookup: %s", (EVIL + os.fsdecode(b"\xff"),), None)
    line = LogFormatter(tmp_path / EVIL).format(record)
    assert line.isprintable() and "all is well" in line
    assert json.loads(line[line.index("text=") + 5 :]) == f"lookup: {EVIL}\udcff"
