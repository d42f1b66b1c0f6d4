"""What root may do inside a tree: a short list of capabilities, and what --cap-add adds to it.

bubblewrap drops the others from the sets that count, but leaves the bounding set as it is. So it is started with a
small one: what it needs itself for making the sandbox is inheritable, and root gets that back with a new program, once.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from store.errors import SandboxError

NAMES: Final = (  # by the kernel's numbers
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
KEPT: Final = (  # what packages' scripts and services need in a tree; none reaches beyond it
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
    "SYS_CHROOT", "AUDIT_WRITE", "SETFCAP",
)  # fmt: skip

_PR_CAPBSET_DROP: Final = 24
_VERSION_3: Final = 0x20080522  # of the sets' layout: two words each


def kept(added: Collection[str]) -> frozenset[str]:
    """Return the capabilities of root inside; of the usual ones those that this process has itself.

    Raises:
        SandboxError: of *added* it lacks one.
    """
    held = _names(_sets()["CapPrm"])
    lacking = [name for name in added if name not in held]
    if lacking:
        raise SandboxError(f"{lacking[0]} can't be added: this process doesn't have it itself; leave it out")
    return held & {*KEPT, *added}


def with_bounds(bounds: Collection[str], start: Callable[[], int]) -> int:
    """Call *start*, which starts a program as root, so that nothing it makes ever has more than *bounds*.

    The program itself has all that we have. Capabilities are a thread's: this one keeps its own.

    Raises:
        SandboxError: this process may give up nothing.
    """
    results: list[int | OSError] = []

    def give_up() -> None:
        try:
            _bound(bounds)
            results.append(start())
        except OSError as error:
            results.append(error)

    thread = threading.Thread(target=give_up)
    thread.start()
    thread.join()
    if isinstance(results[0], OSError):
        raise SandboxError(f"no command can be started with few capabilities: {results[0].strerror}") from results[0]
    return results[0]


def _bound(bounds: Collection[str]) -> None:
    sets = _sets()
    _set(effective=sets["CapEff"], permitted=sets["CapPrm"], inheritable=sets["CapPrm"])
    for number in range(64):
        if sets["CapBnd"] >> number & 1 and not (number < len(NAMES) and NAMES[number] in bounds):
            _check(ctypes.CDLL(None, use_errno=True).prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))


def _set(*, effective: int, permitted: int, inheritable: int) -> None:
    words = [each >> shift & 0xFFFFFFFF for shift in (0, 32) for each in (effective, permitted, inheritable)]
    header, data = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)(*words)
    _check(ctypes.CDLL(None, use_errno=True).capset(header, data))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _sets() -> dict[str, int]:
    lines = Path("/proc/thread-self/status").read_text(errors="replace").split("\n")
    return {line.partition(":")[0]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}


def _names(bits: int) -> frozenset[str]:
    return frozenset(name for number, name in enumerate(NAMES) if bits >> number & 1)
