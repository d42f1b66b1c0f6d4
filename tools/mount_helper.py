"""mount.fuse.fsview: what mount(8) runs for `mount -t fuse.fsview REPO MNT` and for such lines of fstab.

mount(8) looks for it in /sbin alone: ln -s "$(command -v mount.fuse.fsview)" /sbin/. It is called as

    mount.fuse.fsview REPO MNT [-sfnv] [-o OPTIONS] [-t fuse.fsview] [-N NAMESPACE]

and exits as mount(8) documents: 1 for a wrong call, 32 for a mount that failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from getopt import GetoptError, gnu_getopt
from typing import Final

from tools import cli

_USAGE: Final = "mount.fuse.fsview REPO MNT [-o OPTIONS]"
_CALLED_WRONGLY, _FAILED = 1, 32
_WRONG_FOR_US: Final = 2


def main() -> None:
    """Mount as mount(8) asks, and exit."""
    cli.open_missing_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `mount.fuse.fsview ARGUMENTS`; return its exit status, having told what went wrong."""
    try:
        options, names = gnu_getopt(list(arguments), "sfnvo:t:N:")
        repository, point = names
    except (GetoptError, ValueError):
        print(f"usage: {_USAGE}", file=sys.stderr)
        return _CALLED_WRONGLY
    if ("-f", "") in options:  # fake: do all but mount
        return 0
    said = [part for name, value in options if name == "-o" for part in (name, value)]
    status = cli.run(["mount", *said, "--", repository, point])
    return {0: 0, _WRONG_FOR_US: _CALLED_WRONGLY}.get(status, _FAILED)
