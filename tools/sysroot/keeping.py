"""The refs by which a sysroot keeps its commits from being pruned: one for each deployment.

    fsview/sysroot/<id of the sysroot>/<stateroot>/<commit>.<n>

They are written before anything is materialised, and go when no generation has the deployment any more. So a rollback,
which reuses a deployment, needs no repository. `fsview refs` lists them only where it is asked for refs below "fsview".
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from store.database import Writing
from store.objects import checksum_from_hex
from store.refs import SYSROOT_REFS, find_ref, list_refs, set_ref
from store.repository import Repository
from store.schema import CommitNumber
from store.tree import commit_number
from tools.sysroot.layout import Stateroot


def keep(repository: Repository, stateroot: Stateroot, deployment: str, commit: CommitNumber) -> None:
    """Write the ref of a deployment; the caller holds the repository's lock."""
    name = f"{_directory(stateroot)}/{deployment}"
    repository.database.write(
        lambda writing: set_ref(writing, name, commit, time_s=int(time.time()), message="sysroot: deployed")
    )


def keep_only(repository: Repository, stateroot: Stateroot, deployments: Iterable[str]) -> None:
    """Make the refs of a stateroot those of *deployments*: missing ones are written, others go; the lock as above."""
    with repository.database.reading() as reading:
        directory = _directory(stateroot) + "/"
        there = {name.removeprefix(directory): name for name, _ in list_refs(reading, directory)}
    wanted = set(deployments)
    if there.keys() == wanted:
        return

    def body(writing: Writing) -> None:
        now_s = int(time.time())
        for deployment in there.keys() - wanted:
            if find_ref(writing, there[deployment]) is not None:
                set_ref(writing, there[deployment], None, time_s=now_s, message="sysroot: removed")
        for deployment in wanted - there.keys():
            number = commit_number(writing, checksum_from_hex(deployment.partition(".")[0]))
            if number is not None:  # else it was pruned after somebody deleted the ref, or came through a view
                set_ref(writing, directory + deployment, number, time_s=now_s, message="sysroot: kept")

    repository.database.write(body)


def _directory(stateroot: Stateroot) -> str:
    return f"{SYSROOT_REFS}{stateroot.sysroot.identity}/{stateroot.name}"
