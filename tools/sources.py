"""Where the trees that are committed come from, one directory at a time.

    Directory                 what a source shows of one directory
    DiskDirectory             a directory on disk (tools/disk_source.py)
    CommitDirectory           a directory of an earlier commit, --tree=ref= (tools/commit_source.py)
    MemoryDirectory           a directory read from a tar stream (tools/tar_source.py)
    MergedDirectory           several directories laid over each other: the last one wins, directories merge

`scan` hands changed files to the hasher and comes back at once; tools/build.py makes the dirtrees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from store.objects import Checksum, DirMeta
from store.schema import FileId, MetaId, TreeId
from store.statcache import StatRecord
from tools.hashing import Ticket
from tools.patterns import IsIgnored
from tools.recipe import Recipe

FoundFile = Ticket | Checksum | FileId


@dataclass(slots=True)
class Scanned:
    """One directory of a source.

    files are promised, or known by checksum or id. stats are packed stats of all entries, for the stat cache, where
    stat_key is set. unchanged is the stat cache's record if every entry here is as it was: then files and stats are
    empty, and the record tells the rest. tree_id is set where the whole subtree is known. vanished: it was deleted,
    or replaced by something else, after its parent was scanned.
    """

    mtime_ns: int
    files: dict[bytes, FoundFile] = field(default_factory=dict)
    directories: dict[bytes, Directory] = field(default_factory=dict)
    stat_key: bytes | None = None
    stats: dict[bytes, bytes] = field(default_factory=dict)
    unchanged: StatRecord | None = None
    tree_id: TreeId | None = None
    vanished: bool = False

    def all_files(self) -> dict[bytes, FoundFile]:
        """Return the files, from the stat cache's record if need be."""
        if self.unchanged is None:
            return self.files
        rows = self.unchanged.by_name().items()
        return {name: FileId(number) for name, (_, number, _) in rows if name not in self.directories}

    def all_stats(self) -> dict[bytes, bytes]:
        """Return the packed stats of all entries, likewise."""
        if self.unchanged is None:
            return self.stats
        return {name: packed for name, (packed, _, _) in self.unchanged.by_name().items()}


class Directory(Protocol):
    """A directory of a source."""

    @property
    def path(self) -> bytes:
        """Its path for messages."""

    def meta(self) -> DirMeta | MetaId:
        """Return owner, mode and xattrs, or the dirmeta that has them."""

    def scan(self) -> Scanned:
        """Return what is in it."""


@dataclass(slots=True)
class DiskOptions:
    """What becomes of a source. `is_skipped` gets a path below the root, b"/usr/bin", and "is a directory".

    Of other sources than directories on disk, only the first two, skip_special and allow_holes are asked.
    """

    recipe: Recipe = field(default_factory=Recipe)
    is_skipped: IsIgnored | None = None
    ignore_files: bool = False  # honour IGNORE_FILE in the tree
    skip_special: bool = False
    one_file_system: bool = False
    stat_cache: bool = True
    allow_holes: bool = False  # in sparse files of a tar archive, however large


class MemoryDirectory:
    """A directory that was read whole, its files staged already.

    Its path is made when somebody asks: held by each, the paths of a deep tree would take more than all else.
    """

    __slots__ = ("_above", "_name", "directories", "dirmeta", "files", "mtime_ns")

    def __init__(self, name: bytes, dirmeta: DirMeta, mtime_ns: int, above: MemoryDirectory | None = None) -> None:
        """Make an empty one, in the directory *above*; None: the root."""
        self._name, self._above, self.dirmeta, self.mtime_ns = name, above, dirmeta, mtime_ns
        self.files: dict[bytes, Checksum] = {}
        self.directories: dict[bytes, MemoryDirectory] = {}

    @property
    def path(self) -> bytes:
        """Its path in the archive."""
        names, here = [], self
        while here._above is not None:
            names.append(here._name)
            here = here._above
        return b"/" + b"/".join(reversed(names))

    def meta(self) -> DirMeta | MetaId:
        """Return the dirmeta."""
        return self.dirmeta

    def scan(self) -> Scanned:
        """Return what is in it."""
        return Scanned(self.mtime_ns, dict(self.files), dict(self.directories))


class MergedDirectory:
    """Several directories at the same place: a later one's files and metadata win, directories merge."""

    __slots__ = ("_layers",)

    def __init__(self, layers: list[Directory]) -> None:
        """*layers* from the lowest to the highest."""
        self._layers = layers

    @property
    def path(self) -> bytes:
        """The highest layer's."""
        return self._layers[-1].path

    def meta(self) -> DirMeta | MetaId:
        """Return the highest layer's dirmeta."""
        return self._layers[-1].meta()

    def scan(self) -> Scanned:
        """Return what is in it."""
        merged = Scanned(0)
        layers: dict[bytes, list[Directory]] = {}
        for layer in self._layers:
            scanned = layer.scan()
            merged.mtime_ns = scanned.mtime_ns
            for name, file in scanned.all_files().items():
                layers.pop(name, None)
                merged.files[name] = file
            for name, directory in scanned.directories.items():
                merged.files.pop(name, None)
                layers.setdefault(name, []).append(directory)
        for name, found in layers.items():
            merged.directories[name] = found[0] if len(found) == 1 else MergedDirectory(found)
        return merged
