"""Three versions of a text, merged line by line by `git merge-file`, where their changes don't overlap.

git reads settings of the current directory's repository, which with sudo may be the caller's, and of the home, which
may be his as well. Settings can have git fail, or write its traces to any file. So it gets none.
"""

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
            command = ["git", "merge-file", "-p", *names]
            done = subprocess.run(
                command, cwd="/", env=_environment(), pass_fds=files, capture_output=True, check=False
            )
    except FileNotFoundError as error:
        if error.filename != "git":
            raise
        raise SysrootError("git is missing, which merges texts; install it, or leave out --merge=text") from error
    if done.returncode != 0 or b"\0" in done.stdout:  # the number of overlaps; git seeks a NUL only at the beginning
        return None
    return done.stdout


def _environment() -> dict[str, str]:
    """Return the environment without what leads git to settings or repositories."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def _lines(file: int) -> int:
    """Count the lines of an open file, of as much as may be merged."""
    return sum(os.pread(file, PIECE_BYTES, at).count(b"\n") for at in range(0, _TEXT_BYTES_MAX, PIECE_BYTES))
