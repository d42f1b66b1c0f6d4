"""Deploy a commit in a stateroot: the order of steps, each of which a killed process may be the last of.

lock; sweep what a killed command left
policy, age, data versions, shape of the tree: what is refused is refused before anything is written
the ref that keeps the commit
the tree, its pristine etc, the merge of /etc, where nobody else may enter; /var seeded if it is empty
their final places
the generation, made durable; a last look at the admin's /etc
the rename of `current`                                                                the atomic step
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from store.repository import Repository
from tools.sysroot.activate import activate
from tools.sysroot.data_versions import Lower, lower_versions, raise_marks, refuse_lower
from tools.sysroot.etc_changes import is_unchanged
from tools.sysroot.layout import Generation, Stateroot
from tools.sysroot.newest import newest_of, raised, refuse_older
from tools.sysroot.origin import HighWater, Origin
from tools.sysroot.policy import check_policy
from tools.sysroot.removing import refuse_mounts
from tools.sysroot.shape import shape_of
from tools.sysroot.sweep import sweep
from tools.sysroot.target import Target
from tools.sysroot.var import take_snapshot

if TYPE_CHECKING:
    from tools.filling import Written
    from tools.linking import LinkCounts
    from tools.sysroot.etc_merge import Merge


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """text: merge texts line by line; strict: no conflicts; skip: take the new release's etc as it is."""

    text: bool = False
    strict: bool = False
    skip: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What a deployment may be told; reuse: take a deployment of this commit that needs no merge, if there is one."""

    verb: str = "deploy"
    merge: MergeOptions = field(default_factory=MergeOptions)
    accept_data_versions: bool = False
    allow_downgrade: bool = False
    snapshot_var: bool = False
    reuse: bool = False
    user_mode: bool = False


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    generation: Generation
    previous: Generation | None
    written: Written | None = None
    links: LinkCounts | None = None
    merge: Merge | None = None
    lower: list[Lower] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def deploy(
    stateroot: Stateroot,
    repository: Repository,
    target: Target,
    options: Options,
    advance: Callable[[int], object] = lambda step: None,
) -> Outcome:
    """Make *target* current; the caller holds the sysroot's lock.

    Raises:
        SysrootError: its age, data versions, conflicts, or the tree's shape forbid it.
        UntrustedError: the policy does.
        CorruptionError: what is stored is not what was committed.
        OSError: the disk is full, or this user may not write there.
    """
    kept = sweep(stateroot)
    return _Deployer(stateroot, repository, target, options).run(kept, advance)


class _Deployer:
    def __init__(self, stateroot: Stateroot, repository: Repository, target: Target, options: Options) -> None:
        self._stateroot, self._repository, self._target, self._options = stateroot, repository, target, options
        self._current = stateroot.current()
        self._newest = newest_of(stateroot.generations())
        self._created = datetime.now(UTC).replace(microsecond=0)

    def run(self, kept: set[str], advance: Callable[[int], object]) -> Outcome:
        certified = check_policy(self._stateroot.sysroot, self._repository, self._target)
        if self._options.snapshot_var:
            refuse_mounts([self._stateroot.var], f"{self._stateroot.var} can't be copied")
        if not self._options.allow_downgrade:
            refuse_older(self._target, self._newest)
        lower = lower_versions(self._target.declares, self._marks())
        if not self._options.accept_data_versions:
            refuse_lower(lower)
        with self._repository.database.reading() as reading:
            shape = shape_of(reading, self._target.place.root)
        reusable = self._reusable() if self._options.reuse else None
        if reusable is not None:
            generation = self._activate(self._origin(reusable.deployment, certified), is_new_tree=False)
            return Outcome(generation, self._current, lower=lower)
        from tools.sysroot.build import Building  # what is there already is switched to at once

        building = Building(self._stateroot, self._repository, self._target, shape, self._options, kept)
        with building:
            origin = building.build(self._origin(building.name, certified), advance)
            generation = self._activate(origin, last_look=building.last_look)
        return building.outcome(generation, lower)

    def _activate(
        self, origin: Origin, *, is_new_tree: bool = True, last_look: Callable[[Origin], Origin] = lambda origin: origin
    ) -> Generation:
        if self._options.snapshot_var and self._current is not None:
            take_snapshot(self._stateroot, self._current)
        return activate(self._stateroot, origin, is_new_tree=is_new_tree, last_look=last_look)

    def _marks(self) -> dict[str, HighWater]:
        return dict(self._current.origin.high_water) if self._current else {}

    def _origin(self, deployment: str, certified: Sequence[str]) -> Origin:
        target = self._target
        return Origin(
            target.checksum, deployment, self._created, target.ref, target.source, self._options.verb,
            self._current.number if self._current else 0, title=target.title, committed=target.committed,
            certified=tuple(certified), declares=target.declares,
            high_water=raise_marks(self._marks(), target.declares, deployment, self._created),
            newest=raised(self._newest, target),
        )  # fmt: skip

    def _reusable(self) -> Generation | None:
        """Return a generation whose deployment is of this commit, and whose etc is what merging would make of it.

        Where the policy asks for certified trees, only one that was read back and hashed when it was written.
        """
        if self._current is not None and not self._options.merge.skip and not is_unchanged(self._current):
            return None
        same = [one for one in self._stateroot.generations() if one.origin.commit == self._target.checksum]
        if self._stateroot.sysroot.policy.is_certified:
            proven = {one.deployment for one in same if one.origin.certified}
            same = [one for one in same if one.deployment in proven]
        newest = {one.deployment: one for one in same if one.root.is_dir()}
        return next((one for one in reversed(newest.values()) if is_unchanged(one)), None)
