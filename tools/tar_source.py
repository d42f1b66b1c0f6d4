"""A tar stream as a source: read once, front to back, its files staged as they come by.

Parents that the stream lacks are made (0755, root), as `ostree commit --tar-autocreate-parents` does. Owners are
taken by number, xattrs from SCHILY.xattr.* records, times from the headers.
"""

from __future__ import annotations

import os
import stat
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from store.bounds import beyond, shortened
from store.errors import FormatError, SourceError
from store.objects import Checksum, DirMeta, Xattrs
from store.stager import PIECE_BYTES, WHOLE_BYTES_MAX, Stager
from tools.sources import DiskOptions, MemoryDirectory
from tools.tar_limits import HOLES_BYTES_FREE
from tools.tar_stream import Archive, Member, NotWhole
from tools.unpacking import DAMAGE, unpacked

_XATTR_PREFIX = "SCHILY.xattr."
_SECONDS_MAX = 2**64
_SPECIALS_MAX = 1000  # that are named


def read_tar(path: Path | None, stager: Stager, options: DiskOptions) -> MemoryDirectory:
    """Stage the files of the tar archive at *path* (None: standard input) and return its root.

    It may be compressed with gzip, bzip2 or xz.

    Raises:
        FormatError: not a whole tar archive, one with names that lead out of it, or one that asks for too much.
        SourceError: devices, FIFOs; all of them are named.
    """
    where = "standard input" if path is None else str(path)
    with ExitStack() as stack:
        raw = sys.stdin.buffer if path is None else stack.enter_context(path.open("rb"))
        try:
            file, is_compressed = stack.enter_context(unpacked(raw))
            archive = Archive(file, None if is_compressed else _size(raw), allow_holes=options.allow_holes)
            root = _Reader(stager, options).read(archive)
            while file.read(PIECE_BYTES):  # what checks the compressed stream stands at its end
                pass
        except (*DAMAGE, NotWhole) as error:
            raise FormatError(f"{where} is not a whole tar archive: {error}; nothing was committed") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise FormatError(f"{where} is not a whole tar archive: {error}; nothing was committed") from error
    return root


def _size(raw: BinaryIO) -> int | None:
    """Return how large a file is; None of a pipe, which tells nothing of what is to come."""
    status = os.fstat(raw.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


class _Reader:
    def __init__(self, stager: Stager, options: DiskOptions) -> None:
        self._stager, self._recipe, self._options = stager, options.recipe, options
        self._root = self._directory(b"", 0)
        self._left_out: dict[bytes, Checksum] = {}  # files that are skipped, for hard links to them
        self._specials: list[str] = []

    def read(self, archive: Archive) -> MemoryDirectory:
        for member in archive:
            self._add(archive, member)
        if self._specials and not self._options.skip_special:
            raise SourceError(
                f"a commit can't hold devices, FIFOs or sockets: {', '.join(self._specials)}; "
                f"nothing was committed; leave them out with --skip-special"
            )
        return self._root

    def _directory(self, name: bytes, mtime_ns: int, above: MemoryDirectory | None = None) -> MemoryDirectory:
        """Return a directory that the stream doesn't describe: OSTree gives it no other owner either."""
        return MemoryDirectory(name, DirMeta(0, 0, stat.S_IFDIR | 0o755), mtime_ns, above)

    def _add(self, archive: Archive, member: Member) -> None:
        info = member.info
        parts = _parts(info.name)
        if self._is_skipped(parts, info.isdir()):
            if (info.isreg() or info.islnk()) and member.holes_bytes <= HOLES_BYTES_FREE:
                found = self._linked(info) if info.islnk() else self._stage(archive, member)
                self._left_out[b"/".join(parts)] = found
        elif info.isdir():
            self._add_directory(parts, info)
        elif info.islnk() or info.isreg() or info.issym():
            parent = self._parent(parts, info)
            found = self._linked(info) if info.islnk() else self._stage(archive, member)
            parent.directories.pop(parts[-1], None)
            parent.files[parts[-1]] = found
        elif len(self._specials) < _SPECIALS_MAX:
            self._specials.append(info.name)

    def _is_skipped(self, parts: list[bytes], is_directory: bool) -> bool:
        skips = self._options.is_skipped
        if skips is None:
            return False
        depths = range(1, len(parts) + 1)
        return any(skips(b"/" + b"/".join(parts[:n]), n < len(parts) or is_directory) for n in depths)

    def _add_directory(self, parts: list[bytes], member: tarfile.TarInfo) -> None:
        meta = self._recipe.directory(member.uid, member.gid, stat.S_IFDIR | member.mode & 0o7777, self._xattrs(member))
        directory = self._walk(parts, _mtime_ns(member))
        directory.dirmeta, directory.mtime_ns = meta, _mtime_ns(member)

    def _parent(self, parts: list[bytes], member: tarfile.TarInfo) -> MemoryDirectory:
        if not parts:
            raise FormatError(f"the tar archive names its root {member.name!r:.200} as a file")
        return self._walk(parts[:-1], _mtime_ns(member))

    def _walk(self, parts: list[bytes], mtime_ns: int) -> MemoryDirectory:
        """Return the directory at *parts*, made if it isn't there; a file in the way gives way, as with tar."""
        here = self._root
        for name in parts:
            here.files.pop(name, None)
            if name not in here.directories:
                here.directories[name] = self._directory(name, mtime_ns, here)
            here = here.directories[name]
        return here

    def _linked(self, member: tarfile.TarInfo) -> Checksum:
        *parents, name = _parts(member.linkname) or [b""]
        here: MemoryDirectory | None = self._root
        for parent in parents:
            here = here and here.directories.get(parent)
        found = here.files.get(name) if here else None
        if found is None:
            found = self._left_out.get(b"/".join((*parents, name)))
        if found is None:
            raise FormatError(
                f"the tar archive lacks {member.linkname!r:.200}, to which {member.name!r:.200} is a hard link"
            )
        return found

    def _stage(self, archive: Archive, member: Member) -> Checksum:
        info = member.info
        mtime_ns, xattrs = _mtime_ns(info), self._xattrs(info)
        if info.issym():
            target = info.linkname.encode("utf-8", "surrogateescape")
            return self._stager.symlink(
                self._recipe.file(info.uid, info.gid, stat.S_IFLNK | 0o777, xattrs, target), mtime_ns
            )
        header = self._recipe.file(info.uid, info.gid, stat.S_IFREG | info.mode & 0o7777, xattrs, b"")
        contents = archive.contents(member)
        if member.size <= WHOLE_BYTES_MAX:
            return self._stager.whole(contents.read(member.size), header, mtime_ns)
        checksum = self._stager.stream(contents.read, header, mtime_ns, lambda size: size == member.size)
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
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = shortened(name.encode("utf-8", "surrogateescape"))
        raise FormatError(f"the tar archive has {shown!r}, which is not UTF-8, as OSTree's objects need") from None
    parts = [part for part in name.encode().split(b"/") if part not in (b"", b".")]
    what = beyond(len(parts) - 1, len(parts) + sum(map(len, parts)))  # of what it is in; the rest is seen when built
    if what:
        raise FormatError(f"the tar archive has {shortened(name.encode())!r}, with {what}; refused")
    if b".." in parts:
        raise FormatError(f"the tar archive has {name!r:.200}, which leads out of it; refused")
    return parts


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Return the mtime; a pax header has more digits than tarfile's float keeps."""
    from decimal import Decimal

    text = member.pax_headers.get("mtime", str(member.mtime))
    try:
        seconds = Decimal(text)
        if abs(seconds) < _SECONDS_MAX:
            return int(seconds * 10**9)
    except ArithmeticError:  # no number, or none that can be compared
        pass
    raise FormatError(f"the tar archive says that {member.name!r:.200} is from {text!r:.30}, which is no time")
