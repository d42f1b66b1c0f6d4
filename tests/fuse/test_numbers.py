"""st_ino, d_ino, mtime and "..", as the kernel hands them on."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.conftest import YEAR_2020_NS, Sample, drop_caches, run
from tests.leaks import unmount_lazily
from tests.running import clean_environment


def _directories(top: Path) -> Iterator[Path]:
    yield from (Path(path) for path, _, _ in os.walk(top))


def test_equal_subtrees_have_equal_numbers_in_every_commit(sample: Sample) -> None:
    one, two = sample.commit("rel/1"), sample.commit("rel/2")
    for path in ("bin", "equal", "equal/007", "equal/007/lib", "kept", "kept/b", "twins/a"):
        assert os.stat(one / path) == os.stat(two / path), path
    for path in ("data", "."):
        assert os.stat(one / path).st_ino != os.stat(two / path).st_ino


def test_equal_siblings_have_numbers_of_their_own(sample: Sample) -> None:
    tops = [sample.commit(ref) for ref in ("rel/1", "rel/2", "copy/1")]
    for top in tops:
        numbers = [os.stat(path).st_ino for path in _directories(top)]
        assert len(numbers) == len(set(numbers)) > 120
    assert len({os.stat(top).st_ino for top in tops}) == 3


def test_equal_files_are_one_file(sample: Sample) -> None:
    files = [sample.commit(ref) / "equal" / name / "same" for ref in ("rel/1", "rel/2") for name in ("000", "039")]
    assert len({os.stat(path).st_ino for path in files}) == 1
    assert os.stat(files[0]).st_nlink == 1


def test_readdir_tells_the_number_that_stat_tells(sample: Sample) -> None:
    for top in (sample.point, sample.point / "refs" / "rel", sample.commit("rel/1"), sample.commit("rel/1") / "equal"):
        with os.scandir(top) as entries:
            assert all(entry.inode() == os.lstat(entry.path).st_ino for entry in entries)
        dots = {name: number for name, number in _raw_directory(top) if name in (b".", b"..")}
        assert dots[b"."] == os.stat(top).st_ino
        if top != sample.point:
            assert dots[b".."] == os.stat(top / "..").st_ino


def _raw_directory(top: Path) -> Iterator[tuple[bytes, int]]:
    """Yield (name, d_ino) as getdents64 has them: Python hides the dots."""
    libc, buffer = ctypes.CDLL(None), ctypes.create_string_buffer(1 << 16)
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while (count := libc.syscall(217 if os.uname().machine == "x86_64" else 61, descriptor, buffer, 1 << 16)) > 0:
            at = 0
            while at < count:
                number, _, length = struct.unpack_from("=QqH", buffer, at)
                yield buffer.raw[at + 19 : at + length].split(b"\0", 1)[0], number
                at += length
    finally:
        os.close(descriptor)


def test_mtime_is_the_one_of_the_first_time(sample: Sample) -> None:
    one, two = sample.ref("rel/1") / "data" / "touched", sample.ref("rel/2") / "data" / "touched"
    assert os.stat(one).st_mtime_ns == YEAR_2020_NS
    assert os.stat(one).st_size == os.stat(two).st_size
    assert os.stat(two).st_mtime_ns // 10**9 != YEAR_2020_NS // 10**9  # the second is taken by the other content
    for status in (os.stat(one), os.stat(sample.commit("rel/1") / "bin")):
        assert status.st_atime_ns == status.st_mtime_ns == status.st_ctime_ns


def test_the_way_up_after_the_kernel_forgot_the_way_down(sample: Sample) -> None:
    deep = sample.commit("rel/1") / "deep/a/b/c/d/e"
    descriptor = os.open(deep, os.O_RDONLY | os.O_DIRECTORY)
    try:
        numbers = [os.stat(path).st_ino for path in (deep, *deep.parents[:6])]
        for _ in range(2):
            assert os.readlink(f"/proc/self/fd/{descriptor}") == str(deep)
            seen = [os.stat("../" * up or ".", dir_fd=descriptor).st_ino for up in range(7)]
            assert seen == numbers
            os.fchdir(descriptor)
            assert os.getcwd() == str(deep) and run("/bin/pwd", "-P").strip() == str(deep)
            drop_caches()
        assert os.listdir(descriptor) == ["f"]
    finally:
        os.chdir("/")
        os.close(descriptor)


def test_a_file_handle_finds_its_directory_again(sample: Sample) -> None:
    """open_by_handle_at with nothing cached asks for "." and "..", by number alone: as an NFS server does."""
    libc = ctypes.CDLL(None, use_errno=True)
    path, handle, mount_id = sample.commit("rel/1") / "deep/a/b/c", ctypes.create_string_buffer(136), ctypes.c_int()
    struct.pack_into("=Ii", handle, 0, 128, 0)
    if libc.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(mount_id), 0) != 0:
        pytest.skip("no file handles here")
    drop_caches()
    point = os.open(sample.point, os.O_RDONLY)
    descriptor = libc.open_by_handle_at(point, handle, os.O_RDONLY)
    try:
        if descriptor < 0:
            pytest.skip(f"open_by_handle_at: {os.strerror(ctypes.get_errno())}")
        assert os.readlink(f"/proc/self/fd/{descriptor}") == str(path)
        assert os.listdir(descriptor) == ["d"]
    finally:
        os.close(point)
        if descriptor >= 0:
            os.close(descriptor)


FALLBACK = """
import sys
from pathlib import Path
from fsview.background import start
from fsview.options import MountOptions
start(Path(sys.argv[1]), Path(sys.argv[2]), MountOptions(overwrite_ino=False), Path(sys.argv[3]))
"""


def test_without_the_second_number_in_the_reply_stat_is_the_same(sample: Sample, tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    environment = clean_environment(tmp_path)
    command: list[str | Path] = [sys.executable, "-c", FALLBACK, sample.repo, point, tmp_path / "log"]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    try:
        for ref in ("rel/1", "rel/2"):
            top = point / "commits" / sample.commit(ref).name
            for path in _directories(sample.commit(ref)):
                expected, seen = os.stat(path), os.stat(top / path.relative_to(sample.commit(ref)))
                skipped = (stat.ST_DEV,)
                assert [v for k, v in enumerate(seen) if k not in skipped] == [
                    v for k, v in enumerate(expected) if k not in skipped
                ]
        lines = run("diff", "-rq", "--no-dereference", f"{point}/refs/rel/1/", f"{point}/refs/rel/2/", status=1)
        assert len(lines.splitlines()) == 6
        assert run("diff", "-rq", f"{point}/refs/rel/1/equal", f"{point}/refs/rel/2/equal") == ""
        assert "one request more" in (tmp_path / "log").read_text()
    finally:
        subprocess.run([sys.executable, "-P", "-m", "tools", "umount", point], env=environment, check=False)
        unmount_lazily(point)
