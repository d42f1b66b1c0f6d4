"""What `-o` may say: to this program, to the kernel, and what fstab has there for others, which means nothing here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final

from fsview.acls import maps_every_id
from fsview.ownership import Ownership
from store.errors import InvalidNameError

WORKERS_MAX: Final = 64
_DEFAULT_WORKERS_MAX: Final = 8
_ID_MAX: Final = (1 << 32) - 2  # the last one stands for "leave it as it is" in chown(2)


def default_workers() -> int:
    """Return how many workers serve a view unless somebody says otherwise: one for each core that this process has."""
    return min(len(os.sched_getaffinity(0)), _DEFAULT_WORKERS_MAX)


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a view is mounted.

    owner_me: the user who mounts owns everything and may read it (fsview/ownership.py). verify: "sha256" if a
    content is checked as a whole when it is first opened, else "xxh3". root: the revision, and the path in it, that
    is mounted alone; kernel_reads: the kernel reads its large files (fsview/kernel_reads.py). place_inodes: equal
    files have node numbers of their own, as a writable overlay over the view needs; place_st_ino: and a st_ino of
    their own, as fuse-overlayfs needs, which takes files of one st_ino for hard links. overwrite_ino: write st_ino
    where pyfuse3 has no way to (fsview/operations.py).
    """

    allow_other: bool = False
    default_permissions: bool = False
    place_inodes: bool = False
    place_st_ino: bool = False
    suid: bool = False
    dev: bool = False
    exec: bool = True
    uid: int | None = None
    gid: int | None = None
    owner_me: bool = False
    verify: str = "xxh3"
    root: str | None = None
    kernel_reads: bool = False
    workers: int = field(default_factory=default_workers)
    overwrite_ino: bool = True

    def names(self) -> list[str]:
        """Return the options as the kernel takes them; who lets others in must have modes and owners checked."""
        checked = ["default_permissions"] if self.allow_other or self.default_permissions else []
        return checked + (["allow_other"] if self.allow_other else [])

    def heeds_acls(self) -> bool:
        """Whether the kernel is to heed POSIX ACLs, which binds everybody to modes and owners, too.

        So it is where that holds anyway, and where an overlay is to be laid over the view, which heeds what the view
        heeds: root, who mounts it, may pass all of them.
        """
        below_overlay = self.kernel_reads or (self.place_inodes and os.geteuid() == 0 and maps_every_id())
        return self.allow_other or self.default_permissions or below_overlay

    def flags(self) -> list[str]:
        """Return what is not permitted in the mount, in mount(8)'s words."""
        return ["ro", *(word for word, is_on in self._permissions() if not is_on)]

    def texts(self) -> list[str]:
        """Return what was asked for, in the words of `-o`."""
        words = [*self.names(), *(word[2:] for word, is_on in self._permissions()[:2] if is_on)]
        words += (
            ["noexec"] * (not self.exec)
            + self._places()
            + ["kernel-reads"] * self.kernel_reads
            + ["owner=me"] * self.owner_me
        )
        values = {"uid": self.uid, "gid": self.gid, "root": self.root}
        words += [f"{name}={value}" for name, value in values.items() if value is not None]
        return [*words, f"verify={self.verify}", f"workers={self.workers}"]

    def ownership(self) -> Ownership:
        """Return whose the files in the view are."""
        if self.owner_me:
            return Ownership(os.geteuid(), os.getegid(), by_mode=True)
        return Ownership(self.uid, self.gid)

    def _places(self) -> list[str]:
        return ["place-inodes=stat" if self.place_st_ino else "place-inodes"] if self.place_inodes else []

    def _permissions(self) -> list[tuple[str, bool]]:
        return [("nosuid", self.suid), ("nodev", self.dev), ("noexec", self.exec)]


def parse_options(texts: Iterable[str], **given: Any) -> MountOptions:
    """Return what `-o` said, each of *texts* with commas; *given* are fields that were said in another way.

    Of two that contradict each other the later holds, as in mount(8).

    Raises:
        InvalidNameError: an option that there is none, a value that it can't have, or two that exclude each other.
    """
    found: dict[str, Any] = {}
    for word in (word for text in texts for word in text.split(",") if word):
        name, equals, value = word.partition("=")
        if word in _WORDS:
            found |= _WORDS[word]
        elif equals and name in _VALUES:
            found |= _VALUES[name](word, value)
        elif word in _MEANINGLESS or name in _MEANINGLESS_WITH_VALUE or word.startswith(_COMMENTS):
            continue
        else:
            raise InvalidNameError(_unknown(word))
    options = MountOptions(**found | {name: value for name, value in given.items() if value is not None})
    if options.owner_me and (options.uid, options.gid) != (None, None):
        raise InvalidNameError("owner=me is uid= and gid= of who mounts; leave out one or the other")
    if options.kernel_reads and options.root is None:
        raise InvalidNameError("kernel-reads is for one commit; name it with --root REV")
    if options.kernel_reads and options.verify != "xxh3":
        raise InvalidNameError(f"with kernel-reads nothing is checked, so not verify={options.verify}, either")
    return options


def _unknown(word: str) -> str:
    if word == "remount":
        return "a view can't be remounted with other options; unmount it, and mount it again"
    known = [*(name for name in _WORDS if name not in _DEFAULTS), *_EXAMPLES.values()]
    name, equals, _ = word.partition("=")
    if name in _WORDS and equals:
        return f"the mount option {name!r} takes no value: {word!r}"
    if word in _VALUES:
        return f"the mount option {word!r} takes a value: {_EXAMPLES[word]}"
    return f"there is no mount option {word!r}; there are {', '.join(known)}, and those that every file system has"


def _number(low: int, high: int) -> Callable[[str, str], dict[str, Any]]:
    def parse(word: str, value: str) -> dict[str, Any]:
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
            raise InvalidNameError(f"{word!r}: it must be a number from {low} to {high}")
        return {word.partition("=")[0]: int(value)}

    return parse


def _choice(field_name: str, choices: dict[str, Any]) -> Callable[[str, str], dict[str, Any]]:
    def parse(word: str, value: str) -> dict[str, Any]:
        if value not in choices:
            raise InvalidNameError(f"{word!r}: it must be {' or '.join(choices)}")
        return {field_name: choices[value]}

    return parse


_WORDS: Final[dict[str, dict[str, Any]]] = {
    "allow_other": {"allow_other": True},
    "default_permissions": {"default_permissions": True},
    "place-inodes": {"place_inodes": True},
    "place-inodes=stat": {"place_inodes": True, "place_st_ino": True},
    "kernel-reads": {"kernel_reads": True},
    "suid": {"suid": True},
    "dev": {"dev": True},
    "noexec": {"exec": False},
    "nosuid": {"suid": False},
    "nodev": {"dev": False},
    "exec": {"exec": True},
    "defaults": {},
}
_DEFAULTS: Final = {"nosuid", "nodev", "exec", "defaults"}
_VALUES: Final[dict[str, Callable[[str, str], dict[str, Any]]]] = {
    "uid": _number(0, _ID_MAX),
    "gid": _number(0, _ID_MAX),
    "owner": _choice("owner_me", {"me": True}),
    "verify": _choice("verify", {"xxh3": "xxh3", "sha256": "sha256"}),
    "workers": _number(1, WORKERS_MAX),
    "root": lambda word, value: {"root": value},
}
_EXAMPLES: Final = {
    "uid": "uid=N", "gid": "gid=N", "owner": "owner=me", "verify": "verify=xxh3|sha256", "workers": "workers=N",
    "root": "root=REV[:/PATH]",
}  # fmt: skip
# A view is read-only whatever is said; mount(8) itself says "rw" unless fstab has "ro". The others are for mount(8),
# systemd and fsck, or about times and syncing, of which there are none.
_MEANINGLESS: Final = {
    "ro", "rw", "auto", "noauto", "user", "nouser", "users", "group", "owner", "nofail", "fail", "_netdev", "silent",
    "loud", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
    "lazytime", "nolazytime", "sync", "async", "dirsync", "mand", "nomand", "iversion", "noiversion",
}  # fmt: skip
_MEANINGLESS_WITH_VALUE: Final = {"user", "comment", "uhelper", "helper"}
_COMMENTS: Final = ("x-", "X-")
assert {name for words in _WORDS.values() for name in words} <= {one.name for one in fields(MountOptions)}
