"""Reading the databases of package managers, also those that are damaged or meant to harm."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import FormatError
from tests.conftest import TreeFactory
from tests.trees import Spec, Symlink
from tools.packages import tree as tree_module
from tools.packages.changes import Replaced, compare
from tools.packages.listing import list_packages
from tools.packages.package import Package
from tools.packages.rpm_header import Header
from tools.packages.tree import DirectoryTree, follow

STATUS = b"""Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2-1
Conffiles:
 /etc/skel 1234
Description: a shell
 Version: no field, but a line of the description

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: half
Status: install ok half-configured
Architecture: all
Version: 1:2~rc1-3

Package: never
Status: unknown ok not-installed
"""
APK = b"""C:Q1abc=
P:musl
V:1.2.5-r0
A:x86_64
F:lib
R:ld-musl-x86_64.so.1

C:Q1def=
P:zlib
V:1.3.1-r1
A:x86_64
"""
DESC = b"%NAME%\npacman\n\n%VERSION%\n6.1.0-3\n\n%ARCH%\nx86_64\n\n%DEPENDS%\nbash\n"
METADATA = b"Metadata-Version: 2.1\nName: Flask-RESTful\nVersion: 3.0.2\n\nVersion: 9\n"

DPKG = [Package("dpkg", "bash", "amd64", "5.2-1"), Package("dpkg", "half", "all", "1:2~rc1-3")]


def _listed(tree: Path) -> list[Package]:
    return list_packages(DirectoryTree(tree))


def _below(path: str, node: object) -> Spec:
    for name in reversed(path.split("/")):
        node = {name: node}
    assert isinstance(node, dict)
    return node


def test_dpkg(tree_factory: TreeFactory) -> None:
    assert _listed(tree_factory(_below("var/lib/dpkg/status", STATUS))) == DPKG


def test_dpkg_itself_agrees() -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("dpkg is not installed")
    form = "${db:Status-Status}\t${Package}\t${Architecture}\t${Version}\n"
    said = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in said.splitlines()]
    expected = {(name, architecture, version) for state, name, architecture, version in rows if state[0] not in "cn"}
    found = [one for one in _listed(Path("/")) if one.manager == "dpkg"]
    assert {(one.name, one.architecture, one.version) for one in found} == expected


def test_dpkg_of_distroless_images(tree_factory: TreeFactory) -> None:
    parts = {"base": b"Package: base-files\nVersion: 12\nArchitecture: amd64\n", "base.md5sums": b"00 usr/x\n"}
    found = _listed(tree_factory(_below("var/lib/dpkg/status.d", parts)))
    assert found == [Package("dpkg", "base-files", "amd64", "12")]


@pytest.mark.parametrize("path", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_apk(tree_factory: TreeFactory, path: str) -> None:
    found = _listed(tree_factory(_below(path, APK)))
    assert found == [Package("apk", "musl", "x86_64", "1.2.5-r0"), Package("apk", "zlib", "x86_64", "1.3.1-r1")]


def test_pacman(tree_factory: TreeFactory) -> None:
    spec = {"ALPM_DB_VERSION": b"9\n", "pacman-6.1.0-3": {"desc": DESC, "files": b"%FILES%\n"}, "empty": {}}
    assert _listed(tree_factory(_below("var/lib/pacman/local", spec))) == [
        Package("pacman", "pacman", "x86_64", "6.1.0-3")
    ]


def test_python_where_interpreters_look(tree_factory: TreeFactory) -> None:
    info = {"METADATA": METADATA}
    spec = {
        "usr": {
            "lib": {"python3": {"dist-packages": {"flask_restful-3.0.2.dist-info": info}}},
            "local": {"lib": {"python3.11": {"site-packages": {"PyYAML-6.0-py3.11.egg-info": b"Name: PyYAML\n"}}}},
        },
        "opt": {
            "app": {"venv": {"lib": {"python3.12": {"site-packages": {"a-1.0.dist-info": {}, "b.dist-info": {}}}}}}
        },
    }
    expected = [("Flask-RESTful", "3.0.2"), ("PyYAML", "6.0"), ("a", "1.0")]
    assert [(one.name, one.version) for one in _listed(tree_factory(spec))] == expected


def test_python_is_not_told_twice_where_a_distribution_packages_it(tree_factory: TreeFactory) -> None:
    parts = {
        "flask_restful-3.0.2.dist-info": {"METADATA": METADATA},
        "other-1.0.dist-info": {"METADATA": b"Name: other\nVersion: 1.0\n", "INSTALLER": b"pip\n"},
    }
    spec = {**_below("var/lib/dpkg/status", STATUS), **_below("usr/lib/python3/dist-packages", parts)}
    assert _listed(tree_factory(spec)) == [*DPKG, Package("python", "other", "", "1.0")]


def test_symlinks_are_followed_in_the_tree_and_never_out_of_it(tree_factory: TreeFactory, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "status").write_bytes(STATUS)
    spec = _below("usr/share/dpkg/status", STATUS)
    inside = tree_factory({**spec, "var": {"lib": {"dpkg": Symlink("../../../../usr/share/dpkg")}}})
    absolute = tree_factory({**spec, "var": {"lib": {"dpkg": Symlink("/usr/share/dpkg")}}})
    outside = tree_factory({"var": {"lib": {"dpkg": Symlink(f"{tmp_path}/outside")}}})
    assert _listed(inside) == _listed(absolute) == DPKG
    assert _listed(outside) == []


def test_symlinks_that_lead_nowhere_or_in_circles(tree_factory: TreeFactory) -> None:
    tree = tree_factory({"a": Symlink("b"), "b": Symlink("a"), "c": Symlink("c/c"), "d": Symlink("x"), "f": b""})
    assert [follow(DirectoryTree(tree), path) for path in (b"a", b"c/d", b"d", b"f/x")] == [None] * 4
    assert follow(DirectoryTree(tree), b"../f") == b"f"


def test_a_tree_without_a_database_has_no_packages(tree_factory: TreeFactory) -> None:
    assert _listed(tree_factory({"etc": {"hostname": b"x\n"}, "usr": {"lib": {"python3": b"a file"}}})) == []


DAMAGED: dict[str, tuple[str, bytes]] = {
    "binary": ("var/lib/dpkg/status", random.Random(1).randbytes(5000).replace(b":", b"")),
    "cut off": ("var/lib/dpkg/status", STATUS[: STATUS.index(b"Version: 1:2")]),
    "no state": ("var/lib/dpkg/status", b"Package: a\nVersion: 1\nStatus: installed\n"),
    "without a name": ("lib/apk/db/installed", b"V:1.0\nA:x\n"),
    "long name": ("lib/apk/db/installed", b"P:" + b"x" * 5000 + b"\nV:1\n"),
    "long line": ("lib/apk/db/installed", b"P:a\nV:1\n\n" + b"x" * (9 << 20)),
    "older rpm": ("var/lib/rpm/Packages", b"\0" * 100),
    "ndb": ("usr/lib/sysimage/rpm/Packages.db", b"RpmP"),
    "no SQLite": ("usr/lib/sysimage/rpm/rpmdb.sqlite", b"no database at all" * 100),
    "empty": ("usr/lib/sysimage/rpm/rpmdb.sqlite", b""),
    "no name": ("var/lib/pacman/local/a/desc", b"%VERSION%\n1\n"),
}  # fmt: skip


READ_UNTIL_THEN = {"cut off": DPKG[:1], "long line": [Package("apk", "a", "", "1")]}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_database_is_named(tree_factory: TreeFactory, what: str) -> None:
    path, content = DAMAGED[what]
    tree = tree_factory(_below(path, content))
    with pytest.raises(FormatError, match=path):
        _listed(tree)
    told: list[FormatError] = []
    found = list_packages(DirectoryTree(tree), told.append)
    assert (found, len(told)) == (READ_UNTIL_THEN.get(what, []), 1)


def test_a_database_beyond_all_bounds_is_refused(tree_factory: TreeFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_factory(_below("lib/apk/db/installed", APK))
    os.truncate(tree / "lib/apk/db/installed", 1 << 40)
    monkeypatch.setattr(tree_module, "_LINE_BYTES_MAX", 1 << 62)
    with pytest.raises(FormatError, match="more than"):
        next(tree_module.bounded(DirectoryTree(tree), b"lib/apk/db/installed", len(APK)))
    monkeypatch.undo()
    with pytest.raises(FormatError, match="a line of more than"):
        _listed(tree)


def test_a_fifo_is_no_database(tree_factory: TreeFactory) -> None:
    tree = tree_factory(_below("var/lib/dpkg", {}))
    os.mkfifo(tree / "var/lib/dpkg/status")
    assert _listed(tree) == []


@pytest.fixture
def rpm_tree(tmp_path: Path) -> Callable[..., Path]:
    """Return a function: packages as "name version release [epoch]" -> a tree in which rpm itself installed them."""

    def make(*packages: str) -> Path:
        tree, top = tmp_path / "rpm-tree", tmp_path / "rpm-top"
        rpm: list[str | Path] = ["rpm", "--root", tree, "--dbpath", "/usr/lib/sysimage/rpm"]
        tree.mkdir()
        subprocess.run([*rpm, "--initdb"], check=True)
        for package in packages:
            name, version, release, *epoch = package.split()
            lines = [f"Name: {name}", f"Version: {version}", f"Release: {release}", *(f"Epoch: {n}" for n in epoch)]
            lines += ["Summary: é", "License: MIT", "BuildArch: noarch", "%description", "d", "%files"]
            (tmp_path / "a.spec").write_text("\n".join(lines) + "\n")
            define = f"_topdir {top}"
            subprocess.run(["rpmbuild", "-bb", "--quiet", "--define", define, tmp_path / "a.spec"], check=True)
        built = list(top.glob("RPMS/noarch/*.rpm"))
        subprocess.run([*rpm, "-i", "--justdb", "--nodeps", "--nosignature", *built], check=True)
        return tree

    return make


RPMS = ("tiny 1.0~rc1 2", "kernel 6.1 1.fc40", "kernel 6.2 1.fc40", "with-epoch 1.0^git1 3 4", "gpg-pubkey 1 2")
RPM_PACKAGES = [
    Package("rpm", "kernel", "noarch", "6.1-1.fc40"),
    Package("rpm", "kernel", "noarch", "6.2-1.fc40"),
    Package("rpm", "tiny", "noarch", "1.0~rc1-2"),
    Package("rpm", "with-epoch", "noarch", "4:1.0^git1-3"),
]


def test_rpm(rpm_tree: Callable[..., Path], tmp_path: Path) -> None:
    tree = rpm_tree(*RPMS)
    assert _listed(tree) == RPM_PACKAGES
    with closing(sqlite3.connect(tree / "usr/lib/sysimage/rpm/rpmdb.sqlite")) as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("DELETE FROM Packages")
        database.commit()
        assert _listed(tree) == []  # by the log beside the database, where this still is
        (tree / "usr/lib/sysimage/rpm/rpmdb.sqlite-wal").rename(tmp_path / "log")
        assert _listed(tree) == RPM_PACKAGES


def test_rpm_with_pages_missing_or_damaged(rpm_tree: Callable[..., Path]) -> None:
    tree = rpm_tree(*RPMS)
    path = tree / "usr/lib/sysimage/rpm/rpmdb.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA journal_mode=DELETE")
    whole = path.read_bytes()
    for harmed in [whole[: len(whole) * part // 8] for part in range(1, 8)]:
        path.write_bytes(harmed)
        with pytest.raises(FormatError, match=r"rpmdb\.sqlite is damaged"):
            _listed(tree)
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE Packages SET blob = substr(blob, 1, 100)")
        database.commit()
    with pytest.raises(FormatError, match="a header of"):
        _listed(tree)


@pytest.mark.parametrize(
    "statements",
    [
        "CREATE VIEW Packages AS WITH RECURSIVE n(hnum, blob) AS (SELECT 1, x'' UNION ALL SELECT hnum + 1, x'' FROM n)"
        " SELECT * FROM n WHERE hnum < 0",
        "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob TEXT); INSERT INTO Packages VALUES (1, 'text')",
        "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY)",
        "CREATE TABLE Other (hnum INTEGER PRIMARY KEY)",
    ],
)
def test_a_database_that_is_not_of_rpms_making(tmp_path: Path, statements: str) -> None:
    directory = tmp_path / "tree/var/lib/rpm"
    directory.mkdir(parents=True)
    with closing(sqlite3.connect(directory / "rpmdb.sqlite")) as database:
        database.executescript(statements)
        database.commit()
    with pytest.raises(FormatError, match=r"var/lib/rpm/rpmdb\.sqlite is damaged"):
        _listed(tmp_path / "tree")


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: struct.pack(">II", 2, 20) + rest))
def test_any_bytes_are_a_header_or_an_error(blob: bytes) -> None:
    try:
        header = Header(blob)
    except ValueError:
        return
    assert "\0" not in header.name + header.version + header.release + header.architecture


def _package(name: str, version: str, architecture: str = "amd64") -> Package:
    return Package("dpkg", name, architecture, version)


def test_changes() -> None:
    old = [_package(*each) for each in (("same", "1"), ("up", "1.9"), ("down", "1.0"), ("gone", "1"))]
    new = [_package(*each) for each in (("same", "1"), ("up", "1.10"), ("down", "1.0~rc1"), ("come", "2"))]
    changes = compare(old, new)
    assert changes.upgraded == [Replaced(old[1], new[1])]
    assert changes.downgraded == [Replaced(old[2], new[2])]
    assert (changes.added, changes.removed) == ([new[3]], [old[3]])
    assert changes.summary() == "1 upgraded, 1 downgraded, 1 added, 1 removed"
    assert not compare(old, old)
    assert compare(old, old).summary() == ""


def test_changes_of_what_is_there_several_times() -> None:
    old = [_package("linux", "6.1"), _package("linux", "6.2"), _package("libc", "1"), _package("libc", "1", "i386")]
    new = [_package("linux", "6.2"), _package("linux", "6.10"), _package("libc", "2"), _package("libc", "1", "i386")]
    changes = compare(old, new)
    assert changes.upgraded == [Replaced(old[2], new[2]), Replaced(old[0], new[1])]
    assert not (changes.added or changes.removed or changes.downgraded)
    three = [_package("linux", version) for version in ("6.8", "6.9", "6.10")]
    assert compare([_package("linux", "6.1")], three).upgraded == [Replaced(_package("linux", "6.1"), three[2])]
    assert compare([_package("linux", "6.1")], three).added == three[:2]


def test_a_package_that_went_to_another_architecture_is_one_change() -> None:
    old, new = _package("a", "1", "amd64"), _package("a", "2", "all")
    assert compare([old], [new]).upgraded == [Replaced(old, new)]
