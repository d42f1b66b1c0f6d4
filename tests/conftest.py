"""Fixtures for every room of tests/.

leak_guard     (autouse) after each test no process and no mount of it is left; umask and directory are restored
sound          (autouse) after each test every repository that it wrote is checked, unless it is marked `unchecked`
repo_path      where a test's repository goes (not created)
prefork        a process of this run that forks commands: they needn't import the program again
run_fsview     the real command line, in a process of its own; fails unless the exit status is the expected one
make_repo      an initialised repository
mount_view     a repository mounted for the length of the test
tree_factory   trees on disk from a spec of tests.trees
debian_tree    a real Debian 12 root tree, built once (root and network)
tell           lines that are printed when all tests are over, before pytest's own summary
nobodys        a directory of the user nobody's, for tests.users (root)
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from store.repository import SETTINGS_FILE
from tests.checking import assert_sound
from tests.leaks import TOKEN_NAME, LeakGuard
from tests.marks import HAS_FUSE, NO_FUSE
from tests.prefork import Prefork
from tests.running import PROJECT, RunFsview, clean_environment, run_cli
from tests.trees import Spec, build_tree
from tests.users import NOBODY

# The same examples in each run, so that a red one tells of what was changed; `make torture` looks for new ones.
settings.register_profile(
    "fsview", deadline=None, print_blob=True, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fsview")

TreeFactory = Callable[..., Path]  # (spec: Spec | None = None, name: str | None = None) -> Path
MountView = Callable[..., Path]  # (repo: Path, *options: str) -> Path
Tell = Callable[..., None]  # (*lines: str)

_TOLD = "told"


def pytest_configure() -> None:
    """Give the tests what a user's shell has, whoever started them.

    Ctrl-C ends what they start, though a script that ran them with "&" has it ignored; others may read what they make.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(0o022)


@pytest.fixture(scope="session")
def _run_guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeakGuard]:
    os.environ[TOKEN_NAME] = uuid.uuid4().hex
    guard = LeakGuard(tmp_path_factory.getbasetemp(), os.environ[TOKEN_NAME])
    before = guard.survey()
    yield guard
    left = guard.sweep(before)
    if left:
        pytest.fail("left behind by this run (ended now):\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def leak_guard(_run_guard: LeakGuard) -> Iterator[LeakGuard]:
    """Fail a test that leaves a process or a mount behind; end them first. Restore umask and directory."""
    before, directory, umask = _run_guard.survey(), os.getcwd(), _current_umask()
    yield _run_guard
    os.chdir(directory)
    os.umask(umask)
    left = _run_guard.sweep(before)
    if left:
        pytest.fail("this test left behind (ended now):\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def sound(request: pytest.FixtureRequest, leak_guard: LeakGuard) -> Iterator[None]:
    """Fail a test that leaves an error in a repository below its directory; what was harmed on purpose is marked."""
    path = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if path is not None and request.node.get_closest_marker("unchecked") is None:
        for repository in _repositories(path):
            assert_sound(repository, garbage=True)


def _repositories(below: Path) -> list[Path]:
    """Return the repositories in a directory and in those right in it, if they are this user's to read."""
    found = [*below.glob(SETTINGS_FILE), *below.glob(f"*/{SETTINGS_FILE}"), *below.glob(f"*/*/{SETTINGS_FILE}")]
    return [path.parent for path in found if (path.parent / "index" / "data.mdb").exists()]


def _current_umask() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))


@pytest.fixture
def repo_path(tmp_path: Path) -> Path:
    """Return the path where this test's repository goes; nothing is there yet."""
    return tmp_path / "repo"


@pytest.fixture(scope="session")
def prefork(_run_guard: LeakGuard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefork]:
    """Return what starts commands quickly."""
    prefork = Prefork(clean_environment(tmp_path_factory.getbasetemp()))
    _run_guard.spare(prefork.pid)
    yield prefork
    prefork.close()


@pytest.fixture
def run_fsview(tmp_path: Path, prefork: Prefork) -> RunFsview:
    """Return `tests.running.run_cli` with this test's directory as home and working directory."""
    return functools.partial(run_cli, tmp_path, prefork=prefork)


@pytest.fixture
def make_repo(run_fsview: RunFsview, tmp_path: Path) -> Callable[..., Path]:
    """Return a function: (name="repo", *options) -> the path of a new repository, made by `fsview init`."""

    def make(name: str = "repo", *options: str) -> Path:
        run_fsview("init", *options, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def mount_view(run_fsview: RunFsview, tmp_path: Path) -> Iterator[MountView]:
    """Return a function: (repo, *options) -> the mount point; unmounted by `fsview umount` at the end."""
    if not HAS_FUSE:
        pytest.skip(NO_FUSE)
    mounts: list[Path] = []

    def mount(repo: Path, *options: str) -> Path:
        point = tmp_path / f"mnt{len(mounts) or ''}"
        point.mkdir()
        run_fsview("mount", *options, repo, point)
        mounts.append(point)
        return point

    yield mount
    for point in reversed(mounts):
        if os.path.ismount(point):  # the test may have unmounted it
            run_fsview("umount", point)


@pytest.fixture
def tree_factory(tmp_path: Path) -> TreeFactory:
    """Return a function: (spec=None, name=None) -> a new tree below tmp_path; None is everything in one tree."""
    count = 0

    def make(spec: Spec | None = None, name: str | None = None) -> Path:
        nonlocal count
        count += 1
        return build_tree(tmp_path / (name or f"tree{count}"), spec)

    return make


@pytest.fixture(scope="session")
def debian_tree() -> Path:
    """Return a Debian 12 minbase root tree (about 6,700 entries), built by tests/bench/trees.sh if it is not there."""
    trees = Path(os.environ.get("FSVIEW_TREES", PROJECT / "build" / "trees"))
    tree = trees / "debian-12-base"
    if not (trees / "debian-12-base.done").exists():
        if os.geteuid() != 0:
            pytest.skip("building a Debian tree takes root")
        environment = os.environ | {"FSVIEW_TREES": str(trees)}
        subprocess.run([PROJECT / "tests/bench/trees.sh", "debian-12-base"], env=environment, check=True)
    return tree


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """Return a directory of the user nobody's, not below pytest's own, which lets no other user through."""
    if os.geteuid() != 0:
        pytest.skip("takes root, to become somebody else")
    with tempfile.TemporaryDirectory(prefix="fsview-nobody-") as path:
        os.chmod(path, 0o755)
        os.chown(path, NOBODY, NOBODY)
        closed = [parent for parent in Path(path).resolve().parents if not parent.stat().st_mode & 0o001]
        assert not closed, f"{closed[-1]} lets no other user through: set TMPDIR to a directory elsewhere"
        yield Path(path)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Return a function: (*lines) -> None; they are printed at the end, whichever process runs the test."""
    return lambda *lines: record_property(_TOLD, "\n".join(lines))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests told."""
    reports = chain.from_iterable(terminalreporter.getreports(outcome) for outcome in ("passed", "failed"))
    for report in sorted(reports, key=lambda report: report.nodeid):
        for text in (value for name, value in report.user_properties if name == _TOLD and report.when == "call"):
            terminalreporter.write_line(f"{report.nodeid}:\n{text}\n")
