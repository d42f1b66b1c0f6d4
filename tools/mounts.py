"""`fsview mounts`: what is mounted, from which repository, and who serves it."""

from __future__ import annotations

import time
from typing import Any

import click

from fsview.mounted import MountedView, State, mounted_views
from tools.render import count_text, one_line, print_json

EXAMPLES = """\b
Examples:
  fsview mounts
  fsview mounts --json | jq -r '.[] | select(.state == "dead") | .mount' | xargs -r -n 1 fsview umount

\b
A view is "serving"; "dead", if its server was killed; "silent", if its server does not answer within two seconds;
"closed", if it is another user's, who lets nobody in; or "strange", if what answers is not fsview. Views in other mount
namespaces are not seen.
"""

_MEND = {
    State.DEAD: "its server was killed; mount it there again, or: fsview umount",
    State.SILENT: "its server does not answer; see its log, or: fsview umount -l",
    State.CLOSED: "another user's, who lets nobody in",
    State.STRANGE: "what answers is no server of fsview's; whoever mounted it made it look like one",
}
_UNITS_S = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}


def view_json(view: MountedView, now_s: int) -> dict[str, Any]:
    """Return a view as a JSON object; of one that does not answer, what the table of mounts says."""
    known = {"mount": view.point, "repository": view.repository, "state": view.state.value}
    if view.status:
        known |= view.status | {"mount": view.point, "uptime": now_s - view.status["started"]}
    return known


def view_line(view: MountedView, now_s: int) -> str:
    """Return a view as a line for people."""
    where = f"{one_line(view.point)}: {one_line(view.repository)}"
    if view.state is not State.SERVING:
        return f"{where}, {view.state}: {_MEND[view.state]}"
    status = view.status
    workers = " ".join(str(worker["pid"]) for worker in status["workers"] if worker["pid"])
    up = duration_text(now_s - status["started"])
    return f"{where}, up {up}, pid {status['pid']}, workers {workers}, {one_line(status['options'])}"


def duration_text(seconds: int) -> str:
    """Return a length of time in its largest unit.

    >>> duration_text(7300), duration_text(0)
    ('2 hours', '0 seconds')
    """
    unit = next((unit for unit, length in _UNITS_S.items() if seconds >= length), "second")
    return count_text(seconds // _UNITS_S[unit], unit)


@click.command("mounts", epilog=EXAMPLES)
@click.option("--json", "in_json", is_flag=True, help="A JSON array, one object a view.")
def mounts_command(in_json: bool) -> None:
    """List the views that are mounted, with repository, uptime, processes and options."""
    views, now_s = mounted_views(), int(time.time())
    if in_json:
        print_json([view_json(view, now_s) for view in views])
    for view in views if not in_json else ():
        print(view_line(view, now_s))
