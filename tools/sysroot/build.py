"""A new deployment, from the ref that keeps its commit to its final name; nothing names it before it is activated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Self

from store.errors import AccessError
from store.listing import Entry
from store.objects import checksum_from_hex
from store.repository import Repository
from store.schema import TreeId
from store.tree import commit_number, commit_record, load_listing, root_entry
from tools.neighbours import Neighbour
from tools.sysroot.completing import completing
from tools.sysroot.data_versions import Lower
from tools.sysroot.deploy import Options, Outcome
from tools.sysroot.keeping import keep, keep_only
from tools.sysroot.layout import PRISTINE, Generation, Stateroot
from tools.sysroot.merging import EtcMerger
from tools.sysroot.origin import Origin
from tools.sysroot.package_summary import package_summary
from tools.sysroot.proof import ContentCheck
from tools.sysroot.removing import remove
from tools.sysroot.shape import Shape
from tools.sysroot.sweep import sweep
from tools.sysroot.target import Target
from tools.sysroot.trees import Built, TreeBuilder
from tools.sysroot.var import is_empty, seed


class Building:
    """One new deployment. Use as a context manager: an exception inside sweeps what was made."""

    def __init__(
        self, stateroot: Stateroot, repository: Repository, target: Target, shape: Shape, options: Options,
        kept: set[str],
    ) -> None:  # fmt: skip
        """*kept* are the names of the deployments that there are."""
        self._stateroot, self._repository, self._target = stateroot, repository, target
        self._shape, self._options, self._kept = shape, options, kept
        self._current = stateroot.current()
        self._notes: list[str] = []
        self._built: Built | None = None
        self._merger: EtcMerger | None = None
        self.name = self._free_name()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._clean_up()

    def build(self, origin: Origin, advance: Callable[[int], object]) -> Origin:
        """Write the tree, merge /etc, seed an empty /var; return *origin* with what came out.

        Raises:
            SysrootError: there are conflicts, and the options are strict.
            CorruptionError: what is stored is not what was committed.
            OSError: the disk is full, or this user may not write there.
        """
        origin = replace(origin, packages=package_summary(self._repository, self._current, self._target))
        with self._repository.lock():
            self._keep()
            check = self._content_check()
            built = self._built = self._write(check, advance)
            if self._current is not None and not self._options.merge.skip:
                self._merger = EtcMerger(self._current, built.root, built.pristine, self._options.merge)
            origin = self.last_look(origin)
            self._seed(check)
        root = self._stateroot.deployments / self.name
        for made, name in ((built.pristine, root.with_name(self.name + PRISTINE)), (built.root, root)):
            with completing(made):  # who is not root can't move a directory that he may not write to
                made.rename(name)
        self._stateroot.building.rmdir()
        if self._merger is not None:
            self._merger.moved(root, root.with_name(self.name + PRISTINE))
        return origin

    def last_look(self, origin: Origin) -> Origin:
        """Merge what the admin did to /etc since the last look; return *origin*, a new one if that was something."""
        return self._merger.look(origin) if self._merger is not None else origin

    def outcome(self, generation: Generation, lower: list[Lower]) -> Outcome:
        """Return what came of it, now that it is current."""
        assert self._built is not None
        merge = self._merger.merge if self._merger is not None else None
        return Outcome(generation, self._current, self._built.written, self._built.links, merge, lower, self._notes)

    def _write(self, check: ContentCheck | None, advance: Callable[[int], object]) -> Built:
        """Write the tree, and prove it if *check* is given."""
        built = self._builder(self._beside(), advance).build(self._target.place, self._shape, self.name)
        if check is not None:
            check.check(built)
        return built

    def _builder(self, beside: Sequence[Neighbour], advance: Callable[[int], object]) -> TreeBuilder:
        return TreeBuilder(
            self._stateroot, self._repository, user_mode=self._options.user_mode, beside=beside, advance=advance
        )  # fmt: skip

    def _free_name(self) -> str:
        taken = set(self._stateroot.deployment_names())
        number = 0
        while f"{self._target.checksum}.{number}" in taken:
            number += 1
        return f"{self._target.checksum}.{number}"

    def _keep(self) -> None:
        try:
            keep_only(self._repository, self._stateroot, self._kept)
            keep(self._repository, self._stateroot, self.name, self._target.number)
        except AccessError as error:
            self._notes.append(f"no ref keeps the commit from 'fsview prune': {error}")

    def _beside(self) -> list[Neighbour]:
        """Return the current deployment, and before it one of the same commit if there is such."""
        found: dict[str, Generation] = {}
        generations = self._stateroot.generations()
        same = [one for one in generations if one.origin.commit == self._target.checksum]
        for generation in same[-1:] + generations[-1:]:
            found[generation.deployment] = generation
        trees = []
        with self._repository.database.reading() as reading:
            for generation in found.values():
                number = commit_number(reading, checksum_from_hex(generation.origin.commit))
                if number is not None:
                    trees.append(Neighbour(generation.root, root_entry(reading, commit_record(reading, number))))
        return trees

    def _content_check(self) -> ContentCheck | None:
        if not self._stateroot.sysroot.policy.is_certified:
            return None
        return ContentCheck(self._repository, self._target, self._shape, user_mode=self._options.user_mode)

    def _seed(self, check: ContentCheck | None) -> None:
        """Fill an empty /var; killed after it, the next deployment finds it filled: whole, as it is one rename."""
        if self._shape.var is None or not self._has_contents(self._shape.var):
            return
        var = self._stateroot.var
        if not is_empty(var):
            self._notes.append("what the commit has in /var is ignored: the stateroot has a /var of its own")
            return
        new = self._builder((), lambda step: None).build_var(self._shape.var)
        if check is not None:
            check.check_var(new)
        if not seed(var, new):
            self._notes.append(f"{var} was not filled with what the commit has in /var: something is mounted there")
        else:
            self._notes.append(f"{var} was empty, and was filled with what the commit has in /var")
        remove(new.parent)

    def _has_contents(self, directory: Entry) -> bool:
        with self._repository.database.reading() as reading:
            return len(load_listing(reading, TreeId(directory.id))) > 0

    def _clean_up(self) -> None:
        """Leave nothing of a deployment that failed; what can't be removed now is swept by the next command."""
        with suppress(Exception), self._repository.lock():
            keep_only(self._repository, self._stateroot, sweep(self._stateroot))
