"""Change what is kept of a commit beside it: OSTree's detached metadata, signatures above all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from store.bounds import METADATA_BYTES_MAX
from store.database import Reading, Writing
from store.errors import FormatError, NotFoundError
from store.objects import Checksum, Metadata, pack_detached, unpack_detached
from store.repository import Repository
from store.schema import CommitNumber, id_key
from store.tree import commit_number, commit_record

Change = Callable[[bytes, Metadata], Metadata]
DETACHED_BYTES_MAX: Final = METADATA_BYTES_MAX  # of what is looked at for signatures


def bounded_detached(reading: Reading, number: CommitNumber) -> bytes | None:
    """Return a commit's detached metadata, None if it has none; anybody who can write to the repository can add some.

    Raises:
        FormatError: they are more than a commit's signatures can be.
    """
    check_detached_size(reading.size(b"detached", id_key(number)))
    return reading.get(b"detached", id_key(number))


def check_detached_size(size_bytes: int) -> None:
    """Refuse what is too large to be looked at.

    Raises:
        FormatError: it is more than DETACHED_BYTES_MAX.
    """
    if size_bytes > DETACHED_BYTES_MAX:
        raise FormatError(f"the detached metadata are larger than {DETACHED_BYTES_MAX >> 20} MiB, as signatures aren't")


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
