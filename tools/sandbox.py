"""Run a command inside a tree, by bubblewrap: the tree read-only, and on top of it what a running system has.

    /                   a tmpfs, read-only in the end, in which each name of the tree's root is bound read-only: so a
                        tree may lack any of the directories below, on which something is mounted
    /etc                that of the deployment; else the tree's (or its /usr/etc), read-only
    /var                that of the deployment; else a throw-away of the tree's
    /proc /dev /tmp /run /sys   new ones; /sys the machine's, read-only

With *ephemeral* /etc and /var are throw-aways, too. Network, user and environment are the caller's. Processes are in a
namespace of their own and end with the command. Root inside is root, less what could change the machine or undo what
is read-only; nobody gains privileges by set-user-ID programs (bubblewrap sees to that).
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from store.errors import SandboxError
from tools.captive import run_captive
from tools.guardian import Guardian
from tools.throwaway import throwaway

PROGRAM: Final = "bwrap"
_MADE: Final = {b"dev", b"etc", b"proc", b"run", b"sys", b"tmp", b"var"}  # not taken from the root of the tree
_DROPPED: Final = ("CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_RAWIO")


def check_sandbox() -> None:
    """Refuse a machine without bubblewrap.

    Raises:
        SandboxError: it is not installed.
    """
    if shutil.which(PROGRAM) is None:
        raise SandboxError(
            f"{PROGRAM} is missing, which runs commands inside a tree; install it: apt install bubblewrap"
        )


def sandbox(
    root: Path,
    command: Sequence[str],
    *,
    etc: Path | None,
    var: Path | None,
    ephemeral: bool,
    chdir: str = "/",
    guardian: Guardian | None = None,
) -> int:
    """Run *command* inside *root*; return its exit status, 128 + N if a signal N ended it.

    *etc*, *var*: of the deployment, and written to unless *ephemeral*; None: those of the tree. *guardian*: who cleans
    up when this process is killed, if there is one already.

    Raises:
        SandboxError: bubblewrap is missing or fails, *root* is no directory, or no throw-away can be made.
    """
    check_sandbox()
    if not root.is_dir():
        raise SandboxError(f"{root} is no directory; name the root of a tree")
    if guardian is None:
        with Guardian() as own:
            return sandbox(root, command, etc=etc, var=var, ephemeral=ephemeral, chdir=chdir, guardian=own)
    arguments: list[Sequence[str | bytes]] = [
        *_root_arguments(root),
        _etc_arguments(root, etc, guardian.path if ephemeral else None),
        _var_arguments(root, var, guardian.path if ephemeral or var is None else None),
        *_SYSTEM,
        *(["--cap-drop", each] for each in _DROPPED if os.geteuid() == 0),
        ["--remount-ro", "/", "--chdir", chdir],
    ]
    return run_captive(PROGRAM, [os.fsencode(word) for words in arguments for word in words], command, guardian)


_SYSTEM: Final[tuple[list[str], ...]] = (
    ["--unshare-pid", "--proc", "/proc"],
    ["--dev", "/dev"],
    ["--ro-bind-try", "/sys", "/sys"],
    ["--perms", "1777", "--tmpfs", "/tmp"],
    ["--tmpfs", "/run"],
    ["--unsetenv", "TMPDIR"],  # it may name what is not there
)


def _root_arguments(root: Path) -> Iterator[list[str | bytes]]:
    """Yield what binds each name of the tree's root."""
    for entry in sorted(os.scandir(os.fsencode(root)), key=lambda entry: entry.name):
        if entry.name in _MADE:
            continue
        if entry.is_symlink():
            yield ["--symlink", os.readlink(entry.path), b"/" + entry.name]
        elif entry.is_dir() or entry.is_file():
            yield ["--ro-bind", entry.path, b"/" + entry.name]


def _etc_arguments(root: Path, etc: Path | None, home: Path | None) -> list[str | bytes]:
    source = etc or next((path for path in (root / "etc", root / "usr" / "etc") if _is_real_below(root, path)), None)
    if source is None:
        return ["--dir", "/etc"]
    if home is not None:
        return ["--bind", os.fsencode(throwaway(source, home / "etc")), "/etc"]
    return ["--ro-bind" if etc is None else "--bind", os.fsencode(source), "/etc"]


def _var_arguments(root: Path, var: Path | None, home: Path | None) -> list[str | bytes]:
    source = var or root / "var"
    if var is None and not _is_real_below(root, source):
        return ["--tmpfs", "/var"]
    return ["--bind", os.fsencode(source if home is None else throwaway(source, home / "var")), "/var"]


def _is_real_below(root: Path, path: Path) -> bool:
    """Whether a directory is at *path*, with no symlink on the way from *root*, which would lead into the machine's."""
    try:
        below = itertools.takewhile(lambda each: each != root, (path, *path.parents))
        return all(stat.S_ISDIR(os.lstat(each).st_mode) for each in below)
    except OSError:
        return False
