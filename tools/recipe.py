"""How the metadata of a source becomes that of an object: as it is, or with other owners, modes or no xattrs.

Also how xattrs are read from a file system, by OSTree's rules: sorted, and without those whose value is empty.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fsview.overlay_xattrs import unescaped
from store.bounds import XATTRS_BYTES_MAX
from store.objects import DirMeta, FileHeader, Xattrs

_CANONICAL_BITS = 0o755


@dataclass(frozen=True, slots=True)
class Recipe:
    """Options that shape every object of a commit.

    canonical is OSTree's --canonical-permissions: mode & 0755, owner root, no xattrs. overlay_notes: what the names of
    xattrs begin with that an overlay keeps for itself, where its upper directory is the source.
    """

    owner_uid: int | None = None
    owner_gid: int | None = None
    canonical: bool = False
    xattrs: bool = True
    overlay_notes: tuple[bytes, ...] = ()

    @property
    def wants_xattrs(self) -> bool:
        """Whether xattrs of the source matter."""
        return self.xattrs and not self.canonical

    @property
    def key(self) -> bytes:
        """Return what tells this recipe from others in the stat cache."""
        return repr((self.owner_uid, self.owner_gid, self.canonical, self.wants_xattrs)).encode()

    def xattrs_of(self, file: int | bytes) -> Xattrs:
        """Return those of a descriptor or path that are to be committed; see read_xattrs."""
        found = read_xattrs(file) if self.wants_xattrs else ()
        return unescaped(found, self.overlay_notes) if self.overlay_notes else found

    def file(self, uid: int, gid: int, mode: int, xattrs: Xattrs, target: bytes) -> FileHeader:
        """Return the header of a regular file or a symlink (whose permissions nobody asks)."""
        uid, gid, mode = self._shaped(uid, gid, mode)
        return FileHeader(uid, gid, mode, xattrs, target)

    def directory(self, uid: int, gid: int, mode: int, xattrs: Xattrs) -> DirMeta:
        """Return the dirmeta of a directory."""
        return DirMeta(*self._shaped(uid, gid, mode), xattrs)

    def reshape(self, header: FileHeader) -> FileHeader:
        """Return what the header of a file object becomes: itself, if it is so already."""
        xattrs = header.xattrs if self.wants_xattrs else ()
        return self.file(header.uid, header.gid, header.mode, xattrs, header.symlink_target)

    def reshape_directory(self, meta: DirMeta) -> DirMeta:
        """Return what a dirmeta becomes."""
        return self.directory(meta.uid, meta.gid, meta.mode, meta.xattrs if self.wants_xattrs else ())

    def _shaped(self, uid: int, gid: int, mode: int) -> tuple[int, int, int]:
        if self.canonical:
            uid = gid = 0
            if not stat.S_ISLNK(mode):
                mode = stat.S_IFMT(mode) | (mode & _CANONICAL_BITS)
        uid = uid if self.owner_uid is None else self.owner_uid
        gid = gid if self.owner_gid is None else self.owner_gid
        return uid, gid, mode


def read_xattrs(file: int | bytes, *, follow: bool = False) -> Xattrs:
    """Return the xattrs of a descriptor, or of a path; () where there can't be any.

    Raises:
        OSError: also E2BIG, if they are more than a commit holds.
    """
    follow = follow or isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
        if not names:
            return ()
        return tuple(sorted(_bounded((os.fsencode(name), _value(file, name, follow)) for name in names)))
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return ()
        raise


def _bounded(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs that have a value, as long as there aren't too many."""
    left = XATTRS_BYTES_MAX
    for name, value in pairs:
        left -= len(name) + len(value)
        if left < 0:
            raise OSError(errno.E2BIG, f"it has more than {XATTRS_BYTES_MAX >> 20} MiB of extended attributes")
        if value:
            yield name, value


def _value(file: int | bytes, name: str, follow: bool) -> bytes:
    try:
        return os.getxattr(file, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENODATA:  # removed since it was listed
            return b""
        raise
