"""`fsview refs`, `tag` and `rev-parse`: names of commits, and what they stand for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import click

from store.database import Reading, Writing
from store.errors import FsviewError, NotFoundError, PrunedError
from store.objects import Checksum
from store.refs import check_ref_name, find_ref, list_refs, reflog, set_ref, shown_refs
from store.repository import Repository
from store.revisions import TAGS, abbreviate, find_named_ref, find_place, format_time, resolve, split_path
from store.schema import CommitNumber, ReflogRecord
from store.tree import commit_record
from tools.facts import load_facts
from tools.parameters import REF, REVISION, RevisionType, repository_option
from tools.render import one_line, print_json, print_json_lines


def create_ref(repository: Repository, name: str, revision: str, *, force: bool, message: str, now_s: int) -> None:
    """Make the ref *name* at *revision*; with *force*, move it if it exists.

    Raises:
        FsviewError: it exists.
        InvalidNameError: no ref can be named so, or not beside those that exist.
        NotFoundError: there is no such revision.
    """
    check_ref_name(name)

    def body(writing: Writing) -> None:
        number = resolve(writing, revision, now_s=now_s)
        if not force:
            _check_free(writing, name)
        set_ref(writing, name, number, time_s=now_s, message=message)

    with repository.lock():
        repository.database.write(body)


def move_ref(repository: Repository, old: str, new: str, *, force: bool, now_s: int) -> None:
    """Rename a ref; its log begins anew.

    Raises:
        FsviewError: *new* exists, and *force* was not given.
        InvalidNameError: no ref can be named so, or not beside those that exist.
        NotFoundError: there is no ref *old*.
    """
    check_ref_name(new)

    def body(writing: Writing) -> None:
        record = find_ref(writing, old)
        if record is None:
            raise NotFoundError(f"there is no ref {old}; 'fsview refs' lists the refs")
        if old == new:
            return
        if not force:
            _check_free(writing, new)
        set_ref(writing, old, None, time_s=now_s, message=f"refs: moved to {new}")
        set_ref(writing, new, record.commit, time_s=now_s, message=f"refs: moved from {old}")

    with repository.lock():
        repository.database.write(body)


def delete_refs(repository: Repository, prefixes: Sequence[str], *, message: str, now_s: int) -> list[str]:
    """Delete the refs whose names are *prefixes* or lie below them, all together or none; return the names.

    Raises:
        NotFoundError: one of the prefixes matches nothing.
    """

    def body(writing: Writing) -> list[str]:
        names: dict[str, None] = {}
        for prefix in prefixes:
            matching = [name for name, _ in list_refs(writing, prefix)] if prefix.strip("/") else []
            if not matching:
                raise NotFoundError(f"there is no ref {prefix}, and none below it; 'fsview refs' lists the refs")
            names |= dict.fromkeys(matching)
        for name in names:
            set_ref(writing, name, None, time_s=now_s, message=message)
        return list(names)

    with repository.lock():
        return repository.database.write(body)


def _check_free(reading: Reading, name: str) -> None:
    current = find_ref(reading, name)
    if current is not None:
        at = abbreviate(reading, commit_record(reading, current.commit).checksum)
        raise FsviewError(f"the ref {name} exists, at {at}; -f moves it")


def log_of_ref(reading: Reading, name: str) -> Iterator[tuple[str, ReflogRecord]]:
    """Yield (REF@{n}, move) of a ref, the newest first.

    Raises:
        NotFoundError: there is no such ref.
    """
    named = find_named_ref(reading, name)
    if named is None:
        raise NotFoundError(f"there is no ref {name}; 'fsview refs' lists the refs")
    for index, move in enumerate(reflog(reading, named[1].ref_id)):
        yield f"{named[0]}@{{{index}}}", move


def object_checksum(reading: Reading, text: str, *, now_s: int) -> Checksum:
    """Return the checksum that "REV" (a commit) or "REV:/path" (a file object or dirtree) stands for.

    Raises:
        NotFoundError: nothing has this name.
    """
    revision, path = split_path(reading, text)
    if path is None:
        return commit_record(reading, resolve(reading, revision, now_s=now_s)).checksum
    return load_facts(reading, find_place(reading, text, now_s=now_s).entry).checksums[0]


def _hex(reading: Reading, number: CommitNumber | None) -> str | None:
    checksum = _checksum_or_none(reading, number)
    return None if checksum is None else checksum.hex()


def _checksum_or_none(reading: Reading, number: CommitNumber | None) -> Checksum | None:
    """Return the checksum of a commit; None of none, and of one that was pruned."""
    try:
        return None if number is None else commit_record(reading, number).checksum
    except PrunedError:
        return None


REFS_EXAMPLES = """
\b
Examples:
  fsview refs                              all refs
  fsview refs debian/12                    those below debian/12, without this prefix
  fsview refs --create=debian/stable debian/12/amd64/base
  fsview refs --create=main main^ --force  move a ref back
  fsview refs --move debian/stable debian/oldstable
  fsview refs --delete tmp try/1           these, and all below them
  fsview refs --log main                   where it was: main@{0}, main@{1}, ...

\b
A name has components of letters, digits, "_", "-" and "." joined by "/". No ref can be below another.
Refs below fsview/sysroot/ keep what sysroots deployed; they are listed where PREFIX begins with "fsview".
"""


@click.command("refs", epilog=REFS_EXAMPLES)
@click.argument("names", metavar="[PREFIX...]", nargs=-1, type=RevisionType(only_with="create"))
@click.option("--list", "full", is_flag=True, help="Show full names, also with PREFIX.")
@click.option("-r", "--revision", "revisions", is_flag=True, help="Show checksums, too.")
@click.option("--create", metavar="NEW", is_eager=True, help="Make the ref NEW at the revision that is given.")
@click.option("--move", nargs=2, metavar="OLD NEW", help="Rename a ref.")
@click.option("--delete", is_flag=True, help="Delete the refs PREFIX, and all below.")
@click.option("--log", metavar="REF", type=REF, help="Show the moves of a ref, the newest first.")
@click.option("-f", "--force", is_flag=True, help="With --create and --move: even if NEW exists.")
@click.option("--json", "in_json", is_flag=True, help="Refs, or the log, as JSON.")
@repository_option
def refs_command(
    repository: Repository,
    names: tuple[str, ...],
    full: bool,
    revisions: bool,
    create: str | None,
    move: tuple[str, str] | None,
    delete: bool,
    log: str | None,
    force: bool,
    in_json: bool,
) -> None:
    """List refs; or make, move or delete them; or show the log of one."""
    now_s = int(time.time())
    if sum((create is not None, move is not None, delete, log is not None)) > 1:
        raise click.UsageError("--create, --move, --delete and --log exclude each other")
    if create is not None:
        if len(names) != 1:
            raise click.UsageError("name one revision: fsview refs --create=NEW REVISION")
        create_ref(repository, create, names[0], force=force, message=f"refs: created at {names[0]}", now_s=now_s)
    elif delete:
        if not names:
            raise click.UsageError("name what to delete: fsview refs --delete PREFIX")
        delete_refs(repository, names, message="refs: deleted", now_s=now_s)
    elif (move or log) and names:
        raise click.UsageError(f"unexpected argument {names[0]!r}")
    elif move:
        move_ref(repository, *move, force=force, now_s=now_s)
    else:
        with repository.database.reading() as reading:
            if log is not None:
                _print_log(reading, log, in_json=in_json)
            else:
                _print_refs(reading, names or ("",), full=full, revisions=revisions, in_json=in_json)


def _print_refs(reading: Reading, prefixes: Sequence[str], *, full: bool, revisions: bool, in_json: bool) -> None:
    rows = [(prefix, name, record) for prefix in prefixes for name, record in shown_refs(reading, prefix)]
    if in_json:
        print_json({name: _hex(reading, record.commit) for _, name, record in rows})
        return
    for prefix, name, record in rows:
        shown = one_line(name if full else (name.removeprefix(prefix.rstrip("/")).lstrip("/") or name))
        print(f"{shown}\t{_hex(reading, record.commit)}" if revisions else shown)


def _print_log(reading: Reading, name: str, *, in_json: bool) -> None:
    moves = log_of_ref(reading, name)
    if in_json:
        print_json_lines(_move_json(reading, at, move) for at, move in moves)
        return
    for at, move in moves:
        checksum = _checksum_or_none(reading, move.new)
        new = abbreviate(reading, checksum) if checksum else "pruned  " if move.new else "deleted "
        print(f"{new} {at}: {format_time(move.time_s)} {one_line(move.message)}")


def _move_json(reading: Reading, at: str, move: ReflogRecord) -> dict[str, object]:
    """Return a move as a JSON object; of commits that were pruned it has no checksum, but says so."""
    old, new = _hex(reading, move.old), _hex(reading, move.new)
    pruned = [name for name, number, text in (("old", move.old, old), ("new", move.new, new)) if number and not text]
    return {"name": at, "old": old, "new": new, "pruned": pruned, "time": move.time_s, "message": move.message}


TAG_EXAMPLES = """
\b
Examples:
  fsview tag                      list the tags
  fsview tag v1.0 debian/12       from now on v1.0 is this commit
  fsview tag -d v1.0

\b
A tag is a ref below tags/ that is not meant to move. The tag v1.0 is the ref tags/v1.0, and v1.0 alone where no ref
has this name.
"""


@click.command("tag", epilog=TAG_EXAMPLES)
@click.argument("name", required=False)
@click.argument("revision", type=REVISION, required=False)
@click.option("-f", "--force", is_flag=True, help="Move the tag if it exists.")
@click.option("-d", "--delete", is_flag=True, help="Delete the tag NAME.")
@repository_option
def tag_command(repository: Repository, name: str | None, revision: str | None, force: bool, delete: bool) -> None:
    """Name the commit REVISION for good: NAME must be new. Without arguments, list the tags."""
    now_s = int(time.time())
    if name is None:
        if force or delete:
            raise click.UsageError("name the tag")
        with repository.database.reading() as reading:
            for full, _ in list_refs(reading, TAGS):
                print(one_line(full.removeprefix(TAGS)))
        return
    full = TAGS + name.removeprefix(TAGS)
    if delete:
        if revision is not None:
            raise click.UsageError("-d takes the name of a tag alone")
        _delete_tag(repository, full, now_s)
    elif revision is None:
        raise click.UsageError("name the revision: fsview tag NAME REVISION")
    else:
        create_ref(repository, full, revision, force=force, message=f"tag: {revision}", now_s=now_s)


def _delete_tag(repository: Repository, full: str, now_s: int) -> None:
    def body(writing: Writing) -> None:
        if find_ref(writing, full) is None:
            raise NotFoundError(f"there is no tag {full.removeprefix(TAGS)}; 'fsview tag' lists the tags")
        set_ref(writing, full, None, time_s=now_s, message="tag: deleted")

    with repository.lock():
        repository.database.write(body)


REV_PARSE_EXAMPLES = """
\b
Examples:
  fsview rev-parse main main^       two checksums, one a line
  fsview rev-parse main:/etc        of a directory: the checksum of its dirtree
  fsview rev-parse --short main     an abbreviation that is unique now
  fsview rev-parse --verify "$REV"  fails unless it is exactly one revision
"""


@click.command("rev-parse", epilog=REV_PARSE_EXAMPLES)
@click.argument("revisions", metavar="REVISION...", nargs=-1, required=True, type=REVISION)
@click.option("--short", is_flag=True, help="Abbreviate the checksums of commits.")
@click.option("--verify", is_flag=True, help="Insist on one REVISION.")
@repository_option
def rev_parse_command(repository: Repository, revisions: tuple[str, ...], short: bool, verify: bool) -> None:
    """Print the checksums that REVISIONs (commits) or REVISION:/PATHs (objects in them) stand for."""
    if verify and len(revisions) != 1:
        raise click.UsageError(f"--verify takes one revision, not {len(revisions)}")
    now_s = int(time.time())
    with repository.database.reading() as reading:
        checksums = [object_checksum(reading, text, now_s=now_s) for text in revisions]
        for checksum in checksums:
            print(abbreviate(reading, checksum) if short else checksum.hex())
