"""Where a stranger chooses a name in a text that fsview reads line by line, and what has no end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.errors import SourceError
from tests.marks import needs_root
from tests.running import RunFsview
from tools.captive import _number_inside
from tools.receive import _read_bounded


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """Return a mount point with a carriage return in its name, as any user can make one with fusermount3."""
    path = tmp_path / "a\rb"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@needs_root
def test_a_mount_points_name_stops_nobody(point: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    """Of all that ends a line somewhere the kernel escapes a newline alone."""
    run_fsview("mounts")
    run_fsview("init", tmp_path / "repo")
    run_fsview("commit", "--repo", tmp_path / "repo", "--orphan", point)


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_a_command_in_a_sandbox_can_not_pretend_to_be_another(end: str) -> None:
    """It chooses its own name, which is the first line of /proc/PID/status: 15 bytes."""
    rename = f"open('/proc/self/comm', 'w', newline='').write({'x' + end + 'NSpid:' + chr(9) + '9'!r})"
    script = f"import sys; {rename}; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert _number_inside(process.pid) == _innermost(process.pid)


def _innermost(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_bytes().split(b"\n")
    return int(next(line for line in lines if line.startswith(b"NSpid:")).split()[-1])


def test_a_file_of_a_strangers_view_may_have_no_end() -> None:
    with pytest.raises(SourceError, match="/dev/zero is larger than 10 MiB"):
        _read_bounded(Path("/dev/zero"))
