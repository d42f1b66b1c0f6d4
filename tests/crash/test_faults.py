"""The n-th system call of a commit fails, n = 1, 2, … until none is left to fail: old or new, and nothing is damaged.

strace injects the error, so what LMDB calls is covered, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.crash.driver import Case
from tests.crash.faults import AT, CALLS, request
from tests.crash.rig import Stand
from tests.running import PROJECT, clean_environment

_CALLS_MAX = 400
_ENDLESS = "+"  # the call fails from then on

if subprocess.run(["strace", "true"], capture_output=True).returncode != 0:
    pytest.skip("strace may not trace here: a container wants SYS_PTRACE for it", allow_module_level=True)


@dataclass(frozen=True)
class Failing:
    """A server of commits, and strace's log."""

    requests: IO[bytes]
    answers: IO[bytes]
    log: Path

    def commit(self, number: int, case: Case) -> tuple[int, str, bool]:
        """Run a commit whose *number*-th call fails: its exit status, what it said, and whether there was that call."""
        before = self._injected()
        self.requests.write(request(number, case))
        self.requests.flush()
        answer = json.loads(self.answers.readline())
        return answer["exit"], answer["text"], self._injected() > before

    def _injected(self) -> int:
        return self.log.read_bytes().count(b"(INJECTED)")


@contextmanager
def failing(call: str, error: str, where: Path) -> Iterator[Failing]:
    """Start the server under strace; *error* may end in "+"."""
    (log := where / "strace.log").touch()
    inject = f"inject={call}:error={error.rstrip(_ENDLESS)}:when={AT}{_ENDLESS if error.endswith(_ENDLESS) else ''}"
    command: list[str | Path] = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", log, "-e", f"trace={call}", "-e", inject]
    with subprocess.Popen(
        [*command, sys.executable, "-m", "tests.crash.faults", call],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(where),
        cwd=PROJECT,
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        yield Failing(server.stdin, server.stdout, log)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    return Stand.build(tmp_path_factory.mktemp("faults") / "stand", small=6, large=3, processes=1)


@pytest.fixture(scope="module")
def large_stand(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    return Stand.build(tmp_path_factory.mktemp("faults") / "large", small=30, large=20, processes=1)


def fail_each(stand: Stand, call: str, error: str, where: Path) -> int:
    """Let each *call* of a commit fail once; return how many there were."""
    with failing(call, error, where) as server:
        for number in range(1, _CALLS_MAX):
            case = stand.case(where / "repo")
            status, text, came = server.commit(number, case)
            assert status in (0, 1), f"{call} number {number}: {text}"
            # LMDB couldn't write its older meta page: damage would look the same, and the next commit mends it.
            is_new = stand.assert_old_or_new(
                Path(case.repository), but=": meta page" if call == "pwrite64" else "nothing"
            )
            assert is_new or status == 1, f"{call} number {number}: a commit that is not there was reported as made"
            stand.assert_mends(case)
            if not came:
                assert status == 0
                return number - 1
    raise AssertionError(f"a commit makes more than {_CALLS_MAX} calls of {call}")


@pytest.mark.parametrize(
    ("call", "error", "least"),
    [
        ("write", "ENOSPC+", 5),
        ("pwrite64", "ENOSPC", 1),
        ("fsync", "EIO", 6),
        ("fdatasync", "EIO", 1),
        ("mkdir", "ENOSPC", 3),
    ],
)
def test_a_call_that_fails_fails_the_commit(stand: Stand, tmp_path: Path, call: str, error: str, least: int) -> None:
    assert fail_each(stand, call, error, tmp_path) >= least


@pytest.mark.torture
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "ENOSPC+", "EIO+"])
@pytest.mark.parametrize("call", CALLS)
def test_any_call_that_fails(large_stand: Stand, tmp_path: Path, call: str, error: str) -> None:
    fail_each(large_stand, call, error, tmp_path)
