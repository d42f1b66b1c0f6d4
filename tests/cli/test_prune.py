"""`fsview prune` as a user sees it: what it says, and what other commands say of what is gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from store import prune as module
from tests.checking import assert_sound
from tests.cli.conftest import Fsview, Releases
from tests.running import RunFsview
from tests.users import NOBODY, run_as_nobody


@pytest.fixture(autouse=True)
def _no_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_LAG_S", 0.0)


def test_a_dry_run_and_a_prune(own_releases: Releases, fsview: Fsview) -> None:
    planned = fsview("prune", "--refs-only", "--depth=0", "--dry-run")
    assert planned.lines[0] == f"commit {own_releases.old}"
    assert [line.split("  ")[0] for line in planned.lines[1:]] == ["commits", "dirtrees", "file objects"]
    assert planned.stderr.startswith("fsview: would delete ")
    assert len(fsview("log", "--oneline").lines) == 2
    done = fsview("prune", "--refs-only", "--depth=0")
    assert done.stdout == planned.stdout
    assert done.stderr == planned.stderr.replace("would delete", "deleted")
    assert fsview("prune", "--refs-only", "--depth=0").stderr == "fsview: nothing to delete\n"
    assert_sound(own_releases.repo)


def test_json(own_releases: Releases, fsview: Fsview) -> None:
    planned = json.loads(fsview("prune", "--delete-commit=rel^", "--no-prune", "--json").stdout)
    done = json.loads(fsview("prune", f"--delete-commit={own_releases.old[:9]}", "--json").stdout)
    assert planned.pop("dry_run") and not done.pop("dry_run")
    assert planned == done and done["deleted_commits"] == [own_releases.old]
    assert done["commits"]["count"] == 1 and done["files"]["loose_bytes"] > 16 << 10
    kinds = ("commits", "dirtrees", "dirmetas", "files", "leftovers")
    assert done["bytes"] == sum(done[kind]["index_bytes"] + done[kind]["loose_bytes"] for kind in kinds)


def test_what_others_say_of_what_is_gone(own_releases: Releases, fsview: Fsview) -> None:
    fsview("prune", "--delete-commit=rel^")
    assert fsview("log", "rel").lines[-1] == "<< History beyond this commit not fetched >>"
    assert "was pruned" in fsview("show", "rel^", status=1).stderr
    assert "'fsview prune' deleted it" in fsview("diff", "rel@{1}", "rel", status=1).stderr
    assert fsview("diff", "rel", "rel").stdout == b""
    log = fsview("refs", "--log", "rel").lines
    assert log[0].startswith(own_releases.new[:8]) and log[1].startswith("pruned   rel@{1}: ")
    moves = json.loads(fsview("refs", "--log", "rel", "--json").stdout)
    assert [(move["old"], move["new"], move["pruned"]) for move in moves] == [
        (None, own_releases.new, ["old"]), (None, None, ["new"]),
    ]  # fmt: skip
    assert "1024-1024" in fsview("debug", "record", "head", "pruned commit").stdout.decode()


def test_what_is_refused(own_releases: Releases, fsview: Fsview) -> None:
    fsview("refs", "--create=kept/old", "rel^")
    refused = fsview("prune", "--delete-commit=rel^", "--refs-only", "--depth=0", status=1)
    assert "the ref kept/old points at it; move or delete" in refused.stderr
    assert "no ref, commit or abbreviation" in fsview("prune", "--delete-commit=nothing", status=1).stderr
    assert fsview("prune", "--depth=-2", status=2).stdout == b""
    assert len(fsview("log", "--oneline", "rel").lines) == 2


def test_who_may_not_write(nobodys: Path, fsview: Fsview, own_releases: Releases) -> None:
    repo = nobodys / "repo"
    os.rename(own_releases.repo, repo)
    subprocess.run(["chgrp", "-R", str(NOBODY), repo], check=True)
    subprocess.run(["chmod", "-R", "g=rX", repo], check=True)
    (repo / "index/lock.mdb").chmod(0o660)
    said = run_as_nobody(nobodys, "prune", "--repo", repo, "--refs-only", "--depth=0")
    assert said.status == 1 and "data.mdb can't be written by this user, so nothing can be pruned" in said.stderr
    said = run_as_nobody(nobodys, "prune", "--repo", repo, "--refs-only", "--depth=0", "--dry-run")
    assert said.status == 0 and own_releases.old in said.stdout
    assert os.geteuid() != NOBODY


def test_completion(own_releases: Releases, run_fsview: RunFsview) -> None:
    words = {"COMP_WORDS": "fsview prune --delete-commit r", "COMP_CWORD": "3", "_FSVIEW_COMPLETE": "bash_complete"}
    done = run_fsview(repo=own_releases.repo, env=words)
    assert "plain,rel" in done.stdout


def test_ostree_keeps_the_same_commits(
    ostree_repo: Path, own_releases: Releases, fsview: Fsview, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(ostree_repo, theirs, symlinks=True)
    for options in (["--depth=0"], ["--refs-only", "--depth=1"], ["--refs-only", "--depth=0"]):
        subprocess.run(["ostree", "prune", f"--repo={theirs}", *options], check=True, stdout=subprocess.DEVNULL)
        fsview("prune", *options)
        log = subprocess.run(["ostree", "log", f"--repo={theirs}", "rel"], check=True, capture_output=True)
        assert fsview("log", "rel").stdout == log.stdout
