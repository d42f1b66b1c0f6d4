"""`fsview cat`: the bytes of files in a commit."""

from __future__ import annotations

import stat
import sys
import time
from typing import BinaryIO

import click

from store.content import chunks
from store.database import Reading
from store.errors import FsviewError
from store.listing import Entry
from store.repository import Repository
from store.revisions import Place, find_place
from store.schema import FileId
from tools.facts import load_facts
from tools.parameters import REVISION, repository_option
from tools.render import quote_path


def write_content(repository: Repository, reading: Reading, entry: Entry, output: BinaryIO) -> None:
    """Write the contents of a regular file to *output*."""
    for data in chunks(repository, reading, FileId(entry.id)):
        output.write(data)


def _check_is_file(reading: Reading, place: Place) -> None:
    if stat.S_ISREG(place.entry.mode):
        return
    path = quote_path(place.path or b"/")
    if place.entry.is_directory:
        raise FsviewError(f"{path} is a directory; 'fsview ls' lists it")
    target = quote_path(load_facts(reading, place.entry).target)
    raise FsviewError(f"{path} is a symlink to {target}; name the file that you want")


EXAMPLES = """
\b
Examples:
  fsview cat debian/12 /etc/os-release
  fsview cat debian/12^:/etc/os-release
  fsview cat debian/12 /bin/ls > ls
"""


@click.command("cat", epilog=EXAMPLES)
@click.argument("revision", type=REVISION)
@click.argument("path", nargs=-1)
@repository_option
def cat_command(repository: Repository, revision: str, path: tuple[str, ...]) -> None:
    """Write the files at PATHs in REVISION, or the one that REVISION:/PATH names, to standard output."""
    now_s = int(time.time())
    names = [name.encode("utf-8", "surrogateescape") for name in path] or [b""]
    with repository.database.reading() as reading:
        places = [find_place(reading, revision, name, now_s=now_s) for name in names]
        if not path and not places[0].path:
            raise click.UsageError("name a file: fsview cat REVISION PATH, or REVISION:/PATH")
        for place in places:
            _check_is_file(reading, place)
        for place in places:
            write_content(repository, reading, place.entry, sys.stdout.buffer)
