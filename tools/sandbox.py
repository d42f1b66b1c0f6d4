"""Run a command inside a tree, by bubblewrap: the tree read-only, and on top of it what a running system has.

    /                   a tmpfs, read-only in the end, in which each name of the tree's root is bound read-only: so a
                        tree may lack any of the directories below, on which something is mounted
    /etc                that of the deployment; else the tree's (or its /usr/etc), read-only
    /var                that of the deployment; else a throw-away of the tree's
    /tmp /run           new ones
    /proc /dev /sys     see tools/kernel_files.py

With *ephemeral* /etc and /var are throw-aways, too. User and environment are the caller's; so is the network unless
there is to be none. Processes are in a namespace of their own and end with the command. Root inside is root, with few
capabilities (tools/capabilities.py); nobody gains any by set-user-ID programs (bubblewrap sees to that) or by new user
namespaces (tools/syscalls.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import SandboxError
from tools.bindings import Bindings
from tools.capabilities import kept
from tools.captive import Jail, run_captive
from tools.guardian import Guardian
from tools.kernel_files import kernel_arguments
from tools.syscalls import refusing

PROGRAM: Final = "bwrap"


def check_sandbox() -> None:
    """Refuse a machine without bubblewrap.

    Raises:
        SandboxError: it is not installed.
    """
    if shutil.which(PROGRAM) is None:
        raise SandboxError(
            f"{PROGRAM} is missing, which runs commands inside a tree; install it: apt install bubblewrap"
        )


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the caller asked for; added: capabilities for root, beside the usual ones."""

    ephemeral: bool = False
    chdir: str = "/"
    has_network: bool = True
    added: tuple[str, ...] = ()


def sandbox(
    root: Path,
    command: Sequence[str],
    conditions: Conditions,
    *,
    var: Path | None = None,
    guardian: Guardian | None = None,
) -> int:
    """Run *command* inside *root*; return its exit status, 128 + N if a signal N ended it.

    *var*: of the deployment that *root* is; it and /etc are written to, unless that is ephemeral. None: those of the
    tree are not. *guardian*: who cleans up when this process is killed, if there is one already.

    Raises:
        SandboxError: bubblewrap is missing or fails, *root* is no directory, or no throw-away can be made.
    """
    check_sandbox()
    if guardian is None:
        with Guardian() as own:
            return sandbox(root, command, conditions, var=var, guardian=own)
    bounds = kept(conditions.added) if os.geteuid() == 0 else None
    may_mount = "SYS_ADMIN" in conditions.added
    home = guardian.path if conditions.ephemeral else None
    with Bindings(root) as bindings:
        arguments: list[Sequence[str | bytes]] = [
            *bindings.root(),
            bindings.etc(is_written=var is not None, home=home),
            bindings.var(var, home if var else guardian.path),
            *kernel_arguments(guardian, may_mount=may_mount),
            *_SYSTEM,
            *([] if conditions.has_network else [["--unshare-net"]]),
            *_capability_arguments(bounds),
            ["--remount-ro", "/", "--chdir", conditions.chdir],
        ]
        jail = Jail(
            options=[os.fsencode(word) for words in arguments for word in words],
            handed=bindings.bound,
            refused=refusing(user_namespaces=may_mount),
            bounds=bounds,
        )
        return run_captive(PROGRAM, jail, command, guardian)


_SYSTEM: Final[tuple[list[str], ...]] = (
    ["--unshare-ipc"],
    ["--perms", "1777", "--tmpfs", "/tmp"],
    ["--tmpfs", "/run"],
    ["--unsetenv", "TMPDIR"],  # it may name what is not there
)


def _capability_arguments(bounds: Collection[str] | None) -> Iterator[list[str]]:
    if bounds is not None:  # else bubblewrap keeps none
        yield ["--cap-drop", "ALL"]
        yield from (["--cap-add", f"CAP_{name}"] for name in sorted(bounds))
