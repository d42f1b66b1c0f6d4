"""Deploy a commit in a stateroot: the order of steps, each of which a killed process may be the last of.

lock; sweep what a killed command left
policy, data versions, shape of the tree: what is refused is refused before anything is written
the ref that keeps the commit
the tree, its pristine etc, the merge of /etc, under temporary names; /var seeded if it is empty
their final names
the generation, made durable; a last look at the admin's /etc
the rename of `current`                                                                the atomic step
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from store.errors import AccessError
from store.objects import checksum_from_hex
from store.repository import Repository
from store.schema import TreeId
from store.tree import commit_number, commit_record, load_listing, root_entry
from tools.linking import LinkCounts
from tools.materialise import Written
from tools.neighbours import Neighbour
from tools.sysroot.activate import activate
from tools.sysroot.data_versions import Lower, lower_versions, raise_marks, refuse_lower
from tools.sysroot.etc_merge import Merge
from tools.sysroot.keeping import keep, keep_only
from tools.sysroot.layout import PRISTINE, Generation, Stateroot
from tools.sysroot.merging import EtcMerger, MergeOptions, is_unchanged
from tools.sysroot.origin import HighWater, Origin
from tools.sysroot.package_summary import package_summary
from tools.sysroot.policy import ContentCheck, check_signature
from tools.sysroot.sweep import sweep
from tools.sysroot.target import Target
from tools.sysroot.trees import Built, Shape, TreeBuilder, shape_of
from tools.sysroot.var import is_empty, seed, take_snapshot


@dataclass(frozen=True, slots=True)
class Options:
    """What a deployment may be told; reuse: take a deployment of this commit that needs no merge, if there is one."""

    verb: str = "deploy"
    merge: MergeOptions = field(default_factory=MergeOptions)
    accept_data_versions: bool = False
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
        SysrootError: data versions, conflicts, or the tree's shape forbid it.
        UntrustedError: the policy does.
        CorruptionError: what is stored is not what was committed.
        OSError: the disk is full, or this user may not write there.
    """
    kept = sweep(stateroot)
    return _Deployer(stateroot, repository, target, options, advance).run(kept)


class _Deployer:
    def __init__(
        self, stateroot: Stateroot, repository: Repository, target: Target, options: Options,
        advance: Callable[[int], object],
    ) -> None:  # fmt: skip
        self._stateroot, self._repository, self._target = stateroot, repository, target
        self._options, self._advance = options, advance
        self._current = stateroot.current()
        self._created = datetime.now(UTC).replace(microsecond=0)
        self._notes: list[str] = []

    def run(self, kept: set[str]) -> Outcome:
        certified = check_signature(self._stateroot.sysroot.policy, self._repository, self._target)
        lower = lower_versions(self._target.declares, self._marks())
        if not self._options.accept_data_versions:
            refuse_lower(lower)
        with self._repository.database.reading() as reading:
            shape = shape_of(reading, self._target.place.root)
        reusable = self._reusable() if self._options.reuse else None
        if reusable is not None:
            generation = self._activate(self._origin(reusable.deployment, certified), is_new_tree=False)
            return Outcome(generation, self._current, lower=lower, notes=self._notes)
        try:
            return self._build(shape, certified, kept, lower)
        except BaseException:
            self._clean_up()
            raise

    def _build(self, shape: Shape, certified: Sequence[str], kept: set[str], lower: list[Lower]) -> Outcome:
        name = self._free_name()
        origin = replace(self._origin(name, certified), packages=self._packages())
        with self._repository.lock():
            self._keep(name, kept)
            builder = TreeBuilder(
                self._stateroot, self._repository, user_mode=self._options.user_mode, neighbours=self._neighbours(),
                advance=self._advance,
            )  # fmt: skip
            built = builder.build(self._target.place, shape, name)
            check = self._content_check(shape)
            if check is not None:
                check.check(built)
            merger = self._merger(built)
            if merger is not None:
                origin = merger.look(origin)
            self._seed(builder, shape, check)
        root = self._stateroot.deployments / name
        built.pristine.rename(root.with_name(name + PRISTINE))
        built.root.rename(root)
        if merger is not None:
            merger.moved(root, root.with_name(name + PRISTINE))
        generation = self._activate(origin, last_look=merger.look if merger else lambda origin: origin)
        return Outcome(
            generation, self._current, built.written, built.links, merger.merge if merger else None, lower, self._notes
        )  # fmt: skip

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
        )  # fmt: skip

    def _free_name(self) -> str:
        taken = set(self._stateroot.deployment_names())
        number = 0
        while f"{self._target.checksum}.{number}" in taken:
            number += 1
        return f"{self._target.checksum}.{number}"

    def _keep(self, name: str, kept: set[str]) -> None:
        try:
            keep_only(self._repository, self._stateroot, kept)
            keep(self._repository, self._stateroot, name, self._target.number)
        except AccessError as error:
            self._notes.append(f"no ref keeps the commit from 'fsview prune': {error}")

    def _reusable(self) -> Generation | None:
        """Return a generation whose deployment is of this commit, and whose etc is what merging would make of it."""
        same = [one for one in self._stateroot.generations() if one.origin.commit == self._target.checksum]
        unchanged = self._options.merge.skip or self._current is None or is_unchanged(self._current)
        return next((one for one in reversed(same) if is_unchanged(one)), None) if unchanged else None

    def _neighbours(self) -> list[Neighbour]:
        """Return the current deployment, and before it one of the same commit if there is such."""
        found: dict[str, Generation] = {}
        generations = self._stateroot.generations()
        same = [one for one in generations if one.origin.commit == self._target.checksum]
        for generation in same[-1:] + generations[-1:]:
            found[generation.deployment] = generation
        neighbours = []
        with self._repository.database.reading() as reading:
            for generation in found.values():
                number = commit_number(reading, checksum_from_hex(generation.origin.commit))
                if number is not None:
                    neighbours.append(Neighbour(generation.root, root_entry(reading, commit_record(reading, number))))
        return neighbours

    def _packages(self) -> str:
        """Return in a few words which packages differ from the current deployment's; "" where that is not known."""
        if self._current is None:
            return ""
        with self._repository.database.reading() as reading:
            number = commit_number(reading, checksum_from_hex(self._current.origin.commit))
            if number is None or number == self._target.number:
                return ""
            return package_summary(self._repository, reading, number, self._target.number)

    def _content_check(self, shape: Shape) -> ContentCheck | None:
        if not self._stateroot.sysroot.policy.is_certified:
            return None
        return ContentCheck(self._repository, self._target, shape, user_mode=self._options.user_mode)

    def _merger(self, built: Built) -> EtcMerger | None:
        if self._current is None or self._options.merge.skip:
            return None
        return EtcMerger(self._current, built.root, built.pristine, built.has_etc, self._options.merge)

    def _seed(self, builder: TreeBuilder, shape: Shape, check: ContentCheck | None) -> None:
        """Fill an empty /var; killed after it, the next deployment finds it filled: whole, as it is one rename."""
        if shape.var is None or not self._has_contents(shape):
            return
        var = self._stateroot.var
        if not is_empty(var):
            self._notes.append("what the commit has in /var is ignored: the stateroot has a /var of its own")
            return
        new = builder.build_var(shape.var)
        if check is not None:
            check.check_var(new)
        if not seed(var, new):
            self._notes.append(f"{var} was not filled with what the commit has in /var: something is mounted there")
        else:
            self._notes.append(f"{var} was empty, and was filled with what the commit has in /var")

    def _has_contents(self, shape: Shape) -> bool:
        assert shape.var is not None
        with self._repository.database.reading() as reading:
            return len(load_listing(reading, TreeId(shape.var.id))) > 0

    def _clean_up(self) -> None:
        """Leave nothing of a deployment that failed; what can't be removed now is swept by the next command."""
        with suppress(Exception), self._repository.lock():
            keep_only(self._repository, self._stateroot, sweep(self._stateroot))
