"""Three versions of a text, merged line by line by `git merge-file`, where their changes don't overlap."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from typing import Final

from store.errors import SysrootError
from tools.sysroot.etc_tree import PIECE_BYTES, Node

_TEXT_BYTES_MAX: Final = 1 << 24
_TEXT_LINES_MAX: Final = 500_000  # git holds some 100 bytes for each


def merge_text(old: Node, own: Node, new: Node) -> bytes | None:
    """Return the merged text; None if changes overlap, or if this is no text, or a very large one.

    Raises:
        SysrootError: there is no git.
        ConflictError: one of them changed meanwhile, or is something else now.
    """
    sides = (own, old, new)
    if not all(node.is_file and node.status.st_size <= _TEXT_BYTES_MAX for node in sides):
        return None
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(node.reading()) for node in sides]
            if any(_lines(file) > _TEXT_LINES_MAX for file in files):
                return None
            names = [f"/proc/self/fd/{file}" for file in files]
            done = subprocess.run(["git", "merge-file", "-p", *names], pass_fds=files, capture_output=True, check=False)
    except FileNotFoundError as error:
        if error.filename != "git":
            raise
        raise SysrootError("git is missing, which merges texts; install it, or leave out --merge=text") from error
    if done.returncode != 0 or b"\0" in done.stdout:  # the number of overlaps; git seeks a NUL only at the beginning
        return None
    return done.stdout


def _lines(file: int) -> int:
    """Count the lines of an open file, of as much as may be merged."""
    return sum(os.pread(file, PIECE_BYTES, at).count(b"\n") for at in range(0, _TEXT_BYTES_MAX, PIECE_BYTES))
