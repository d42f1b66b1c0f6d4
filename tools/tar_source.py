"""A tar stream as a source: read once, front to back, its files staged as they come by.

Parents that the stream lacks are made (0755, root), as `ostree commit --tar-autocreate-parents` does. Owners are
taken by number, xattrs from SCHILY.xattr.* records, times from the headers.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

from store.errors import FormatError, SourceError
from store.objects import Checksum, DirMeta, Xattrs
from store.stager import PIECE_BYTES, WHOLE_BYTES_MAX, Stager
from tools.sources import DiskOptions, MemoryDirectory

_XATTR_PREFIX = "SCHILY.xattr."
_SECONDS_MAX = 2**64


def read_tar(path: Path | None, stager: Stager, options: DiskOptions) -> MemoryDirectory:
    """Stage the files of the tar archive at *path* (None: standard input) and return its root.

    It may be compressed with gzip, bzip2 or xz.

    Raises:
        FormatError: not a whole tar archive, or one with names that lead out of it.
        SourceError: devices, FIFOs; all of them are named.
    """
    where = "standard input" if path is None else str(path)
    with ExitStack() as stack:
        raw = sys.stdin.buffer if path is None else stack.enter_context(path.open("rb"))
        try:
            file = stack.enter_context(_unpacked(raw))
            root = _Reader(stager, options).read(file)
            while file.read(PIECE_BYTES):  # what checks the compressed stream stands at its end
                pass
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, _NotWhole) as error:
            raise FormatError(f"{where} is not a whole tar archive: {error}; nothing was committed") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise FormatError(f"{where} is not a whole tar archive: {error}; nothing was committed") from error
    return root


@contextmanager
def _unpacked(raw: BinaryIO) -> Iterator[IO[bytes]]:
    """Open what is compressed. Not left to tarfile, which doesn't check what the compressor wrote to be checked."""
    buffered = io.BufferedReader(raw, PIECE_BYTES) if isinstance(raw, io.RawIOBase) else raw
    assert isinstance(buffered, io.BufferedReader)
    magic = buffered.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=buffered) as file:
            yield cast("IO[bytes]", file)
    elif magic.startswith(b"BZh"):
        with bz2.BZ2File(buffered) as file:
            yield file
    elif magic == b"\xfd7zXZ\0":
        with lzma.LZMAFile(buffered) as file:
            yield file
    else:
        yield buffered


class _NotWhole(Exception):
    """A tar archive ends, or goes wrong, in the middle."""


class _Member(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        """Return the next member. TarFile itself takes a damaged header, or none, for the archive's end."""
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end, as it should be
            raise
        except tarfile.HeaderError as error:
            raise _NotWhole(f"at byte {tarfile_.offset}, {error}") from error


class _Reader:
    def __init__(self, stager: Stager, options: DiskOptions) -> None:
        self._stager, self._recipe, self._options = stager, options.recipe, options
        self._root = self._directory(b"/", 0)
        self._left_out: dict[bytes, Checksum] = {}  # files that are skipped, for hard links to them
        self._specials: list[str] = []

    def read(self, file: IO[bytes]) -> MemoryDirectory:
        with tarfile.open(fileobj=file, mode="r|", errors="surrogateescape", tarinfo=_Member) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # they would pile up; nobody looks back
                self._add(archive, member)
        if self._specials and not self._options.skip_special:
            raise SourceError(
                f"a commit can't hold devices, FIFOs or sockets: {', '.join(self._specials)}; "
                f"nothing was committed; leave them out with --skip-special"
            )
        return self._root

    def _directory(self, path: bytes, mtime_ns: int) -> MemoryDirectory:
        """Return a directory that the stream doesn't describe: OSTree gives it no other owner either."""
        return MemoryDirectory(path, DirMeta(0, 0, stat.S_IFDIR | 0o755), mtime_ns)

    def _add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if self._is_skipped(parts, member.isdir()):
            if member.isreg() or member.islnk():
                found = self._linked(member) if member.islnk() else self._stage(archive, member)
                self._left_out[b"/".join(parts)] = found
        elif member.isdir():
            self._add_directory(parts, member)
        elif member.islnk() or member.isreg() or member.issym():
            parent = self._parent(parts, member)
            found = self._linked(member) if member.islnk() else self._stage(archive, member)
            parent.directories.pop(parts[-1], None)
            parent.files[parts[-1]] = found
        else:
            self._specials.append(member.name)

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
        *parents, name = _parts(member.linkname) or [b""]
        here: MemoryDirectory | None = self._root
        for parent in parents:
            here = here and here.directories.get(parent)
        found = here.files.get(name) if here else None
        if found is None:
            found = self._left_out.get(b"/".join((*parents, name)))
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
        raise FormatError(f"the tar archive has {name!r}, which is not UTF-8, as OSTree's objects need") from None
    parts = [part for part in name.encode().split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise FormatError(f"the tar archive has {name!r}, which leads out of it; refused")
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
    raise FormatError(f"the tar archive says that {member.name!r} is from {text!r}, which is no time")
