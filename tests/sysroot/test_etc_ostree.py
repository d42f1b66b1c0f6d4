"""The merge of /etc beside that of the real ostree: the same three trees, the same edits, what each makes of them.

All rows share one deployment, each in a directory of its own; but those at which `ostree admin deploy` fails.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.marks import needs_root
from tests.running import run_cli
from tests.sysroot.rig import Machine
from tests.trees import Directory, File, Spec, Symlink, build_tree

NOTE, NEW = "user.note", ".fsview-new"
SAME_MODE = {stat.S_IFREG: 0o644, stat.S_IFDIR: 0o755}
Found = Mapping[str, str]  # path: what is there, as `look` says it


@dataclass(frozen=True)
class Row:
    """One row: what the old release has, what the admin does, what the new one has; what becomes of it.

    *conflicts* are those that fsview tells; of ostree's losses nobody is told. *later* is one more release.
    """

    old: Spec
    edit: Callable[[Path], object]
    new: Spec
    ostree: Found
    fsview: Found
    conflicts: set[str] = field(default_factory=set)
    later: Spec | None = None


def look(top: Path) -> dict[str, str]:
    """Return what is below a directory: contents, then mode, owner and xattr where they are not the usual ones."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        kind, mode, owner = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
        what = {stat.S_IFREG: "", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a link to "}.get(kind, "special")
        what += path.read_text() if kind == stat.S_IFREG else os.readlink(path) if kind == stat.S_IFLNK else ""
        what += f", {mode:o}" if mode != SAME_MODE.get(kind, mode) else ""
        what += f", of {owner[0]}:{owner[1]}" if owner != (0, 0) else ""
        what += ", noted" if NOTE in os.listxattr(path, follow_symlinks=False) else ""
        found[str(path.relative_to(top))] = what
    return found


def _write(name: str, text: str = "mine") -> Callable[[Path], object]:
    return lambda top: (top / name).write_text(text)


def _note(name: str) -> Callable[[Path], object]:
    return lambda top: os.setxattr(top / name, NOTE, b"x")


def _chmod(name: str, mode: int) -> Callable[[Path], object]:
    return lambda top: (top / name).chmod(mode)


def _chown(name: str) -> Callable[[Path], object]:
    return lambda top: os.chown(top / name, 10, 20)


def _delete(name: str) -> Callable[[Path], object]:
    return lambda top: shutil.rmtree(top / name) if (top / name).is_dir() else (top / name).unlink()


def _all(*edits: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda top: [edit(top) for edit in edits]


def _mkdir(name: str) -> Callable[[Path], object]:
    return lambda top: (top / name).mkdir()


def _link(name: str, target: str) -> Callable[[Path], object]:
    return lambda top: (top / name).symlink_to(target)


def _mkfifo(top: Path) -> None:
    os.mkfifo(top / "pipe")


def _mknod(top: Path) -> None:
    os.mknod(top / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _nothing(top: Path) -> None:
    pass


ROWS = {
    "nothing changed": Row(
        {"same": b"1", "changed": b"1", "gone": b"1"}, _nothing, {"same": b"1", "changed": b"2", "added": b"1"},
        {"same": "1", "changed": "2", "added": "1"}, {"same": "1", "changed": "2", "added": "1"}),
    "contents, and the release's are others": Row(
        {"f": b"1"}, _write("f"), {"f": b"2"},
        {"f": "mine"}, {"f": "mine", f"f{NEW}": "2"}, {"f"}),
    "contents, and the release has a symlink": Row(
        {"f": b"1"}, _write("f"), {"f": Symlink("x")},
        {"f": "mine"}, {"f": "mine", f"f{NEW}": "a link to x"}, {"f"}),
    "contents, and the release has nothing": Row(
        {"d": {"f": b"1"}}, _write("d/f"), {},
        {"d": "a directory", "d/f": "mine"}, {"d": "a directory", "d/f": "mine"}, {"d", "d/f"}),
    "a mode, and the release has other contents": Row(
        {"f": b"1"}, _chmod("f", 0o600), {"f": b"2"},
        {"f": "1, 600"}, {"f": "2, 600"}),
    "an owner, and the release has other contents": Row(
        {"f": b"1"}, _chown("f"), {"f": b"2"},
        {"f": "1, of 10:20"}, {"f": "2, of 10:20"}),
    "contents, and the release has another mode and xattrs": Row(
        {"f": b"1"}, _write("f"), {"f": File(b"1", mode=0o600, xattrs={NOTE: b"x"})},
        {"f": "mine"}, {"f": "mine, 600, noted"}),
    "what the release changed alike": Row(
        {"f": b"1"}, _write("f", "2"), {"f": b"2"},
        {"f": "2"}, {"f": "2"}),
    "what the release changed alike, one release later": Row(
        {"f": b"1"}, _write("f", "2"), {"f": b"2"},
        {"f": "3"}, {"f": "3"}, later={"f": b"3"}),
    "a file, a symlink and an empty directory added": Row(
        {}, _all(_write("f"), _link("l", "x"), _mkdir("d")), {},
        {"d": "a directory", "f": "mine", "l": "a link to x"}, {"d": "a directory", "f": "mine", "l": "a link to x"}),
    "a file added, and the release has another": Row(
        {}, _write("f"), {"f": b"2"},
        {"f": "mine"}, {"f": "mine", f"f{NEW}": "2"}, {"f"}),
    "a file deleted, and the release's changed": Row(
        {"f": b"1"}, _delete("f"), {"f": b"2"},
        {}, {f"f{NEW}": "2"}, {"f"}),
    "a file deleted, and the release has a directory": Row(
        {"f": b"1"}, _delete("f"), {"f": {"x": b"2"}},
        {}, {f"f{NEW}": "a directory", f"f{NEW}/x": "2"}, {"f"}),
    "a directory deleted, and the release has more in it": Row(
        {"d": {"x": b"1"}}, _delete("d"), {"d": {"x": b"1", "y": b"2"}},
        {}, {f"d{NEW}": "a directory", f"d{NEW}/x": "1", f"d{NEW}/y": "2"}, {"d"}),
    "only xattrs": Row(
        {"f": b"1", "d": {}}, _all(_note("f"), _note("d")), {"f": b"1", "d": {}},
        {"f": "1", "d": "a directory"}, {"f": "1, noted", "d": "a directory, noted"}),
    "mode and owner of a directory": Row(
        {"d": {"x": b"1"}, "e": {}}, _all(_chmod("d", 0o700), _chown("e")), {"d": {"x": b"1"}, "e": {}},
        {"d": "a directory", "d/x": "1", "e": "a directory"},
        {"d": "a directory, 700", "d/x": "1", "e": "a directory, of 10:20"}),
    "mode of a directory, and a file in it": Row(
        {"d": {"x": b"1"}}, _all(_chmod("d", 0o700), _write("d/x")), {"d": {"x": b"1"}},
        {"d": "a directory, 700", "d/x": "mine"}, {"d": "a directory, 700", "d/x": "mine"}),
    "mode of a directory, and a file added": Row(
        {"d": {"x": b"1"}}, _all(_chmod("d", 0o700), _write("d/y")), {"d": Directory({"x": b"2"}, mode=0o711)},
        {"d": "a directory, 700", "d/x": "2", "d/y": "mine"}, {"d": "a directory, 700", "d/x": "2", "d/y": "mine"},
        {"d"}),
    "a FIFO and a device": Row({}, _all(_mkfifo, _mknod), {}, {}, {}),
    "a file made a directory": Row(
        {"f": b"1"}, _all(_delete("f"), _mkdir("f"), _write("f/x")), {"f": b"1"},
        {"f": "a directory", "f/x": "mine"}, {"f": "a directory", "f/x": "mine"}),
    "a file made a directory, and the release's changed": Row(
        {"f": b"1"}, _all(_delete("f"), _mkdir("f"), _write("f/x")), {"f": b"2"},
        {"f": "a directory", "f/x": "mine"}, {"f": "a directory", "f/x": "mine", f"f{NEW}": "2"}, {"f"}),
}  # fmt: skip
FAILING = {  # what fsview makes of them; ostree makes nothing
    "contents, and the release has a directory": Row(
        {"d": b"1"}, _write("d"), {"d": {"x": b"2"}},
        {}, {"d": "mine", f"d{NEW}": "a directory", f"d{NEW}/x": "2"}, {"d"}),
    "a directory made a file": Row(
        {"d": {"x": b"1"}}, _all(_delete("d"), _write("d")), {"d": {"x": b"1"}},
        {}, {"d": "mine"}),
    "a directory made a symlink, and there is more in the release's": Row(
        {"d": {"x": b"1"}}, _all(_delete("d"), _link("d", "elsewhere")), {"d": {"x": b"1", "y": b"2"}},
        {}, {"d": "a link to elsewhere", f"d{NEW}": "a directory", f"d{NEW}/x": "1", f"d{NEW}/y": "2"}, {"d"}),
    "a file added, and the release has a directory": Row(
        {}, _write("d"), {"d": {"x": b"2"}},
        {}, {"d": "mine", f"d{NEW}": "a directory", f"d{NEW}/x": "2"}, {"d"}),
}  # fmt: skip


def _tree(etc: Spec) -> Spec:
    """Return a tree that ostree deploys: with a kernel."""
    release = b"NAME=test\nID=test\nPRETTY_NAME=test\n"
    return {"usr": {"etc": etc, "lib": {"os-release": release, "modules": {"1.0": {"vmlinuz": b"kernel"}}}}}


class Ostree:
    """A sysroot of ostree's."""

    def __init__(self, where: Path) -> None:
        self._where, self._sysroot = where, where / "sysroot"
        self._sysroot.mkdir(parents=True)
        for words in (["init-fs", str(self._sysroot)], ["os-init", "test", f"--sysroot={self._sysroot}"]):
            assert self._run("admin", *words).returncode == 0

    @property
    def deployments(self) -> list[Path]:
        """The deployments, also half-made ones, in the order in which they were begun."""
        found = (self._sysroot / "ostree/deploy/test/deploy").glob("*.[0-9]")
        return sorted(found, key=lambda path: path.stat().st_ino)

    def deploy(self, ref: str, tree: Spec) -> subprocess.CompletedProcess[str]:
        """Commit a tree and deploy it."""
        path = build_tree(self._where / ref, tree)
        repository = f"--repo={self._sysroot}/ostree/repo"
        assert self._run("commit", repository, "-b", ref, "--fsync=no", f"--tree=dir={path}").returncode == 0
        return self._run("admin", "deploy", "--retain", f"--sysroot={self._sysroot}", "--os=test", ref)

    def etc(self, ref: str) -> Path:
        """Return the etc of the deployment of a ref."""
        checksum = self._run("rev-parse", f"--repo={self._sysroot}/ostree/repo", ref).stdout.strip()
        return self._sysroot / f"ostree/deploy/test/deploy/{checksum}.0/etc"

    def changes(self) -> set[str]:
        """Return what `ostree admin config-diff` says."""
        return set(self._run("admin", "config-diff", "--os=test", f"--sysroot={self._sysroot}").stdout.splitlines())

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        odd = {"OSTREE_SYSROOT_DEBUG": "mutable-deployments", "OSTREE_SYSROOT_OPTS": "skip-sync", "LC_ALL": "C.UTF-8"}
        return subprocess.run(["ostree", *words], env=os.environ | odd, capture_output=True, text=True)


@dataclass
class Outcome:
    """What both made of all rows: by the release, the etc; and what fsview said of conflicts."""

    ostree: Mapping[str, Path]
    fsview: Mapping[str, Path]
    ostree_said: str
    ostree_listed: set[str]
    fsview_listed: set[str]
    conflicts: set[str]
    skipped: list[str]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Deploy all rows with both."""
    where = tmp_path_factory.mktemp("both")
    theirs, ours = Ostree(where / "ostree"), Machine.make(partial(run_cli, where), where)
    releases = {name: _releases({**ROWS, **FAILING} if name == "ours" else ROWS) for name in ("theirs", "ours")}
    theirs.deploy("old", releases["theirs"]["old"])
    ours.commit("old", releases["ours"]["old"])
    ours.run("deploy", "old")
    for rows, etc in ((ROWS, theirs.etc("old")), ({**ROWS, **FAILING}, ours.root / "etc")):
        for name, row in rows.items():
            row.edit(etc / name)
    listed = theirs.changes(), set(ours.run("etc-diff").stdout.splitlines())
    said = theirs.deploy("new", releases["theirs"]["new"])
    assert said.returncode == 0, said.stderr
    ours.commit("new", releases["ours"]["new"])
    told = ours.json("deploy", "new")["etc"]
    etcs = {"new": ours.root.resolve() / "etc"}
    theirs.deploy("later", releases["theirs"]["later"])
    ours.commit("later", releases["ours"]["later"])
    ours.run("deploy", "later")
    etcs["later"] = ours.root.resolve() / "etc"
    return Outcome(
        {ref: theirs.etc(ref) for ref in ("new", "later")}, etcs, said.stdout + said.stderr, *listed,
        {one["path"] for one in told["conflicts"]}, told["skipped"],
    )  # fmt: skip


def _releases(rows: Mapping[str, Row]) -> dict[str, Spec]:
    return {
        "old": _tree({name: row.old for name, row in rows.items()}),
        "new": _tree({name: row.new for name, row in rows.items()}),
        "later": _tree({name: row.later or row.new for name, row in rows.items()}),
    }


@needs_root
@pytest.mark.parametrize("name", ROWS)
def test_what_each_makes_of_a_row(both: Outcome, name: str) -> None:
    row = ROWS[name]
    release = "later" if row.later else "new"
    assert look(both.ostree[release] / name) == row.ostree
    assert look(both.fsview[release] / name) == row.fsview
    assert {path.partition("/")[2] for path in both.conflicts if path.startswith(f"{name}/")} == row.conflicts


@needs_root
def test_what_each_says(both: Outcome) -> None:
    assert not any(name in both.ostree_said for name in ROWS)
    assert "Copying /etc changes: " in both.ostree_said
    assert sorted(both.skipped) == ["a FIFO and a device/null", "a FIFO and a device/pipe"]
    more = {f"M    only xattrs/{name}" for name in ("d", "f")}
    more |= {f"A    {name}/f/x" for name in ROWS if name.startswith("a file made a directory")}
    assert {line for line in both.fsview_listed - both.ostree_listed if line[5:].partition("/")[0] in ROWS} == more
    assert both.ostree_listed - both.fsview_listed == set()


@needs_root
@pytest.mark.parametrize("name", FAILING)
def test_where_ostree_fails_halfway(both: Outcome, name: str, tmp_path: Path) -> None:
    row = FAILING[name]
    theirs = Ostree(tmp_path)
    theirs.deploy("old", _tree({"row": row.old}))
    row.edit(theirs.etc("old") / "row")
    said = theirs.deploy("new", _tree({"row": row.new}))
    assert said.returncode != 0 and "Modified config file newly defaults to directory" in said.stderr
    (half,) = [path for path in theirs.deployments if not path.with_name(f"{path.name}.origin").exists()]
    assert half == theirs.etc("new").parent
    assert look(both.fsview["new"] / name) == row.fsview
    assert {path.partition("/")[2] for path in both.conflicts if path.startswith(f"{name}/")} == row.conflicts
