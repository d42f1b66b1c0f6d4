"""How a worker waits for the next request: in read(2), at the door, and nowhere else.

pyfuse3 takes a lock and waits for /dev/fuse, both through trio: five system calls and two turns of the scheduler for a
request that is answered in a tenth of that time. A worker answers one request at a time and has nothing else to do, so
there is nobody to lock out, and its read may wait. That is better than poll(2), too: the kernel wakes one of those who
wait in read, but all of those who poll. Signals have their default action in a worker, or none.
"""

from __future__ import annotations

import pyfuse3
import trio

from fsview.door import Door


class _NoLock:
    """The lock of a single task."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


class _Lowlevel:
    """trio.lowlevel, but that who waits for a request gets one from the door."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def __getattr__(self, name: str) -> object:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Return when there is a request to read."""
        if not self._door.pass_request():
            raise trio.ClosedResourceError


class _Trio:
    """trio, as pyfuse3's loop uses it, but for how it waits and locks."""

    Lock = _NoLock

    def __init__(self, door: Door) -> None:
        self.lowlevel = _Lowlevel(door)

    def __getattr__(self, name: str) -> object:
        return getattr(trio, name)


async def answer_requests(door: Door) -> None:
    """Answer the requests that come through *door*, one at a time, until the view is unmounted."""
    # pyfuse3 looks trio up in its own module each time; its asyncio mode is made the same way.
    vars(pyfuse3)["trio"] = _Trio(door)
    await pyfuse3.main(min_tasks=1, max_tasks=1)
