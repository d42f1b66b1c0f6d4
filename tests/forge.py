"""Trees published straight through store/writer.py, without a directory on disk: also such as no disk could hold.

with forge(repository) as work:
    root = work.tree({b"name": work.file(b"bytes")}, {b"below": work.tree()})
    checksum = work.publish(root)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from store.objects import Checksum, Commit, DirMeta, DirTree, FileHeader, Metadata, checksum_of
from store.repository import Repository
from store.stager import Stager
from store.staging import StagedTree
from store.writer import Writer

META = DirMeta(0, 0, 0o40755)


class Forge:
    """Makes the objects of one commit."""

    def __init__(self, writer: Writer, stager: Stager) -> None:
        """Use `forge`."""
        self.writer, self.stager = writer, stager
        self.meta = writer.add_meta(META)

    def file(self, content: bytes, *, mode: int = 0o100644, mtime_ns: int = 0) -> Checksum:
        """Stage a regular file."""
        return self.stager.whole(content, FileHeader(0, 0, mode), mtime_ns)

    def symlink(self, target: bytes) -> Checksum:
        """Stage a symlink."""
        return self.stager.symlink(FileHeader(0, 0, 0o120777, (), target), 0)

    def tree(
        self, files: Mapping[bytes, Checksum] | None = None, dirs: Mapping[bytes, Checksum] | None = None
    ) -> Checksum:
        """Stage a dirtree; its directories all have META."""
        rows = tuple((name, below, self.meta) for name, below in sorted((dirs or {}).items()))
        return self.raw_tree(DirTree(tuple(sorted((files or {}).items())), rows).to_bytes())

    def raw_tree(self, raw: bytes, checksum: Checksum | None = None) -> Checksum:
        """Stage a dirtree from its bytes, whatever they are."""
        checksum = checksum_of(raw) if checksum is None else checksum
        self.writer.add_tree(StagedTree(checksum, 0, raw))
        return checksum

    def publish(
        self,
        root: Checksum,
        ref: str | None = "main",
        *,
        time_s: int = 0,
        parent: Checksum | None = None,
        metadata: Metadata = (),
        message: tuple[str, str] = ("", ""),
    ) -> Checksum:
        """Publish a commit of the tree *root*; *message* is subject and body."""
        self.stager.flush()
        made = Commit(metadata, parent, *message, time_s, root, self.meta)
        return self.writer.publish(lambda reading: made, ref=ref, time_s=time_s, message="")


@contextmanager
def forge(repository: Repository) -> Iterator[Forge]:
    """Begin a commit; leaving removes what was not published."""
    with Writer(repository) as writer, Stager(repository, writer.stage.path, "forged") as stager:
        yield Forge(writer, stager)
