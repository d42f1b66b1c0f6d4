"""The check of the store: a sound repository has no findings, and each invariant that is broken is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroaring import BitMap64

from store.check import check
from store.database import Writing
from store.findings import Severity
from store.objects import Checksum, ObjectType
from store.pruned import record_pruned
from store.repository import Repository
from store.revisions import find_place
from store.schema import (
    FIRST_ID,
    CommitRecord,
    FileRecord,
    MtimeRecord,
    RefRecord,
    Storage,
    TreeRecord,
    id_key,
    key_id,
    mtime_key,
)
from store.staging import Stage
from store.statcache import StatRecord
from tests.trees import Spec, build_tree
from tools.cli import run

pytestmark = pytest.mark.unchecked

LARGE = bytes(range(256)) * 3000  # loose, of several blocks
TREE: Spec = {"a": {"small": b"small\n", "large": LARGE}, "empty": b"", "b": {"same": b"small\n"}}

Break = Callable[[Writing, "Sample"], object]


class Sample:
    """A repository with two commits, and the ids of what is in the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with Repository.open(path) as repository, repository.database.reading() as reading:
            self.root = find_place(reading, "x/main", now_s=0).entry.id
            self.small = find_place(reading, "x/main:/a/small", now_s=0).entry.id
            self.large = find_place(reading, "x/main:/a/large", now_s=0).entry.id
            self.directory = find_place(reading, "x/main:/a", now_s=0).entry.id
            self.record = FileRecord.unpack(reading.need(b"file", id_key(self.large)))
            self.stat_key = next(key for key, _ in reading.items(b"stat"))
            self.loose = repository.loose_path(self.record.checksum)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of two commits, to be copied."""
    top = tmp_path_factory.mktemp("check")
    assert run(["init", str(top / "repo")]) == 0
    for subject in ("one", "two"):
        tree = build_tree(top / subject, {**TREE, subject: subject.encode()})
        words = ["-b", "x/main", "-s", subject, "--timestamp=@0", str(tree)]
        assert run(["commit", "--repo", str(top / "repo"), *words]) == 0
    return top / "repo"


@pytest.fixture
def sample(tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> Sample:
    """Return a repository that the test may break."""
    shutil.copytree(made, tmp_path / "repo")
    return Sample(tmp_path / "repo")


def _findings(sample: Sample, *, quick: bool = False) -> list[str]:
    with Repository.open(sample.path) as repository:
        return [str(finding) for finding in check(repository, quick=quick)]


def test_a_sound_repository_has_no_findings(sample: Sample) -> None:
    assert _findings(sample) == []
    assert _findings(sample, quick=True) == []


def test_an_empty_repository_has_no_findings(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "repo") as repository:
        assert check(repository) == []


def _change(table: bytes, key: bytes, change: Callable[[bytes], bytes]) -> Callable[[Writing], None]:
    return lambda writing: writing.put(table, key, change(writing.need(table, key)))


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


def _file(**fields: object) -> Break:
    def broken(writing: Writing, sample: Sample) -> None:
        from dataclasses import replace

        key = id_key(sample.large)
        record = replace(FileRecord.unpack(writing.need(b"file", key)), **fields)  # type: ignore[arg-type]
        writing.put(b"file", key, record.pack())

    return broken


def _tree(**fields: object) -> Break:
    def broken(writing: Writing, sample: Sample) -> None:
        from dataclasses import replace

        key = id_key(sample.root)
        record = replace(TreeRecord.unpack(writing.need(b"dirtree", key)), **fields)  # type: ignore[arg-type]
        writing.put(b"dirtree", key, record.pack())

    return broken


def _commit(**fields: object) -> Break:
    def broken(writing: Writing, sample: Sample) -> None:
        from dataclasses import replace

        key = id_key(FIRST_ID)
        record = replace(CommitRecord.unpack(writing.need(b"commit", key)), **fields)  # type: ignore[arg-type]
        writing.put(b"commit", key, record.pack())

    return broken


def _second_key(sample: Sample) -> bytes:
    return mtime_key(sample.record.size, sample.record.mtime_ns // 10**9)


def _other_second(writing: Writing, sample: Sample) -> None:
    writing.put(b"mtime", _second_key(sample), MtimeRecord(bytes(16), sample.record.mtime_ns // 10**9).pack())


def _stat_of_another(writing: Writing, sample: Sample) -> None:
    record = StatRecord.unpack(writing.need(b"stat", sample.stat_key))
    other = StatRecord(sample.directory, (b"q", *record.names[1:]), record.stats, record.ids)
    writing.put(b"stat", sample.stat_key, other.pack())


def _prune_one_of_two(writing: Writing) -> None:
    record_pruned(writing, "commit", BitMap64([FIRST_ID]))
    for number in (FIRST_ID, FIRST_ID + 1):
        writing.delete(b"commit", id_key(number))


def _prune_record(writing: Writing, table: bytes, number: int) -> None:
    """Delete a record that others name, and note that it was pruned."""
    writing.delete(table, id_key(number))
    record_pruned(writing, table.decode(), BitMap64([number]))


BREAKS: dict[str, tuple[Break, str]] = {
    "content": (lambda w, s: _change(b"content", id_key(s.small), _flip)(w), "its sha256 is"),
    "content short": (lambda w, s: _change(b"content", id_key(s.small), lambda d: d[:-1])(w), "contents have 5 bytes"),
    "content gone": (lambda w, s: w.delete(b"content", id_key(s.small)), "contents are gone"),
    "content of none": (lambda w, s: w.put(b"content", id_key(s.large), b"x"), "contents that it should not have"),
    "blocks": (lambda w, s: _change(b"blocks", id_key(s.large) + bytes(4), _flip)(w), "expected XXH3"),
    "blocks short": (
        lambda w, s: _change(b"blocks", id_key(s.large) + bytes(4), lambda d: d[8:])(w),
        "guards of group",
    ),
    "blocks gone": (lambda w, s: w.delete(b"blocks", id_key(s.large) + bytes(4)), "guards of its blocks"),
    "file size": (_file(size=1), "expected 1 bytes"),
    "file storage": (_file(storage=Storage.EMPTY), "its contents are empty"),
    "file checksum": (_file(checksum=Checksum(bytes(32))), "its checksum stands for no id"),
    "file header": (_file(header=b"short"), "its header is not valid"),
    "file mtime": (_file(mtime_ns=10**9), "is not recorded"),
    "file gone": (lambda w, s: w.delete(b"file", id_key(s.small)), "were given out, but are not there"),
    "file unparsable": (lambda w, s: w.put(b"file", id_key(s.small), b"x"), "can't be parsed"),
    "second": (_other_second, "have its second"),
    "object": (lambda w, s: _change(b"object", b"\x01" + s.record.checksum, _flip)(w), "stands for"),
    "object gone": (lambda w, s: w.delete(b"object", b"\x01" + s.record.checksum), "which is not here"),
    "dirtree counts": (_tree(directories=77), "it counts 77"),
    "dirtree raw": (_tree(raw=b"\0"), "its sha256 is"),
    "dirtree unparsable": (_tree(raw=b"junk"), "its sha256 is"),
    "listing": (lambda w, s: _change(b"listing", id_key(s.root), _flip)(w), "compiling it again"),
    "listing gone": (lambda w, s: w.delete(b"listing", id_key(s.root)), "it has no listing"),
    "listing of none": (lambda w, s: w.put(b"listing", id_key(9999), bytes(12)), "but no dirtree"),
    "dirmeta": (lambda w, s: _change(b"dirmeta", id_key(FIRST_ID), _flip)(w), "its sha256 is"),
    "commit raw": (_commit(raw=b"junk"), "its sha256 is"),
    "commit root": (_commit(tree_id=FIRST_ID), "its root is dirtree"),
    "commit meta": (_commit(meta_id=9999), "its root is dirmeta"),
    "commit counts": (_commit(entries=3), "and 3 entries"),
    "pruned, but there": (lambda w, s: record_pruned(w, "file", BitMap64([s.small])), "but is recorded as pruned"),
    "never given, but pruned": (lambda w, s: record_pruned(w, "meta", BitMap64([9999])), "were never given out: 9999"),
    "not a bitmap": (lambda w, s: w.put(b"head", b"pruned tree", b"junk"), "can't be parsed"),
    "one more than pruned": (lambda w, s: _prune_one_of_two(w), "commit ids 1025 to 1025 were given out, but are not"),
    "pruned, but named": (lambda w, s: _prune_record(w, b"file", s.small), "file id"),
    "pruned, but a ref's": (lambda w, s: _prune_record(w, b"commit", FIRST_ID + 1), "which is not here"),
    "commit gone": (lambda w, s: w.delete(b"commit", id_key(FIRST_ID)), "commit ids 1024 to 1024"),
    "detached of none": (lambda w, s: w.put(b"detached", id_key(9999), b""), "of a commit that is not here"),
    "detached": (lambda w, s: w.put(b"detached", id_key(FIRST_ID), b"junk"), "metadata are not valid"),
    "ref": (lambda w, s: w.put(b"ref", b"x/main", RefRecord(FIRST_ID + 1, 9999).pack()), "commit number 9999"),  # type: ignore[arg-type]
    "ref name": (lambda w, s: w.put(b"ref", b"-", w.need(b"ref", b"x/main")), "is not a ref name"),
    "ref below a ref": (lambda w, s: w.put(b"ref", b"x", w.need(b"ref", b"x/main")), "lies below the ref x"),
    "ref gone": (lambda w, s: w.delete(b"ref", b"x/main"), "there is no ref in it"),
    "refdir gone": (lambda w, s: w.delete(b"refdir", b"x"), "the directory x is not recorded"),
    "refid gone": (lambda w, s: w.delete(b"refid", id_key(FIRST_ID + 1)), "does not stand for it"),
    "reflog": (lambda w, s: w.put(b"reflog", id_key(9999) + id_key(9999), bytes(24)), "which nothing has"),
    "reflog gone": (lambda w, s: w.delete(b"reflog", id_key(FIRST_ID + 1) + id_key(FIRST_ID)), "2 moves of refs"),
    "mtime gone": (
        lambda w, s: w.delete(b"mtime", mtime_key(s.record.size, s.record.mtime_ns // 10**9)),
        "not recorded",
    ),
    "counter": (lambda w, s: w.set_counter("file", FIRST_ID), "ids were only given out below"),
    "counter gone": (lambda w, s: w.delete(b"head", b"next tree"), "ids were only given out below"),
    "head": (lambda w, s: w.put(b"head", b"more", b""), "nothing of this name"),
    "stat": (_stat_of_another, "its names are not those"),
    "stat unparsable": (lambda w, s: w.put(b"stat", s.stat_key, b"x"), "can't be parsed"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_invariant_is_found(sample: Sample, name: str) -> None:
    broken, text = BREAKS[name]
    with Repository.open(sample.path) as repository:
        repository.database.write(lambda writing: broken(writing, sample))
        findings = check(repository)
    assert [str(finding) for finding in findings if finding.severity == Severity.ERROR and text in finding.what]


@pytest.fixture(params=["flipped", "longer", "shorter", "gone", "a symlink", "a directory"])
def damaged_loose(request: pytest.FixtureRequest, sample: Sample) -> Iterator[Sample]:
    """Return a repository with a damaged loose file."""
    data = bytearray(sample.loose.read_bytes())
    data[300_000] ^= 4
    sample.loose.unlink()
    match request.param:
        case "flipped":
            sample.loose.write_bytes(data)
        case "longer":
            sample.loose.write_bytes(LARGE + b"x")
        case "shorter":
            sample.loose.write_bytes(LARGE[:-1])
        case "a symlink":
            sample.loose.symlink_to("/etc/passwd")
        case "a directory":
            sample.loose.mkdir()
    yield sample


def test_a_damaged_loose_file_is_found_and_placed(damaged_loose: Sample) -> None:
    (found,) = _findings(damaged_loose)
    assert damaged_loose.record.checksum.hex() in found and str(damaged_loose.loose) in found
    assert found.endswith("it shows as x/main:/a/large, " + _older(damaged_loose) + ":/a/large")


def _older(sample: Sample) -> str:
    with Repository.open(sample.path) as repository, repository.database.reading() as reading:
        return Checksum(reading.need(b"commit", id_key(FIRST_ID))[:32]).hex()[:8]


def test_leftovers_are_garbage(sample: Sample) -> None:
    orphan = sample.path / "objects/ab" / ("c" * 62)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x")
    (sample.path / "tmp/stage-dead").mkdir()
    (sample.path / "tmp/other").touch()
    with Repository.open(sample.path) as repository, Stage(repository) as stage:
        (sample.path / "tmp/stage-dead").mkdir(exist_ok=True)  # a new stage sweeps those of the dead
        findings = check(repository)
        assert stage.path.exists()
    assert {finding.severity for finding in findings} == {Severity.GARBAGE}
    assert {Path(finding.where).name for finding in findings} == {"c" * 62, "stage-dead", "other"}


def test_many_places_are_not_all_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repo = tmp_path / "repo"
    assert run(["init", str(repo)]) == 0
    tree = build_tree(tmp_path / "tree", {f"d{number}": {"large": LARGE} for number in range(9)})
    assert run(["commit", "--repo", str(repo), "-b", "main", str(tree)]) == 0
    capsys.readouterr()
    for loose in (repo / "objects").glob("*/*"):
        os.truncate(loose, 5)
    with Repository.open(repo) as repository:
        (finding,) = check(repository, quick=True)
    assert finding.visible == ("main:/d0/large", "main:/d1/large", "main:/d2/large", "and more")


def test_one_flipped_bit_is_one_finding(sample: Sample) -> None:
    """What names a damaged record is not a finding of its own."""
    with Repository.open(sample.path) as repository:
        repository.database.write(lambda writing: _spoil(writing, b"dirtree", id_key(sample.directory)))
        findings = check(repository)
    assert [finding.what.partition(": ")[2] for finding in findings] == [
        "the value is not what was written: its guard is another"
    ]
    assert findings[0].subject == (ObjectType.DIRTREE, sample.directory)
    assert findings[0].visible[0] == "x/main:/a"
    assert key_id(id_key(sample.directory)) == sample.directory


def _spoil(writing: Writing, table: bytes, key: bytes) -> None:
    """Flip a bit of a stored value behind the guard's back."""
    stored = bytearray(writing._txn.get(key, db=writing._handles[table]) or b"")
    stored[0] ^= 1
    writing._txn.put(key, bytes(stored), db=writing._handles[table])
