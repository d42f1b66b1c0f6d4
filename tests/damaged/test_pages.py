"""One flipped bit anywhere in LMDB's pages: never wrong bytes, no error but ours, and what is gone is known to fsck.

Reading goes on in a process of its own: LMDB trusts its pages, so a look-up may end it. That counts as refused.
"""

from __future__ import annotations

import os
import struct
import traceback
from pathlib import Path

import pytest

from store.check_pages import check_pages
from store.findings import Severity
from store.refs import set_ref
from store.repository import Repository
from store.schema import CommitNumber
from tests.damaged.reading import PAGE_BYTES, Outcome, Truth, compare, flip_byte, make_repository, places, read_all
from tools.fsck import fsck

pytestmark = pytest.mark.unchecked

_BUG = 99
FIRST = CommitNumber(1024)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository; each test leaves it as it was."""
    return make_repository(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def truth(repo: Path) -> Truth:
    """Return what reading the sound repository gives."""
    return read_all(repo)


def _read_apart(repo: Path, truth: Truth) -> Outcome:
    """Compare in a child process; it must not fail with an error that is not ours."""
    child = os.fork()
    if child == 0:
        status = _BUG
        try:
            import faulthandler

            faulthandler.disable()
            status = compare(repo, truth)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status != _BUG, "an error that is not ours"
    return Outcome.REFUSED if status < 0 else Outcome(status)


def _check_flip(repo: Path, truth: Truth, offset: int, bit: int) -> Outcome:
    data = repo / "index" / "data.mdb"
    flip_byte(data, offset, bit)
    try:
        outcome = _read_apart(repo, truth)
        errors = [str(one) for one in fsck(repo, processes=1) if one.severity == Severity.ERROR]
    finally:
        flip_byte(data, offset, bit)
    place = f"bit {bit} of byte {offset} (page {offset // PAGE_BYTES}, byte {offset % PAGE_BYTES})"
    assert outcome != Outcome.WRONG, place
    assert outcome == Outcome.RIGHT or errors, f"{place}: {outcome.name}, but fsck found nothing"
    return outcome


def _check_many(repo: Path, truth: Truth, count: int, seed: int) -> None:
    size = (repo / "index" / "data.mdb").stat().st_size
    outcomes = [_check_flip(repo, truth, *place) for place in places(size, count, seed)]
    assert outcomes.count(Outcome.REFUSED) > count // 20  # or the test did not hit what it is about
    assert compare(repo, truth) == Outcome.RIGHT


def test_flipped_bits_in_pages(repo: Path, truth: Truth) -> None:
    _check_many(repo, truth, 60, seed=20_262)


@pytest.mark.parametrize("table", [None, b"ref"])
def test_a_root_of_before(tmp_path: Path, table: bytes | None) -> None:
    """A flipped bit can make of a root's number that of the root before: there all is sound, and old."""
    repo = make_repository(tmp_path)
    data = repo / "index" / "data.mdb"
    before = _root(data, table)[1]
    with Repository.open(repo) as repository:
        repository.database.write(lambda writing: set_ref(writing, "other", FIRST, time_s=4, message="moved"))
    place, root = _root(data, table)
    assert root != before and not list(check_pages(repo / "index"))
    with data.open("r+b") as file:
        os.pwrite(file.fileno(), struct.pack("@Q", before), place)
    (finding,) = check_pages(repo / "index")
    assert f"page {before}, the root of " in finding.what and "is a free page" in finding.what


def _root(data: Path, table: bytes | None) -> tuple[int, int]:
    """Return where in the file the number of a table's root stands, and the number; None is the table of tables."""
    raw = data.read_bytes()
    newest = max((0, PAGE_BYTES), key=lambda page: int.from_bytes(raw[page + 144 : page + 152], "little"))
    place = newest + 128
    if table is not None:
        page = int.from_bytes(raw[place : place + 8], "little") * PAGE_BYTES
        node = struct.pack("@H", len(table)) + table  # the size of its key, the key; then the record
        place = raw.index(node, page, page + PAGE_BYTES) + len(node) + 40
    return place, int.from_bytes(raw[place : place + 8], "little")


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(10))
def test_many_flipped_bits_in_pages(repo: Path, truth: Truth, seed: int) -> None:
    _check_many(repo, truth, 2000, seed)


@pytest.mark.torture
@pytest.mark.parametrize("page", range(2))
def test_every_bit_of_the_meta_pages(repo: Path, truth: Truth, page: int) -> None:
    for offset in range(160):
        for bit in range(8):
            _check_flip(repo, truth, page * PAGE_BYTES + offset, bit)
