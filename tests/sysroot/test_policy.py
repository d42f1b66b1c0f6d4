"""Who can write the repository but has no key tries to have something deployed that a policy forbids.

All that is signed here is signed by a trusted key: a debug image, an old release. Only in whose name it comes is wrong.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from store.detached import DETACHED_BYTES_MAX, change_detached
from store.gvariant import Variant
from store.objects import REF_BINDING, checksum_from_hex
from store.repository import Repository
from tests.conftest import MountView
from tests.marks import needs_root
from tests.sysroot.forked import run_forked
from tests.sysroot.rig import Machine, release, sign
from tests.users import NOBODY
from tools.signing.openpgp import SIGNATURES_MAX
from tools.signing.stored import ED25519


@pytest.fixture
def debug(strict: Machine, keys: Path) -> str:
    """Return the checksum of a signed debug image, the newest of all; os/a was moved to it."""
    checksum = _signed(strict, keys, "os/debug", second=50)
    _move(strict, "os/a", checksum)
    return checksum


def _signed(machine: Machine, keys: Path, ref: str, *options: str, second: int) -> str:
    checksum = machine.commit(ref, release(f"{ref} {second}", {}), *options, second=second)
    sign(machine, ref, keys / "release")
    return checksum


def _move(machine: Machine, ref: str, to: str) -> None:
    run_forked(machine.where, "refs", "--repo", machine.repository, "--create", ref, to, "--force", status=0)


def _everything(machine: Machine) -> tuple[object, ...]:
    return machine.state(), machine.own_refs(), sorted(os.listdir(machine.stateroot / "deployments"))


def _refused(machine: Machine, *words: str | Path, message: str, status: int = 19) -> str:
    """Try a command and its dry run, and to write the same somewhere else; return what was said last."""
    before, said = _everything(machine), ""
    for more in (["--dry-run"], []):
        said = machine.run(*words, *more, status=status).stderr
        assert message in said, said
        assert _everything(machine) == before
    if words[0] == "deploy":
        assert message in machine.run(*words, "--dest", machine.where / "dest", status=status).stderr
        assert not (machine.where / "dest").exists()
    return said


def _edit_policy(machine: Machine, more: str) -> None:
    with (machine.path / "fsview.toml").open("a") as file:
        file.write(more)


def test_a_ref_that_was_moved_to_what_is_signed_for_another(strict: Machine, debug: str) -> None:
    for words in (["upgrade"], ["switch", "os/a"], ["deploy", "os/a"], ["deploy", "os/a@{0}"]):
        said = _refused(strict, *words, message=f"{debug[:12]} was made for os/debug (its ref bindings), not for os/a")
        assert "commit --bind-ref os/a" in said and 'ref-bindings = "ignore"' in said and "fsview.toml" in said
    strict.run("deploy", debug)  # in nobody's name: it was named by what it is
    strict.run("switch", "os/debug")


def test_who_promotes_by_moving_refs_says_so(strict: Machine, keys: Path, debug: str) -> None:
    _edit_policy(strict, 'ref-bindings = "ignore"\n')
    assert strict.json("upgrade")["commit"] == debug
    _unsigned_is_refused_still(strict)


def _unsigned_is_refused_still(machine: Machine) -> None:
    machine.commit("os/c", release("c", {}), second=60)
    assert "it has no signature" in machine.run("switch", "os/c", status=19).stderr


def test_a_commit_may_be_bound_to_several_refs(strict: Machine, keys: Path) -> None:
    both = _signed(strict, keys, "os/testing", "--bind-ref", "os/a", second=50)
    _move(strict, "os/a", both)
    assert strict.json("upgrade")["commit"] == both


def test_commits_without_bindings_and_those_for_no_ref(strict: Machine, keys: Path) -> None:
    _move(strict, "os/a", _signed(strict, keys, "os/x", "--no-bindings", second=50))
    strict.run("upgrade")
    orphan = strict.commit("os/y", release("y", {}), "--no-bindings", second=51)
    assert len(orphan) == 64
    for value, second in (("@as []", 52), ("'os/a'", 53)):  # as `commit --orphan` says it, and nonsense
        commit = _signed(strict, keys, "os/z", "--no-bindings", f"--add-metadata={REF_BINDING}={value}", second=second)
        _move(strict, "os/a", commit)
        _refused(strict, "upgrade", message="was made for no ref (its ref bindings), not for os/a")


@pytest.mark.parametrize("word", ["os/a^", "os/a~1", "os/a@{1}", "os/a@{0}^"])
def test_what_is_named_by_a_ref_is_asked_for_in_its_name(strict: Machine, debug: str, word: str) -> None:
    """An unsigned commit on top, whose parent is the debug image: "the one before" is that."""
    strict.commit("os/a", release("bait", {}), second=60)
    _refused(strict, "deploy", word, message="was made for os/debug")


def test_a_path_in_a_view_names_a_ref_as_well(strict: Machine, debug: str, mount_view: MountView) -> None:
    point = mount_view(strict.repository)
    (history,) = [path for path in (point / "history/os/a").iterdir() if os.path.realpath(path).endswith(debug)]
    for path in (point / "refs/os/a", point / "refs/os/a@{0}", history):
        _refused(strict, "deploy", path, message="was made for os/debug (its ref bindings), not for os/a")
    strict.run("deploy", point / "commits" / debug)


def test_a_view_of_another_repository_is_believed_nothing(strict: Machine, debug: str, mount_view: MountView) -> None:
    """There a ref of ours leads to the debug image; here nobody moved it. The image is copied, and then refused."""
    other = strict.where / "other"
    shutil.copytree(strict.repository, other)
    _move(strict, "os/a", "os/a@{1}")
    run_forked(strict.where, "refs", "--repo", strict.repository, "--delete", "os/debug", status=0)
    run_forked(strict.where, "prune", "--repo", strict.repository, "--refs-only", status=0)
    point = mount_view(other)
    before = _everything(strict)
    assert "was made for os/debug" in strict.run("deploy", point / "refs/os/a", status=19).stderr
    assert "was made for os/debug" in strict.run("switch", point / "refs/os/a", status=19).stderr
    assert _everything(strict) == before


def test_a_collection_is_asked_for(strict: Machine, keys: Path) -> None:
    _edit_policy(strict, 'collection = "org.example.Os"\n')
    _refused(strict, "switch", "os/b", message="is not bound to the collection 'org.example.Os'")
    binding = "--add-metadata-string=ostree.collection-binding="
    _signed(strict, keys, "os/b", f"{binding}org.example.Other", second=50)
    _refused(strict, "switch", "os/b", message="ostree.collection-binding=org.example.Os")
    _signed(strict, keys, "os/b", f"{binding}org.example.Os", second=51)
    strict.run("switch", "os/b")


def test_an_old_release_is_not_the_newest(strict: Machine, keys: Path) -> None:
    """Signed and for this ref: only its age tells, and what was deployed is remembered when it is gone."""
    old = strict.status()["generations"][0]["commit"]
    new = _signed(strict, keys, "os/a", second=50)
    between = _signed(strict, keys, "os/a", second=40)
    _move(strict, "os/a", new)
    strict.run("upgrade")
    for commit in (old, between):
        _move(strict, "os/a", commit)
        for words in (["deploy", "os/a"], ["upgrade"], ["switch", "os/a"]):
            assert "--allow-downgrade" in strict.run(*words, status=15).stderr
            assert f"older than {new[:8]}" in strict.run(*words, "--dry-run", status=15).stderr
    strict.run("switch", "os/b")
    strict.run("deploy", "os/b")
    strict.run("cleanup", "--keep", "1")
    assert all(one["ref"] == "os/b" for one in strict.status()["generations"])
    before = _everything(strict)
    assert f"older than {new[:8]}" in strict.run("switch", "os/a", status=15).stderr
    assert _everything(strict) == before
    strict.run("switch", "os/a", "--allow-downgrade")
    strict.run("switch", "os/b")
    assert "--allow-downgrade" in strict.run("switch", "os/a", status=15).stderr  # it was allowed once
    strict.run("deploy", old)  # chosen by what it is


@pytest.mark.parametrize(("deployed", "other"), [("os/t", "tags/os/t"), ("tags/os/t", "os/t")])
def test_an_old_release_under_the_name_of_a_tag(strict: Machine, keys: Path, deployed: str, other: str) -> None:
    """Who can write refs removes the one that is followed, and has the other be found by what the user types."""
    _edit_policy(strict, 'ref-bindings = "ignore"\n')
    old = strict.status()["generations"][0]["commit"]
    _move(strict, deployed, _signed(strict, keys, "os/new", second=50))
    strict.run("deploy", "os/t")
    run_forked(strict.where, "refs", "--repo", strict.repository, "--delete", deployed, status=0)
    _move(strict, other, old)
    before = _everything(strict)
    for words in (["deploy", "os/t"], ["switch", "os/t"], ["switch", "os/t", "--dry-run"]):
        assert "--allow-downgrade" in strict.run(*words, status=15).stderr
        assert _everything(strict) == before


def test_rollbacks_are_free_and_forget_nothing(machine: Machine) -> None:
    """Without a policy, too: an upgrade refused it before."""
    machine.commit("os/a", release("1", {}), second=1)
    machine.run("deploy", "os/a")
    newest = machine.commit("os/a", release("3", {}), second=3)
    machine.run("upgrade")
    machine.run("rollback")
    machine.commit("os/a", release("2", {}), second=2)
    assert machine.status()["upgrade"]["older"] is True
    assert f"older than {newest[:8]}" in machine.run("upgrade", status=15).stderr
    machine.run("cleanup", "--keep", "1")
    machine.run("pin")
    assert f"older than {newest[:8]}" in machine.run("deploy", "os/a", status=15).stderr
    machine.commit("os/a", release("4", {}), second=4)
    machine.run("upgrade")


def test_generations_of_an_older_fsview_count(machine: Machine) -> None:
    machine.commit("os/a", release("2", {}), second=2)
    machine.run("deploy", "os/a")
    origin = machine.stateroot / "generations/1/origin.toml"
    text = origin.read_text()
    origin.write_text(re.sub(r'\[newest\."os/a"\]\n.*\n.*\n', "", text))
    assert origin.read_text() != text
    machine.commit("os/a", release("1", {}), second=1)
    assert "--allow-downgrade" in machine.run("switch", "os/a", status=15).stderr


def test_dest_obeys_the_sysroot_of_the_environment(strict: Machine, debug: str, tmp_path: Path) -> None:
    """As every other command takes it: by FSVIEW_SYSROOT, or as the current directory."""
    strict.commit("os/c", release("c", {}), second=60)
    dest = tmp_path / "tree"
    named = {"FSVIEW_SYSROOT": str(strict.path)}
    for source, message in (("os/c", "it has no signature"), ("os/a", "was made for os/debug")):
        words: list[str | Path] = ["deploy", "--dest", dest, source, "--repo", strict.repository]
        for more in ([], ["--dry-run"]):
            assert message in strict.fsview(*words, *more, env=named, status=19).stderr
            assert message in strict.fsview(*words, *more, cwd=strict.path, status=19).stderr
            assert message in strict.fsview(*words, *more, "--sysroot", strict.path, status=19).stderr
        assert not dest.exists()
    strict.fsview("deploy", "--dest", dest, "os/b", env=named)  # from its repository, as none is named
    words = ["deploy", "--dest", tmp_path / "free", "os/c", "--repo", strict.repository]
    assert "is not a sysroot" in strict.fsview(*words, env={"FSVIEW_SYSROOT": str(tmp_path)}, status=1).stderr
    strict.fsview(*words)  # no sysroot, no policy
    assert (tmp_path / "free").is_dir()


def test_dest_from_a_view_obeys_it_too(strict: Machine, mount_view: MountView, tmp_path: Path) -> None:
    strict.commit("os/c", release("c", {}), second=60)
    path = mount_view(strict.repository) / "refs/os/c"
    words: list[str | Path] = ["deploy", "--dest", tmp_path / "tree", path]
    assert "no signature" in strict.fsview(*words, env={"FSVIEW_SYSROOT": str(strict.path)}, status=19).stderr
    assert not (tmp_path / "tree").exists()


def test_status_says_what_upgrade_would_be_refused(strict: Machine, keys: Path, debug: str) -> None:
    assert "was made for os/debug" in strict.status()["upgrade"]["refused"]
    assert "refused: the commit " in strict.run("status").stdout
    strict.commit("os/a", release("4", {}), second=60)
    assert "it has no signature" in strict.status()["upgrade"]["refused"]
    assert "it has no signature" in strict.run("status").stdout
    sign(strict, "os/a", keys / "release")
    assert "was made" not in (strict.status()["upgrade"]["refused"] or "")
    assert strict.status()["upgrade"]["refused"] is None and "refused" not in strict.run("status").stdout
    text = (strict.path / "fsview.toml").read_text()
    (strict.path / "fsview.toml").write_text(text.replace("release.pub", "none.pub"))
    assert "none.pub" in strict.status()["upgrade"]["refused"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[policy]\ntrusted = ['x']\n", "a [policy] without 'require', so nothing would be asked for"),
        ("[policy]\ncollection = 'x'\n", "a [policy] without 'require'"),
        ("[policy]\nrequire = 'Certified'\n", "'policy.require' must be"),
        ("[policy]\nrequire = 'certified'\nref-bindings = 'no'\n", "'policy.ref-bindings' must be"),
        ("[policy]\nrequire = 'certified'\nref_bindings = 'ignore'\n", "unknown key 'policy.ref_bindings'"),
        ("[policy]\nrequire = 'certified'\ncollection = []\n", "'policy.collection' must be a string"),
        ("[[policy]]\nrequire = 'certified'\n", "'policy' must be a table"),
    ],
)
def test_no_policy_is_none_by_mistake(strict: Machine, text: str, message: str) -> None:
    settings = strict.path / "fsview.toml"
    settings.write_text(settings.read_text().partition("[policy]")[0] + text)
    for words in (["switch", "os/b"], ["status"], ["deploy", "--dest", strict.where / "tree", "os/b"]):
        assert message in strict.run(*words, status=10).stderr


@needs_root
@pytest.mark.parametrize("require", ["certified", ""])
def test_settings_that_another_user_could_write_are_no_policy(strict: Machine, require: str) -> None:
    """Also if there is none in them: he may have taken it away."""
    settings = strict.path / "fsview.toml"
    settings.write_text(settings.read_text().replace('"certified"', f'"{require}"'))
    for mode in (0o664, 0o646):
        settings.chmod(mode)
        _refused(strict, "switch", "os/b", message=f"can be written by others (mode {mode:04o})", status=1)
        _refused(strict, "deploy", "os/b", message=f"mend it with: chmod go-w {settings}", status=1)
    settings.chmod(0o644)
    os.chown(settings, NOBODY, NOBODY)
    before = _everything(strict)
    for words in (["switch", "os/b"], ["deploy", "os/b"], ["deploy", "os/b", "--dest", strict.where / "dest"]):
        assert "belongs to " in strict.run(*words, status=1).stderr
    assert _everything(strict) == before and not (strict.where / "dest").exists()


def test_keys_that_another_user_could_write_certify_nothing(strict: Machine, keys: Path) -> None:
    (keys / "release.pub").chmod(0o666)
    try:
        _refused(strict, "switch", "os/b", message="can be written by others", status=1)
    finally:
        (keys / "release.pub").chmod(0o644)


@pytest.mark.parametrize("option", ["--require-certified"])
def test_a_sysroot_is_not_made_with_keys_that_are_none(strict: Machine, tmp_path: Path, option: str) -> None:
    bad = tmp_path / "bad.pub"
    bad.write_text("hello world\n")
    words: list[str | Path] = ["sysroot", "init", tmp_path / "new", "--repo", strict.repository, option, "--trust", bad]
    for more in ([], ["--dry-run"]):
        assert "no public key" in strict.fsview(*words, *more, status=10).stderr
    assert not (tmp_path / "new").exists()


def _detach(machine: Machine, ref: str, key: str, value: Variant) -> None:
    with Repository.open(machine.repository) as repository:
        checksum = checksum_from_hex(run_forked(
            machine.where, "rev-parse", "--repo", machine.repository, ref, status=0
        ).stdout.strip())  # fmt: skip
        change_detached(repository, checksum, lambda raw, metadata: ((key, value), *metadata))


def test_huge_detached_metadata_are_not_looked_at(strict: Machine) -> None:
    _detach(strict, "os/b", "padding", Variant("ay", bytes(DETACHED_BYTES_MAX)))
    _refused(strict, "switch", "os/b", message="detached metadata are larger than 10 MiB")
    assert "10 MiB" in run_forked(strict.where, "verify", "--repo", strict.repository, "os/b", status=10).stderr


def test_many_signatures_are_not_tried(strict: Machine, keys: Path) -> None:
    run_forked(
        strict.where,
        "certify",
        "os/b",
        "--delete",
        "--key",
        keys / "release.pub",
        "--repo",
        strict.repository,
        status=0,
    )
    _detach(strict, "os/b", ED25519, Variant("aay", [bytes(64)] * (SIGNATURES_MAX + 1)))
    _refused(strict, "switch", "os/b", message=f"it has {SIGNATURES_MAX + 1} signatures")


def test_many_reasons_make_a_short_message(strict: Machine, keys: Path) -> None:
    run_forked(
        strict.where,
        "certify",
        "os/b",
        "--delete",
        "--key",
        keys / "release.pub",
        "--repo",
        strict.repository,
        status=0,
    )
    for number in range(20):
        _detach(strict, "os/b", f"ostree.sign.kind{number}", Variant("aay", [b"x"]))
    assert "; and 12 more" in _refused(strict, "switch", "os/b", message="can't verify signatures of the kind")


def test_what_a_dry_run_tells_of_a_debug_image_in_json(strict: Machine, debug: str) -> None:
    assert json.loads(strict.run("deploy", debug, "--dry-run", "--json").stdout)["certified"] == ["release"]
