"""`fsview deploy --dest DIR`: a tree as a deployment has it, outside of any sysroot, and nobody's from then on.

With /etc from /usr/etc where the tree is made OSTree's way, and /var as it was committed. It is made under a hidden
name and renamed when it is complete: the atomic step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from store.errors import FsviewError
from store.repository import Repository
from tools.checkout import checkout
from tools.filling import Written
from tools.linking import LinkCounts, in_a_deployment
from tools.parameters import find_repository
from tools.sysroot.completing import completing
from tools.sysroot.layout import Sysroot
from tools.sysroot.policy import check_policy
from tools.sysroot.proof import ContentCheck
from tools.sysroot.shape import shape_of
from tools.sysroot.source import located, open_source, take_over
from tools.sysroot.target import Target
from tools.sysroot.trees import write_etc


@dataclass(slots=True)
class OneOff:
    """A tree that was written."""

    target: Target
    destination: Path
    written: Written
    links: LinkCounts


@contextmanager
def open_one_off(
    sysroot: Sysroot | None, given: Path | None, source: str, destination: Path, *, dry_run: bool
) -> Iterator[tuple[Repository, str]]:
    """Yield a repository that has *source*, and it as a revision there.

    That is the one of *sysroot*, if that is given; else the one behind a path in a view, or, if it can't be opened, one
    that lives beside *destination* until all is done, with what is read through the mount; else *given*, the usual one.

    Raises:
        FsviewError: there is no such repository or source.
    """
    with ExitStack() as stack:
        if sysroot is not None:
            yield stack.enter_context(open_source(sysroot, source, dry_run=dry_run))
            return
        found = located(source, given)
        if found is None:
            yield stack.enter_context(Repository.open(find_repository(given))), source
            return
        try:
            repository = stack.enter_context(Repository.open(found.repository))
        except (FsviewError, OSError) as error:
            why = f"its repository can't be opened ({error})"
            home = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=f".{destination.name[:200]}.fsview-", dir=destination.parent)
            )
            repository = stack.enter_context(Repository.create(Path(home) / "repository"))
            take_over(repository, found, source, why, dry_run=dry_run)
        yield repository, found.revision


def deploy_once(
    sysroot: Sysroot | None, repository: Repository, target: Target, destination: Path, *, user_mode: bool,
    advance: Callable[[int], object],
) -> OneOff:  # fmt: skip
    """Write the tree of *target* to *destination*, which is new or an empty directory, as the sysroot's policy allows.

    Raises:
        FsviewError: *destination* is taken; the tree has both /etc and /usr/etc.
        UntrustedError: the policy forbids it.
        CorruptionError: what is stored is not what was committed.
        OSError: the disk is full, or this user may not write there.
    """
    if sysroot is not None:
        check_policy(sysroot, repository, target)
    with repository.database.reading() as reading:
        shape = shape_of(reading, target.place.root)
    is_certified = sysroot is not None and sysroot.policy.is_certified
    check = ContentCheck(repository, target, shape, user_mode=user_mode) if is_certified else None

    def complete(hidden: Path) -> None:
        if check is not None:
            check.check_all(hidden)
        if shape.is_usr_etc:
            with completing(hidden):
                write_etc(repository, hidden / "etc", shape.etc, user_mode=user_mode)
            if check is not None:
                check.check_etc(hidden / "etc")

    written, links = checkout(
        repository, target.place, destination, may_be_linked=in_a_deployment, user_mode=user_mode, advance=advance,
        complete=complete,
    )  # fmt: skip
    return OneOff(target, destination, written, links)
