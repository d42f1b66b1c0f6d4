"""What the view answers with: the attributes of a node, and a row of a directory."""

from __future__ import annotations

import stat
from typing import Final, NamedTuple

from fsview.nodeid import Ino, NodeId
from store.refs import COMMIT_LAG_S, VIEW_LAG_S

FOREVER_S: Final = float(1 << 31)
# How long the kernel may believe a name without asking again. Names in a commit never change. The directories above
# them may go: if one did, the server answers ESTALE and the kernel asks again at once, so a second is safe. A ref may
# move at any time; it is believed so briefly that whoever moves it waits until nobody does any more. To ask on each way
# through a ref made `diff refs/a refs/b` twice as slow.
STEADY_NAME_S: Final = COMMIT_LAG_S
MOVING_NAME_S: Final = VIEW_LAG_S

READ_ONLY_DIRECTORY: Final = stat.S_IFDIR | 0o555
READ_ONLY_FILE: Final = stat.S_IFREG | 0o444
SYMLINK: Final = stat.S_IFLNK | 0o777

DOT_COOKIE, DOT_DOT_COOKIE, COOKIES_BEFORE_ENTRIES = 1, 2, 3


class Attributes(NamedTuple):
    """A node as stat shows it, with how long its name and its attributes hold."""

    node: NodeId
    ino: Ino
    mode: int
    uid: int
    gid: int
    size: int  # bytes
    mtime_ns: int
    name_s: float = FOREVER_S
    attributes_s: float = FOREVER_S


class Row(NamedTuple):
    """One name in a directory; *cookie* stays good for going on behind it, whatever happens meanwhile."""

    name: bytes
    attributes: Attributes
    cookie: int
