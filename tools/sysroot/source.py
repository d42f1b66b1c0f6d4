"""From the word that names what is to be deployed to the sysroot's repository and a revision in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from store.errors import InvalidNameError, NotFoundError
from store.repository import Repository
from tools.sysroot.layout import Sysroot


@contextmanager
def open_source(sysroot: Sysroot, source: str) -> Iterator[tuple[Repository, str]]:
    """Yield the open repository of *sysroot*, and *source* as a revision in it.

    Raises:
        NotFoundError: there is no repository, or nothing at the path.
        InvalidNameError: the path is in a view of another repository.
        MountError: the view does not answer.
    """
    where, revision = sysroot.repository_path, source
    if source.startswith(("/", ".")) or ("/" in source and os.path.lexists(source)):
        from fsview.locate import is_in_view, locate
        from tools.mounted import is_same

        if source.startswith(("/", ".")) or is_in_view(source):
            found = locate(source)
            if not is_same(found.repository, where):
                raise InvalidNameError(
                    f"{source} is in a view of {found.repository}, but the repository of {sysroot.path} is {where}"
                )
            revision = found.revision
    try:
        repository = Repository.open(where)
    except NotFoundError as error:
        raise NotFoundError(f"the sysroot's repository: {error}; {sysroot.path}/fsview.toml names it") from error
    with repository:
        yield repository, revision
