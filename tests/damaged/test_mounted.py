"""Flipped bits, seen through a mount: the right answer, an error or no mount; no wrong byte, no name that vanishes."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from store.errors import FsviewError
from store.objects import Checksum
from store.repository import Repository
from tests.conftest import Tell
from tests.damaged.mounted import Seen, Truth, compare, look, serving
from tests.damaged.reading import PAGE_BYTES, flip_byte, make_repository, places
from tests.forge import Forge, forge
from tests.leaks import unmount_lazily

pytestmark = pytest.mark.unchecked

BLOCK = 128 << 10
SIZES = (17_000, BLOCK, BLOCK + 1, 3 * BLOCK, 7 * BLOCK - 3, 20 * BLOCK + 12_345)  # of loose files
REFUSED = "refused at mount"
_AT_ONCE_MAX = 3  # flips


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """Return where to mount; whatever is left there is taken away."""
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    unmount_lazily(path)


def make_wide(directory: Path) -> Path:
    """Return a repository with so many commits and refs that their tables have several levels of pages."""
    repo, parent = directory / "repo", None
    with Repository.create(repo) as repository:
        for number in range(150):
            with forge(repository) as work:
                name = f"wide/{number % 3}/{'x' * 60}{number}" if number % 4 else "line"
                parent = work.publish(_tree(work, number), name, time_s=number * 40_000, parent=parent)
    return repo


def _tree(work: Forge, number: int) -> Checksum:
    below = work.tree({b"own": work.file(b"%d" % number), b"same": work.file(b"same")})
    return work.tree({b"%d" % (number % 7): work.file(b"%d" % (number % 7))}, {b"d": below})


@contextmanager
def _flipped(data: Path, flips: list[tuple[int, int]]) -> Iterator[None]:
    for flip in flips:
        flip_byte(data, *flip)
    try:
        yield
    finally:
        for flip in flips:
            flip_byte(data, *flip)


def _flip_index(repo: Path, point: Path, truth: Truth, count: int, seed: int) -> Counter[str]:
    """Flip *count* bits in the index, one, two or three at a time; return how often what came of it."""
    data, chance, outcomes = repo / "index/data.mdb", random.Random(seed), Counter[str]()
    flips = places(data.stat().st_size, count, seed)
    while some := list(islice(flips, chance.randint(1, _AT_ONCE_MAX))):
        lock = repo / "index/lock.mdb"
        flip_byte(lock, chance.randrange(lock.stat().st_size), chance.randrange(8))  # begun anew by who opens it first
        with _flipped(data, some):
            seen = _mount_and_compare(repo, point, truth, chance.getrandbits(30))
        where = [f"bit {bit} of byte {offset % PAGE_BYTES} of page {offset // PAGE_BYTES}" for offset, bit in some]
        assert seen is None or not seen.wrong, (where, seen)
        outcomes[REFUSED if seen is None else seen.worst()] += 1
    return outcomes


def _mount_and_compare(repo: Path, point: Path, truth: Truth, seed: int) -> Seen | None:
    try:
        with serving(repo, point):
            return compare(point, truth, seed)
    except FsviewError as error:
        assert str(error)
        return None


def _check_index(repo: Path, point: Path, count: int, seed: int) -> Counter[str]:
    with serving(repo, point):
        truth = look(point)
    outcomes = _flip_index(repo, point, truth, count, seed)
    seen = _mount_and_compare(repo, point, truth, seed)
    assert seen is not None and seen.worst() == "unharmed"
    assert outcomes[REFUSED] and outcomes["EIO at list"] and outcomes["EIO at read"], outcomes  # else nothing was hit
    return outcomes


def test_the_index(tmp_path: Path, point: Path) -> None:
    _check_index(make_repository(tmp_path), point, 60, seed=20_306)  # one that hits more than what is asked for


@pytest.mark.torture
@pytest.mark.parametrize("make", [make_repository, make_wide])
def test_the_index_for_long(tmp_path: Path, point: Path, make: object, tell: Tell) -> None:
    assert callable(make)
    outcomes = _check_index(make(tmp_path), point, 2_500, seed=20_264)
    tell(f"2,500 bits of the index, by mount: {dict(outcomes)}")


def _check_live(repo: Path, point: Path, count: int, seed: int) -> Counter[str]:
    """Flip bits of the index one by one while it is mounted, and back."""
    data, outcomes = repo / "index/data.mdb", Counter[str]()
    with serving(repo, point):
        truth = look(point)
    for offset, bit in places(data.stat().st_size, count, seed):
        with serving(repo, point), _flipped(data, [(offset, bit)]):
            seen = compare(point, truth, offset)
        assert not seen.wrong, (f"bit {bit} of byte {offset % PAGE_BYTES} of page {offset // PAGE_BYTES}", seen)
        outcomes[seen.worst()] += 1
    return outcomes


def test_the_index_while_it_is_mounted(tmp_path: Path, point: Path) -> None:
    outcomes = _check_live(make_repository(tmp_path), point, 30, seed=20_266)
    assert outcomes["unharmed"] < 30


@pytest.mark.torture
def test_the_index_while_it_is_mounted_for_long(tmp_path: Path, point: Path, tell: Tell) -> None:
    outcomes = _check_live(make_repository(tmp_path), point, 1_000, seed=5)
    tell(f"1,000 bits of an index that is mounted: {dict(outcomes)}")


def _make_loose(directory: Path) -> tuple[Path, list[tuple[Path, bytes]]]:
    """Return a repository and its loose files, each with its content, which tells the name in the view by its size."""
    repo, chance = directory / "repo", random.Random(1)
    contents = [chance.randbytes(size) for size in SIZES]
    with Repository.create(repo) as repository, forge(repository) as work:
        checksums = [work.file(content) for content in contents]
        names = {b"%d" % size: checksum for size, checksum in zip(SIZES, checksums, strict=True)}
        work.publish(work.tree(names), "r")
        loose = [repository.loose_path(checksum) for checksum in checksums]
    for path in loose:
        path.chmod(0o600)
    return repo, list(zip(loose, contents, strict=True))


def _blocks(content: bytes) -> range:
    return range(0, len(content), BLOCK)


def _flip_loose(root: Path, loose: Path, content: bytes, chance: random.Random) -> Counter[str]:
    """Flip a bit in some blocks of a loose file; these are refused, the others right, and the file is as long."""
    damaged = {start for start in _blocks(content) if chance.random() < 0.5}
    flips = [(start + chance.randrange(min(BLOCK, len(content) - start)), chance.randrange(8)) for start in damaged]
    with _flipped(loose, flips), open(root / str(len(content)), "rb", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == len(content)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # read what is asked for, not more
        for start in chance.sample(_blocks(content), len(_blocks(content))):
            found = _read(file.fileno(), start, chance.choice((BLOCK, 4096, 1)))
            assert found is None if start in damaged else found and content.startswith(found, start), (loose, start)
        whole = _read(file.fileno(), 0, len(content))
        assert whole != content if damaged else whole == content
        assert whole is None or content.startswith(whole)  # a prefix, if the kernel read on into a damaged block
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return Counter({"EIO at read": len(damaged)})


def _read(file: int, offset: int, size: int) -> bytes | None:
    """Return what is there, or None if it is refused."""
    try:
        return os.pread(file, size, offset)
    except OSError as error:
        assert error.errno == errno.EIO
        return None


def _check_loose(directory: Path, point: Path, count: int) -> Counter[str]:
    repo, files = _make_loose(directory)
    chance, outcomes = random.Random(count), Counter[str]()
    with serving(repo, point):
        root = point / "refs/r"
        while outcomes.total() < count:
            for loose, content in files:
                outcomes += _flip_loose(root, loose, content, chance)
        assert all((root / str(len(content))).read_bytes() == content for _, content in files)
    return outcomes


def test_loose_files(tmp_path: Path, point: Path) -> None:
    _check_loose(tmp_path, point, 300)


@pytest.mark.torture
def test_loose_files_for_long(tmp_path: Path, point: Path, tell: Tell) -> None:
    outcomes = _check_loose(tmp_path, point, 5_000)
    tell(f"{outcomes.total():,} bits of loose files: {dict(outcomes)}")
