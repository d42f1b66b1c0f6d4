"""Tell the service manager how it stands: sd_notify(3), which is one datagram.

Own code: what there is for Python either is long unmaintained or needs systemd's C library.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
_WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"


def notify(**values: str | int) -> None:
    """Send "NAME=value" lines to who started this process, if it wants to be told; never fails.

    READY=1 when the view answers, STATUS for people, STOPPING=1 when it ends.
    """
    address = os.environ.get(SOCKET_VARIABLE, "")
    if not address:
        return
    text = "\n".join(f"{name}={value}" for name, value in values.items())
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as stream:
        stream.setblocking(False)
        stream.sendto(text.encode("utf-8", "surrogateescape"), "\0" + address[1:] if address[0] == "@" else address)


def is_watched() -> bool:
    """Whether the service manager restarts this service when it hears nothing of it (WatchdogSec=)."""
    return _WATCHDOG_VARIABLE in os.environ
