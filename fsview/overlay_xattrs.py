"""The extended attributes by which overlayfs keeps its own notes, where a commit has some: shown escaped.

A file that was committed from below an overlay may have a "trusted.overlay.opaque". Shown as it is, an overlay over
the view would obey it. So one "overlay." more is shown, which is overlayfs's own way since Linux 6.7: an overlay over
the view shows the name that was committed (those in "user." if it is mounted with userxattr).

>>> escaped(((b"user.k", b"value"), (b"user.overlay.opaque", b"y")))
((b'user.k', b'value'), (b'user.overlay.overlay.opaque', b'y'))
"""

from __future__ import annotations

from typing import Final

from store.objects import Xattrs

OVERLAY: Final = b"overlay."
PREFIXES: Final = (b"trusted." + OVERLAY, b"user." + OVERLAY)


def escaped(xattrs: Xattrs) -> Xattrs:
    """Return what the view shows of the xattrs of a commit; sorted, as they are."""
    if not any(name.startswith(PREFIXES) for name, _ in xattrs):
        return xattrs
    return tuple(sorted((_escaped(name), value) for name, value in xattrs))


def unescaped(xattrs: Xattrs, own: tuple[bytes, ...]) -> Xattrs:
    """Return what is to be committed of a file that an overlay over a view copied up.

    *own* is what the names begin with that this overlay keeps for itself: they are left out.
    """
    pairs = ((_unescaped(name), name, value) for name, value in xattrs)
    return tuple(sorted((found, value) for found, name, value in pairs if found != name or not name.startswith(own)))


def _escaped(name: bytes) -> bytes:
    return next((prefix + OVERLAY + name[len(prefix) :] for prefix in PREFIXES if name.startswith(prefix)), name)


def _unescaped(name: bytes) -> bytes:
    found = next((prefix for prefix in PREFIXES if name.startswith(prefix + OVERLAY)), None)
    return name if found is None else found + name[len(found) + len(OVERLAY) :]
