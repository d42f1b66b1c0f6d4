"""Which packages differ between two commits, in a few words."""

from __future__ import annotations

from store.database import Reading
from store.objects import checksum_from_hex
from store.repository import Repository
from store.schema import CommitNumber
from store.tree import commit_number, commit_record, root_entry
from tools.sysroot.layout import Generation
from tools.sysroot.target import Target


def package_summary(repository: Repository, current: Generation | None, target: Target) -> str:
    """Return in a few words which packages *target* has otherwise than what is current: "12 upgraded, 3 added".

    "" where nothing differs, or nothing is known; a damaged database counts as far as it goes.
    """
    if current is None:
        return ""
    with repository.database.reading() as reading:
        number = commit_number(reading, checksum_from_hex(current.origin.commit))
        if number is None or number == target.number:
            return ""
        return _difference(repository, reading, number, target.number)


def _difference(repository: Repository, reading: Reading, old: CommitNumber, new: CommitNumber) -> str:
    from tools.packages.changes import compare  # slow to import
    from tools.packages.listing import list_packages
    from tools.packages.tree import StoredTree

    lists = []
    for number in (old, new):
        tree = StoredTree(repository, reading, root_entry(reading, commit_record(reading, number)))
        lists.append(list_packages(tree, lambda error: None))
    return compare(*lists).summary()
