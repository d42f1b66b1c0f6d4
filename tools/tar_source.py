"""A tar stream as a source: read once, front to back, its files staged as they come by.

Parents that the stream lacks are made (0755, root), as `ostree commit --tar-autocreate-parents` does. Owners are
taken by number, xattrs from SCHILY.xattr.* records, times from the headers.
"""

from __future__ import annotations

import stat
import sys
import tarfile
from pathlib import Path
from typing import BinaryIO

from store.errors import FormatError, SourceError
from store.objects import Checksum, Xattrs
from store.stager import WHOLE_BYTES_MAX, Stager
from tools.recipe import Recipe
from tools.sources import MemoryDirectory

_XATTR_PREFIX = "SCHILY.xattr."


def read_tar(path: Path | None, stager: Stager, recipe: Recipe, *, skip_special: bool = False) -> MemoryDirectory:
    """Stage the files of the tar archive at *path* (None: standard input; any compression) and return its root.

    Raises:
        FormatError: not a tar archive, or a name that leads out of it.
        SourceError: devices, FIFOs; all of them are named.
    """
    where = "standard input" if path is None else str(path)
    with sys.stdin.buffer if path is None else path.open("rb") as file:
        try:
            return _Reader(stager, recipe, skip_special).read(file)
        except (tarfile.TarError, EOFError) as error:
            raise FormatError(f"{where} is not a whole tar archive: {error}") from error


class _Reader:
    def __init__(self, stager: Stager, recipe: Recipe, skip_special: bool) -> None:
        self._stager, self._recipe, self._skip_special = stager, recipe, skip_special
        self._root = self._directory(b"/", 0)
        self._specials: list[str] = []

    def read(self, file: BinaryIO) -> MemoryDirectory:
        with tarfile.open(fileobj=file, mode="r|*", errors="surrogateescape") as archive:
            for member in archive:
                self._add(archive, member)
        if self._specials and not self._skip_special:
            raise SourceError(
                "a commit can't hold devices, FIFOs or sockets: "
                + ", ".join(self._specials)
                + "; leave them out with --skip-special"
            )
        return self._root

    def _directory(self, path: bytes, mtime_ns: int) -> MemoryDirectory:
        return MemoryDirectory(path, self._recipe.directory(0, 0, stat.S_IFDIR | 0o755, ()), mtime_ns)

    def _add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if member.isdir():
            self._add_directory(parts, member)
        elif member.islnk():
            parent = self._parent(parts, member)
            parent.directories.pop(parts[-1], None)
            parent.files[parts[-1]] = self._linked(member)
        elif member.isreg() or member.issym():
            parent = self._parent(parts, member)
            parent.directories.pop(parts[-1], None)
            parent.files[parts[-1]] = self._stage(archive, member)
        else:
            self._specials.append(member.name)

    def _add_directory(self, parts: list[bytes], member: tarfile.TarInfo) -> None:
        meta = self._recipe.directory(member.uid, member.gid, stat.S_IFDIR | member.mode & 0o7777, self._xattrs(member))
        directory = self._walk(parts, _mtime_ns(member))
        directory.dirmeta, directory.mtime_ns = meta, _mtime_ns(member)

    def _parent(self, parts: list[bytes], member: tarfile.TarInfo) -> MemoryDirectory:
        if not parts:
            raise FormatError(f"the tar archive names its root {member.name!r} as a file")
        return self._walk(parts[:-1], _mtime_ns(member))

    def _walk(self, parts: list[bytes], mtime_ns: int) -> MemoryDirectory:
        """Return the directory at *parts*, made if it isn't there; a file in the way gives way, as with tar."""
        here = self._root
        for name in parts:
            here.files.pop(name, None)
            if name not in here.directories:
                here.directories[name] = self._directory(here.path.rstrip(b"/") + b"/" + name, mtime_ns)
            here = here.directories[name]
        return here

    def _linked(self, member: tarfile.TarInfo) -> Checksum:
        target = _parts(member.linkname)
        found = self._walk(target[:-1], 0).files.get(target[-1]) if target else None
        if found is None:
            raise FormatError(f"the tar archive lacks {member.linkname!r}, to which {member.name!r} is a hard link")
        return found

    def _stage(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Checksum:
        mtime_ns, xattrs = _mtime_ns(member), self._xattrs(member)
        if member.issym():
            target = member.linkname.encode("utf-8", "surrogateescape")
            return self._stager.symlink(
                self._recipe.file(member.uid, member.gid, stat.S_IFLNK | 0o777, xattrs, target), mtime_ns
            )
        header = self._recipe.file(member.uid, member.gid, stat.S_IFREG | member.mode & 0o7777, xattrs, b"")
        contents = archive.extractfile(member)
        assert contents is not None
        if member.size <= WHOLE_BYTES_MAX:
            return self._stager.whole(contents.read(), header, mtime_ns)
        checksum = self._stager.stream(contents.read, header, mtime_ns, lambda size: True)
        assert checksum is not None
        return checksum

    def _xattrs(self, member: tarfile.TarInfo) -> Xattrs:
        if not self._recipe.wants_xattrs:
            return ()
        found = {
            key.removeprefix(_XATTR_PREFIX).encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
            for key, value in member.pax_headers.items()
            if key.startswith(_XATTR_PREFIX)
        }
        return tuple(sorted((name, value) for name, value in found.items() if value))


def _parts(name: str) -> list[bytes]:
    parts = [part for part in name.encode("utf-8", "surrogateescape").split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise FormatError(f"the tar archive has {name!r}, which leads out of it; refused")
    return parts


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Return the mtime; a pax header has more digits than tarfile's float keeps."""
    from decimal import Decimal

    return int(Decimal(member.pax_headers.get("mtime", str(member.mtime))) * 10**9)
