"""What other users may do: asked of the kernel, by a process that has become one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

Answer = TypeVar("Answer")


class User(NamedTuple):
    """A user, by numbers that need no account."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def as_user(user: User, ask: Callable[[], Answer]) -> Answer:
    """Return what *ask*, called in a child of this process that has become *user*, returns: anything JSON can hold."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            os.write(writer, json.dumps(ask()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    found: Answer = json.loads(answer)
    return found
