"""Deploy a tree: first, again, and its updated sibling; against OSTree's hardlinked checkouts and `cp -a`.

On file systems of their own, in images: ext4, which can share only whole files, and XFS, which can share blocks.
fsview makes durable what it made before it says so; of OSTree there is a checkout as it is, and one followed by a sync.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.bench import Bench, attempt
from tests.bench.results import OWN, Goal, Measured, Row, middle, say, within
from tests.bench.timing import shell, timed

FILE_SYSTEMS: Final = {"ext4": "mkfs.ext4 -q", "xfs": "mkfs.xfs -q"}
_IMAGE_BYTES: Final = 32 << 30  # sparse
_HARDLINKED, _SYNCED, _COPIED = "ostree checkout -H", "and sync", "cp -a"
_EXTRA: Final = 1.1


def deployments(bench: Bench, tree: Path, sibling: Path) -> None:
    """Measure deployments of *tree*, then of *sibling* beside it."""
    for kind in FILE_SYSTEMS:
        name = f"deploy, {tree.name}, {kind}"
        goals: dict[str, tuple[Goal, ...]] = {"first": (), "second": (within(1, _HARDLINKED),), "updated": ()}
        rows = {step: row for step in goals if (row := bench.results.row(f"{name}, {step}", *goals[step])) is not None}
        disk = bench.results.row(f"{name}, disk for the updated one", unit="MiB")
        if rows or disk is not None:
            with _file_system(bench.work, kind) as place:
                _Deployments(bench, place, tree, sibling).run(rows, disk)


@contextmanager
def _file_system(work: Path, kind: str) -> Iterator[Path]:
    image, place = work / f"{kind}.image", work / kind
    place.mkdir()
    shell(f"truncate -s {_IMAGE_BYTES} {image} && {FILE_SYSTEMS[kind]} {image} && mount -o loop {image} {place}")
    try:
        yield place
    finally:
        shell(f"umount {place} || umount -l {place}")
        image.unlink()
        place.rmdir()


@dataclass(frozen=True, slots=True)
class _Deployments:
    """One file system with a sysroot, an OSTree repository and plain copies; each has both trees."""

    bench: Bench
    place: Path
    tree: Path
    sibling: Path

    def run(self, rows: dict[str, Row], disk: Row | None) -> None:
        """Do all steps, as each builds on the one before; fill those rows that are wanted."""
        every = [*rows.values(), *([disk] if disk is not None else [])]
        if not attempt(every, OWN, self._prepare):
            return
        steps = {"first": ("old", 0), "second": ("old", 1), "updated": ("new", 0)}
        for step, (ref, number) in steps.items():
            row = rows.get(step, Row(""))
            say(f"deploy {step}: {self.place.name}")
            used = self._used_bytes()
            for name, command in self._commands(ref, f"{ref}.{number}").items():
                attempt([row], name, partial(self._fill, row, name, command))
                if name == OWN and step == "updated" and disk is not None:
                    attempt([disk], OWN, partial(self._compare_disk, disk, self._used_bytes() - used))

    def _prepare(self) -> None:
        own, peer, place = self.place / "repo", self.place / "ostree", self.place
        shell(f"fsview init {own} && ostree init --repo={peer} --mode=bare && mkdir {place}/copies {place}/checkouts")
        for name, tree in (("old", self.tree), ("new", self.sibling)):
            shell(f"fsview commit --repo {own} -b {name} -s {name} {tree}")
            shell(f"ostree commit --repo={peer} -b {name} -s {name} {tree}")
        shell(f"cp -a {self.tree} {place}/old && cp -a {self.sibling} {place}/new")
        shell(f"fsview sysroot init {place}/sysroot --repo {own} && fsview os-init --sysroot {place}/sysroot debian")
        shell(f"sync -f {place}")

    def _commands(self, ref: str, name: str) -> dict[str, str]:
        place = self.place
        checkout = f"ostree checkout -H --repo={place}/ostree {ref} {place}/checkouts/{name}"
        return {
            OWN: f"fsview deploy --sysroot {place}/sysroot {ref}",
            _HARDLINKED: checkout,
            _SYNCED: f"{checkout}.synced && sync -f {place}",
            _COPIED: f"cp -a {place}/{ref} {place}/copies/{name} && sync -f {place}",
        }

    def _fill(self, row: Row, name: str, command: str) -> None:
        row.measured[name] = Measured(timed(command, runs=1, before=partial(shell, f"sync -f {self.place}")))

    def _compare_disk(self, row: Row, taken: int) -> None:
        """Compare what a deployment took with what must be new in it, and with the names alone."""
        before = self._used_bytes()
        shell(f"cp -al {self.place}/new {self.place}/names")
        names, changed = self._used_bytes() - before, _changed_bytes(self.tree, self.sibling)
        row.goals = (within(_EXTRA, "names and changes"),)
        row.measured[OWN] = middle([taken / 2**20])
        row.measured["names and changes"] = middle([(names + changed) / 2**20])
        row.notes["names and changes"] = f"cp -al takes {names / 2**20:.1f} MiB, {changed / 2**20:.1f} MiB changed"

    def _used_bytes(self) -> int:
        shell(f"sync -f {self.place}")
        status = os.statvfs(self.place)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


def _changed_bytes(old: Path, new: Path) -> int:
    """Return how many bytes on disk the files of *new* take that *old* has not, or not so."""
    changed = 0
    for path in new.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        before, status = old / path.relative_to(new), path.stat()
        if before.is_symlink() or not before.is_file() or before.read_bytes() != path.read_bytes():
            changed += status.st_blocks * 512
    return changed
