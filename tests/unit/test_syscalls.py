"""The filter of system calls, run as the kernel runs it, for all machines; their numbers are as libseccomp has them."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
import sys
from errno import ENOSYS, EPERM

import pytest

from store.errors import SandboxError
from tools.syscalls import refusing

ALLOW, KILL = 0x7FFF0000, 0x80000000
TIOCSTI, TIOCLINUX, TIOCGWINSZ = 0x5412, 0x541C, 0x5413
NEWUSER, NEWNS = 0x10000000, 0x20000
UPPER = 0xDEAD00000000
MACHINES = {  # as the kernel names them in AUDIT_ARCH_…, and libseccomp
    0xC000003E: b"x86_64",
    0x40000003: b"x86",
    0xC00000B7: b"aarch64",
    0x40000028: b"arm",
    0xC00000F3: b"riscv64",
    0xC0000102: b"loongarch64",
    0xC0000015: b"ppc64le",
    0x80000016: b"s390x",
}
FOREIGN = {"ppc64": 0x80000015, "s390": 0x16, "mips64": 0x80000008, "riscv32": 0x400000F3, "none": 0}


def _error(number: int) -> int:
    return 0x50000 | number


def _run(program: bytes, machine: int, number: int, *arguments: int) -> int:
    """Return what a program of the kernel's classic BPF says of a system call."""
    data = struct.pack("=IIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("=HBBI", program))
    position = value = 0
    while True:
        code, if_true, if_false, operand = instructions[position]
        position += 1
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif code == 0x06:
            return int(operand)
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            position += if_true if holds else if_false


@pytest.fixture(scope="module")
def seccomp() -> ctypes.CDLL:
    """Return libseccomp, which apt needs, too."""
    name = ctypes.util.find_library("seccomp")
    assert name is not None, "install it: apt install libseccomp2"
    return ctypes.CDLL(name)


def _number(seccomp: ctypes.CDLL, machine: int, name: str) -> int:
    token = seccomp.seccomp_arch_resolve_name
    token.restype = ctypes.c_uint32
    arch = token(MACHINES[machine])
    number = int(seccomp.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(arch), name.encode()))
    if arch == 0:  # an older libseccomp; the machine has the generic numbers
        assert MACHINES[machine] == b"loongarch64"
        return _number(seccomp, 0xC00000F3, name)
    return number if number >= 0 or name != "clone3" else 435  # the same everywhere


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: MACHINES[machine].decode())
def test_each_machine_refuses_the_same(seccomp: ctypes.CDLL, machine: int) -> None:
    program = refusing(user_namespaces=False)
    flags = (0, NEWUSER) if MACHINES[machine] == b"s390x" else (NEWUSER, 0)
    refused = [
        ("ioctl", (0, TIOCSTI)),
        ("ioctl", (0, UPPER | TIOCSTI)),
        ("ioctl", (3, TIOCLINUX)),
        ("add_key", ()),
        ("request_key", ()),
        ("keyctl", (3,)),
        ("clone", flags),
        ("clone", tuple(flag and flag | NEWNS | 17 for flag in flags)),
        ("unshare", (NEWUSER | NEWNS,)),
    ]
    for name, arguments in refused:
        assert _run(program, machine, _number(seccomp, machine, name), *arguments) == _error(EPERM), name
    assert _run(program, machine, _number(seccomp, machine, "clone3")) == _error(ENOSYS)
    for name, arguments in (
        ("ioctl", (0, TIOCGWINSZ)), ("ioctl", (TIOCSTI, 0)), ("clone", (17, 17)), ("unshare", (NEWNS,)), ("read", ()),
    ):  # fmt: skip
        assert _run(program, machine, _number(seccomp, machine, name), *arguments) == ALLOW, name


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: MACHINES[machine].decode())
def test_user_namespaces_can_be_allowed(seccomp: ctypes.CDLL, machine: int) -> None:
    program = refusing(user_namespaces=True)
    for name, arguments in (("clone", (NEWUSER, NEWUSER)), ("unshare", (NEWUSER,)), ("clone3", ())):
        assert _run(program, machine, _number(seccomp, machine, name), *arguments) == ALLOW
    assert _run(program, machine, _number(seccomp, machine, "ioctl"), 0, TIOCSTI) == _error(EPERM)


def test_x32_has_no_calls() -> None:
    program = refusing(user_namespaces=False)
    for number in (0, 16, 514):
        assert _run(program, 0xC000003E, 0x40000000 | number, 0, TIOCSTI) == _error(ENOSYS)
    assert _run(program, 0xC000003E, 0xFFFFFFFF) == _error(ENOSYS)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_machine_that_is_not_known_ends_the_process(name: str) -> None:
    assert _run(refusing(user_namespaces=True), FOREIGN[name], 0) == KILL


def test_no_command_runs_where_nothing_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there = os.uname_result(("Linux", "host", "6.1", "#1", "mips64"))
    monkeypatch.setattr("tools.syscalls.os.uname", lambda: there)
    with pytest.raises(SandboxError, match="mips64"):
        refusing(user_namespaces=False)


def test_arguments_are_where_this_machine_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    here = refusing(user_namespaces=False)
    monkeypatch.setattr(sys, "byteorder", "big" if sys.byteorder == "little" else "little")
    offsets = [{operand for code, _, _, operand in struct.iter_unpack("=HBBI", each) if code == 0x20}
               for each in (here, refusing(user_namespaces=False))]  # fmt: skip
    assert sorted(offsets, key=sorted) == [{0, 4, 16, 24}, {0, 4, 20, 28}]
