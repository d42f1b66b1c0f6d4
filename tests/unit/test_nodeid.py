"""The numbers themselves: they are in the kernel's caches and in people's scripts, so they must not change."""

from __future__ import annotations

import pytest

from fsview import nodeid
from fsview.rank import EntryRank, Rank
from store.schema import CommitNumber, MetaId, RefId, TreeId


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (nodeid.ROOT, 1),
        (nodeid.COMMITS, 16),
        (nodeid.REFS, 17),
        (nodeid.file_node(1024), 0x0000_0000_0000_0400),
        (nodeid.directory_node(CommitNumber(1024), Rank(7)), 0x4000_0400_0000_0007),
        (nodeid.placed_node(CommitNumber(1024), EntryRank(7)), 0x8000_0400_0000_0007),
        (nodeid.ref_directory_node(RefId(1025)), 0xC000_0000_0000_0401),
        (nodeid.link_node(0, CommitNumber(1024)), 0xD000_0000_0000_0400),
        (nodeid.link_node(2, CommitNumber(1024)), 0xD000_0000_8000_0400),
        (nodeid.root_ino(CommitNumber(1024)), 0x8000_0000_0000_0400),
        (nodeid.STATUS, 23),
        (nodeid.virtual_node(nodeid.GoneLink(CommitNumber(1024), EntryRank(7))), 0xA000_0400_0000_0007),
        (nodeid.virtual_node(nodeid.Versioned(CommitNumber(1024), EntryRank(7))), 0xF000_0400_0000_0007),
        (nodeid.virtual_node(nodeid.Remote(5)), 0xE000_0000_0000_0005),
        (nodeid.virtual_node(nodeid.HistoryDirectory(RefId(1025))), 0xE100_0000_0000_0401),
        (nodeid.virtual_node(nodeid.VersionsDirectory(RefId(1025))), 0xE200_0000_0000_0401),
        (nodeid.virtual_node(nodeid.Date(2025, 11, 23)), 0xE300_0000_000F_D377),
        (nodeid.virtual_node(nodeid.Info(CommitNumber(1024), 9)), 0xE400_0040_0000_0009),
        (nodeid.virtual_node(nodeid.SiblingLink(2, CommitNumber(1024))), 0xE500_0000_2000_0400),
        (nodeid.virtual_node(nodeid.StatusFile(3)), 0xE600_0000_0000_0003),
    ],
)
def test_number(number: int, expected: int) -> None:
    assert number == expected


def test_st_ino_of_a_directory_depends_on_path_dirtree_dirmeta_and_the_secret() -> None:
    tree, meta = TreeId(1024), MetaId(1024)
    one = nodeid.directory_ino(bytes(32), b"/usr", tree, meta)
    assert one == nodeid.directory_ino(bytes(32), b"/usr", tree, meta) == 0x42BC_13B8_0EE9_98FD
    others = {
        nodeid.directory_ino(bytes(32), b"/usr2", tree, meta),
        nodeid.directory_ino(bytes(32), b"/usr", TreeId(1025), meta),
        nodeid.directory_ino(bytes(32), b"/usr", tree, MetaId(1025)),
        nodeid.directory_ino(b"\1" + bytes(31), b"/usr", tree, meta),
    }
    assert len(others | {one}) == 5
