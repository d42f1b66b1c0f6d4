"""The guard against going back: of each ref the newest commit that ever was deployed in its name in a stateroot.

Who can write the repository, but has no key, can still move a ref to an old commit, which somebody signed when its
flaws were not known. So each generation carries the time of the newest commit of each ref (tools/sysroot/origin.py); a
cleanup takes nothing of that away, for the current generation has all of it. An older commit is refused, unless it is
asked for by --allow-downgrade; the mark stays then, too. A commit that is named otherwise, by its checksum or as
"REF^", was chosen, and is not compared. A rollback isn't either.

"x" is looked for as "tags/x" too. Who can remove "x" and make "tags/x", or the other way round, gets nothing by it:
what was deployed as either counts for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from store.errors import SysrootError
from tools.sysroot.layout import Generation
from tools.sysroot.origin import Newest

if TYPE_CHECKING:
    from tools.sysroot.target import Target  # a rollback has none


def newest_of(generations: Iterable[Generation]) -> dict[str, Newest]:
    """Return the newest commit of each ref that *generations* know of."""
    found: dict[str, Newest] = {}
    for origin in (generation.origin for generation in generations):
        for ref, newest in origin.newest.items():
            _raise(found, ref, newest)
        if origin.ref is not None:  # all that generations of an older fsview say
            _raise(found, origin.ref, Newest(origin.commit, origin.committed))
    return found


def raised(marks: dict[str, Newest], target: Target) -> dict[str, Newest]:
    """Return the marks after *target* was deployed."""
    found = dict(marks)
    if target.is_head:
        _raise(found, target.named, Newest(target.checksum, target.committed))
    return found


def newer_than(target: Target, marks: dict[str, Newest]) -> Newest | None:
    """Return the newer commit of its ref that was deployed before; None if there is none."""
    from store.revisions import TAGS  # a rollback needs none

    local = target.named.removeprefix(TAGS)
    known = [marks[name] for name in (local, TAGS + local) if target.is_head and name in marks]
    newest = max(known, key=lambda one: one.committed, default=None)
    return newest if newest is not None and target.committed < newest.committed else None


def refuse_older(target: Target, marks: dict[str, Newest]) -> None:
    """Refuse to go back to an older commit of a ref.

    Raises:
        SysrootError: a newer one was deployed.
    """
    newest = newer_than(target, marks)
    if newest is not None:
        raise SysrootError(
            f"{target.named} is at {target.checksum[:8]} of {target.committed:%Y-%m-%d %H:%M:%S}, older than "
            f"{newest.commit[:8]} of {newest.committed:%Y-%m-%d %H:%M:%S}, which was deployed here as this ref; "
            f"nothing was changed; --allow-downgrade deploys it anyway"
        )


def _raise(marks: dict[str, Newest], ref: str, newest: Newest) -> None:
    if ref not in marks or newest.committed > marks[ref].committed:
        marks[ref] = newest
