"""From the word that names what is to be deployed to a repository that has it, and a revision there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import NotFoundError
from store.objects import checksum_from_hex
from store.repository import Repository
from store.tree import commit_number
from tools.parameters import may_be_path
from tools.render import one_line, progress, say
from tools.sysroot.layout import Sysroot

if TYPE_CHECKING:
    from fsview.locate import Located


@contextmanager
def open_source(sysroot: Sysroot, source: str, *, dry_run: bool = False) -> Iterator[tuple[Repository, str]]:
    """Yield the open repository of *sysroot*, and *source* as a revision in it.

    What is in a view of another repository is copied through the mount, if it is not in this one, but in no dry run.

    Raises:
        NotFoundError: there is no repository, or nothing at the path.
        MountError: the view does not answer.
        SourceError: what is copied is not what its checksum stands for.
    """
    where = sysroot.repository_path
    found = located(source, where)
    try:
        repository = Repository.open(where)
    except NotFoundError as error:
        raise NotFoundError(f"the sysroot's repository: {error}; {sysroot.path}/fsview.toml names it") from error
    with repository:
        if found is not None:
            take_over(repository, found, source, f"{where} does not have it", dry_run=dry_run)
        yield repository, source if found is None else found.revision


def located(source: str, repository: Path | None) -> Located | None:
    """Return what *source* shows, if it is a path in a mounted view, and None if it is a revision of *repository*.

    Raises:
        NotFoundError: nothing is at the path.
        MountError: the view does not answer.
    """
    if not may_be_path(source):
        return None
    from tools import mounted  # revisions don't need it

    return mounted.located(source, repository)


def take_over(repository: Repository, found: Located, path: str, why: str, *, dry_run: bool) -> None:
    """Copy the commit of *path* through the mount, unless the view's repository is *repository*, or that has it.

    *why* it is copied the user is told.

    Raises:
        NotFoundError: it would have to be, but this is a dry run.
        MountError, SourceError, OSError: as `receive` does.
    """
    from tools.mounted import is_same

    if is_same(found.repository, repository.path):
        return
    with repository.database.reading() as reading:
        if commit_number(reading, checksum_from_hex(found.commit)) is not None:
            return
    if dry_run:
        raise NotFoundError(f"{path} would be copied through the mount: {why}; what then happens a dry run can't tell")
    from tools.commit import reporter
    from tools.receive import receive

    say(one_line(f"{path} is copied through the mount: {why}"))
    with progress("copying through the mount", unit="files") as advance:
        receive(repository, found, path, reporter(advance))
