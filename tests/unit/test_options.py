"""What `-o` may say, and what comes of it."""

from __future__ import annotations

import os

import pytest

from fsview.options import MountOptions, default_workers, parse_options
from fsview.ownership import Ownership
from store.errors import InvalidNameError


def test_nothing_said() -> None:
    options = parse_options([])
    assert options == MountOptions() and options.flags() == ["ro", "nosuid", "nodev"] and options.names() == []
    assert options.ownership() == Ownership()
    assert options.workers == default_workers() and options.verify == "xxh3"


def test_everything_said() -> None:
    texts = ["allow_other,suid,dev,noexec", "place-inodes,uid=5,gid=6", "verify=sha256,workers=3,root=a/b^:/usr"]
    options = parse_options(texts)
    assert options.names() == ["default_permissions", "allow_other"] and options.flags() == ["ro", "noexec"]
    assert options.ownership() == Ownership(5, 6)
    assert (options.verify, options.workers, options.root) == ("sha256", 3, "a/b^:/usr") and options.place_inodes
    assert parse_options(options.texts()) == parse_options([*texts, "default_permissions"])  # which is implied


def test_what_fstab_has_for_others_is_left_alone() -> None:
    words = "rw,defaults,noauto,nofail,_netdev,user=me,noatime,x-systemd.automount,x-systemd.idle-timeout=60,comment=x"
    assert parse_options([words, "", ",,"]) == MountOptions()


def test_the_later_one_holds() -> None:
    assert parse_options(["suid,dev,nosuid,noexec,exec,workers=2", "workers=1"]) == MountOptions(dev=True, workers=1)
    assert parse_options(["workers=2,root=x"], workers=5, root=None) == MountOptions(workers=5, root="x")


def test_owner_me() -> None:
    assert parse_options(["owner=me"]).ownership() == Ownership(os.geteuid(), os.getegid(), by_mode=True)
    assert parse_options(["owner"]).ownership() == Ownership()  # mount(8)'s: who owns the device may mount


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "there is no mount option 'nope'; there are allow_other"),
        ("nope", "verify=xxh3|sha256"),
        ("x", "there is no mount option 'x'"),
        ("remount", "can't be remounted"),
        ("uid", "takes a value: uid=N"),
        ("uid=me", "a number from 0 to"),
        ("uid=-1", "a number"),
        ("gid=4294967295", "a number"),
        ("uid=²", "a number"),
        ("workers=0", "a number from 1 to 64"),
        ("owner=you", "it must be me"),
        ("verify=md5", "it must be xxh3 or sha256"),
        ("suid=1", "takes no value"),
        ("owner=me,uid=0", "owner=me is uid= and gid="),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        parse_options([text])
    assert message in str(caught.value)
