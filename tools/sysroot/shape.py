"""Where a commit's tree has what is special in a deployment: its etc, and its var."""

from __future__ import annotations

from dataclasses import dataclass

from store.database import Reading
from store.errors import SysrootError
from store.listing import Entry
from store.schema import TreeId
from store.tree import load_listing


@dataclass(frozen=True, slots=True)
class Shape:
    """Where a tree has what is special in a deployment; None: nowhere."""

    etc: Entry | None
    is_usr_etc: bool
    var: Entry | None


def shape_of(reading: Reading, root: Entry) -> Shape:
    """Return where a tree has its etc and var.

    Raises:
        SysrootError: in two places; or it is no directory.
    """
    top = load_listing(reading, TreeId(root.id))
    usr = top.find(b"usr")
    etc, var = top.find(b"etc"), top.find(b"var")
    usr_etc = load_listing(reading, TreeId(usr.id)).find(b"etc") if usr and usr.is_directory else None
    if etc and usr_etc:
        raise SysrootError("the tree has both /etc and /usr/etc, but a deployment has one; commit it without the other")
    found = etc or usr_etc
    if found and not found.is_directory:
        raise SysrootError("the tree's etc is no directory, so it can't be merged with the admin's changes")
    return Shape(found, usr_etc is not None, var if var and var.is_directory else None)
