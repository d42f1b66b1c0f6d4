"""The real command line as a subprocess, in a clean environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.leaks import TOKEN_NAME
from tests.prefork import Prefork

PROJECT = Path(__file__).resolve().parent.parent


class RunFsview(Protocol):
    """`run_cli` with its home given: how the fixture `run_fsview` is called."""

    def __call__(
        self,
        *arguments: str | bytes | Path,
        repo: Path | None = None,
        status: int | None = 0,
        input: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]: ...


def run_cli(
    home: Path,
    *arguments: str | bytes | Path,
    repo: Path | None = None,
    status: int | None = 0,
    input: str | bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 120,
    prefork: Prefork | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `fsview ARGUMENTS` of this checkout; fail the test unless it exits with *status* (None: any will do).

    The environment is a clean one (UTC, C.UTF-8, *home*, no FSVIEW_REPO) plus *env*; *repo* sets FSVIEW_REPO. The
    working directory is *cwd*, else *home*. Output that is not UTF-8 is decoded with surrogateescape, line ends are
    left alone: os.fsencode(result.stdout) gives the exact bytes. With *prefork* that forks it, if it can.
    """
    environment = clean_environment(home) | ({"FSVIEW_REPO": str(repo)} if repo else {}) | dict(env or {})
    where, data = cwd or home, os.fsencode(input)
    if prefork is not None and prefork.can(environment):
        done = prefork.run(arguments, input=data, env=environment, cwd=where, timeout=timeout_s)
    else:
        command = [*_program(), *arguments]
        done = subprocess.run(command, input=data, capture_output=True, env=environment, cwd=where, timeout=timeout_s)
    result = subprocess.CompletedProcess(done.args, done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))
    if status is not None and result.returncode != status:
        pytest.fail(
            f"fsview {' '.join(map(str, arguments))}: exit status {result.returncode}, expected {status}\n"
            f"--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}",
            pytrace=False,
        )
    return result


def clean_environment(home: Path) -> dict[str, str]:
    """Return the environment of `run_cli`, for tests that start a process themselves."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "PYTHONPATH": str(PROJECT),  # this checkout, whatever is installed
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        TOKEN_NAME: os.environ.get(TOKEN_NAME, ""),
    }


def _program() -> list[str]:
    script = Path(sys.executable).with_name("fsview")
    return [str(script)] if script.exists() else [sys.executable, "-P", "-m", "tools"]
