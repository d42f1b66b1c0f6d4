"""A stateroot as plain values: what each command has to make of it, by docs/deployments.md, or that it refuses.

Nothing of tools/sysroot is used. A command that is refused raises Refused and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.sysroot.etc_model import NOTHING, Node, merge

Var = Mapping[str, str]


class Refused(Exception):
    """A command is refused: with which exit status, and a word of the message."""

    def __init__(self, status: int, word: str) -> None:
        super().__init__(word)
        self.status, self.word = status, word


@dataclass(frozen=True)
class Release:
    """A commit; *etc* is None where it has none; *versions* of data; *time*: later is newer."""

    commit: str
    label: str
    time: int
    etc: Node | None
    has_two: bool
    versions: Mapping[str, int]
    var: Var


@dataclass(frozen=True)
class Generation:
    """What a generation says."""

    deployment: str
    ref: str | None
    verb: str
    previous: int
    marks: Mapping[str, int]
    pinned: bool = False
    snapshot: Var | None = None

    @property
    def commit(self) -> str:
        """Which commit is deployed."""
        return self.deployment.partition(".")[0]


@dataclass
class Model:
    """The state; *etcs* are those of the deployments, *newest* the time of what ever was deployed of each ref."""

    releases: dict[str, Release] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    refs: dict[str, str] = field(default_factory=dict)
    generations: dict[int, Generation] = field(default_factory=dict)
    etcs: dict[str, Node | None] = field(default_factory=dict)
    var: dict[str, str] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    number: int = 0

    @property
    def current(self) -> Generation | None:
        """The current generation."""
        return self.generations.get(self.number)

    @property
    def held(self) -> set[str]:
        """The commits that are deployed."""
        return {one.commit for one in self.generations.values()}

    def pristine(self, deployment: str) -> Node:
        """Return what a deployment's etc was committed as."""
        return self.releases[deployment.partition(".")[0]].etc or NOTHING

    def is_unchanged(self, deployment: str) -> bool:
        """Whether nobody edited a deployment's etc, nor was anything carried into it."""
        etc = self.etcs[deployment]
        return self.pristine(deployment) == (NOTHING if etc is None else etc)

    def deploy(
        self, verb: str, source: str, *, no_merge: bool = False, strict: bool = False, accept: bool = False,
        snapshot: bool = False, allow: bool = False,
    ) -> set[str]:  # fmt: skip
        """Deploy or switch; return the paths of conflicts in /etc.

        Raises:
            Refused: see the module.
        """
        commit, ref = self.refs.get(source, source), source if source in self.refs else None
        if commit not in self.stored:
            raise Refused(1, "there is no")
        current = self.current
        if verb == "switch" and current and (current.commit, current.ref) == (commit, ref):
            return set()
        return self._deploy(verb, commit, ref, no_merge, strict, accept, snapshot, allow)

    def upgrade(self, *, allow: bool = False, accept: bool = False, strict: bool = False) -> set[str]:
        """Deploy what the ref has become."""
        if self.current is None:
            raise Refused(1, "nothing is deployed")
        if self.current.ref is None:
            raise Refused(15, "follows no ref")
        commit = self.refs[self.current.ref]
        if commit == self.current.commit:
            return set()
        return self._deploy("upgrade", commit, self.current.ref, False, strict, accept, False, allow)

    def _deploy(
        self, verb: str, commit: str, ref: str | None, no_merge: bool, strict: bool, accept: bool, snapshot: bool,
        allow: bool,
    ) -> set[str]:  # fmt: skip
        release = self.releases[commit]
        if ref is not None and release.time < self.newest.get(ref, release.time) and not allow:
            raise Refused(15, "--allow-downgrade")
        marks = dict(self.current.marks) if self.current else {}
        _refuse_lower(release.versions, marks, accept)
        if release.has_two:
            raise Refused(15, "both /etc and /usr/etc")
        deployment = self._reusable(commit, no_merge) if verb != "deploy" else None
        conflicts: set[str] = set()
        if deployment is None:
            deployment, etc = self._free_name(commit), release.etc
            if not no_merge and self.current and self.etcs[self.current.deployment] is not None:
                etc, conflicts = self._merged(release)
            if strict and conflicts:
                raise Refused(15, "--strict")
            self.etcs[deployment] = etc
            self.var = self.var or dict(release.var)
        self._activate(Generation(deployment, ref, verb, self.number, _raised(marks, release.versions)), snapshot)
        if ref is not None:
            self.newest[ref] = max(self.newest.get(ref, release.time), release.time)
        return conflicts

    def _merged(self, release: Release) -> tuple[Node | None, set[str]]:
        assert self.current is not None
        own = self.etcs[self.current.deployment]
        assert own is not None
        old = self.pristine(self.current.deployment)
        if release.etc is None and own == old:
            return None, set()
        return merge(old, own, release.etc or NOTHING)

    def _reusable(self, commit: str, no_merge: bool) -> str | None:
        if not no_merge and self.current and not self.is_unchanged(self.current.deployment):
            return None
        same = dict.fromkeys(one.deployment for _, one in sorted(self.generations.items()) if one.commit == commit)
        return next((name for name in reversed(same) if self.is_unchanged(name)), None)

    def _free_name(self, commit: str) -> str:
        number = 0
        while f"{commit}.{number}" in self.etcs:
            number += 1
        return f"{commit}.{number}"

    def _activate(self, generation: Generation, snapshot: bool) -> None:
        if snapshot and self.current:
            self.generations[self.number] = replace(self.current, snapshot=dict(self.var))
        self.number += 1
        self.generations[self.number] = generation

    def rollback(
        self, number: int | None, *, accept: bool = False, snapshot: bool = False, restore: bool = False
    ) -> None:
        """Go back, to another deployment."""
        target = self.generations[self._rollback_number(number)]
        assert self.current is not None
        if restore and target.snapshot is None:
            raise Refused(1, "has no snapshot")
        marks = target.marks if restore else self.current.marks
        versions = self.releases[target.commit].versions
        _refuse_lower(versions, marks, accept)
        made = Generation(target.deployment, target.ref, "rollback", self.number, _raised(marks, versions))
        self._activate(made, snapshot or restore)
        if restore:
            assert target.snapshot is not None
            self.var = dict(target.snapshot)

    def _rollback_number(self, number: int | None) -> int:
        if self.current is None:
            raise Refused(15, "nothing is deployed")
        others = [one for one in self.generations if self.generations[one].deployment != self.current.deployment]
        if number is None and not others:
            raise Refused(15, "no other deployment")
        if number is not None and number not in self.generations:
            raise Refused(1, "there is no generation")
        if number is not None and number not in others:
            raise Refused(15, "is current; nothing was changed")
        return max(others) if number is None else number

    def pin(self, number: int, pinned: bool) -> None:
        """Pin or unpin."""
        if number not in self.generations:
            raise Refused(1, "there is no generation")
        self.generations[number] = replace(self.generations[number], pinned=pinned)

    def undeploy(self, number: int) -> None:
        """Remove a generation."""
        if number not in self.generations:
            raise Refused(1, "there is no generation")
        if number == self.number or self.generations[number].pinned:
            raise Refused(15, "and stays")
        self._remove({number})

    def cleanup(self, keep: int) -> None:
        """Remove old generations."""
        if self.current is None:
            return
        stay = set(sorted(self.generations)[-max(keep, 1) :])
        stay |= {number for number, one in self.generations.items() if one.pinned}
        others = {n for n, one in self.generations.items() if one.deployment != self.current.deployment}
        self._remove(self.generations.keys() - stay - {max(others, default=0)})

    def _remove(self, numbers: set[int]) -> None:
        for number in numbers:
            del self.generations[number]
        named = {one.deployment for one in self.generations.values()}
        self.etcs = {name: etc for name, etc in self.etcs.items() if name in named}

    def prune(self) -> None:
        """Delete the commits that no ref reaches and no generation holds."""
        self.stored &= {*self.refs.values(), *self.held}


def _refuse_lower(versions: Mapping[str, int], marks: Mapping[str, int], accept: bool) -> None:
    if not accept and any(version < marks.get(name, version) for name, version in versions.items()):
        raise Refused(15, "was migrated")


def _raised(marks: Mapping[str, int], versions: Mapping[str, int]) -> dict[str, int]:
    return {name: max(each.get(name, 0) for each in (marks, versions)) for name in {*marks, *versions}}
