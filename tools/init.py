"""`fsview init`: make a repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from store.repository import MTIME_RULES, SHARED_WITH, Repository
from tools.render import one_line

EXAMPLES = """
\b
Examples:
  fsview init /srv/releases
  fsview init --mtime zero ~/ostree-like
  mkdir /srv/ours && chgrp developers /srv/ours && fsview init --shared=group /srv/ours

\b
Nobody but you gets into REPO (mode 0700, whatever the umask is): in it are the files of all trees, also those that
were in a directory that only root could enter. Others read through a view: fsview mount -o allow_other REPO MNT.

\b
With --shared=group the members of REPO's group (2770) commit there, too. They can change all that is in it, so each of
them says once that he trusts the owner: export FSVIEW_TRUST_OWNER=NAME. Checkouts from there share no files with it.

\b
With --mtime first-seen, files have in views and checkouts the time that their source had when they were first
committed here; no two files of one size share a second, so that rsync, make and filecmp see every change. With zero,
all times are 0, as in OSTree. It can't be changed later.
"""


_WHERE: Final = click.Path(path_type=Path, readable=False)


@click.command("init", epilog=EXAMPLES)
@click.argument("path", metavar="REPO", required=False, type=_WHERE)
@click.option("--repo", metavar="REPO", type=_WHERE, help="The same as the argument, as in ostree.")
@click.option(
    "--mtime",
    type=click.Choice(MTIME_RULES),
    default=MTIME_RULES[0],
    show_default=True,
    help="Times of files in views.",
)
@click.option(
    "--shared",
    type=click.Choice(SHARED_WITH),
    default=SHARED_WITH[0],
    show_default=True,
    help="Who else may enter and commit.",
)
def init_command(path: Path | None, repo: Path | None, mtime: str, shared: str) -> None:
    """Make a repository in REPO, a directory that does not exist yet or is empty."""
    if (path is None) == (repo is None):
        raise click.UsageError("name one directory for the repository: fsview init REPO")
    where = path or repo
    assert where is not None
    Repository.create(where, mtime=mtime, shared=shared).close()
    print(one_line(f"{where} is a repository now; next: fsview commit --repo {where} -b REF DIR"), file=sys.stderr)
