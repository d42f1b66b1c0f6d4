"""Snapshots: one whole for who reads piece by piece, whichever worker answers; or told that it is gone."""

from __future__ import annotations

import os

import pytest

from fsview.nodeid import StaleNodeError, parse
from fsview.snapshots import Snapshots, is_snapshot


def test_what_is_kept_is_found_until_its_slot_is_needed() -> None:
    snapshots = Snapshots()
    handles = [snapshots.keep(b"%d" % number * number) for number in range(100)]
    for number, handle in enumerate(handles):
        assert handle is not None and is_snapshot(handle) and 0 < handle < 1 << 64
        with pytest.raises(StaleNodeError):
            parse(handle)
        if number < 36:
            with pytest.raises(StaleNodeError):
                snapshots.get(handle)
        else:
            assert snapshots.get(handle) == b"%d" % number * number


def test_another_worker_finds_it() -> None:
    snapshots = Snapshots()
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, str(snapshots.keep(b"from the child")).encode())
        os._exit(0)
    assert os.wait()[1] == 0
    handle = int(os.read(read, 100))
    os.close(read)
    os.close(write)
    assert snapshots.get(handle) == b"from the child"


def test_what_is_too_large_is_not_kept() -> None:
    snapshots = Snapshots()
    whole = bytes((1 << 16) - 24)
    assert snapshots.keep(whole + b"x") is None
    handle = snapshots.keep(whole)
    assert handle is not None and snapshots.get(handle) == whole and not is_snapshot(1) and not is_snapshot(0xEE << 56)
