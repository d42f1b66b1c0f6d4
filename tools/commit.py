"""fsview commit: what its options ask for. The commit itself is made in tools/make_commit.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from store.gvariant import Variant
from store.publication import Phase, Report
from store.refs import find_ref
from store.repository import Repository
from tools.make_commit import WORKSPACE, Message, TreeSpec, commit, listed
from tools.parameters import REVISION, RevisionType, path_revisions, repository_option
from tools.patterns import compile_patterns
from tools.recipe import Recipe
from tools.render import progress, say
from tools.sources import DiskOptions
from tools.workspace_state import load

EXAMPLES = """\b
Examples:
  fsview commit -b debian/12/amd64/base -s "Debian 12.4" /srv/trees/debian-12
  tar c -C build . | fsview commit -b app/main --tree=tar=-
  fsview commit -b app/debug --tree=ref=app/main --tree=dir=extra
  fsview commit -b app/patched --workspace /srv/work     costs what was changed there, see 'fsview workspace --help'

\b
Of a tar archive, holes in sparse files are stored in full; they may be 1 GiB and 16 times the archive together, or any
size with --allow-holes. A tree has at most 10,000 levels of directories, and paths of 32 KiB.
"""

_TEXT = click.File("r", "utf-8", "surrogateescape")
_BY_REVISION = "ref="
_LEAVING_OUT = ("skip_list", "ignore", "ignore_files", "skip_special", "one_file_system", "no_xattrs")


class _TreeType(RevisionType):
    """What --tree takes: after "ref=", a revision."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.startswith(_BY_REVISION):
            return value
        return _BY_REVISION + super().convert(value.removeprefix(_BY_REVISION), param, ctx)


class _WorkspaceType(click.ParamType[Path]):
    """A workspace: the repository is then its own."""

    name = "directory"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if ctx is not None and not ctx.resilient_parsing:
            path_revisions(ctx).agree(load(Path(value)).repository, f"--workspace {value}")
        return Path(value)


@click.command("commit", epilog=EXAMPLES)
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("-b", "--branch", metavar="REF", help="The ref to move to the new commit; made if it isn't there.")
@click.option("-s", "--subject", default="", help="One line that says what this is.")
@click.option("-m", "--body", default="", help="The full description.")
@click.option("-F", "--body-file", type=_TEXT, help="Take the description from a file.")
@click.option("--tree", "trees", multiple=True, type=_TreeType(), metavar="dir=PATH|tar=FILE|ref=REV",
              help="What to commit; several are laid over each other. tar=-: standard input.")  # fmt: skip
@click.option("--workspace", metavar="DIR", type=_WorkspaceType(), help="Commit what this workspace shows.")
@click.option("--parent", metavar="REV", type=REVISION, help="Parent commit, or 'none'; else the ref's head.")
@click.option("--timestamp", metavar="TIME", help="ISO 8601, @SECONDS, ...; else SOURCE_DATE_EPOCH, else now.")
@click.option("--orphan", is_flag=True, help="Make a commit without a ref.")
@click.option("--add-metadata-string", "strings", multiple=True, metavar="KEY=VALUE", help="Add a string as metadata.")
@click.option("--add-metadata", "variants", multiple=True, metavar="KEY=VARIANT",
              help="Add a value in GVariant's text format, such as KEY=\"uint32 5\".")  # fmt: skip
@click.option("--add-detached-metadata-string", "detached", multiple=True, metavar="KEY=VALUE",
              help="Add a string that is not part of the commit's checksum.")  # fmt: skip
@click.option("--data-version", "data_versions", multiple=True, metavar="NAME=VERSION",
              help="What version of some data in /var the tree is made for; see 'fsview rollback --help'.")  # fmt: skip
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
@click.option("--allow-holes", is_flag=True, help="Of a tar archive, take sparse files whose holes are huge.")
@click.option("--allow-changed", is_flag=True, help="Store files that change while they are read.")
@click.option("--no-stat-cache", is_flag=True, help="Read every file, also those that look unchanged.")
@repository_option
def commit_command(repository: Repository, /, **options: Any) -> None:
    """Commit the tree in DIRECTORY, or what --tree names, and print the commit's checksum."""
    trees = _tree_specs(options["directory"], options["trees"], options["workspace"])
    if (options["branch"] is None) != options["orphan"]:
        raise click.UsageError("name the ref with -b REF, or ask for a commit without one with --orphan")
    if options["body"] and options["body_file"]:
        raise click.UsageError("--body and --body-file exclude each other")
    if options["canonical_permissions"] and (options["owner_uid"] or options["owner_gid"]):
        raise click.UsageError("--canonical-permissions makes root the owner; leave out --owner-uid and --owner-gid")
    if options["ignore_files"] and any(tree.kind not in ("dir", WORKSPACE) for tree in trees):
        raise click.UsageError("--ignore-files is for directories; use --ignore or --skip-list with tar= and ref=")
    message = _message(options, _new_parent(repository, options))
    workspace = load(options["workspace"]) if options["workspace"] else None
    before = workspace.fingerprint() if workspace else ""
    with progress("committing", unit="files") as advance:
        made = commit(
            repository, trees, message, _disk_options(options), allow_changed=options["allow_changed"],
            report=reporter(advance),
        )  # fmt: skip
    if workspace is not None and not made.changed and not any(options[name] for name in _LEAVING_OUT):
        replace(workspace, committed=before).save()  # so it may be removed, unless it was changed meanwhile
    if made.changed:
        say(f"changed or vanished meanwhile, stored as read last: {listed(made.changed)}")
    _warn_if_open(repository)
    click.echo(made.checksum.hex())


def _warn_if_open(repository: Repository) -> None:
    from store.exposure import MEND, open_to_others

    who = open_to_others(repository.path, repository.settings)
    if who is not None:
        say(f"{repository.path}: {who}; close it: {MEND.format(repository.path)}")


def reporter(advance: Callable[[int], object]) -> Report:
    """Return what shows the number of files on a progress bar."""
    shown = 0

    def report(phase: Phase, done: int) -> None:
        nonlocal shown
        if phase in (Phase.HASHING, Phase.STAGING):
            advance(done - shown)
            shown = done

    return report


def _tree_specs(directory: Path | None, trees: tuple[str, ...], workspace: Path | None) -> list[TreeSpec]:
    if workspace is not None:
        if directory is not None or trees:
            raise click.UsageError("a workspace is committed alone; leave out DIRECTORY and --tree")
        return [TreeSpec(WORKSPACE, os.fspath(workspace))]
    specs = []
    for text in trees:
        kind, equals, value = text.partition("=")
        if kind not in ("dir", "tar", "ref") or not (equals and value):
            raise click.UsageError(f"--tree={text} is none of dir=PATH, tar=FILE and ref=REV")
        specs.append(TreeSpec(kind, value))
    if directory is not None and specs:
        raise click.UsageError("name either a DIRECTORY or --tree, not both")
    return specs or [TreeSpec("dir", str(directory or "."))]


def _message(options: dict[str, Any], parent: str | None) -> Message:
    from store.objects import pack_detached

    strings = [(key, Variant("s", value)) for key, value in map(_pair, options["strings"])]
    variants = [(key, _variant(value)) for key, value in map(_pair, options["variants"])]
    detached = [(key, Variant("s", value)) for key, value in map(_pair, options["detached"])]
    if options["data_versions"]:
        variants.append(_data_versions(options["data_versions"]))
    body = options["body_file"].read() if options["body_file"] else options["body"]
    for what, text in (
        ("subject", options["subject"]),
        ("body", body),
        *(("ref", ref) for ref in options["bind_refs"]),
    ):
        _check_text(what, text)
    return Message(
        options["branch"], options["subject"], body, _timestamp_s(options["timestamp"]), parent,
        (*strings, *variants), not options["no_bindings"], options["bind_refs"],
        pack_detached(tuple(detached)) if detached else None,
    )  # fmt: skip


def _data_versions(texts: tuple[str, ...]) -> tuple[str, Variant]:
    from tools.sysroot.data_versions import DATA_VERSIONS, DATA_VERSIONS_TYPE

    versions = dict(map(_pair, texts))
    if len(versions) < len(texts):
        raise click.UsageError("--data-version names the same data twice")
    return DATA_VERSIONS, Variant(DATA_VERSIONS_TYPE, sorted(versions.items()))


def _new_parent(repository: Repository, options: dict[str, Any]) -> str | None:
    """Return the parent that was asked for; of a workspace on a new ref, the commit below it."""
    if options["parent"] is not None or options["workspace"] is None:
        parent: str | None = options["parent"]
        return parent
    with repository.database.reading() as reading:
        is_new = options["branch"] is None or find_ref(reading, options["branch"]) is None
    return load(options["workspace"]).commit if is_new else None


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
        options["one_file_system"], not options["no_stat_cache"], options["allow_holes"],
    )  # fmt: skip
