"""A million files: memory stays bounded, whatever the size of the tree.

Measured (2 cores, tree and repository in memory): first commit 63 s, 757 MiB in the main process, of which LMDB's
list of changed pages has 512 at most; 52 MiB in each hashing process. Unchanged again: 7 s, 281 MiB, of which 250 are
pages of the index that the kernel keeps. As a tar archive: 71 s, 831 MiB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from store.repository import Repository
from tests.running import clean_environment

pytestmark = pytest.mark.torture
FILES = 1_000_000
MAIN_MIB, AGAIN_MIB, WORKER_MIB, TAR_MIB = 950, 400, 80, 1050


@dataclass
class Peak:
    """The most memory that a command and its processes had, in MiB."""

    main: int = 0
    workers: dict[int, int] = field(default_factory=dict)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Return a file system in memory with room for the tree and the repository."""
    if os.geteuid() != 0:
        pytest.skip("takes root, to mount a file system in memory")
    point = tmp_path / "memory"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=7g,nr_inodes={FILES + 100_000}", "none", point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


def _build(root: Path) -> None:
    for number in range(FILES // 100):
        directory = f"{root}/{number // 100:03}/{number % 100:02}"
        os.makedirs(directory)
        for name in range(100):
            with open(f"{directory}/file-{name:03}.txt", "wb") as file:
                file.write(b"contents of file %d in directory %d, which is like no other\n" % (name, number))


def _high_water(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _commit(home: Path, *arguments: str | Path) -> Peak:
    peak = Peak()
    command = [sys.executable, "-P", "-m", "tools", "commit", "--repo", home / "repo", "-b", "main", *arguments]
    with subprocess.Popen(command, env=clean_environment(home), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak.main = max(peak.main, _high_water(process.pid))
            for child in _children(process.pid):
                peak.workers[child] = max(peak.workers.get(child, 0), _high_water(child))
            time.sleep(0.05)
    assert process.returncode == 0
    return peak


def test_memory_is_bounded(memory: Path) -> None:
    tree = memory / "tree"
    _build(tree)
    Repository.create(memory / "repo").close()
    time.sleep(2.1)  # so that none of it is too young to be remembered
    first = _commit(memory, tree)
    with Repository.open(memory / "repo") as repository, repository.database.reading() as reading:
        assert reading.count(b"file") == FILES
    again = _commit(memory, tree)
    assert not again.workers, "it read files again"
    print(f"first {first.main} MiB, workers {max(first.workers.values())} MiB, again {again.main} MiB")
    assert first.main < MAIN_MIB and max(first.workers.values()) < WORKER_MIB and again.main < AGAIN_MIB


def test_memory_is_bounded_for_an_archive(memory: Path) -> None:
    tree = memory / "tree"
    _build(tree)
    Repository.create(memory / "repo").close()
    subprocess.run(["tar", "-cf", memory / "t.tar", "-C", tree, "."], check=True)
    peak = _commit(memory, f"--tree=tar={memory / 't.tar'}")
    print(f"archive {peak.main} MiB")
    assert peak.main < TAR_MIB
