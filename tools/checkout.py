"""fsview checkout: a commit, a directory or a file of it, written to disk.

Everything is made in a hidden directory beside the destination, .NAME.fsview-XXXXXX, which only this user may enter,
and renamed when it is complete: the atomic step. Killed before it, nothing has the destination's name.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from store.database import Reading
from store.errors import FsviewError, NotFoundError
from store.repository import Repository
from store.revisions import Place, find_place
from store.schema import TreeId
from store.tree import commit_record, tree_record
from tools.filling import Written
from tools.linking import Link, LinkCounts, Linker
from tools.materialise import DIRECTORY, TreeWriter, forget_acls
from tools.parameters import REVISION, repository_option
from tools.render import count_text, json_path, print_json, progress, size_text

_ITSELF: Final = b"itself"  # what a file is called in the hidden directory


def checkout(
    repository: Repository,
    place: Place,
    destination: Path,
    *,
    link: Link = Link.AUTO,
    user_mode: bool = False,
    advance: Callable[[int], object] = lambda step: None,
    complete: Callable[[Path], object] = lambda hidden: None,
) -> tuple[Written, LinkCounts]:
    """Write what is at *place* to *destination*; with *user_mode* without owners, xattrs, setuid and setgid.

    *complete* is called with a directory that is written, before it gets its name.

    Raises:
        FsviewError: the destination is there and is not an empty directory; links are impossible that were asked for.
        CorruptionError: what is stored is damaged.
        OSError: the disk is full; a name or an attribute that the file system can't hold.
    """
    destination = Path(os.path.abspath(destination))  # not resolve(): a symlink there is something already
    _refuse_taken(destination, place.entry.is_directory)
    with repository.lock(), _hidden_directory(destination) as (hidden, descriptor):
        linker = Linker(repository, link, descriptor)
        writer = TreeWriter(repository, linker, user_mode, destination, advance)
        if place.entry.is_directory:
            check_room(repository, place, descriptor, destination)
            writer.directory(descriptor, place.path, place.entry)
            complete(hidden)
            os.rename(hidden, destination)  # replaces an empty directory, nothing else
        else:
            writer.single(descriptor, _ITSELF, place.path, place.entry)
            _move_file(hidden / os.fsdecode(_ITSELF), destination)
    return writer.done, linker.counts


def _refuse_taken(destination: Path, may_be_empty: bool) -> None:
    if not destination.parent.is_dir():
        raise NotFoundError(f"{destination.parent} is no directory; make it: mkdir -p {destination.parent}")
    try:
        status = destination.lstat()
    except FileNotFoundError:
        return
    if may_be_empty and stat.S_ISDIR(status.st_mode) and not any(destination.iterdir()):
        return
    expected = "a new or an empty directory" if may_be_empty else "a new file"
    raise FsviewError(f"{destination} exists already; name {expected} for the checkout. Nothing was changed")


@contextmanager
def _hidden_directory(destination: Path) -> Iterator[tuple[Path, int]]:
    """Make a directory beside *destination*; what is left of it at the end is removed."""
    hidden = Path(tempfile.mkdtemp(prefix=f".{destination.name[:200]}.fsview-", dir=destination.parent))
    descriptor = os.open(hidden, DIRECTORY)
    try:
        forget_acls(descriptor)
        yield hidden, descriptor
    finally:
        os.close(descriptor)
        remove_tree(hidden)


def check_room(repository: Repository, place: Place, directory: int, destination: Path) -> None:
    """Refuse at once what has more names than the file system has inodes left."""
    with repository.database.reading() as reading:
        entries = tree_record(reading, TreeId(place.entry.id)).entries
    room = os.fstatvfs(directory)
    if room.f_files and entries > room.f_favail:
        what = f"{os.strerror(errno.ENOSPC)} ({entries} entries, but {room.f_favail} free inodes)"
        raise OSError(errno.ENOSPC, what, str(destination))


def _move_file(source: Path, destination: Path) -> None:
    """Rename, but over nothing: rename(2) would replace a file that appeared meanwhile."""
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        os.rename(source, destination)


def remove_tree(top: Path) -> None:
    """Remove a directory and all below it, however deep it is and whatever the modes are; none is fine, too."""
    try:
        here = os.open(top, DIRECTORY)
    except FileNotFoundError:
        return
    try:
        stack = [(b"", _names(here))]
        while stack:
            name = next(stack[-1][1], None)
            if name is not None and _is_removed(here, name):
                continue
            above = here
            if name is not None:
                here = os.open(name, DIRECTORY, dir_fd=above)
                stack.append((name, _names(here)))
            else:
                here = os.open("..", DIRECTORY, dir_fd=above)
                os.rmdir(stack[-1][0] or top.name, dir_fd=here)
                stack.pop()
            os.close(above)
    finally:
        os.close(here)


def _names(here: int) -> Iterator[bytes]:
    os.fchmod(here, 0o700)
    return iter([os.fsencode(name) for name in os.listdir(here)])


def _is_removed(here: int, name: bytes) -> bool:
    """Remove a file; or say that it is a directory, and make sure that it can be entered."""
    try:
        os.unlink(name, dir_fd=here)
    except IsADirectoryError:
        os.chmod(name, 0o700, dir_fd=here)
        return False
    return True


def _entries(reading: Reading, place: Place) -> int:
    """Return how many steps a checkout has."""
    return tree_record(reading, TreeId(place.entry.id)).entries if place.entry.is_directory else 1


def _summary(destination: Path, done: Written, links: LinkCounts) -> str:
    counts = [count_text(done.files, "file"), count_text(done.directories, "directory")]
    counts += [count_text(done.symlinks, "symlink")] if done.symlinks else []
    ways = [f"{number} {way}" for way, number in asdict(links).items() if number]
    how = f" ({', '.join(ways)})" if ways else ""
    return f"{destination}: {', '.join(counts)}, {size_text(done.bytes)}{how}"


EXAMPLES = """
\b
Examples:
  fsview checkout debian/12/amd64/base /srv/debian-12
  fsview checkout debian/12^:/etc etc.old            a directory of the commit before
  fsview checkout debian/12:/bin/bash ./bash         one file
  fsview checkout --link=copy app/main work          a tree that is to be edited in place

\b
A hard link is the repository's own file: writing to it in place damages the repository, which fsck finds. Use
--link=copy for a tree that is to be edited. Empty files and what is in etc/ or var/ are never hard links. A checkout
that was killed leaves a directory .DEST.fsview-XXXXXX: remove it.
"""


@click.command("checkout", epilog=EXAMPLES)
@click.argument("revision", type=REVISION)
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--link", type=click.Choice([link.value for link in Link]), default=Link.AUTO.value, show_default=True,
              help="How contents get there; auto: reflink, else hard link, else copy.")  # fmt: skip
@click.option("-U", "--user-mode", is_flag=True, help="Leave out owners, xattrs, setuid and setgid; not root: always.")
@click.option("--json", "in_json", is_flag=True, help="A JSON object that tells what was written.")
@repository_option
def checkout_command(
    repository: Repository, revision: str, destination: Path, link: str, user_mode: bool, in_json: bool
) -> None:
    """Write the commit REVISION, or what is at REVISION:/PATH, to DEST, which must be new or an empty directory."""
    with repository.database.reading() as reading:
        place = find_place(reading, revision, now_s=int(time.time()))
        entries, commit = _entries(reading, place), commit_record(reading, place.commit).checksum
    if os.geteuid() != 0 and not user_mode:
        click.echo("fsview: not root: owners, xattrs, setuid and setgid are left out (as with --user-mode)", err=True)
        user_mode = True
    with progress("checking out", entries, "entries") as advance:
        done, links = checkout(
            repository, place, destination, link=Link(link), user_mode=user_mode, advance=advance
        )  # fmt: skip
    if in_json:
        names = {"commit": commit.hex(), "path": json_path(place.path or b"/"), "destination": str(destination)}
        print_json(names | {"user_mode": user_mode} | asdict(done) | asdict(links))
    else:
        click.echo(f"fsview: {_summary(destination, done, links)}", err=True)
