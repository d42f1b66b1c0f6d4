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
from store.walking.beneath import DIRECTORY, FILE, open_beneath, open_same, xattr_path
from tools.recipe import read_xattrs
from tools.render import quote_path
from tools.sysroot.shape import Shape
from tools.sysroot.target import Target
from tools.sysroot.trees import EMPTY_MODE, VAR, Built

_CHUNK_BYTES: Final = 1 << 20
_SET_ID_BITS: Final = 0o6000
_SHOWN_DIGITS: Final = 12
_LABELS: Final = b"security."


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
        self._repository, self._checksum, self._user_mode = repository, checksum, user_mode
        if checksum_of(raw).hex() != checksum:
            raise CorruptionError("a commit", str(repository.path), f"sha256 {checksum}", checksum_of(raw).hex())
        commit = Commit.from_bytes(raw)
        self.root = Named(commit.root_dirtree, commit.root_dirmeta)

    def below(self, *names: bytes) -> Named:
        """Return a directory of the commit.

        Raises:
            CorruptionError: it has none there.
        """
        here, path = self.root, b""
        with self._repository.database.reading() as reading:
            for name in names:
                path += b"/" + name
                dirs = {child: Named(*rest) for child, *rest in self._dirtree(reading, here).dirs}
                if name not in dirs:
                    self._refuse(path, "no directory", "one in the listing")
                here = dirs[name]
        return here

    def names(self) -> set[bytes]:
        """Return the names in the root of the commit."""
        with self._repository.database.reading() as reading:
            tree = self._dirtree(reading, self.root)
        return {name for name, _ in tree.files} | {name for name, *_ in tree.dirs}

    def prove(
        self, top: Path, named: Named, at: bytes = b"", *, hollow: Collection[bytes] = (), more: Collection[bytes] = ()
    ) -> None:
        """Compare all below *top*, which is at the path *at* of the commit.

        Directories *hollow* have to be empty, whatever the commit has there; names *more* may be right in *top*, too:
        the caller has to look at them.

        Raises:
            CorruptionError: something is not what was committed.
        """
        directory = os.open(os.path.join(top, "."), DIRECTORY)
        try:
            stack = [(at, named)]
            while stack:
                path, one = stack.pop()
                stack += self._prove_one(directory, path, at, one, hollow, more if path == at else ())
        finally:
            os.close(directory)

    def _prove_one(
        self, top: int, path: bytes, at: bytes, named: Named, hollow: Collection[bytes], more: Collection[bytes]
    ) -> list[tuple[bytes, Named]]:
        """Compare a directory and its files; return what is still to be compared."""
        here = open_beneath(top, path[len(at) :].lstrip(b"/"), DIRECTORY, one_mount=True)
        try:
            with self._repository.database.reading() as reading:
                self._check_attributes(reading, here, path, named)
                tree = DirTree((), ()) if path in hollow else self._dirtree(reading, named)
                self._check_names(here, path, tree, more)
                for name, checksum in tree.files:
                    self._check_file(reading, here, name, path + b"/" + name, checksum)
        finally:
            os.close(here)
        return [(path + b"/" + name, Named(*rest)) for name, *rest in tree.dirs]

    def prove_empty(self, directory: Path, path: bytes) -> None:
        """Compare what is at *path*, where the commit has nothing, with the directory that fsview makes there.

        Its group may be that of the directory that it is in, and the system may have labelled it.

        Raises:
            CorruptionError: it is something else, from a listing that somebody else wrote.
        """
        status = os.lstat(directory)
        names = os.listdir(directory) if stat.S_ISDIR(status.st_mode) else []
        xattrs = [name for name, _ in read_xattrs(os.fsencode(directory)) if not name.startswith(_LABELS)]
        found = [_mode(status.st_mode, user_mode=True), status.st_uid, *names, *xattrs]
        wanted = [_mode(stat.S_IFDIR | EMPTY_MODE, user_mode=True), os.geteuid()]
        if found != wanted:
            self._refuse(path, f"an empty directory, with mode and owner {wanted}", str(found))

    def _check_names(self, here: int, path: bytes, tree: DirTree, more: Collection[bytes]) -> None:
        found = {os.fsencode(name) for name in os.listdir(here)}
        wanted = {name for name, _ in tree.files} | {name for name, *_ in tree.dirs}
        for odd in sorted((found ^ wanted) - set(more)):
            self._refuse(path + b"/" + odd, *(("nothing", "one") if odd in found else ("one", "nothing")))

    def _dirtree(self, reading: Reading, named: Named) -> DirTree:
        number = object_id(reading, ObjectType.DIRTREE, named.dirtree)
        raw = b"" if number is None else tree_record(reading, TreeId(number)).raw
        self._check_object("a dirtree", raw, named.dirtree)
        return DirTree.from_bytes(raw)

    def _check_attributes(self, reading: Reading, here: int, path: bytes, named: Named) -> None:
        number = object_id(reading, ObjectType.DIRMETA, named.dirmeta)
        raw = b"" if number is None else meta_record(reading, MetaId(number)).raw
        self._check_object("a dirmeta", raw, named.dirmeta)
        meta = DirMeta.from_bytes(raw)
        self._compare(path, os.fstat(here), here, meta.uid, meta.gid, meta.mode, meta.xattrs)

    def _check_object(self, what: str, raw: bytes, checksum: Checksum) -> None:
        found = checksum_of(raw)
        if found != checksum:
            raise CorruptionError(what, str(self._repository.path), f"sha256 {checksum.hex()}", found.hex())

    def _check_file(self, reading: Reading, here: int, name: bytes, path: bytes, checksum: Checksum) -> None:
        number = object_id(reading, ObjectType.FILE, checksum)
        if number is None:
            self._refuse(path, f"file object {checksum.hex()}", "none")
        record = file_record(reading, FileId(number))
        header = FileHeader.from_bytes(record.header)
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            file = open_same(here, name, FILE, status, one_mount=True)
            try:
                self._check_hash(path, checksum, _hashed(record.header, file))
                self._compare(path, os.fstat(file), file, header.uid, header.gid, header.mode, header.xattrs)
            finally:
                os.close(file)
            return
        if stat.S_ISLNK(status.st_mode) and (target := os.readlink(name, dir_fd=here)) != header.symlink_target:
            self._refuse(path, f"the target {quote_path(header.symlink_target)}", quote_path(target))
        self._check_hash(path, checksum, sha256(record.header).digest())
        self._compare(path, status, xattr_path(here, name), header.uid, header.gid, header.mode, header.xattrs)

    def _check_hash(self, path: bytes, checksum: Checksum, found: bytes) -> None:
        if found != checksum:
            self._refuse(path, f"sha256 {checksum.hex()}", found.hex())

    def _compare(
        self, path: bytes, status: os.stat_result, xattrs_at: int | bytes, uid: int, gid: int, mode: int, xattrs: Xattrs
    ) -> None:
        found: list[object] = [_mode(status.st_mode, self._user_mode)]
        wanted: list[object] = [_mode(mode, self._user_mode)]
        if not self._user_mode:
            found += [status.st_uid, status.st_gid, read_xattrs(xattrs_at)]
            wanted += [uid, gid, xattrs]
        if found != wanted:
            self._refuse(path, f"mode, owner and xattrs {wanted}", str(found))

    def _refuse(self, path: bytes, expected: str, found: str) -> Never:
        where = f"{quote_path(path or b'/')} of the commit {self._checksum[:_SHOWN_DIGITS]}"
        raise CorruptionError("what was to be deployed", where, expected, found)


def _hashed(header: bytes, file: int) -> bytes:
    hasher = sha256(header)
    while data := os.read(file, _CHUNK_BYTES):
        hasher.update(data)
    return hasher.digest()


def _mode(mode: int, user_mode: bool) -> str:
    """Return what has to agree of a mode: nobody asks for the permissions of a symlink."""
    mode = stat.S_IFMT(mode) if stat.S_ISLNK(mode) else mode & ~_SET_ID_BITS if user_mode else mode
    return f"{mode:06o}"


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
        self._prover.prove(built.root, self._prover.root, hollow=(VAR,), more=more)
        if VAR[1:] not in self._prover.names():
            self._prover.prove_empty(built.root / "var", VAR)
        if self._shape.etc is not None:
            self.check_etc(built.pristine)
        if is_usr_etc:
            self.check_etc(built.root / "etc")

    def check_etc(self, etc: Path) -> None:
        """Compare a copy of the commit's etc, wherever that has it."""
        names = (b"usr", b"etc") if self._shape.is_usr_etc else (b"etc",)
        self._prover.prove(etc, self._prover.below(*names), b"/" + b"/".join(names))

    def check_var(self, new: Path) -> None:
        """Compare what /var is to be filled with."""
        self._prover.prove(new, self._prover.below(b"var"), b"/var")

    def check_all(self, top: Path) -> None:
        """Compare a whole tree as it was committed, /etc and /var with it."""
        self._prover.prove(top, self._prover.root)
