"""fsview commit: a directory, a tar stream or another commit's tree, or several laid over each other, as a commit."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from store.database import Reading
from store.errors import FsviewError, InvalidNameError, SourceError
from store.gvariant import Variant
from store.objects import Checksum, Commit, Metadata, checksum_from_hex
from store.publication import Phase, Report
from store.refs import check_ref_name, check_ref_place, find_ref
from store.repository import Repository
from store.stager import Stager
from store.tree import commit_record, find, root_entry
from store.writer import Writer
from tools.build import Builder, Outcome
from tools.cli import repository_option
from tools.commit_source import CommitDirectory, CommitScan
from tools.disk_source import DiskDirectory, DiskScan
from tools.hashing import GONE, Hasher, Job
from tools.patterns import compile_patterns
from tools.recipe import Recipe
from tools.render import progress
from tools.sources import Directory, DiskOptions, MergedDirectory
from tools.tar_source import read_tar

EXAMPLES = """\b
Examples:
  fsview commit -b debian/12/amd64/base -s "Debian 12.4" /srv/trees/debian-12
  tar c -C build . | fsview commit -b app/main --tree=tar=-
  fsview commit -b app/debug --tree=ref=app/main --tree=dir=extra
"""

_LISTED_MAX = 20
_TEXT = click.File("r", "utf-8", "surrogateescape")
_CHECKSUM = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TreeSpec:
    """One --tree: kind is "dir", "tar" (value "-": standard input) or "ref"."""

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
            f"a commit can't hold devices, FIFOs or sockets: {_listed(specials)}; "
            f"nothing was committed; leave them out with --skip-special"
        )
    vanished = [path for scan in scans for path in scan.vanished] + [p for p, why in outcome.unreadable if why == GONE]
    problems = [problem for scan in scans for problem in scan.problems]
    problems += [problem for problem in outcome.unreadable if problem[1] != GONE]
    changed = [path for scan in scans for path in scan.changed] + outcome.changed
    if problems:
        lines = "\n  ".join(f"{_listed([path])}: {why}" for path, why in problems[:_LISTED_MAX])
        more = f"\n  and {len(problems) - _LISTED_MAX} more" if len(problems) > _LISTED_MAX else ""
        raise SourceError(f"these can't be read, so nothing was committed:\n  {lines}{more}")
    if (changed or vanished) and not allow_changed:
        what = "; ".join(
            f"{word} while it was read: {_listed(paths)}"
            for word, paths in (("changed", changed), ("vanished", vanished))
            if paths
        )
        raise SourceError(f"{what}; nothing was committed; stop what writes there, or take it so with --allow-changed")
    return changed + vanished


def _listed(paths: list[bytes]) -> str:
    return ", ".join(path.decode("utf-8", "backslashreplace") for path in paths)


def _metadata(message: Message) -> Metadata:
    if not message.bindings:
        return message.metadata
    refs = [*message.bind_refs, *([message.ref] if message.ref else [])]  # OSTree keeps a name that is there twice
    return (*message.metadata, ("ostree.ref-binding", Variant("as", sorted(refs, key=str.encode))))


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


@click.command("commit", epilog=EXAMPLES)
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("-b", "--branch", metavar="REF", help="The ref to move to the new commit; made if it isn't there.")
@click.option("-s", "--subject", default="", help="One line that says what this is.")
@click.option("-m", "--body", default="", help="The full description.")
@click.option("-F", "--body-file", type=_TEXT, help="Take the description from a file.")
@click.option("--tree", "trees", multiple=True, metavar="dir=PATH|tar=FILE|ref=REV",
              help="What to commit; several are laid over each other. tar=-: standard input.")  # fmt: skip
@click.option("--parent", metavar="REV", help="Parent commit, or 'none'; else the ref's head.")
@click.option("--timestamp", metavar="TIME", help="ISO 8601, @SECONDS, ...; else SOURCE_DATE_EPOCH, else now.")
@click.option("--orphan", is_flag=True, help="Make a commit without a ref.")
@click.option("--add-metadata-string", "strings", multiple=True, metavar="KEY=VALUE", help="Add a string as metadata.")
@click.option("--add-metadata", "variants", multiple=True, metavar="KEY=VARIANT",
              help="Add a value in GVariant's text format, such as KEY=\"uint32 5\".")  # fmt: skip
@click.option("--add-detached-metadata-string", "detached", multiple=True, metavar="KEY=VALUE",
              help="Add a string that is not part of the commit's checksum.")  # fmt: skip
@click.option("--bind-ref", "bind_refs", multiple=True, metavar="REF", help="Bind this ref to the commit as well.")
@click.option("--no-bindings", is_flag=True, help="Don't store for which ref the commit was made.")
@click.option("--owner-uid", type=click.IntRange(0, 2**32 - 1), help="Owner of all files.")
@click.option("--owner-gid", type=click.IntRange(0, 2**32 - 1), help="Group of all files.")
@click.option("--canonical-permissions", is_flag=True, help="Mode & 0755, owner 0:0, no xattrs.")
@click.option("--no-xattrs", is_flag=True, help="Leave extended attributes out.")
@click.option("--skip-list", type=_TEXT, help="File of patterns to leave out.")
@click.option("--ignore", multiple=True, metavar="PATTERN", help="Leave out what matches, as a line in .gitignore.")
@click.option("--ignore-files", is_flag=True, help="Honour .fsviewignore files in the tree.")
@click.option("--skip-special", is_flag=True, help="Leave out devices, FIFOs and sockets.")
@click.option("--one-file-system", is_flag=True, help="Leave out what is mounted below DIRECTORY.")
@click.option("--allow-changed", is_flag=True, help="Store files that change while they are read.")
@click.option("--no-stat-cache", is_flag=True, help="Read every file, also those that look unchanged.")
@repository_option
def commit_command(repository: Repository, /, **options: Any) -> None:
    """Commit the tree in DIRECTORY, or what --tree names, and print the commit's checksum."""
    trees = _tree_specs(options["directory"], options["trees"])
    if (options["branch"] is None) != options["orphan"]:
        raise click.UsageError("name the ref with -b REF, or ask for a commit without one with --orphan")
    if options["body"] and options["body_file"]:
        raise click.UsageError("--body and --body-file exclude each other")
    if options["canonical_permissions"] and (options["owner_uid"] or options["owner_gid"]):
        raise click.UsageError("--canonical-permissions makes root the owner; leave out --owner-uid and --owner-gid")
    if options["ignore_files"] and any(tree.kind != "dir" for tree in trees):
        raise click.UsageError("--ignore-files is for directories; use --ignore or --skip-list with tar= and ref=")
    with progress("committing", unit="files") as advance:
        made = commit(
            repository, trees, _message(options), _disk_options(options), allow_changed=options["allow_changed"],
            report=_reporter(advance),
        )  # fmt: skip
    if made.changed:
        click.echo(f"fsview: changed or vanished meanwhile, stored as read last: {_listed(made.changed)}", err=True)
    click.echo(made.checksum.hex())


def _reporter(advance: Callable[[int], object]) -> Report:
    """Return what shows the number of files on a progress bar."""
    shown = 0

    def report(phase: Phase, done: int) -> None:
        nonlocal shown
        if phase in (Phase.HASHING, Phase.STAGING):
            advance(done - shown)
            shown = done

    return report


def _tree_specs(directory: Path | None, trees: tuple[str, ...]) -> list[TreeSpec]:
    specs = []
    for text in trees:
        kind, equals, value = text.partition("=")
        if kind not in ("dir", "tar", "ref") or not (equals and value):
            raise click.UsageError(f"--tree={text} is none of dir=PATH, tar=FILE and ref=REV")
        specs.append(TreeSpec(kind, value))
    if directory is not None and specs:
        raise click.UsageError("name either a DIRECTORY or --tree, not both")
    return specs or [TreeSpec("dir", str(directory or "."))]


def _message(options: dict[str, Any]) -> Message:
    from store.objects import pack_detached

    strings = [(key, Variant("s", value)) for key, value in map(_pair, options["strings"])]
    variants = [(key, _variant(value)) for key, value in map(_pair, options["variants"])]
    detached = [(key, Variant("s", value)) for key, value in map(_pair, options["detached"])]
    body = options["body_file"].read() if options["body_file"] else options["body"]
    for what, text in (
        ("subject", options["subject"]),
        ("body", body),
        *(("ref", ref) for ref in options["bind_refs"]),
    ):
        _check_text(what, text)
    return Message(
        options["branch"], options["subject"], body, _timestamp_s(options["timestamp"]), options["parent"],
        (*strings, *variants), not options["no_bindings"], options["bind_refs"],
        pack_detached(tuple(detached)) if detached else None,
    )  # fmt: skip


def _variant(text: str) -> Variant:
    from store.gvariant_text import parse_text

    return parse_text(text)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.UsageError(f"{text!r} should be KEY=VALUE")
    _check_text("metadata", text)
    return key, value


def _check_text(what: str, text: str) -> None:
    """Refuse what a commit can't hold before the tree is read; command lines and files may have any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.UsageError(f"the {what} is not UTF-8, which a commit's texts are: {text!r}") from None


def _timestamp_s(text: str | None) -> int:
    from store.revisions import parse_time

    now_s = int(time.time())
    if text is None:
        text = os.environ.get("SOURCE_DATE_EPOCH")
    return now_s if text is None else parse_time(text, now_s)


def _disk_options(options: dict[str, Any]) -> DiskOptions:
    recipe = Recipe(
        options["owner_uid"], options["owner_gid"], options["canonical_permissions"], not options["no_xattrs"]
    )
    patterns = [*(options["skip_list"].read().split("\n") if options["skip_list"] else ()), *options["ignore"]]
    return DiskOptions(
        recipe, compile_patterns(patterns) if patterns else None, options["ignore_files"], options["skip_special"],
        options["one_file_system"], not options["no_stat_cache"],
    )  # fmt: skip
