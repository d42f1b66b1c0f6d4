"""One flipped bit in any value of the index or in a loose file: right bytes or an error, and fsck names it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from store.findings import Finding, Severity
from tests.checking import assert_sound, check_repository
from tests.damaged.reading import Outcome, Truth, compare, flip_byte, flip_value, live_values, make_repository, read_all

pytestmark = pytest.mark.unchecked

KIB = 1024


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository; each test leaves it as it was."""
    return make_repository(tmp_path_factory.mktemp("values"))


@pytest.fixture(scope="module")
def truth(repo: Path) -> Truth:
    """Return what reading the sound repository gives."""
    assert_sound(repo)
    return read_all(repo)


def test_the_sound_repository_reads_right(repo: Path, truth: Truth) -> None:
    assert compare(repo, truth) == Outcome.RIGHT
    assert len(truth) > 50
    assert {table for table, _, _ in live_values(repo)} >= {b"content", b"blocks", b"detached", b"refdir", b"stat"}


def _check_value(repo: Path, truth: Truth, table: bytes, key: bytes, bits: Iterable[int]) -> None:
    for bit in bits:
        flip_value(repo, table, key, bit)
        try:
            outcome, findings = compare(repo, truth), _errors(repo)
        finally:
            flip_value(repo, table, key, bit)
        assert outcome <= Outcome.REFUSED, (table, key, bit, outcome)
        assert findings, (table, key, bit)
        assert all(table.decode() in text for text in findings), findings


def _errors(repo: Path) -> list[str]:
    from store.errors import CorruptionError

    try:
        findings: list[Finding] = check_repository(repo)
    except CorruptionError as error:  # it can't even be opened
        return [error.what]
    return [str(finding) for finding in findings if finding.severity == Severity.ERROR]


def test_a_flipped_bit_in_each_value(repo: Path, truth: Truth) -> None:
    chance = random.Random(20_260)
    for table, key, size in live_values(repo):
        _check_value(repo, truth, table, key, [chance.randrange(8 * size)])
    assert compare(repo, truth) == Outcome.RIGHT


@pytest.mark.torture
def test_every_bit_of_each_small_value_and_many_of_each_large(repo: Path, truth: Truth) -> None:
    for table, key, size in live_values(repo):
        _check_value(repo, truth, table, key, range(0, 8 * size, 1 if size <= 32 else 1 + size // 8))


def _check_loose(repo: Path, truth: Truth, step: int) -> None:
    chance = random.Random(20_261)
    for loose in sorted((repo / "objects").glob("*/*")):
        for start in range(0, loose.stat().st_size, step):
            offset, bit = start + chance.randrange(min(step, loose.stat().st_size - start)), chance.randrange(8)
            flip_byte(loose, offset, bit)
            try:
                assert compare(repo, truth) == Outcome.REFUSED, (loose, offset, bit)
                assert [text for text in _errors(repo) if loose.name in text], (loose, offset, bit)
            finally:
                flip_byte(loose, offset, bit)


def test_a_flipped_bit_in_some_places_of_each_loose_file(repo: Path, truth: Truth) -> None:
    _check_loose(repo, truth, 16 * KIB)


@pytest.mark.torture
def test_a_flipped_bit_in_each_kib_of_each_loose_file(repo: Path, truth: Truth) -> None:
    _check_loose(repo, truth, KIB)
