"""Whose the files are that a view shows: as committed, or the mount options uid=, gid= and owner=me.

owner=me is for somebody who is not root and has to read what root owned in the tree: he takes the owner's place. What
the owner of the tree, being root, could read in spite of its mode, he can read, too; and as his group is not the one
that the mode meant, it gets no more than everybody has: a /etc/shadow of 0640 root:shadow must not be shown to all
users of his group. Plain numbers, uid= and gid=, leave modes as they are.

What is shown is a function of the file object, as without these options, so equal files are still equal to `diff`.
"""

from __future__ import annotations

import stat
from typing import NamedTuple


class Ownership(NamedTuple):
    """Who owns everything in the view; None: who owns it in the commit. by_mode: modes follow, for owner=me."""

    uid: int | None = None
    gid: int | None = None
    by_mode: bool = False

    def shown(self, mode: int, uid: int, gid: int) -> tuple[int, int, int]:
        """Return (mode, uid, gid) as the view shows them.

        >>> mode, uid, gid = Ownership(1000, 100, by_mode=True).shown(0o100040, 0, 42)
        >>> oct(mode), uid, gid
        ('0o100400', 1000, 100)
        """
        if self == AS_COMMITTED:
            return mode, uid, gid
        if self.by_mode and not stat.S_ISLNK(mode):
            if uid != self.uid:
                mode |= 0o500 if stat.S_ISDIR(mode) else 0o400
            if gid != self.gid:
                mode &= ~0o070 | (mode & 0o007) << 3
        return mode, uid if self.uid is None else self.uid, gid if self.gid is None else self.gid


AS_COMMITTED = Ownership()
