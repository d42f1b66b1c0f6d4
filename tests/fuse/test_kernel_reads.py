"""`mount --root REV --kernel-reads`: large files are read by the kernel from the repository's own files."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fsview.mountinfo import is_covered
from fsview.mountpoint import server_pid
from tests.fuse.conftest import LARGE, Sample, drop_caches
from tests.fuse.waits import kill_server
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview, clean_environment
from tests.snapshots import snapshot

pytestmark = [
    needs_fuse,
    needs_root,
]


@pytest.fixture
def quick(sample: Sample, run_fsview: RunFsview, tmp_path: Path) -> Iterator[Path]:
    """Return where rel/1 is mounted so."""
    point = tmp_path / "a:b,c\\d"  # an overlay's options have such characters escaped
    point.mkdir()
    run_fsview("mount", "--root", "rel/1", "--kernel-reads", sample.repo, point)
    yield point
    if os.path.ismount(point):
        run_fsview("umount", point)
    assert not os.path.ismount(point)


def test_it_shows_what_a_view_shows(sample: Sample, quick: Path) -> None:
    for _ in range(2):
        assert snapshot(quick) == snapshot(sample.commit("rel/1"))
        drop_caches()
    listed = os.listxattr(quick / "data" / "large")
    assert listed == os.listxattr(sample.commit("rel/1") / "data" / "large")
    with pytest.raises(OSError, match="Read-only"):
        (quick / "new").touch()


def test_large_contents_are_read_from_the_repository_itself(sample: Sample, quick: Path) -> None:
    loose = next(path for path in (sample.repo / "objects").rglob("*") if _is(path, LARGE))
    before = loose.stat()
    assert (quick / "data" / "large").read_bytes() == LARGE
    # What gives it away: whatever is in the loose file is what is read, unchecked.
    changed = bytes(reversed(LARGE))
    try:
        loose.chmod(0o600)
        loose.write_bytes(changed)
        assert (quick / "data" / "large").read_bytes() == changed
    finally:
        loose.write_bytes(LARGE)
        loose.chmod(before.st_mode)
        os.utime(loose, ns=(before.st_atime_ns, before.st_mtime_ns))


def _is(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def test_a_killed_server_leaves_an_error_never_an_empty_directory(
    sample: Sample, quick: Path, run_fsview: RunFsview
) -> None:
    names = os.listdir(quick)
    kill_server(quick)
    drop_caches()
    with suppress(OSError):
        assert os.listdir(quick) == names  # the kernel may have kept it
    with pytest.raises(OSError, match=r"not connected|aborted"):
        (quick / "not looked up before").stat()
    run_fsview("mount", "--root", "rel/2", "--kernel-reads", sample.repo, quick)  # mends it
    assert snapshot(quick) == snapshot(sample.commit("rel/2"))


def test_ends_with_its_view(sample: Sample, quick: Path, run_fsview: RunFsview) -> None:
    pid = server_pid(quick)
    assert pid is not None and is_covered(str(quick))
    assert run_fsview("rev-parse", quick).stdout.strip() == sample.commit("rel/1").name
    with open(quick / "data" / "equal", "rb"):
        assert "is in use" in run_fsview("umount", quick, status=17).stderr
        assert is_covered(str(quick))
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)  # a server that ends in order takes the overlay with it
    assert select.select([descriptor], [], [], 30)[0]
    os.close(descriptor)
    assert not os.path.ismount(quick)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--kernel-reads",), "name it with --root"),
        (("--kernel-reads", "--root", "rel/1", "--verify", "sha256"), "nothing is checked"),
        (("-o", "kernel-reads", "--root", "rel/1", "-f"), "leave out -f"),
    ],
)
def test_what_does_not_go_with_it(
    sample: Sample, run_fsview: RunFsview, tmp_path: Path, options: tuple[str, ...], text: str
) -> None:
    assert text in run_fsview("mount", *options, sample.repo, tmp_path, status=2).stderr


def test_in_a_user_namespace(sample: Sample, tmp_path: Path) -> None:
    """Where root is not the machine's: the xattrs are those in "user."."""
    point = tmp_path / "mnt"
    point.mkdir()
    script = '"$0" -P -m tools mount --root rel/1 --kernel-reads "$1" "$2" && findmnt -no OPTIONS "$2" && '
    script += 'cmp "$2/data/large" "$3" && "$0" -P -m tools umount "$2"'
    command: list[str | Path] = ["unshare", "-Urm", "sh", "-c", script, sys.executable, sample.repo, point]
    large = sample.trees["rel/1"] / "data" / "large"
    done = subprocess.run([*command, large], env=clean_environment(tmp_path), capture_output=True, text=True)
    if "unshare" in done.stderr or "6.6 or newer" in done.stderr:
        pytest.skip("no user namespaces, or a kernel without userxattr for data-only layers")
    assert (done.returncode, done.stderr) == (0, "") and "userxattr" in done.stdout
