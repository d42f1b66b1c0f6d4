"""Make a commit: a directory, a tar stream or another commit's tree, or several laid over each other."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from store.database import Reading
from store.errors import FsviewError, InvalidNameError, SourceError
from store.gvariant import Variant
from store.objects import REF_BINDING, Checksum, Commit, Metadata, checksum_from_hex
from store.publication import Report
from store.refs import check_ref_name, check_ref_place, find_ref
from store.repository import Repository
from store.stager import Stager
from store.tree import commit_record, find, root_entry
from store.writer import Writer
from tools.build import Builder, Outcome
from tools.commit_source import CommitDirectory, CommitScan
from tools.disk_source import DiskDirectory, DiskScan
from tools.hashing import GONE, Hasher, Job
from tools.overlay_source import open_workspace, workspace_options
from tools.sources import Directory, DiskOptions, MergedDirectory
from tools.tar_source import read_tar
from tools.workspace_state import load

WORKSPACE = "workspace"
_LISTED_MAX = 20
_CHECKSUM = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TreeSpec:
    """One --tree: kind is "dir", "tar" (value "-": standard input) or "ref"; or --workspace, alone: "workspace"."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Message:
    """What a commit says besides its tree; parent: None for the ref's head, "none", or a revision."""

    ref: str | None
    subject: str = ""
    body: str = ""
    timestamp_s: int = 0
    parent: str | None = None
    metadata: Metadata = ()
    bindings: bool = True
    bind_refs: tuple[str, ...] = ()
    detached: bytes | None = None


@dataclass(slots=True)
class Committed:
    """What came of a commit; changed are files that did not hold still while they were read, or vanished."""

    checksum: Checksum
    files: int
    changed: list[bytes] = field(default_factory=list)


def commit(
    repository: Repository,
    trees: list[TreeSpec],
    message: Message,
    options: DiskOptions,
    *,
    allow_changed: bool = False,
    processes: int | None = None,
    report: Report = lambda phase, done: None,
) -> Committed:
    """Commit *trees*, laid over each other from the first to the last.

    Raises:
        SourceError: files that can't be read, held or were changed meanwhile; all are named.
        InvalidNameError, NotFoundError: a ref, revision or path.
        FsviewError: the disk is full.
        OSError: a source is not there.
    """
    with repository.database.reading() as reading:  # better now than when everything is hashed
        if message.ref is not None:
            check_ref_name(message.ref)
            check_ref_place(reading, message.ref)
        _parent(reading, message)
    try:
        return _commit(repository, trees, message, options, allow_changed, processes, report)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FsviewError(
            f"{repository.path}: {error.strerror}; nothing was committed; make space there and commit again"
        ) from error


def _commit(
    repository: Repository, trees: list[TreeSpec], message: Message, options: DiskOptions, allow_changed: bool,
    processes: int | None, report: Report,
) -> Committed:  # fmt: skip
    scan_ns = time.time_ns()
    if trees[0].kind == WORKSPACE:
        options = workspace_options(options, load(Path(trees[0].value)))
    with Writer(repository, report) as writer:
        with Hasher(Job(repository.path, writer.stage.path, options.recipe), processes) as hasher, ExitStack() as stack:
            opener = _Opener(repository, writer, hasher, options, stack)
            layers = [opener.open(spec) for spec in trees]
            builder = Builder(repository.database, writer, scan_ns, lambda: hasher.is_full, report)
            root = builder.build(layers[0] if len(layers) == 1 else MergedDirectory(layers))
        changed = _complaints(opener.scans, builder.outcome, allow_changed)

        def make_commit(reading: Reading) -> Commit:
            return Commit(
                metadata=_metadata(message), parent=_parent(reading, message), subject=message.subject,
                body=message.body, timestamp_s=message.timestamp_s, root_dirtree=root.dirtree,
                root_dirmeta=root.dirmeta,
            )  # fmt: skip

        checksum = writer.publish(
            make_commit, ref=message.ref, time_s=int(time.time()), message=f"commit: {message.subject}",
            detached=message.detached,
        )  # fmt: skip
    return Committed(checksum, builder.outcome.files, changed)


class _Opener:
    """Opens what --tree names; scans are those of directories on disk. *stack* closes what staging needs."""

    def __init__(
        self, repository: Repository, writer: Writer, hasher: Hasher, options: DiskOptions, stack: ExitStack
    ) -> None:
        self._repository, self._writer, self._hasher = repository, writer, hasher
        self._options, self._stack = options, stack
        self._stagers = 0
        self.scans: list[DiskScan] = []

    def open(self, spec: TreeSpec) -> Directory:
        if spec.kind == "dir":
            directory = DiskDirectory.root(Path(spec.value), self._options, self._repository.database, self._hasher)
            self.scans.append(directory.shared)
            return directory
        if spec.kind == "tar":
            return read_tar(None if spec.value == "-" else Path(spec.value), self._stager(), self._options)
        if spec.kind == WORKSPACE:
            workspace = load(Path(spec.value))
            directory = open_workspace(self._repository, workspace, self._stager(), self._options, self._hasher)
            self.scans.append(directory.shared)
            return directory
        return self._commit_tree(spec.value)

    def _stager(self) -> Stager:
        self._stagers += 1
        return self._stack.enter_context(Stager(self._repository, self._writer.stage.path, f"main-{self._stagers}"))

    def _commit_tree(self, text: str) -> CommitDirectory:
        from store.revisions import resolve, split_path

        with self._repository.database.reading() as reading:
            revision, path = split_path(reading, text)
            record = commit_record(reading, resolve(reading, revision, now_s=int(time.time())))
            entry = find(reading, root_entry(reading, record), path or b"")
        if not entry.is_directory:
            raise InvalidNameError(f"{text} is a file; --tree=ref= takes a directory")
        scan = CommitScan(self._repository, self._stager(), self._options.recipe, self._options.is_skipped)
        return CommitDirectory(scan, entry, text.encode())


def _complaints(scans: Iterable[DiskScan], outcome: Outcome, allow_changed: bool) -> list[bytes]:
    """Return what changed or vanished meanwhile, if that is allowed.

    Raises:
        SourceError: what can't be committed, all of it.
    """
    specials = [path for scan in scans for path in scan.specials]
    if specials:
        raise SourceError(
            f"a commit can't hold devices, FIFOs or sockets: {listed(specials)}; "
            f"nothing was committed; leave them out with --skip-special"
        )
    vanished = [path for scan in scans for path in scan.vanished] + [p for p, why in outcome.unreadable if why == GONE]
    problems = [problem for scan in scans for problem in scan.problems]
    problems += [problem for problem in outcome.unreadable if problem[1] != GONE]
    changed = [path for scan in scans for path in scan.changed] + outcome.changed
    if problems:
        lines = "\n  ".join(f"{listed([path])}: {why}" for path, why in problems[:_LISTED_MAX])
        more = f"\n  and {len(problems) - _LISTED_MAX} more" if len(problems) > _LISTED_MAX else ""
        raise SourceError(f"these can't be read, so nothing was committed:\n  {lines}{more}")
    if (changed or vanished) and not allow_changed:
        what = "; ".join(
            f"{word} while it was read: {listed(paths)}"
            for word, paths in (("changed", changed), ("vanished", vanished))
            if paths
        )
        raise SourceError(f"{what}; nothing was committed; stop what writes there, or take it so with --allow-changed")
    return changed + vanished


def listed(paths: list[bytes]) -> str:
    """Return paths for one line of a message."""
    return ", ".join(path.decode("utf-8", "backslashreplace") for path in paths)


def _metadata(message: Message) -> Metadata:
    if not message.bindings:
        return message.metadata
    refs = [*message.bind_refs, *([message.ref] if message.ref else [])]  # OSTree keeps a name that is there twice
    return (*message.metadata, (REF_BINDING, Variant("as", sorted(refs, key=str.encode))))


def _parent(reading: Reading, message: Message) -> Checksum | None:
    from store.revisions import resolve

    if message.parent == "none":
        return None
    if message.parent is not None and _CHECKSUM.fullmatch(message.parent):
        return checksum_from_hex(message.parent)  # which need not be here, as in OSTree: history may be cut anywhere
    if message.parent is not None:
        return commit_record(reading, resolve(reading, message.parent, now_s=int(time.time()))).checksum
    current = find_ref(reading, message.ref) if message.ref else None
    return commit_record(reading, current.commit).checksum if current else None
