"""Which packages differ between two commits, in a few words."""

from __future__ import annotations

from store.database import Reading
from store.repository import Repository
from store.schema import CommitNumber
from store.tree import commit_record, root_entry


def package_summary(repository: Repository, reading: Reading, old: CommitNumber, new: CommitNumber) -> str:
    """Return "12 upgraded, 3 added", or "" where nothing differs; a damaged database counts as far as it goes."""
    from tools.packages.changes import compare  # slow to import
    from tools.packages.listing import list_packages
    from tools.packages.tree import StoredTree

    lists = []
    for number in (old, new):
        tree = StoredTree(repository, reading, root_entry(reading, commit_record(reading, number)))
        lists.append(list_packages(tree, lambda error: None))
    return compare(*lists).summary()
