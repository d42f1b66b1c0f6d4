"""fsview commit --tree=tar=: whole archives of every kind give the tree that was packed, and others give nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from store.repository import Repository
from store.revisions import find_place
from tests.cli.conftest import Fsview
from tests.conftest import TreeFactory
from tests.marks import needs_root
from tests.running import RunFsview
from tests.snapshots import assert_same_tree
from tests.trees import File, Spec, build_tree, sample_tree
from tools.checkout import checkout

YEAR_2020 = 1_577_836_800


def _member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mtime = kind, YEAR_2020
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def _packed(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return an archive of these, at which no packer has looked."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in (item if isinstance(item, tuple) else (item, b"") for item in members):
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _paths(fsview: Fsview, revision: str) -> list[str]:
    """Return all paths but the root's, sorted."""
    return sorted(fsview("ls", "-R", "--nul-filenames-only", revision).stdout.decode().strip("\0").split("\0"))[1:]


def _check_out(repo: Path, revision: str, destination: Path) -> Path:
    with Repository.open(repo) as repository:
        with repository.database.reading() as reading:
            place = find_place(reading, revision, now_s=0)
        checkout(repository, place, destination)
    return destination


@needs_root
@pytest.mark.parametrize(
    "options", [["--format=gnu"], ["--format=pax", "--xattrs", "--xattrs-include=*"]], ids=" ".join
)
def test_what_was_packed_comes_back(
    fsview: Fsview, repo: Path, tmp_path: Path, tree_factory: TreeFactory, options: list[str]
) -> None:
    tree = tree_factory({**sample_tree(), "long" * 60: {"name" * 60: b"x"}, "huge": File(b"\xa5" * (9 << 20))})
    subprocess.run(["tar", "-c", *options, "--sort=name", "-f", tmp_path / "t.tar", "-C", tree, "."], check=True)
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}")
    ignore = () if "--xattrs" in options else ("xattrs",)
    out = _check_out(repo, "main", tmp_path / "out")
    for path in (tree / "etc/noted",):
        os.removexattr(path, "user.empty")  # which OSTree leaves out
    assert_same_tree(tree, out, ignore=ignore)


def test_times_keep_their_nanoseconds(fsview: Fsview, repo: Path, tmp_path: Path, tree_factory: TreeFactory) -> None:
    ns = YEAR_2020 * 10**9 + 123_456_789
    tree = tree_factory({"f": File(b"one", mtime_ns=ns), "old": File(b"older", mtime_ns=-5)})
    subprocess.run(["tar", "-c", "--format=pax", "-f", tmp_path / "t.tar", "-C", tree, "."], check=True)
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}")
    out = _check_out(repo, "main", tmp_path / "out")
    assert ((out / "f").stat().st_mtime_ns, (out / "old").stat().st_mtime_ns) == (ns, -5)


def test_sparse_members(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "t", {"sparse": b""})
    with (tree / "sparse").open("r+b") as file:
        file.seek(3 << 20)
        file.write(b"x")
        file.truncate(5 << 20)
    for number, options in enumerate((["--format=gnu"], ["--format=pax"])):
        subprocess.run(["tar", "-cS", *options, "-f", tmp_path / "t.tar", "-C", tree, "."], check=True)
        fsview("commit", "-b", f"r{number}", f"--tree=tar={tmp_path / 't.tar'}")
        assert_same_tree(tree, _check_out(repo, f"r{number}", tmp_path / f"out{number}"))


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["none", "gz", "bz2", "xz"]
)
def test_standard_input(run_fsview: RunFsview, repo: Path, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    packed = _packed((_member("a/f"), b"from a pipe"), (_member("g"), os.urandom(50_000)))
    run_fsview("commit", "-b", "main", "--tree=tar=-", repo=repo, input=compress(packed))
    assert run_fsview("cat", "main:/a/f", repo=repo).stdout == "from a pipe"


def test_several_compressed_streams_in_one(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    packed = _packed((_member("f"), b"f" * 2000), (_member("g"), b"g"))
    (tmp_path / "t.tgz").write_bytes(gzip.compress(packed[:1000]) + gzip.compress(packed[1000:]))
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tgz'}")
    assert _paths(fsview, "main") == ["/f", "/g"]


def test_names_in_every_spelling(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    members = [(_member(name), b"x") for name in ("./a", "/b", "c//d", "./e/./f", "new\nline")]
    (tmp_path / "t.tar").write_bytes(_packed(*members, _member("./h/", tarfile.DIRTYPE, mode=0o700)))
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}")
    assert _paths(fsview, "main") == ["/a", "/b", "/c", "/c/d", "/e", "/e/f", "/h", "/new\nline"]


def test_the_last_one_of_a_name_wins(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(
        _packed(
            (_member("f"), b"1"), (_member("f"), b"2"),
            _member("d", tarfile.DIRTYPE, mode=0o755), (_member("d/x"), b"x"), (_member("d"), b"a file now"),
            (_member("e"), b"e"), (_member("e/y"), b"y"),
            _member("link", tarfile.SYMTYPE, linkname="/etc"), (_member("link/passwd"), b"inside"),
        )
    )  # fmt: skip
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}")
    assert fsview("cat", "main:/f").stdout == b"2"
    assert _paths(fsview, "main") == ["/d", "/e", "/e/y", "/f", "/link", "/link/passwd"]


def test_hard_links(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    link = _member("d/two", tarfile.LNKTYPE, linkname="./one")
    (tmp_path / "t.tar").write_bytes(_packed((_member("one"), b"1"), link))
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}")
    fsview("commit", "-b", "skip", "--ignore=/one", f"--tree=tar={tmp_path / 't.tar'}")
    assert fsview("cat", "main:/d/two").stdout == b"1" == fsview("cat", "skip:/d/two").stdout
    assert _paths(fsview, "skip") == ["/d", "/d/two"]


def test_what_is_left_out(fsview: Fsview, repo: Path, tmp_path: Path, tree_factory: TreeFactory) -> None:
    spec: Spec = {"a": {"b": {"c": b"c"}, "x.o": b""}, "k": {"x.o": b"", "y": b""}, "z": b""}
    tree = tree_factory(spec)
    subprocess.run(["tar", "-cf", tmp_path / "t.tar", "-C", tree, "."], check=True)
    patterns = ["--ignore=*.o", "--ignore=/a/b", "--no-bindings", "--timestamp=@1"]
    from_tar = fsview("commit", "--orphan", *patterns, f"--tree=tar={tmp_path / 't.tar'}").stdout
    assert from_tar == fsview("commit", "--orphan", *patterns, tree).stdout
    fsview("commit", "-b", "whole", tree)
    assert from_tar == fsview("commit", "--orphan", *patterns, "--tree=ref=whole").stdout


@pytest.mark.parametrize(
    ("members", "status", "message"),
    [
        ([_member("../x")], 10, "'../x', which leads out of it"),
        ([_member("a/../../x")], 10, "leads out"),
        ([_member("a/..", tarfile.DIRTYPE)], 10, "leads out"),
        ([_member("l", tarfile.LNKTYPE, linkname="nothing")], 10, "lacks 'nothing', to which 'l' is a hard link"),
        ([_member("l", tarfile.LNKTYPE, linkname="l")], 10, "lacks 'l'"),
        ([_member("d", tarfile.DIRTYPE), _member("l", tarfile.LNKTYPE, linkname="d")], 10, "lacks 'd'"),
        ([_member("l", tarfile.LNKTYPE, linkname="../x")], 10, "leads out"),
        ([_member("l", tarfile.LNKTYPE, linkname="")], 10, "lacks ''"),
        ([_member(".")], 10, "names its root '.' as a file"),
        ([_member("x\udce9")], 10, "not UTF-8"),
        ([_member("x" * 256)], 2, "not a file name"),
        ([_member("f", pax_headers={"mtime": "nan"})], 10, "'f' is from 'nan'"),
        ([_member("f", pax_headers={"mtime": "1e999999999"})], 10, "'f' is from"),
        ([_member("f", uid=2**40)], 2, "an owner's numbers have 32 bits"),
        ([_member("l", tarfile.SYMTYPE, linkname="x\udce9")], 2, "not the target"),
        (
            [_member("c", tarfile.CHRTYPE), _member("d/b", tarfile.BLKTYPE), _member("p", tarfile.FIFOTYPE)],
            16,
            "can't hold devices, FIFOs or sockets: c, d/b, p; nothing was committed; leave them out with",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_refused(
    fsview: Fsview, repo: Path, tmp_path: Path, members: list[tarfile.TarInfo], status: int, message: str
) -> None:
    (tmp_path / "t.tar").write_bytes(_packed((_member("fine"), b"fine"), *members))
    assert message in fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}", status=status).stderr
    assert fsview("refs").lines == [] and list((repo / "tmp").iterdir()) == []


def test_special_members_can_be_left_out(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(_packed(_member("p", tarfile.FIFOTYPE), (_member("f"), b"f")))
    fsview("commit", "-b", "main", "--skip-special", f"--tree=tar={tmp_path / 't.tar'}")
    fsview("commit", "-b", "main", "--ignore=p", f"--tree=tar={tmp_path / 't.tar'}")
    assert _paths(fsview, "main") == ["/f"]


ARCHIVE = _packed(
    (_member("a"), b"a" * 1000),
    (_member("b" * 150, pax_headers={"comment": "to have a pax header"}), b"b" * 100),
    (_member("c"), b"c" * 9000),
)
END = len(ARCHIVE.rstrip(b"\0")) // 512 * 512 + 512  # of the last member; behind it are blocks of zeros


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 700, 1536, 1600, 2048, 3000, END - 600, END - 1, END])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress], ids=["none", "gz", "xz"])
def test_an_archive_that_ends_too_early(
    fsview: Fsview, repo: Path, tmp_path: Path, cut: int, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "t.tar").write_bytes(compress(ARCHIVE[:cut]))
    said = fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}", status=10).stderr
    assert f"{tmp_path / 't.tar'} is not a whole tar archive" in said and "nothing was committed" in said
    assert fsview("refs").lines == [] and list((repo / "tmp").iterdir()) == []


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_a_compressed_stream_that_ends_too_early(
    fsview: Fsview, repo: Path, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    whole = compress(ARCHIVE)
    for cut in (3, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        (tmp_path / "t.tar").write_bytes(whole[:cut])
        fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}", status=10)
    assert fsview("refs").lines == []


def test_a_flipped_bit_in_a_compressed_archive(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    """The sum that gzip writes is checked; without, a wrong byte would be committed."""
    stored = bytearray(gzip.compress(ARCHIVE, compresslevel=0))
    stored[700] ^= 1  # in the contents of "a"
    (tmp_path / "t.tgz").write_bytes(stored)
    assert "CRC" in fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tgz'}", status=10).stderr


@pytest.mark.parametrize("at", [0, 100, 148, 1536 + 5, 1536 + 150])
def test_a_damaged_header(fsview: Fsview, repo: Path, tmp_path: Path, at: int) -> None:
    damaged = bytearray(ARCHIVE)
    damaged[at] ^= 1
    (tmp_path / "t.tar").write_bytes(damaged)
    fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}", status=10)
    assert fsview("refs").lines == []


def test_what_is_no_archive(fsview: Fsview, repo: Path, tmp_path: Path) -> None:
    for junk in (
        b"",
        b"not a tar",
        random.Random(1).randbytes(5000),
        b"\x1f\x8bjunk",
        b"BZhjunk",
        b"\xfd7zXZ\0junk",
        b"\xff" * 2048,
    ):
        (tmp_path / "t.tar").write_bytes(junk)
        fsview("commit", "-b", "main", f"--tree=tar={tmp_path / 't.tar'}", status=10)
    (tmp_path / "t.tar").write_bytes(bytes(1024))  # an empty archive is whole
    fsview("commit", "-b", "empty", f"--tree=tar={tmp_path / 't.tar'}")
    assert fsview("refs").lines == ["empty"]
