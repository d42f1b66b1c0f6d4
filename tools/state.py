"""Where fsview keeps what is this user's own: the list of workspaces, the logs of views.

    $XDG_STATE_HOME/fsview/, ~/.local/state/fsview/ if that is not set

What is there is believed and written to. Under sudo both may be another user's, who could lead root anywhere by them:
then it is the one in the caller's own home, as the system's list of users has it.
"""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path
from typing import Final

from store.own_files import own_directory

_IN_HOME: Final = Path(".local", "state")


def state_directory() -> Path:
    """Return the directory, which need not be there yet."""
    named = os.environ.get("XDG_STATE_HOME")
    state = Path(named).absolute() if named else Path.home().absolute() / _IN_HOME
    if _is_of_others(state):
        state = Path(pwd.getpwuid(os.geteuid()).pw_dir) / _IN_HOME
    return state / "fsview"


def _is_of_others(path: Path) -> bool:
    """Whether somebody else could exchange a directory on the way to *path*, as far as that is there."""
    try:
        os.close(own_directory(path))
    except FileNotFoundError:
        return _is_of_others(path.parent)
    except OSError as error:
        return error.errno == errno.EPERM  # else it can't be used: whoever tries tells why
    return False
