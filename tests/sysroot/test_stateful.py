"""Commands at random, against a model of what each has to make of a stateroot (tests/sysroot/model.py).

After each step all that is on disk and all that `status` says is compared with the model; so what is refused, and the
model leaves as it is, has changed nothing.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.checking import assert_sound
from tests.conftest import Tell
from tests.sysroot.etc_model import NOTHING, Node, at, changed, dress_path, read_node, remove_path, write_node
from tests.sysroot.model import Model, Refused, Release
from tests.trees import build_tree
from tools.cli import run
from tools.sysroot.etc_merge import Merge, merge_etc

MOMENT_S = 1_790_000_000
MTIMES_NS = [(MOMENT_S - second) * 10**9 for second in range(3)]  # what committed files have, as the store spreads them
TICK_S = 0.01  # of the slowest kernel's clock
LARGE = bytes(40_000)
REFS = ["os/a", "os/b", "os/c"]

texts = st.sampled_from(["1", "2", "3"])
modes, notes = st.sampled_from([0o644, 0o644, 0o600]), st.sampled_from([None, None, "n"])
files = st.builds(Node, texts, modes, notes)
attributes = {"text": st.none(), "mode": st.sampled_from([0o755, 0o755, 0o750]), "note": notes}
leaves = st.dictionaries(st.sampled_from(["x", "y"]), files, max_size=2)
directories = st.builds(Node, **attributes, children=leaves)
tops = st.dictionaries(st.sampled_from(["a", "b", "d"]), st.one_of(files, directories), max_size=3)
etcs = st.builds(Node, **attributes, children=tops)
paths = st.sampled_from(["a", "b", "d", "d/x", "d/y", "own", "a.fsview-new", "d.fsview-new", ""])
nodes, hows = st.one_of(files, files, directories), st.sampled_from(["put", "put", "attributes", "delete"])
mtimes = st.sampled_from([None, *MTIMES_NS])
kinds = st.sampled_from(["etc", "usr/etc", "etc", "none", "etc", "both"])
rarely = st.sampled_from([False, False, False, True])


class Sysroots(RuleBasedStateMachine):
    """One sysroot and its repository, beside the model."""

    tally: Counter[str]
    where: Path

    @initialize(first=etcs)
    def make(self, first: Node) -> None:
        """Deploy once; what comes before that, tests/sysroot/test_bad_input.py and test_verbs.py have."""
        self.model, self.top = Model(), Path(self.where, f"example-{next(_numbers)}")
        self.top.mkdir()
        self.trees, self.repository, self.path = itertools.count(), self.top / "repo", self.top / "sysroot"
        self.stateroot = self.path / "deploy/main"
        assert self.call("init", self.repository)[0] == 0
        assert self.call("sysroot", "init", self.path, "--repo", self.repository)[0] == 0
        assert self.call("os-init", "main", "--sysroot", self.path)[0] == 0
        for number, ref in enumerate(REFS):
            self.commit(ref, first, "etc", number, {}, True)
        self._change(["deploy", REFS[0]], lambda model: model.deploy("deploy", REFS[0]), {})

    def teardown(self) -> None:
        if hasattr(self, "top"):
            assert_sound(self.repository, garbage=True)
            shutil.rmtree(self.top)

    def call(self, *words: str | Path) -> tuple[int, str, str]:
        """Run a command in this process."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = run([str(word) for word in words])
        return status, out.getvalue(), err.getvalue()

    def step(self, words: Sequence[str], expected: Refused | None) -> Any:
        """Run a command on the sysroot, which has to succeed, or be refused; return what it says in JSON."""
        status, out, err = self.call(*words, "--json", "--sysroot", self.path)
        self.tally[words[0] + (" refused" if expected else "")] += 1
        if expected is None:
            assert status == 0, (words, err)
            return json.loads(out)
        assert (status, expected.word in err) == (expected.status, True), (words, expected, status, err)
        return None

    @rule(
        ref=st.sampled_from(REFS), etc=etcs, kind=kinds,
        moment=st.integers(0, 9), versions=st.dictionaries(st.sampled_from(["pg", "q"]), st.integers(8, 11)),
        with_var=st.booleans(),
    )  # fmt: skip
    def commit(self, ref: str, etc: Node, kind: str, moment: int, versions: dict[str, int], with_var: bool) -> None:
        label = f"{ref} {next(self.trees)}"
        path = self.top / "tree"
        var = {"seed": label.encode()} if with_var else {}
        build_tree(path, {"usr": {"label": label.encode(), "large": LARGE}, "var": var})
        for where in {"none": [], "both": ["etc", "usr/etc"]}.get(kind, [kind]):
            write_node(path / where, etc, mtime_ns=MTIMES_NS[0])
        words = [f"--data-version={name}={version}" for name, version in versions.items()]
        status, out, err = self.call(
            "commit", "--repo", self.repository, "-b", ref, "--parent", "none", f"--timestamp=@{MOMENT_S + moment}",
            *words, path,
        )  # fmt: skip
        assert status == 0, err
        shutil.rmtree(path)
        made = Release(
            out.strip(),
            label,
            moment,
            None if kind == "none" else etc,
            kind == "both",
            versions,
            dict.fromkeys(var, label),
        )
        self.model.releases[made.commit] = made
        self.model.stored.add(made.commit)
        self.model.refs[ref] = made.commit
        self.tally["commit"] += 1

    @rule(ref=st.sampled_from(REFS), data=st.data())
    def move_ref(self, ref: str, data: st.DataObject) -> None:
        commit = data.draw(st.sampled_from(sorted(self.model.stored)))
        assert self.call("refs", "--repo", self.repository, "--create", ref, commit, "--force")[0] == 0
        self.model.refs[ref] = commit
        self.tally["a ref moved"] += 1

    @rule(
        verb=st.sampled_from(["deploy", "switch", "switch"]), data=st.data(), by_commit=rarely, no_merge=rarely,
        strict=rarely, accept=rarely, snapshot=rarely, allow=st.booleans(),
    )  # fmt: skip
    def deploy(self, verb: str, data: st.DataObject, by_commit: bool, **given: bool) -> None:
        source = data.draw(st.sampled_from(sorted(self.model.releases) if by_commit else REFS))
        self._change([verb, source], lambda model: model.deploy(verb, source, **given), given)

    @rule(allow=st.booleans(), accept=rarely, strict=rarely)
    def upgrade(self, **given: bool) -> None:
        self._change(["upgrade"], lambda model: model.upgrade(**given), given)

    def _change(self, words: list[str], change: Any, given: dict[str, bool]) -> None:
        before, expected, conflicts = self.model.number, None, set()
        try:
            conflicts = change(self.model)
        except Refused as refused:
            expected = refused
        flags = {
            "no_merge": "--no-merge", "strict": "--strict", "accept": "--accept-data-versions",
            "snapshot": "--snapshot-var", "allow": "--allow-downgrade",
        }  # fmt: skip
        words = [*words, *(flags[name] for name, is_given in given.items() if is_given)]
        self._dry_run(words, expected)
        said = self.step(words, expected)
        if said is not None:
            assert said["changed"] is (self.model.number > before)
            way = "reused" if said.get("reused") else "written" if said["changed"] else "current already"
            self.tally[f"(a tree was {way})"] += 1
            self.tally["(conflicts in /etc)"] += bool(conflicts)
            assert {one["path"] for one in ((said.get("etc") or {}).get("conflicts", []))} == conflicts

    def _dry_run(self, words: list[str], expected: Refused | None) -> None:
        status, _, err = self.call(*words, "--dry-run", "--sysroot", self.path)
        assert status == (expected.status if expected else 0), (words, expected, err)

    @rule(data=st.data(), to=st.booleans(), accept=rarely, snapshot=rarely, restore=rarely)
    def rollback(self, data: st.DataObject, to: bool, **given: bool) -> None:
        number = data.draw(st.integers(1, self.model.number + 1)) if to else None
        expected = None
        try:
            self.model.rollback(number, **given)
        except Refused as refused:
            expected = refused
        flags = {"accept": "--accept-data-versions", "snapshot": "--snapshot-var", "restore": "--restore-var"}
        words = ["rollback", *(["--to", str(number)] if number else []), *(flags[one] for one in given if given[one])]
        self._dry_run(words, expected)
        self.step(words, expected)

    @rule(data=st.data(), what=st.sampled_from(["pin", "unpin", "undeploy", "cleanup"]))
    def manage(self, data: st.DataObject, what: str) -> None:
        number = data.draw(st.integers(0 if what == "cleanup" else 1, self.model.number + 1))
        calls = {
            "pin": lambda: self.model.pin(number, True), "unpin": lambda: self.model.pin(number, False),
            "undeploy": lambda: self.model.undeploy(number), "cleanup": lambda: self.model.cleanup(number),
        }  # fmt: skip
        expected = None
        try:
            calls[what]()
        except Refused as refused:
            expected = refused
        words = [what, "--keep", str(number)] if what == "cleanup" else [what, str(number)]
        if what in ("undeploy", "cleanup"):
            self._dry_run(words, expected)
        self.step(words, expected)

    @rule(data=st.data(), edits=st.lists(st.tuples(paths, nodes, hows, mtimes), min_size=1))
    def edit(self, data: st.DataObject, edits: list[tuple[str, Node, str, int | None]]) -> None:
        name = data.draw(st.sampled_from([*sorted(self.model.etcs), *[self._current_deployment()] * 3]))
        top, where = self.model.etcs[name], self.stateroot / "deployments" / name / "etc"
        if top is None:
            top = NOTHING
            write_node(where, top)
        for path, node, how, mtime_ns in edits:
            top = _edited(top, where, path, node, how, mtime_ns)
        self.model.etcs[name] = top
        self.tally["edit of /etc"] += len(edits)

    def _current_deployment(self) -> str:
        assert self.model.current is not None
        return self.model.current.deployment

    @rule(name=st.sampled_from(["seed", "data"]), text=st.none() | texts)
    def write_var(self, name: str, text: str | None) -> None:
        if text is None:
            (self.stateroot / "var" / name).unlink(missing_ok=True)
            self.model.var.pop(name, None)
        else:
            (self.stateroot / "var" / name).write_text(text)
            self.model.var[name] = text
        self.tally["write to /var"] += 1

    @rule()
    def prune(self) -> None:
        assert self.call("prune", "--repo", self.repository, "--refs-only")[0] == 0
        self.model.prune()
        self.tally["prune"] += 1

    @invariant()
    def is_as_the_model_says(self) -> None:
        self._check_status()
        names = self.model.etcs.keys()
        assert sorted(os.listdir(self.stateroot / "deployments")) == sorted(
            [*names, *(f"{name}.etc-pristine" for name in names)]
        )
        assert sorted(map(int, os.listdir(self.stateroot / "generations"))) == sorted(self.model.generations)
        for name, etc in self.model.etcs.items():
            root = self.stateroot / "deployments" / name
            assert (root / "usr/label").read_text() == self.model.releases[name.partition(".")[0]].label
            assert read_node(root / "etc") == etc, name
            assert read_node(root.with_name(f"{name}.etc-pristine")) == self.model.pristine(name)
            assert os.listdir(root / "var") == []
        assert _read_var(self.stateroot / "var") == self.model.var
        out = self.call("refs", "--repo", self.repository, "--list", "fsview")[1]
        assert sorted(line.rpartition("/")[2] for line in out.split()) == sorted(names)
        assert self.model.held <= self.model.stored

    def _check_status(self) -> None:
        said = json.loads(self.call("status", "--json", "--sysroot", self.path)[1])[0]
        assert said["current"] == (self.model.number or None)
        assert [one["generation"] for one in said["generations"]] == sorted(self.model.generations, reverse=True)
        for one in said["generations"]:
            wanted = self.model.generations[one["generation"]]
            assert (one["deployment"], one["commit"], one["ref"], one["verb"], one["previous"], one["pinned"]) == (
                wanted.deployment, wanted.commit, wanted.ref, wanted.verb, wanted.previous, wanted.pinned,
            )  # fmt: skip
            assert {name: int(mark["version"]) for name, mark in one["high_water"].items()} == wanted.marks
            path = self.stateroot / "generations" / str(one["generation"])
            wanted_names = {"origin.toml", "root"} | ({"snapshot"} if wanted.snapshot is not None else set())
            assert set(os.listdir(path)) == wanted_names
            assert wanted.snapshot is None or _read_var(path / "snapshot/var") == wanted.snapshot
            assert (path / "root").resolve() == self.stateroot / "deployments" / wanted.deployment
        if self.model.number:
            assert os.readlink(self.stateroot / "current") == f"generations/{self.model.number}"


_numbers = itertools.count()


def _edited(top: Node, where: Path, path: str, node: Node, how: str, mtime_ns: int | None) -> Node:
    """Edit an etc on disk, if that is possible; return what it is then."""
    found, above = at(top, path), at(top, path.rpartition("/")[0])
    if found is not None and how == "attributes":
        dress_path(where / path, node)
        return changed(top, path, replace(found, mode=node.mode, note=node.note))
    if how == "attributes" or not path or above is None or not above.is_directory:
        return top
    if found is not None:
        remove_path(where / path)
    if how == "put":
        write_node(where / path, node, mtime_ns=mtime_ns)
    return changed(top, path, node if how == "put" else None)


def _read_var(path: Path) -> dict[str, str]:
    return {name: (path / name).read_text() for name in os.listdir(path)}


def run_machine(where: Path, **limits: Any) -> Counter[str]:
    """Run the machine in a directory; return how often it did what."""

    class Here(Sysroots):
        pass

    Here.where, Here.tally = where, Counter()
    with pytest.MonkeyPatch.context() as patch:
        for lag in ("store.prune.COMMIT_LAG_S", "store.refs.TICKS_S"):  # what views need, of which there are none
            patch.setattr(lag, 0)
        patch.setattr("tools.sysroot.merging.merge_etc", _merge_for_a_while)
        run_state_machine_as_test(Here, settings=settings(suppress_health_check=list(HealthCheck), **limits))
    return Here.tally


def _merge_for_a_while(*arguments: Any, **named: Any) -> Merge:
    """Merge, and go on when the kernel's clock has ticked: files are compared by times, as in an /etc of real size."""
    try:
        return merge_etc(*arguments, **named)
    finally:
        time.sleep(TICK_S)


@pytest.mark.hypothesis
def test_commands_at_random(quick_path: Path) -> None:
    tally = run_machine(quick_path, max_examples=10, stateful_step_count=25)
    assert tally["deploy"] >= 10


@pytest.mark.torture
def test_commands_at_random_for_long(quick_path: Path, tell: Tell) -> None:
    tally = run_machine(quick_path, max_examples=200, stateful_step_count=50)
    tell(*(f"{count:7} {what}" for what, count in sorted(tally.items())))
    assert len([what for what in tally if what.endswith(" refused")]) >= 6
