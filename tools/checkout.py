"""fsview checkout: a commit, a directory or a file of it, written to disk.

Everything is made in a hidden directory beside the destination, .NAME.fsview-XXXXXX, which only this user may enter,
and renamed when it is complete: the atomic step. Killed before it, nothing has the destination's name.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from store.database import Reading
from store.errors import ConflictError, FsviewError, NotFoundError
from store.repository import Repository
from store.revisions import Place, find_place
from store.schema import TreeId
from store.tree import commit_record, tree_record
from store.walking.beneath import DIRECTORY
from store.walking.private import forget_acls
from store.walking.remove import remove_same_tree
from tools.filling import Written
from tools.linking import Link, LinkCounts, Linker, MayBeLinked
from tools.materialise import TreeWriter
from tools.parameters import REVISION, repository_option
from tools.render import count_text, json_path, one_line, print_json, progress, say, size_text

_WARNING: Final = "{} shared with the repository (hard links): to write to one in place damages it for all commits"
_ITSELF: Final = b"itself"  # what a file is called in the hidden directory


def checkout(
    repository: Repository,
    place: Place,
    destination: Path,
    *,
    link: Link = Link.AUTO,
    may_be_linked: MayBeLinked | None = None,
    user_mode: bool = False,
    advance: Callable[[int], object] = lambda step: None,
    complete: Callable[[Path], object] = lambda hidden: None,
) -> tuple[Written, LinkCounts]:
    """Write what is at *place* to *destination*; with *user_mode* without owners, xattrs, setuid and setgid.

    Hard links are made only if *link* asks for them, or where *may_be_linked* says so, by the path in the commit.
    *complete* is called with a path of a directory that is written, before it gets its name.

    Raises:
        FsviewError: the destination is there and is not an empty directory; links are impossible that were asked for.
        CorruptionError: what is stored is damaged.
        OSError: the disk is full; a name or an attribute that the file system can't hold.
    """
    destination = Path(os.path.abspath(destination))  # not resolve(): a symlink there is something already
    _refuse_taken(destination, place.entry.is_directory)
    with repository.lock(), _hidden_directory(destination) as hidden:
        linker = Linker(repository, link, hidden.itself, may_be_linked=may_be_linked)
        writer = TreeWriter(repository, linker, user_mode, destination, advance)
        if place.entry.is_directory:
            check_room(repository, place, hidden.itself, destination)
            writer.directory(hidden.itself, place.path, place.entry)
            complete(Path(f"/proc/self/fd/{hidden.itself}"))  # who owns the parent may exchange what has its name
            hidden.become_it()
        else:
            writer.single(hidden.itself, _ITSELF, place.path, place.entry)
            hidden.hand_over(_ITSELF)
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


class _Hidden:
    """A directory under way, and the one that it is in, as descriptors: in the latter others may do as they like."""

    def __init__(self, above: int, destination: Path) -> None:
        """Make it in the open directory *above*."""
        self._above, self._destination = above, destination
        self._name = os.fsencode(f".{destination.name[:200]}.fsview-{secrets.token_hex(4)}")
        self._is_done = False
        os.mkdir(self._name, 0o700, dir_fd=above)
        self.itself = os.open(self._name, DIRECTORY, dir_fd=above)
        forget_acls(self.itself)
        if os.fstat(self.itself).st_uid != os.geteuid():
            os.close(self.itself)
            raise self._replaced()

    def become_it(self) -> None:
        """Give it the name of the destination, which replaces an empty directory, nothing else: the atomic step.

        Raises:
            ConflictError: something else had the hidden name.
        """
        name = os.fsencode(self._destination.name)
        os.rename(self._name, name, src_dir_fd=self._above, dst_dir_fd=self._above)
        if not os.path.samestat(os.stat(name, dir_fd=self._above, follow_symlinks=False), os.fstat(self.itself)):
            raise self._replaced()
        self._is_done = True

    def hand_over(self, inside: bytes) -> None:
        """Give the file *inside* the name of the destination, but over nothing, as rename(2) would go."""
        name = os.fsencode(self._destination.name)
        try:
            os.link(inside, name, src_dir_fd=self.itself, dst_dir_fd=self._above, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            os.rename(inside, name, src_dir_fd=self.itself, dst_dir_fd=self._above)

    def clean_up(self) -> None:
        """Remove it, unless it has become the destination."""
        try:
            if not self._is_done:
                shown = self._destination.with_name(os.fsdecode(self._name))
                remove_same_tree(self._above, self._name, self.itself, os.fsencode(shown))
        finally:
            os.close(self.itself)

    def _replaced(self) -> ConflictError:
        return ConflictError(
            f"somebody who may write to {self._destination.parent} replaced the checkout while it was being made; "
            f"what is at {self._destination} now is not from here: choose a directory in which only you can write"
        )


@contextmanager
def _hidden_directory(destination: Path) -> Iterator[_Hidden]:
    """Make a directory beside *destination*; it is removed at the end, unless it became that."""
    above = os.open(destination.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            hidden = _Hidden(above, destination)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(destination.parent)) from error
        try:
            yield hidden
        finally:
            hidden.clean_up()
    finally:
        os.close(above)


def check_room(repository: Repository, place: Place, directory: int, destination: Path) -> None:
    """Refuse at once what has more names than the file system has inodes left."""
    with repository.database.reading() as reading:
        entries = tree_record(reading, TreeId(place.entry.id)).entries
    room = os.fstatvfs(directory)
    if room.f_files and entries > room.f_favail:
        what = f"{os.strerror(errno.ENOSPC)} ({entries} entries, but {room.f_favail} free inodes)"
        raise OSError(errno.ENOSPC, what, str(destination))


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
  fsview checkout -H app/main /srv/app               without a copy of what is large; not to be edited in place

\b
The checkout shares no file with the repository: contents come as reflinks, where the file system has such, else they
are copied. With -H larger files are hard links of the repository's own: to write to one in place damages it for all
commits, which fsck finds. Never hard links are empty files, what is in etc/ or var/, what others than root and you can
write to, and what is setuid, setgid or has capabilities. A checkout that was killed leaves a directory
.DEST.fsview-XXXXXX: remove it.
"""


@click.command("checkout", epilog=EXAMPLES)
@click.argument("revision", type=REVISION)
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--link", type=click.Choice([link.value for link in Link]), default=Link.AUTO.value, show_default=True,
              help="How contents get there; auto: reflink, else copy.")  # fmt: skip
@click.option("-H", "--hardlink", is_flag=True, help="The same as --link=hardlink: share files with the repository.")
@click.option("-U", "--user-mode", is_flag=True, help="Leave out owners, xattrs, setuid and setgid; not root: always.")
@click.option("--json", "in_json", is_flag=True, help="A JSON object that tells what was written.")
@repository_option
def checkout_command(
    repository: Repository, revision: str, destination: Path, link: str, hardlink: bool, user_mode: bool, in_json: bool
) -> None:
    """Write the commit REVISION, or what is at REVISION:/PATH, to DEST, which must be new or an empty directory."""
    if hardlink and link not in (Link.AUTO, Link.HARDLINK):
        raise click.UsageError(f"-H and --link={link} ask for different things")
    wanted = Link.HARDLINK if hardlink else Link(link)
    with repository.database.reading() as reading:
        place = find_place(reading, revision, now_s=int(time.time()))
        entries, commit = _entries(reading, place), commit_record(reading, place.commit).checksum
    if os.geteuid() != 0 and not user_mode:
        say("not root: owners, xattrs, setuid and setgid are left out (as with --user-mode)")
        user_mode = True
    with progress("checking out", entries, "entries") as advance:
        done, links = checkout(
            repository, place, destination, link=wanted, user_mode=user_mode, advance=advance
        )  # fmt: skip
    if links.hardlinked:
        say(_WARNING.format(count_text(links.hardlinked, "file")))
    if in_json:
        names = {"commit": commit.hex(), "path": json_path(place.path or b"/"), "destination": str(destination)}
        print_json(names | {"user_mode": user_mode} | asdict(done) | asdict(links))
    else:
        say(one_line(_summary(destination, done, links)))
