"""`fsview log`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from store.database import Writing
from store.objects import Checksum, Commit, ObjectType
from store.refs import set_ref
from store.repository import Repository
from store.revisions import resolve
from store.schema import CommitNumber, CommitRecord, id_key
from tests.cli.conftest import NEW_TIME_S, OLD_TIME_S, Fsview, Releases


def test_it_prints_what_ostree_prints(fsview: Fsview, ostree_repo: Path) -> None:
    expected = subprocess.run(["ostree", "log", f"--repo={ostree_repo}", "rel"], capture_output=True, check=True)
    assert fsview("log", "rel").stdout == expected.stdout


def test_oneline_is_abbreviation_and_subject(fsview: Fsview, releases: Releases) -> None:
    assert fsview("log", "--oneline", "rel").lines == [
        f"{releases.new[:8]} The new one",
        f"{releases.old[:8]} The old one",
    ]


def test_max_count_and_an_older_start(fsview: Fsview, releases: Releases) -> None:
    assert fsview("log", "--oneline", "-n1", "rel").lines == [f"{releases.new[:8]} The new one"]
    assert fsview("log", "--oneline", "rel^").lines == [f"{releases.old[:8]} The old one"]
    assert fsview("log", "-n", "0", "rel").lines == []


def test_options_may_follow_arguments(fsview: Fsview) -> None:
    assert fsview("log", "rel", "--oneline").lines == fsview("log", "--oneline", "rel").lines


def test_without_a_revision_it_shows_the_commits_of_all_refs(fsview: Fsview, own_releases: Releases) -> None:
    fsview("refs", "--create=other", "rel^")
    assert len(fsview("log", "--oneline").lines) == 2


def test_a_repository_without_refs_says_so(fsview: Fsview, tmp_path: Path) -> None:
    fsview("init", tmp_path / "empty")
    assert "has no refs yet" in fsview("log", "--repo", tmp_path / "empty", status=1).stderr


def test_paths_leave_the_commits_that_changed_something_there(fsview: Fsview, releases: Releases) -> None:
    new, old = (f"{checksum[:8]} The {name} one" for checksum, name in ((releases.new, "new"), (releases.old, "old")))
    assert fsview("log", "--oneline", "rel", "--", "/etc/passwd").lines == [old]  # only the first one made it
    assert fsview("log", "--oneline", "rel", "/etc/motd").lines == [new, old]
    assert fsview("log", "--oneline", "rel:/same").lines == [old]
    assert fsview("log", "--oneline", "--", "new").lines == [new]
    assert fsview("log", "--oneline", "rel", "--", "same", "gone").lines == [new, old]
    assert fsview("log", "rel", "--", "/nowhere").lines == []


def test_patch_shows_only_the_paths_that_are_asked_for(fsview: Fsview) -> None:
    lines = fsview("log", "--oneline", "-n1", "-p", "rel", "--", "/etc/motd").lines
    assert lines[1:4] == ["diff --git a/etc/motd b/etc/motd", "--- a/etc/motd", "+++ b/etc/motd"]
    assert [line for line in lines if line.startswith("diff")] == lines[1:2]


def test_the_patch_of_the_first_commit_adds_everything(fsview: Fsview) -> None:
    assert b"+root:x:0:0\n" in fsview("log", "-p", "rel^").stdout


def test_json(fsview: Fsview, releases: Releases) -> None:
    new, old = json.loads(fsview("log", "--json", "rel").stdout)
    assert (new["commit"], new["parent"], new["timestamp"]) == (releases.new, releases.old, NEW_TIME_S)
    assert (old["commit"], old["parent"], old["timestamp"]) == (releases.old, None, OLD_TIME_S)
    assert (old["subject"], old["body"], old["version"]) == ("The old one", "About the\nold one.", "old")
    assert "neither" in fsview("log", "--json", "--oneline", "rel", status=2).stderr


def test_history_that_is_not_here_is_said_to_be_missing(fsview: Fsview, own_releases: Releases) -> None:
    _graft(own_releases.repo, Checksum(b"\xee" * 32), "Text with \x1b[31m in it")
    lines = fsview("log", "cut").lines
    assert lines[-1] == "<< History beyond this commit not fetched >>"
    assert "    Text with \\x1b[31m in it" in lines  # a stranger's text does nothing to the terminal
    assert json.loads(fsview("log", "--json", "cut").stdout)[0]["parent_is_here"] is False
    assert "not brought here" in fsview("log", "cut^", status=1).stderr


def _graft(repo: Path, parent: Checksum, subject: str) -> None:
    """Make the ref "cut": the tree of rel, with a parent that is not in the repository."""
    with Repository.open(repo) as repository:

        def body(writing: Writing) -> None:
            base = CommitRecord.unpack(writing.need(b"commit", id_key(resolve(writing, "rel", now_s=0))))
            tree = Commit.from_bytes(base.raw)
            commit = Commit((), parent, subject, "", 5, tree.root_dirtree, tree.root_dirmeta)
            number = CommitNumber(writing.take_id("commit"))
            counts = base.tree_id, base.meta_id, base.directories, base.entries
            writing.put(b"commit", id_key(number), CommitRecord(commit.checksum, *counts, commit.to_bytes()).pack())
            writing.put(b"object", bytes((ObjectType.COMMIT,)) + commit.checksum, id_key(number))
            set_ref(writing, "cut", number, time_s=5, message="")

        repository.database.write(body)
