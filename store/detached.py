"""Change what is kept of a commit beside it: OSTree's detached metadata, signatures above all."""

from __future__ import annotations

from collections.abc import Callable

from store.database import Writing
from store.errors import NotFoundError
from store.objects import Checksum, Metadata, pack_detached, unpack_detached
from store.repository import Repository
from store.schema import id_key
from store.tree import commit_number, commit_record

Change = Callable[[bytes, Metadata], Metadata]


def change_detached(repository: Repository, checksum: Checksum, change: Change) -> bool:
    """Replace a commit's detached metadata by what *change* makes of (raw commit, metadata); whether they differ now.

    Safe beside commits, prunes and others that do the same: what is there is read in the transaction that replaces it.
    *change* may be called again, if the transaction has to be begun anew.

    Raises:
        NotFoundError: there is no such commit, perhaps since a prune.
        FormatError: the metadata that are there are damaged.
    """

    def body(writing: Writing) -> bool:
        number = commit_number(writing, checksum)
        if number is None:
            raise NotFoundError(f"the commit {checksum.hex()} is gone; a prune may have deleted it meanwhile")
        key = id_key(number)
        stored = writing.get(b"detached", key)
        changed = change(commit_record(writing, number).raw, () if stored is None else unpack_detached(stored))
        new = pack_detached(changed) if changed else None
        if new == stored:
            return False
        if new is None:
            writing.delete(b"detached", key)
        else:
            writing.put(b"detached", key, new)
        return True  # LMDB's commit of this transaction is the atomic step

    with repository.lock():
        return repository.database.write(body)
