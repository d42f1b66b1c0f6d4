"""Tar archives that ask for more than they are: holes, huge headers, endless lists, memory for decompression."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Fsview
from tests.marks import needs_root
from tests.peak import run_measured
from tests.running import RunFsview
from tools import tar_limits

GIB = 1 << 30
PEAK_MIB_MAX = 200


def _packed(*members: tarfile.TarInfo) -> bytes:
    """Return an archive of members without contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return out.getvalue()


def _member(name: str = "f", size: int = 0, **pax: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.pax_headers = size, {key.replace("_", "."): value for key, value in pax.items()}
    return member


def _header(kind: bytes, size: int, patch: Callable[[bytearray], None] = lambda block: None) -> bytes:
    """Return one header block, its sum made right."""
    member = tarfile.TarInfo("header")
    member.type, member.size = kind, size
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT)[-512:])
    patch(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _old_sparse(size: int) -> bytes:
    def patch(block: bytearray) -> None:
        block[483:495] = b"\x80" + size.to_bytes(11, "big")

    return _header(tarfile.GNUTYPE_SPARSE, 0, patch) + bytes(1024)


def _pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return _header(kind, len(records)) + records + bytes(-len(records) % 512)


def _record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    size = len(rest)
    while len(str(size)) + len(rest) != size:
        size = len(str(size)) + len(rest)
    return str(size).encode() + rest


HUGE = str(30 * GIB)
LIST_1_0 = b"1\n0\n1\n".ljust(512, b"\0") + b"x".ljust(512, b"\0")
HOLES: dict[str, bytes] = {
    "old GNU": _old_sparse(30 * GIB),
    "pax 0.0": _packed(_member(GNU_sparse_size=HUGE, GNU_sparse_offset="0", GNU_sparse_numbytes="0")),
    "pax 0.1": _packed(_member(GNU_sparse_size=HUGE, GNU_sparse_map="0,0")),
    "pax 1.0": _pax(
        _record("GNU.sparse.major", "1") + _record("GNU.sparse.minor", "0") + _record("GNU.sparse.realsize", HUGE)
    )
    + _header(tarfile.REGTYPE, 513) + LIST_1_0 + bytes(1024),
    "many": _packed(*(_member(str(n), GNU_sparse_size=str(GIB // 4), GNU_sparse_map="0,0") for n in range(5))),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOLES)
def test_holes_of_thirty_gibibytes(fsview: Fsview, repo: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(HOLES[kind])
    said = fsview("commit", "-b", "main", f"--tree=tar={path}", status=10).stderr
    assert "holes of" in said and "--allow-holes" in said
    assert fsview("refs").lines == [] and list((repo / "tmp").iterdir()) == []
    if kind != "many":
        fsview("commit", "-b", "rest", "--ignore=header", "--ignore=f", f"--tree=tar={path}")


def test_holes_in_a_stream_of_unknown_size(
    fsview: Fsview, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_limits, "HOLES_BYTES_FREE", 1 << 20)
    packed = _packed(_member(GNU_sparse_size=str(40 << 20), GNU_sparse_map="0,0"))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(packed))
    options = ("commit", "-b", "main", f"--tree=tar={tmp_path / 'a.tar.gz'}")
    assert "--allow-holes" in fsview(*options, status=10).stderr
    fsview(*options, "--allow-holes")
    assert fsview("ls", "main", "/f").lines[0].split()[3] == str(40 << 20)


def test_holes_in_proportion_to_the_archive(
    fsview: Fsview, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_limits, "HOLES_BYTES_FREE", 0)
    sparse = _member("z", GNU_sparse_size=str(1 << 20), GNU_sparse_map="0,0")
    (tmp_path / "a.tar").write_bytes(_packed(_member("data", 1 << 20), sparse))
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 'a.tar'}")


HEADERS: dict[str, tuple[bytes, str]] = {
    "pax": (_header(tarfile.XHDTYPE, 6 * GIB), "a header of 6.0 GiB"),
    "global": (_header(tarfile.XGLTYPE, 6 * GIB), "a header of 6.0 GiB"),
    "long name": (_header(tarfile.GNUTYPE_LONGNAME, 6 * GIB), "a header of 6.0 GiB"),
    "long link": (_header(tarfile.GNUTYPE_LONGLINK, 6 * GIB), "a header of 6.0 GiB"),
    "many globals": (_pax(_record("k", "v" * 300_000), tarfile.XGLTYPE) * 5, "a header of 1.1 MiB"),
    "headers of headers": (_pax(_record("k", "v")) * 2000, "headers tell of the next one"),
    "long names of long names": (_header(tarfile.GNUTYPE_LONGNAME, 0) * 2000, "headers tell of the next one"),
    "digits without an end": (_pax(b"9" * 200_000), "a pax header is damaged at its byte 0"),
    "a record beyond the end": (_pax(b"99 k=v\n"), "a pax header is damaged"),
    "a record of nothing": (_pax(b"0 k=v\n"), "a pax header is damaged"),
    "a size that is none": (_pax(_record("GNU.sparse.size", "ten")) + _header(b"0", 0), "a number in a pax header"),
    "a size of 5000 digits": (_pax(_record("size", "9" * 5000)) + _header(b"0", 0), "a number in a pax header"),
    "an endless list of holes": (
        _pax(_record("GNU.sparse.major", "1") + _record("GNU.sparse.minor", "0") + _record("GNU.sparse.realsize", "9"))
        + _header(b"0", 6 * GIB) + b"1000000000\n".ljust(512, b"0"), "in more than 262144 pieces",
    ),
    "a list of holes without numbers": (
        _pax(_record("GNU.sparse.major", "1") + _record("GNU.sparse.minor", "0") + _record("GNU.sparse.realsize", "9"))
        + _header(b"0", 6 * GIB) + b"9" * 4096, "a list of holes is damaged",
    ),
    "parts that overlap": (
        _pax(_record("GNU.sparse.size", "9") + _record("GNU.sparse.map", "0,5,3,5")) + _header(b"0", 10), "as they can",
    ),
    "parts behind the end": (
        _pax(_record("GNU.sparse.size", "9") + _record("GNU.sparse.map", "20,5")) + _header(b"0", 10), "as they can",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_headers(make_repo: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    repo, path, (data, message) = make_repo(), tmp_path / "a.tar", HEADERS[kind]
    with open(path, "wb") as file:  # what a header says is really there, if only as a hole on disk
        file.write(data)
        file.truncate(8 * GIB)
    found = run_measured(tmp_path, repo, "commit", "-b", "main", f"--tree=tar={path}", status=10)
    assert message in found.stderr and found.peak_mib < PEAK_MIB_MAX, found


def test_digits_in_a_value(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    """Python's own reader looks for a key before each of them, again and again."""
    (tmp_path / "a.tar").write_bytes(_pax(_record("comment", "9" * 900_000)) + _header(b"0", 0) + bytes(1024))
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 'a.tar'}")


def _greedy_xz() -> bytes:
    """Return an xz stream that asks for a dictionary of 4 GiB, of which it needs nothing."""
    whole = bytearray(lzma.compress(_packed(_member("f", 100)), check=lzma.CHECK_CRC32))
    size = (whole[12] + 1) * 4  # of the block's header: size, flags, filter, size of properties, properties
    assert whole[14:16] == b"\x21\x01"
    whole[16] = 40
    whole[12 + size - 4 : 12 + size] = zlib.crc32(whole[12 : 12 + size - 4]).to_bytes(4, "little")
    return bytes(whole)


def test_memory_for_xz(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tar.xz").write_bytes(_greedy_xz())
    said = fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 'a.tar.xz'}", status=10).stderr
    assert "more than 256.0 MiB of memory" in said and "xz -dc" in said


def test_several_xz_streams_and_padding(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    packed = _packed(_member("f", 3000), _member("g", 10))
    pieces = lzma.compress(packed[:1000]), bytes(8), lzma.compress(packed[1000:]), bytes(4)
    (tmp_path / "a.tar.xz").write_bytes(b"".join(pieces))
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 'a.tar.xz'}")
    assert fsview("ls", "main").lines[-1].endswith("/g")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 24 MiB."""
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "fsview-test", point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


@needs_root
def test_a_gzip_bomb_ends_with_the_disk(run_fsview: RunFsview, small_disk: Path, tmp_path: Path) -> None:
    """What is compressed isn't bounded but by the disk, as with any tar; it stops, and leaves nothing."""
    repo = small_disk / "repo"
    run_fsview("init", repo)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(_packed(_member("zeros", 128 << 20)), 1))
    found = run_measured(tmp_path, repo, "commit", "-b", "main", f"--tree=tar={tmp_path / 'a.tar.gz'}", status=1)
    assert "No space left on device" in found.stderr and "nothing was committed" in found.stderr
    assert list((repo / "tmp").iterdir()) == [] and found.peak_mib < PEAK_MIB_MAX
