"""A machine to be changed, and a place for many changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.running import RunFsview, run_cli
from tests.sysroot.killing import Stand
from tests.sysroot.rig import Machine, release, sign
from tests.trees import supports_xattrs

_ROOM = 2 << 30  # bytes, for three images of XFS; a container may have 64 MiB there


@pytest.fixture
def machine(run_fsview: RunFsview, tmp_path: Path) -> Machine:
    """Return a sysroot with one stateroot, called main, and an empty repository."""
    return Machine.make(run_fsview, tmp_path)


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """Return a directory in memory, if that has room and xattrs: syncfs waits for all that others write to a disk."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM and supports_xattrs(memory):
        with tempfile.TemporaryDirectory(dir=memory) as path:
            yield Path(path)
    else:
        yield tmp_path


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the keys "release" and "stranger" of ssh-keygen's."""
    top = tmp_path_factory.mktemp("keys")
    for name in ("release", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(top / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return top


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Stand:
    """Return a machine that trusts "release", which signed os/a and os/b; os/a is deployed."""
    where = tmp_path_factory.mktemp("strict") / "machine"
    where.mkdir()
    machine = Machine.make(partial(run_cli, where), where, "--require-certified", "--trust", keys / "release.pub")
    for second, ref in enumerate(("os/a", "os/b")):
        machine.commit(ref, release(ref, {"new": b"new"}), second=second)
        sign(machine, ref, keys / "release")
    machine.run("deploy", "os/a")
    return Stand(machine)


@pytest.fixture
def strict(stand: Stand) -> Machine:
    """Return the machine as it was at first."""
    stand.put_back()
    return stand.machine
