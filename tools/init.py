"""`fsview init`: make a repository."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from store.repository import MTIME_RULES, Repository

EXAMPLES = """
\b
Examples:
  fsview init /srv/releases
  fsview init --mtime zero ~/ostree-like

\b
With --mtime first-seen, files have in views and checkouts the time that their source had when they were first
committed here; no two files of one size share a second, so that rsync, make and filecmp see every change. With zero,
all times are 0, as in OSTree. It can't be changed later.
"""


@click.command("init", epilog=EXAMPLES)
@click.argument("path", metavar="REPO", required=False, type=click.Path(path_type=Path))
@click.option("--repo", metavar="REPO", type=click.Path(path_type=Path), help="The same as the argument, as in ostree.")
@click.option(
    "--mtime",
    type=click.Choice(MTIME_RULES),
    default=MTIME_RULES[0],
    show_default=True,
    help="Times of files in views.",
)
def init_command(path: Path | None, repo: Path | None, mtime: str) -> None:
    """Make a repository in REPO, a directory that does not exist yet or is empty."""
    if (path is None) == (repo is None):
        raise click.UsageError("name one directory for the repository: fsview init REPO")
    where = path or repo
    assert where is not None
    Repository.create(where, mtime=mtime).close()
    print(f"{where} is a repository now; next: fsview commit --repo {where} -b REF DIR", file=sys.stderr)
