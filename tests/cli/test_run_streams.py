"""What a command in a tree reads and writes: through pipes where it was redirected, and yet as ever for a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.marks import needs_fuse
from tests.running import clean_environment, run_cli
from tests.trees import File, Spec, Symlink, build_tree

BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "cat", "head", "dd", "sleep", "yes")
LARGE = os.urandom(1 << 20)

pytestmark = needs_fuse

Shell = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a few programs on the ref os."""
    home = tmp_path_factory.mktemp("streams")
    programs: Spec = {
        "busybox": File(BUSYBOX.read_bytes(), mode=0o755),
        **{name: Symlink("busybox") for name in APPLETS},
    }
    run_cli(home, "init", home / "repo")
    tree = build_tree(home / "tree", {"bin": programs})
    run_cli(home, "commit", "--repo", home / "repo", "-b", "os", "-s", "os", tree)
    return home / "repo"


@pytest.fixture
def shell(repo: Path, tmp_path: Path) -> Shell:
    """Return a function: (script) -> what a shell did, in which `run` is `fsview run os --`."""
    environment = clean_environment(tmp_path) | {"FSVIEW_REPO": str(repo)}
    command = f'run() {{ {sys.executable} -P -m tools run os -- "$@"; }}\n'

    def run(script: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["sh", "-c", command + script], env=environment, cwd=tmp_path, capture_output=True, timeout=120
        )

    return run


def test_files_are_read_and_written(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(LARGE)
    assert shell("run cat < in > out").returncode == 0
    assert (tmp_path / "out").read_bytes() == LARGE
    shell("run sh -c 'echo more' >> out")
    assert (tmp_path / "out").read_bytes() == LARGE + b"more\n"
    assert shell("run cat < /dev/null").stdout == b""
    assert shell("run dd bs=5 count=1 < /dev/zero 2> /dev/null").stdout == bytes(5)


def test_what_the_command_leaves_of_its_input_is_read_by_the_next(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"".join(b"%d\n" % number for number in range(100_000)))
    assert shell("while read -r line; do run sh -c 'exit 3'; echo $line; [ $line = 1 ] && break; done < in").stdout == (
        b"0\n1\n"
    )
    assert shell("{ run dd bs=4 count=1 2> /dev/null; head -n 1; } < in").stdout == b"0\n1\n2\n"
    assert shell("{ head -c 4 > /dev/null; run cat > copy; cat; } < in").stdout == b""
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "in").read_bytes()[4:]


def test_outputs_to_one_file_keep_their_order(shell: Shell, tmp_path: Path) -> None:
    shell("run sh -c 'for i in 1 2 3 4 5 6 7 8; do echo $i; echo e$i >&2; done' > out 2>&1")
    assert (tmp_path / "out").read_text().split() == [f"{kind}{i}" for i in range(1, 9) for kind in ("", "e")]


def test_two_files(shell: Shell, tmp_path: Path) -> None:
    shell("run sh -c 'echo out; echo err >&2' > out 2> err")
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("out\n", "err\n")


def test_what_is_left_running_holds_no_output_open(shell: Shell, tmp_path: Path) -> None:
    assert shell("run sh -c 'sleep 600 & echo over' > out").returncode == 0
    assert (tmp_path / "out").read_text() == "over\n"


def test_an_output_that_can_not_be_written_is_told(shell: Shell) -> None:
    done = shell("run sh -c 'yes | head -c 1000000; exit 0' > /dev/full")
    assert done.returncode == 1
    assert b"the standard output of the command failed: No space left on device" in done.stderr


def test_a_pipe_that_nobody_reads_ends_the_command(shell: Shell) -> None:
    done = shell("{ run yes; echo $? >&2; } | head -n 1")
    assert (done.stdout, done.stderr) == (b"y\n", b"141\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_closed_is_nothing(shell: Shell, closed: str) -> None:
    done = shell(f"run sh -c 'cat; echo x; exit 5' {closed}")
    assert done.returncode == 5
