"""A sysroot that takes only what a trusted key signed, with real keys: what is refused, and that nothing changes then.

Records are forged with right guards, as one could who may write to the repository: only signatures and sha256 can tell.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from store.database import Writing
from store.detached import change_detached
from store.gvariant import Variant
from store.listing import pack_listing
from store.objects import Checksum, Metadata
from store.repository import Repository
from store.revisions import find_place
from store.schema import FileId, FileRecord, TreeId, id_key
from store.tree import load_listing
from tests.running import RunFsview
from tests.sysroot.rig import Machine, release, sign
from tools.signing.stored import ED25519
from tools.sysroot import trees

TOLD = "what was to be deployed in {} of the commit {} is damaged"


def _everything(machine: Machine) -> tuple[object, ...]:
    return machine.state(), machine.own_refs(), sorted(os.listdir(machine.stateroot / "deployments"))


def test_what_is_signed_is_taken_and_status_says_by_whom(strict: Machine, keys: Path) -> None:
    assert strict.json("switch", "os/b")["certified"] == ["release"]
    strict.commit("os/b", release("3", {}), second=9)
    sign(strict, "os/b", keys / "stranger")
    sign(strict, "os/b", keys / "release")
    assert strict.json("upgrade")["certified"] == ["release"]
    assert strict.run("status").stdout.count("Certified by: release\n") == 3


def _unsigned(machine: Machine, keys: Path) -> None:
    sign(machine, "os/b", keys / "release.pub", "--delete")


def _by_a_stranger(machine: Machine, keys: Path) -> None:
    _unsigned(machine, keys)
    sign(machine, "os/b", keys / "stranger")


def _change(machine: Machine, ref: str, change: Callable[[Metadata], Metadata]) -> None:
    with Repository.open(machine.repository) as repository:
        change_detached(repository, _checksum(repository, ref), lambda raw, metadata: change(metadata))


def _checksum(repository: Repository, ref: str) -> Checksum:
    with repository.database.reading() as reading:
        place = find_place(reading, ref, now_s=0)
        return Checksum(reading.need(b"commit", id_key(place.commit))[:32])


def _flipped(machine: Machine, keys: Path) -> None:
    def flip(metadata: Metadata) -> Metadata:
        (signature,) = dict(metadata)[ED25519].value
        bad = Variant("aay", [signature[:-1] + bytes([signature[-1] ^ 1])])
        return tuple((name, bad if name == ED25519 else value) for name, value in metadata)

    _change(machine, "os/b", flip)


def _of_another_commit(machine: Machine, keys: Path) -> None:
    taken: list[Metadata] = []

    def take(metadata: Metadata) -> Metadata:
        taken.append(metadata)
        return metadata

    _change(machine, "os/a", take)
    _change(machine, "os/b", lambda metadata: taken[0])


def _of_another_commit_without_a_hint(machine: Machine, keys: Path) -> None:
    """As ostree stores it: nothing beside the signature."""
    _of_another_commit(machine, keys)
    _change(machine, "os/b", lambda metadata: tuple(pair for pair in metadata if pair[0] == ED25519))


def _no_metadata_at_all(machine: Machine, keys: Path) -> None:
    _put(machine, b"detached", "os/b", lambda value: b"\xff" + value[:-1])


def _put(machine: Machine, table: bytes, ref: str, change: Callable[[bytes], bytes]) -> None:
    """Forge a record that has a commit's number."""
    with Repository.open(machine.repository) as repository:
        with repository.database.reading() as reading:
            key = id_key(find_place(reading, ref, now_s=0).commit)
            value = change(reading.need(table, key))
        repository.database.write(lambda writing: writing.put(table, key, value))


def _another_commit_object(machine: Machine, keys: Path) -> None:
    _put(machine, b"commit", "os/b", lambda value: value[:-9] + bytes([value[-9] ^ 1]) + value[-8:])


SIGNATURES = {
    "unsigned": (_unsigned, 19, "it has no signature; 'fsview certify' makes one"),
    "by a stranger": (_by_a_stranger, 19, ", a key that is not trusted"),
    "a flipped bit": (_flipped, 19, "does not fit: it or the commit was changed"),
    "of another commit": (_of_another_commit, 19, "is of another commit, "),
    "of another, as ostree has it": (_of_another_commit_without_a_hint, 19, "fits no trusted key"),
    "no metadata": (_no_metadata_at_all, 19, "is not certified: "),
    "another commit object": (_another_commit_object, 12, "is damaged: expected sha256 "),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("how", SIGNATURES)
def test_a_commit_without_a_good_signature_is_refused(strict: Machine, keys: Path, how: str) -> None:
    change, status, message = SIGNATURES[how]
    change(strict, keys)
    before = _everything(strict)
    dest = strict.where / "dest"
    for words in (["deploy", "os/b"], ["switch", "os/b"], ["switch", "--dry-run", "os/b"], ["deploy", "-n", "os/b"]):
        assert message in strict.run(*words, status=status).stderr
        assert _everything(strict) == before
    for more in ([], ["--dry-run"]):
        assert message in strict.run("deploy", "--dest", dest, "os/b", *more, status=status).stderr
        assert not dest.exists()


def test_upgrade_to_what_nobody_signed_is_refused(strict: Machine, keys: Path) -> None:
    strict.commit("os/a", release("3", {}), second=9)
    before = _everything(strict)
    for words in (["upgrade"], ["upgrade", "-n"]):
        assert "it has no signature" in strict.run(*words, status=19).stderr
        assert _everything(strict) == before
    sign(strict, "os/a", keys / "release")
    strict.run("upgrade")


def _damage(machine: Machine, path: str, change: Callable[[Repository, Writing, FileId], None]) -> None:
    """Change what the index has of a file of os/b."""
    with Repository.open(machine.repository) as repository:
        with repository.database.reading() as reading:
            number = find_place(reading, f"os/b:{path}", now_s=0).entry.id
        repository.database.write(lambda writing: change(repository, writing, FileId(number)))


def _flip_last(table: bytes) -> Callable[[Repository, Writing, FileId], None]:
    def flip(repository: Repository, writing: Writing, number: FileId) -> None:
        value = writing.need(table, id_key(number))
        writing.put(table, id_key(number), value[:-1] + bytes([value[-1] ^ 1]))

    return flip


def _content(machine: Machine) -> None:
    _damage(machine, "/usr/lib/own", _flip_last(b"content"))


def _content_of_etc(machine: Machine) -> None:
    _damage(machine, "/etc/version", _flip_last(b"content"))


def _loose(machine: Machine) -> Path:
    with Repository.open(machine.repository) as repository, repository.database.reading() as reading:
        number = find_place(reading, "os/b:/usr/lib/large", now_s=0).entry.id
        return repository.loose_path(FileRecord.unpack(reading.need(b"file", id_key(number))).checksum)


def _loose_and_its_mtime_put_back(machine: Machine) -> None:
    """So that it is linked without being read."""
    _flip_on_disk(_loose(machine))


def _flip_on_disk(path: Path) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size - 1)
        last = file.read(1)[0]
        file.seek(status.st_size - 1)
        file.write(bytes([last ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _loose_touched(machine: Machine) -> None:
    _flip_on_disk(_loose(machine))
    os.utime(_loose(machine))


def _mode_of_a_file(machine: Machine) -> None:
    """In header and listing: setuid for what was not."""

    def change(repository: Repository, writing: Writing, number: FileId) -> None:
        record = FileRecord.unpack(writing.need(b"file", id_key(number)))
        header = record.header[:16] + (0o104755).to_bytes(4, "big") + record.header[20:]
        writing.put(b"file", id_key(number), replace(record, header=header).pack())

    _damage(machine, "/usr/lib/own", change)


def _listing(mode: int, leave_out: bytes = b"") -> Callable[[Machine], None]:
    def forge(machine: Machine) -> None:
        def change(repository: Repository, writing: Writing, number: FileId) -> None:
            rows = [
                (one.name, one.id, 0, one.mode | mode, one.uid, one.gid, one.size, one.mtime_ns, 0, 0)
                for one in load_listing(writing, TreeId(number))
                if one.name != leave_out
            ]
            writing.put(b"listing", id_key(number), pack_listing(rows))

        _damage(machine, "/usr/lib", change)

    return forge


def _dirtree(machine: Machine) -> None:
    _damage(machine, "/usr/lib", _flip_last(b"dirtree"))


def _dirmeta(machine: Machine) -> None:
    with Repository.open(machine.repository) as repository:
        with repository.database.reading() as reading:
            number = find_place(reading, "os/b:/usr/lib", now_s=0).entry.meta_id
        repository.database.write(lambda writing: _flip_last(b"dirmeta")(repository, writing, FileId(number)))


DAMAGE: dict[str, tuple[Callable[[Machine], None], str]] = {
    "a content": (_content, TOLD.format("/usr/lib/own", "{}")),
    "a content of etc": (_content_of_etc, TOLD.format("/etc/version", "{}")),
    "a loose object": (_loose_and_its_mtime_put_back, TOLD.format("/usr/lib/large", "{}")),
    "a loose object that was touched": (_loose_touched, "is damaged: expected "),
    "a file's mode": (_mode_of_a_file, TOLD.format("/usr/lib/own", "{}")),
    "a mode in a listing": (_listing(0o022), TOLD.format("/usr/lib/", "{}").partition(" of ")[0]),
    "a name in a listing": (_listing(0, b"own"), TOLD.format("/usr/lib/own", "{}")),
    "a dirtree": (_dirtree, "a dirtree in "),
    "a dirmeta": (_dirmeta, "a dirmeta in "),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("how", DAMAGE)
def test_a_tree_that_is_not_as_it_was_signed_is_refused(strict: Machine, how: str) -> None:
    before = _everything(strict)
    change, message = DAMAGE[how]
    change(strict)
    with Repository.open(strict.repository) as repository:
        message = message.format(_checksum(repository, "os/b").hex()[:12])
    for words in (["deploy", "os/b"], ["switch", "os/b"]):
        assert message in strict.run(*words, status=12).stderr
        assert _everything(strict) == before
    strict.run("deploy", "--dest", strict.where / "dest", "os/b", status=12)
    assert not (strict.where / "dest").exists()
    assert (strict.root / "usr/lib/own").read_text() == "lib os/a"


@pytest.mark.unchecked
def test_what_fills_var_is_proven_too(run_fsview: RunFsview, tmp_path: Path, keys: Path) -> None:
    machine = Machine.make(run_fsview, tmp_path, "--require-certified", "--trust", keys / "release.pub")
    machine.commit("os/b", release("b", {}))
    sign(machine, "os/b", keys / "release")
    _damage(machine, "/var/lib/seed", _flip_last(b"content"))
    assert TOLD.partition("{}")[0] + "/var/lib/seed" in machine.run("deploy", "os/b", status=12).stderr
    assert os.listdir(machine.var) == [] and machine.deployments() == []
    assert not (machine.stateroot / "current").exists()


@pytest.mark.unchecked
@pytest.mark.parametrize("where", ["usr/etc", "etc"])
def test_all_copies_of_etc_are_proven(strict: Machine, keys: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a commit's etc there are two or three on disk: what goes wrong in one alone is seen."""
    tree = release("3", None if where == "usr/etc" else {})
    if where == "usr/etc":
        tree["usr"]["etc"] = {"version": b"3"}
    strict.commit("os/c", tree, second=9)
    sign(strict, "os/c", keys / "release")
    before = _everything(strict)
    real = trees.write_etc

    def write_etc(repository: Repository, target: Path, *rest: object, **named: object) -> None:
        real(repository, target, *rest, **named)  # type: ignore[arg-type]  # as they came
        (target / "version").write_bytes(b"4")

    monkeypatch.setattr(trees, "write_etc", write_etc)
    assert TOLD.partition("{}")[0] + f"/{where}/version" in strict.run("deploy", "os/c", status=12).stderr
    assert _everything(strict) == before


def test_a_tree_of_before_the_policy_is_written_anew(strict: Machine, keys: Path) -> None:
    settings = strict.path / "fsview.toml"
    text = settings.read_text()
    settings.write_text(text.replace('require = "certified"', 'require = ""'))
    strict.run("switch", "os/b")
    settings.write_text(text)
    strict.run("rollback")
    said = strict.json("switch", "os/b")
    assert said["reused"] is False and said["deployment"].endswith(".1") and said["certified"] == ["release"]
    strict.run("switch", "os/a")
    said = strict.json("switch", "os/b")  # its first tree was there before, its second was proven
    assert said["reused"] is True and said["deployment"].endswith(".1")
    assert "nobody certified this deployment" in strict.run("rollback", "--to", "2").stderr


def test_a_proven_tree_is_taken_again_but_not_without_a_trusted_signature(strict: Machine, keys: Path) -> None:
    strict.run("switch", "os/b")
    _unsigned(strict, keys)
    strict.run("rollback")
    before = _everything(strict)
    assert "it has no signature" in strict.run("switch", "os/b", status=19).stderr
    (strict.path / "fsview.toml").write_text(
        (strict.path / "fsview.toml").read_text().replace("release.pub", "stranger.pub")
    )
    assert "it has no signature" in strict.run("switch", "os/b", status=19).stderr
    assert "a key that is not trusted" in strict.run("deploy", "os/a", status=19).stderr
    assert _everything(strict) == before
    strict.run("rollback")  # the way back must not depend on keys


@pytest.mark.parametrize(
    ("trusted", "status", "message"),
    [
        ("", 19, "no key is trusted"),
        ('"none.pub"', 1, "none.pub: No such file"),
        ('"fsview.toml"', 10, "this is no base64, as a public key is"),
    ],
)
def test_keys_that_are_not_there(strict: Machine, trusted: str, status: int, message: str) -> None:
    settings = strict.path / "fsview.toml"
    text = settings.read_text()
    settings.write_text(text[: text.index("trusted = ")] + f"trusted = [{trusted}]\n")
    before = _everything(strict)
    assert message in strict.run("switch", "os/b", status=status).stderr
    assert _everything(strict) == before


@pytest.mark.parametrize("options", [["--require-certified"], ["--trust", "release.pub"]])
def test_a_policy_that_forbids_all_or_nothing_is_not_made(
    strict: Machine, keys: Path, tmp_path: Path, options: list[str]
) -> None:
    words = ("sysroot", "init", tmp_path / "other", "--repo", strict.repository)
    assert "belong together" in strict.fsview(*words, *options, cwd=keys, status=2).stderr
    assert not (tmp_path / "other").exists()


def test_what_was_changed_in_a_deployment_is_not_linked_into_the_next(strict: Machine) -> None:
    """It is the file's bytes that tell, and only that file is written anew."""
    _flip_on_disk(strict.root / "usr/bin/same")  # of the index, so the repository is whole
    strict.run("deploy", "os/b")
    assert (strict.root / "usr/lib/link").lstat().st_nlink == 2
    assert (strict.root / "usr/bin/same").read_bytes() == b"same\n"
    assert (strict.stateroot / "generations/1/root/usr/bin/same").read_bytes() != b"same\n"


@pytest.mark.unchecked
def test_without_root_what_can_be_is_proven(strict: Machine, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners, xattrs and setuid are left out, of files and of the proof."""
    monkeypatch.setattr("tools.sysroot.verbs.is_user_mode", lambda: True)
    strict.run("deploy", "os/a")
    assert (strict.root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755
    before = _everything(strict)
    _content(strict)
    assert TOLD.partition("{}")[0] + "/usr/lib/own" in strict.run("deploy", "os/b", status=12).stderr
    assert _everything(strict) == before
