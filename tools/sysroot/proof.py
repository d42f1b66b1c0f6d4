"""Proof that what was written is what a commit's checksum stands for: every byte is read back and hashed.

From the commit's bytes on, each object is found by the checksum that the one above it names, and hashed; listings,
which are derived, have no say. Of a file the header comes from the repository and the contents from the disk: together
they have to make its checksum.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Never

from store.content import file_record
from store.database import Reading
from store.errors import CorruptionError
from store.objects import Checksum, Commit, DirMeta, DirTree, FileHeader, ObjectType, Xattrs, checksum_of
from store.repository import Repository
from store.schema import FileId, MetaId, TreeId
from store.tree import meta_record, object_id, tree_record
from tools.recipe import read_xattrs
from tools.render import quote_path
from tools.sysroot.shape import Shape
from tools.sysroot.target import Target
from tools.sysroot.trees import Built

_CHUNK_BYTES: Final = 1 << 20
_SET_ID_BITS: Final = 0o6000


@dataclass(frozen=True, slots=True)
class Named:
    """A directory, as the dirtree above it names it."""

    dirtree: Checksum
    dirmeta: Checksum


class Prover:
    """Compares directories on disk with objects of one commit."""

    def __init__(self, repository: Repository, checksum: str, raw: bytes, *, user_mode: bool) -> None:
        """*raw* are the commit's bytes; owners, xattrs, setuid and setgid are not looked at in *user_mode*.

        Raises:
            CorruptionError: they are not those of *checksum*.
        """
        self._repository, self._user_mode = repository, user_mode
        if checksum_of(raw).hex() != checksum:
            raise CorruptionError("a commit", str(repository.path), f"sha256 {checksum}", checksum_of(raw).hex())
        commit = Commit.from_bytes(raw)
        self.root = Named(commit.root_dirtree, commit.root_dirmeta)

    def below(self, *names: bytes) -> Named:
        """Return a directory of the commit that is there."""
        here = self.root
        with self._repository.database.reading() as reading:
            for name in names:
                here = {child: Named(*rest) for child, *rest in self._dirtree(reading, here).dirs}[name]
        return here

    def prove(self, top: Path, named: Named, *, hollow: Collection[bytes] = (), more: Collection[bytes] = ()) -> None:
        """Compare all below *top*; directories *hollow* are left out, names *more* may be there, too.

        Raises:
            CorruptionError: something is not what was committed.
        """
        stack = [(b"", named)]
        while stack:
            path, here = stack.pop()
            with self._repository.database.reading() as reading:
                tree = self._dirtree(reading, here)
                self._check_attributes(reading, os.fsencode(top) + path, here)
                names = set(os.listdir(os.fsencode(top) + path)) - (set() if path else set(more))
                wanted = {name for name, _ in tree.files} | {name for name, *_ in tree.dirs}
                if names - wanted or wanted - names - (set() if path else set(more)):
                    odd = min((names ^ wanted) - (set() if path else set(more)))
                    self._refuse(os.fsencode(top) + path + b"/" + odd, "committed", "in only one of commit and tree")
                for name, checksum in tree.files:
                    self._check_file(reading, os.fsencode(top) + path + b"/" + name, checksum)
            stack += [
                (path + b"/" + name, Named(*rest)) for name, *rest in tree.dirs if path + b"/" + name not in hollow
            ]

    def _dirtree(self, reading: Reading, named: Named) -> DirTree:
        number = object_id(reading, ObjectType.DIRTREE, named.dirtree)
        raw = b"" if number is None else tree_record(reading, TreeId(number)).raw
        self._check_object("a dirtree", raw, named.dirtree)
        return DirTree.from_bytes(raw)

    def _check_attributes(self, reading: Reading, path: bytes, named: Named) -> None:
        number = object_id(reading, ObjectType.DIRMETA, named.dirmeta)
        raw = b"" if number is None else meta_record(reading, MetaId(number)).raw
        self._check_object("a dirmeta", raw, named.dirmeta)
        meta = DirMeta.from_bytes(raw)
        self._compare(path, os.lstat(path), meta.uid, meta.gid, meta.mode, meta.xattrs)

    def _check_object(self, what: str, raw: bytes, checksum: Checksum) -> None:
        found = checksum_of(raw)
        if found != checksum:
            raise CorruptionError(what, str(self._repository.path), f"sha256 {checksum.hex()}", found.hex())

    def _check_file(self, reading: Reading, path: bytes, checksum: Checksum) -> None:
        number = object_id(reading, ObjectType.FILE, checksum)
        if number is None:
            self._refuse(path, f"file object {checksum.hex()}", "none")
        record = file_record(reading, FileId(number))
        header = FileHeader.from_bytes(record.header)
        status = os.lstat(path)
        hasher = sha256(record.header)
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb", buffering=0) as file:
                while data := file.read(_CHUNK_BYTES):
                    hasher.update(data)
        elif stat.S_ISLNK(status.st_mode) and os.readlink(path) != header.symlink_target:
            self._refuse(path, f"the target {quote_path(header.symlink_target)}", quote_path(os.readlink(path)))
        if hasher.digest() != checksum:
            self._refuse(path, f"sha256 {checksum.hex()}", hasher.hexdigest())
        self._compare(path, status, header.uid, header.gid, header.mode, header.xattrs)

    def _compare(self, path: bytes, status: os.stat_result, uid: int, gid: int, mode: int, xattrs: Xattrs) -> None:
        found = [status.st_uid, status.st_gid, status.st_mode, read_xattrs(path)]
        wanted = [uid, gid, mode, xattrs]
        if stat.S_ISLNK(mode):  # whose permissions nobody asks
            found[2], wanted[2] = stat.S_IFMT(status.st_mode), stat.S_IFMT(mode)
        if self._user_mode:
            found, wanted = [status.st_mode & ~_SET_ID_BITS], [mode & ~_SET_ID_BITS]
            found, wanted = ([], []) if stat.S_ISLNK(mode) else (found, wanted)
        if found != wanted:
            self._refuse(path, f"owner, mode and xattrs {wanted}", str(found))

    def _refuse(self, path: bytes, expected: str, found: str) -> Never:
        raise CorruptionError("what was deployed", quote_path(path), expected, found)


class ContentCheck:
    """Proves what was written of one commit."""

    def __init__(self, repository: Repository, target: Target, shape: Shape, *, user_mode: bool) -> None:
        self._prover = Prover(repository, target.checksum, target.raw, user_mode=user_mode)
        self._shape = shape

    def check(self, built: Built) -> None:
        """Compare a tree, before /etc is merged, and its pristine etc with the commit.

        Raises:
            CorruptionError: they differ.
        """
        is_usr_etc = self._shape.is_usr_etc
        more = (b"etc", b"var") if is_usr_etc else (b"var",)
        self._prover.prove(built.root, self._prover.root, hollow=(b"/var",), more=more)
        if self._shape.etc is None:
            return
        etc = self._prover.below(*((b"usr", b"etc") if is_usr_etc else (b"etc",)))
        for top in (built.pristine, *([built.root / "etc"] if is_usr_etc else [])):
            self._prover.prove(top, etc)

    def check_var(self, new: Path) -> None:
        """Compare what /var is to be filled with."""
        self._prover.prove(new, self._prover.below(b"var"))
