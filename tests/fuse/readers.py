"""Run as a program: read all files below a directory again and again, past the kernel's cache, until told to end.

    python readers.py DIRECTORY

Prints "ready" after the first round. Ends when standard input does, and prints how many rounds, reads and failed reads
there were, as JSON. Wrong bytes, a name less or more, or an error that a dying worker doesn't explain end it at once.
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys
from hashlib import sha256

EXCUSED = (errno.ECONNABORTED, errno.EINTR)


def main(directory: bytes) -> None:
    """Read until standard input ends."""
    expected = {path: _digest(path) for path in _files(directory)}
    print("ready", flush=True)
    rounds = reads = failed = 0
    while not select.select([0], [], [], 0)[0]:
        rounds += 1
        for path, digest in expected.items():
            reads += 1
            try:
                found = _digest(path)
            except OSError as error:
                if error.errno not in EXCUSED:
                    raise
                failed += 1
                continue
            if found != digest:
                sys.exit(f"wrong bytes in {path!r}")
    print(json.dumps({"rounds": rounds, "reads": reads, "failed": failed}), flush=True)


def _files(directory: bytes) -> list[bytes]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found += _files(entry.path)
            elif entry.is_file(follow_symlinks=False):
                found.append(entry.path)
    return found


def _digest(path: bytes) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        hasher = sha256()
        while data := os.read(descriptor, 1 << 16):
            hasher.update(data)
        return hasher.digest()
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(os.fsencode(sys.argv[1]))
