"""One flipped bit anywhere in LMDB's pages: never wrong bytes, no error but ours, and what is gone is known to fsck.

Reading goes on in a process of its own: LMDB trusts its pages, so a look-up may end it. That counts as refused.
"""

from __future__ import annotations

import os
import random
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.findings import Severity
from tests.damaged.reading import Outcome, Truth, compare, flip_byte, make_repository, read_all
from tools.fsck import fsck

pytestmark = pytest.mark.unchecked

PAGE_BYTES = 4096
HEADER_BYTES = 64  # of a page: its header, and the first offsets of its nodes
_BUG = 99


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


def _somewhere(size: int, count: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yield places: a third in the meta pages, a third in the headers of pages, a third anywhere."""
    chance = random.Random(seed)
    pages = size // PAGE_BYTES
    for number in range(count):
        page = (chance.randrange(2), chance.randrange(2, pages), chance.randrange(2, pages))[number % 3]
        within = (160, HEADER_BYTES, PAGE_BYTES)[number % 3]
        yield page * PAGE_BYTES + chance.randrange(within), chance.randrange(8)


def _check_many(repo: Path, truth: Truth, count: int, seed: int) -> None:
    size = (repo / "index" / "data.mdb").stat().st_size
    outcomes = [_check_flip(repo, truth, *place) for place in _somewhere(size, count, seed)]
    assert outcomes.count(Outcome.REFUSED) > count // 20  # or the test did not hit what it is about
    assert compare(repo, truth) == Outcome.RIGHT


def test_flipped_bits_in_pages(repo: Path, truth: Truth) -> None:
    _check_many(repo, truth, 60, seed=20_262)


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
