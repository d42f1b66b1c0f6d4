"""How much memory the real command line takes: the greatest resident size of it and of what it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.running import clean_environment

# With a process between this one and the command: the kernel counts for a child what its parent had when it forked.
_MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


class Measured(NamedTuple):
    """What a command printed, and the peak in MiB of the largest of its processes."""

    stdout: str
    stderr: str
    peak_mib: int


def run_measured(tmp_path: Path, repo: Path, *arguments: str | Path, status: int = 0) -> Measured:
    """Run `fsview ARGUMENTS`; fail the test unless it exits with *status*. Of a long output only the end is kept."""
    report = tmp_path / "peak"
    command = [sys.executable, "-S", "-c", _MEASURE, report, Path(sys.executable).with_name("fsview"), *arguments]
    environment = clean_environment(tmp_path) | {"FSVIEW_REPO": str(repo)}
    with open(tmp_path / "stdout", "w+b") as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path, timeout=300
        )
        output.seek(max(output.tell() - 4096, 0))
        printed = output.read().decode("utf-8", "replace")
    if done.returncode != status:
        pytest.fail(f"fsview {arguments}: status {done.returncode}, expected {status}\n{printed}\n{done.stderr}", False)
    return Measured(printed, done.stderr, int(report.read_text()) >> 10)
