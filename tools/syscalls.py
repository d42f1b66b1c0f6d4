"""A filter of system calls, as a program for the kernel (seccomp): what no capability and no mount keeps from a tree.

* ioctl TIOCSTI and TIOCLINUX put characters into a terminal's input, where the caller's shell reads them as typed. A
  terminal of its own for the command would do, too, but then somebody must pass on all that is typed and shown, and
  `fsview run ... | less`, Ctrl-Z and the exit of a killed relay would not be what they are. So the command has the
  caller's terminal, and may not type.
* Keyrings belong to users, not to trees: the command would find the caller's keys.
* In a new user namespace the command would have all capabilities again, and could mount. Whoever has SYS_ADMIN can do
  so anyway, so nothing is refused there. clone3 has its flags where no filter sees them; the C libraries use clone
  where it is missing.

Each way into the kernel has its own numbers: those of other machines that this one can run are here, too (32-bit x86 on
64-bit; 32-bit ARM); x32 is missing to a program, and what is not in the table ends it. ioctl's request has 32 bits: the
kernel ignores the upper half, and so does the filter.
"""

from __future__ import annotations

import os
import struct
import sys
from errno import ENOSYS, EPERM
from typing import Final, NamedTuple

from store.errors import SandboxError

_TIOCSTI, _TIOCLINUX, _CLONE_NEWUSER = 0x5412, 0x541C, 0x10000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|…|K, BPF_RET|K
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32: Final = 0x40000000

Instruction = tuple[int, int, int, int]  # code, how many to skip if true, if false, operand


class _Machine(NamedTuple):
    """The numbers of a machine's system calls; audit: how the kernel calls the machine."""

    audit: int
    ioctl: int
    clone: int
    unshare: int
    keys: tuple[int, int, int]  # add_key, request_key, keyctl
    clone_flags: int = 0  # which argument
    has_x32: bool = False
    clone3: int = 435  # the same everywhere


_GENERIC: Final = _Machine(0, ioctl=29, clone=220, unshare=97, keys=(217, 218, 219))
_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, ioctl=16, clone=56, unshare=272, keys=(248, 249, 250), has_x32=True),
    "i386": _Machine(0x40000003, ioctl=54, clone=120, unshare=310, keys=(286, 287, 288)),
    "aarch64": _GENERIC._replace(audit=0xC00000B7),
    "arm": _Machine(0x40000028, ioctl=54, clone=120, unshare=337, keys=(309, 310, 311)),
    "riscv64": _GENERIC._replace(audit=0xC00000F3),
    "loongarch64": _GENERIC._replace(audit=0xC0000102),
    "ppc64le": _Machine(0xC0000015, ioctl=54, clone=120, unshare=282, keys=(269, 270, 271)),
    "s390x": _Machine(0x80000016, ioctl=54, clone=120, unshare=303, keys=(278, 279, 280), clone_flags=1),
}
_OTHER_NAMES: Final = ("i486", "i586", "i686", "armv6l", "armv7l", "armv8l")


def refusing(*, user_namespaces: bool) -> bytes:
    """Return the filter that bubblewrap loads; *user_namespaces*: whether new ones are allowed.

    Raises:
        SandboxError: this machine is not in the table.
    """
    if os.uname().machine not in (*_MACHINES, *_OTHER_NAMES):
        raise SandboxError(f"on this machine ({os.uname().machine}) no system calls can be refused to a command")
    program: list[Instruction] = [(_LOAD, 0, 0, _MACHINE)]
    for machine in _MACHINES.values():
        rules = _rules(machine, user_namespaces)
        program += [(_EQUAL, 0, len(rules), machine.audit), *rules]
    program.append((_RETURN, 0, 0, _KILL_PROCESS))
    return b"".join(struct.pack("=HBBI", *each) for each in program)


def _rules(machine: _Machine, user_namespaces: bool) -> list[Instruction]:
    """Return what decides on a call of *machine*; nothing behind it is reached."""
    rules: list[Instruction] = [(_LOAD, 0, 0, _NUMBER)]
    if machine.has_x32:
        rules += [(_AT_LEAST, 0, 1, _X32), _fail(ENOSYS)]
    rules += _if_number(
        machine.ioctl, [_load_argument(1), (_EQUAL, 1, 0, _TIOCSTI), (_EQUAL, 0, 1, _TIOCLINUX), _fail(EPERM)]
    )
    for number in machine.keys:
        rules += _if_number(number, [_fail(EPERM)])
    if not user_namespaces:
        rules += _if_number(machine.clone3, [_fail(ENOSYS)])
        for number, argument in ((machine.clone, machine.clone_flags), (machine.unshare, 0)):
            flags = [_load_argument(argument), (_ANY_BIT, 0, 1, _CLONE_NEWUSER), _fail(EPERM)]
            rules += _if_number(number, flags)
    return [*rules, (_RETURN, 0, 0, _ALLOW)]


def _if_number(number: int, then: list[Instruction]) -> list[Instruction]:
    """Return what does *then* for a call of this number, and allows it behind that; other calls go on."""
    then = [*then, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(then), number), *then]


def _load_argument(index: int) -> Instruction:
    """Return what loads the lower half of an argument."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index + (4 if sys.byteorder == "big" else 0))


def _fail(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | number)
