"""What a program does with files, without a program's start in the time: run as a script, in the directory to read.

    probe.py sequential FILE          read it from front to back
    probe.py random FILE COUNT        read so many blocks of 4 KiB
    probe.py lookup LIST              stat each path that LIST names, one a line, in its order
    probe.py list LIST                open each directory first, then list them all
    probe.py open LIST                stat each file first, then open and close them all

Prints the seconds, and then what was seen, to be compared between contenders.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from xxhash import xxh3_64

_PIECE_BYTES = 1 << 20
_BLOCK_BYTES = 4096


def sequential(path: str) -> tuple[float, str]:
    """Read a whole file; the sum is part of the time, but 50 times as fast as any disk."""
    seen, buffer, size = xxh3_64(), bytearray(_PIECE_BYTES), 0
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            seen.update(memoryview(buffer)[:count])
            size += count
    return time.perf_counter() - began, f"{size} {seen.hexdigest()}"


def random_blocks(path: str, count: str) -> tuple[float, str]:
    """Read blocks all over a file, the same ones each time."""
    blocks = os.stat(path).st_size // _BLOCK_BYTES
    chance = random.Random(1)
    offsets = [chance.randrange(blocks) * _BLOCK_BYTES for _ in range(int(count))]
    seen = xxh3_64()
    began = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    for offset in offsets:
        seen.update(os.pread(descriptor, _BLOCK_BYTES, offset))
    os.close(descriptor)
    return time.perf_counter() - began, f"{len(offsets)} {seen.hexdigest()}"


def lookup(names: str) -> tuple[float, str]:
    """Stat files; on a fresh mount each is a look-up."""
    paths = _lines(names)
    began = time.perf_counter()
    size = sum(os.stat(path).st_size for path in paths)
    return time.perf_counter() - began, f"{len(paths)} {size}"


def list_directories(names: str) -> tuple[float, str]:
    """List directories that are open already, so that no look-up is counted."""
    descriptors = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in _lines(names)]
    began = time.perf_counter()
    count = sum(len(os.listdir(descriptor)) for descriptor in descriptors)
    return time.perf_counter() - began, f"{len(descriptors)} {count}"


def open_files(names: str) -> tuple[float, str]:
    """Open and close files that are looked up already."""
    paths = _lines(names)
    lookup(names)
    began = time.perf_counter()
    for path in paths:
        os.close(os.open(path, os.O_RDONLY))
    return time.perf_counter() - began, str(len(paths))


def _lines(names: str) -> list[str]:
    return Path(names).read_text().splitlines()


WAYS: dict[str, Callable[..., tuple[float, str]]] = {
    "sequential": sequential,
    "random": random_blocks,
    "lookup": lookup,
    "list": list_directories,
    "open": open_files,
}

if __name__ == "__main__":
    print(*WAYS[sys.argv[1]](*sys.argv[2:]))
