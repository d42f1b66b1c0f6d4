"""`fsview run`: hostile code in the tree, as root and as another user, against the machine around it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from errno import EPERM, errorcode
from pathlib import Path

import pytest

from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview, clean_environment, run_cli
from tests.trees import File, Node, Symlink, build_tree
from tests.users import NOBODY, run_as_nobody_with_fuse

SOURCE = Path(__file__).with_name("attacks.c")
REFUSED_BY_THE_FILTER = (
    "user_namespace", "user_namespace_clone", "keyring", "keyring_32", "add_key", "request_key",
    "sti", "sti_upper_half", "linux", "sti_32", "linux_32",
)  # fmt: skip
NEEDS_OF_OTHERS = ("process", "stdout", "null", "random", "terminal", "new_session")

pytestmark = [needs_fuse, needs_root]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a tree on the ref os, in which there is nothing but the attacks and a shell."""
    home = tmp_path_factory.mktemp("attacks")
    program = home / "attacks"
    subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Werror", "-o", program, SOURCE], check=True)
    spec: dict[str, Node] = {
        "bin": Symlink("usr/bin"),
        "usr": {"bin": {"attacks": File(program.read_bytes(), mode=0o755), "busybox": _busybox(), "sh": _BUSYBOX,
                        "cat": _BUSYBOX, "ls": _BUSYBOX}},
        "etc": {},
        "srv": {},
    }  # fmt: skip
    run_cli(home, "init", home / "repo")
    run_cli(home, "commit", "--repo", home / "repo", "-b", "os", "-s", "os", build_tree(home / "tree", spec))
    return home / "repo"


_BUSYBOX = Symlink("busybox")


def _busybox() -> File:
    return File(Path("/bin/busybox").read_bytes(), mode=0o755)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Have temporary directories made where nothing may be left."""
    path = tmp_path / "temporary"
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []


@pytest.fixture
def sysroot(tmp_path: Path, repo: Path, run_fsview: RunFsview) -> Path:
    """Return a sysroot in which the tree is deployed: its /var is on a real file system."""
    path = tmp_path / "sysroot"
    run_fsview("sysroot", "init", path, "--repo", repo)
    run_fsview("os-init", "--sysroot", path, "main")
    run_fsview("deploy", "--sysroot", path, "os")
    return path


@pytest.fixture
def run(run_fsview: RunFsview, sysroot: Path, temporary: Path) -> Run:
    """Return a function: (*words of `fsview run`) -> what that did, in the deployment."""
    environment = {"TMPDIR": str(temporary)}
    return lambda *words, **more: run_fsview("run", "--sysroot", sysroot, *words, env=environment, **more)


def _results(text: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (line.partition("=") for line in text.splitlines())}


def _succeeded(text: str) -> list[str]:
    results = _results(text)
    assert len(results) > 10
    return [name for name, number in results.items() if number == 0]


def _failed(text: str) -> dict[str, str]:
    return {name: errorcode[number] for name, number in _results(text).items() if number != 0}


@pytest.mark.parametrize("options", [(), ("--ephemeral",)], ids=repr)
def test_root_inside_does_nothing_to_the_machine(run: Run, options: tuple[str, ...]) -> None:
    said = run(*options, "--", "attacks", "all").stdout
    assert _succeeded(said) == []
    assert {name: _results(said)[name] for name in REFUSED_BY_THE_FILTER} == dict.fromkeys(REFUSED_BY_THE_FILTER, EPERM)


def test_root_of_a_revision_does_nothing_to_the_machine(run_fsview: RunFsview, repo: Path, temporary: Path) -> None:
    said = run_fsview("run", "os", "--", "attacks", "all", repo=repo, env={"TMPDIR": str(temporary)}).stdout
    assert _succeeded(said) == []


def test_what_packages_need_works(run: Run) -> None:
    said = run("--no-network", "--", "attacks", "needs").stdout  # a port 80 of its own
    assert _failed(said) == {} and "port" in _results(said)


def test_who_is_not_root_does_nothing_either(repo: Path, nobodys: Path) -> None:
    subprocess.run(["cp", "-a", repo, nobodys / "repo"], check=True)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", nobodys], check=True)
    status, said, error = run_as_nobody_with_fuse(nobodys, nobodys / "repo", "os", "--", "attacks", "all")
    assert (status, error, _succeeded(said)) == (0, "", [])
    assert {name: _results(said)[name] for name in REFUSED_BY_THE_FILTER} == dict.fromkeys(REFUSED_BY_THE_FILTER, EPERM)
    _, said, _ = run_as_nobody_with_fuse(nobodys, nobodys / "repo", "os", "--", "attacks", "needs")
    assert set(_succeeded(said)) >= set(NEEDS_OF_OTHERS)
    status, _, error = run_as_nobody_with_fuse(
        nobodys, nobodys / "repo", "--cap-add", "NET_RAW", "os", "--", "attacks", "all"
    )
    assert status == 2 and "only root has capabilities to give" in error


def _sets(run: Run, *options: str, process: str = "self") -> dict[str, set[str]]:
    text = run(*options, "--", "cat", f"/proc/{process}/status").stdout
    lines = dict(line.split(":\t") for line in text.splitlines() if line.startswith(("Cap", "Seccomp:", "NoNewPrivs")))
    assert lines.pop("NoNewPrivs") == "1" and lines.pop("Seccomp") == "2"
    return {name: {str(number) for number in range(64) if int(bits, 16) >> number & 1} for name, bits in lines.items()}


KEPT = {"0", "1", "3", "4", "5", "6", "7", "8", "10", "18", "29", "31"}  # by linux/capability.h


def test_all_sets_of_capabilities_are_short(run: Run) -> None:
    held = _sets(run)
    assert set(held) == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
    assert held == dict.fromkeys(held, KEPT)
    first = _sets(run, process="1")
    assert first == {name: KEPT if name == "CapBnd" else set() for name in held}


def test_a_capability_is_added_by_name(run: Run) -> None:
    for word in ("SYS_PTRACE", "cap_sys_ptrace"):
        assert set(map(frozenset, _sets(run, "--cap-add", word).values())) == {frozenset(KEPT | {"19"})}
    said = _results(run("--cap-add", "SYS_PTRACE", "--cap-add", "NET_RAW", "--", "attacks", "all").stdout)
    assert (said["other_traced"], said["raw_socket"], said["clock"]) == (0, 0, EPERM)
    assert "'BPFF' is not one of" in run("--cap-add", "bpff", "--", "attacks", "all", status=2).stderr


def test_with_sys_admin_there_are_user_namespaces(run: Run) -> None:
    said = _results(run("--cap-add", "SYS_ADMIN", "--", "attacks", "all").stdout)
    assert (said["user_namespace"], said["user_namespace_clone"], said["user_namespace_clone3"]) == (0, 0, 0)
    assert said["sti"] == EPERM


def test_what_root_lacks_itself_it_neither_keeps_nor_adds(sysroot: Path, temporary: Path, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path) | {"TMPDIR": str(temporary)}
    lacking = ["setpriv", "--bounding-set=-setfcap,-net_raw", sys.executable, "-P", "-m", "tools", "run"]
    words = ["--sysroot", str(sysroot), "--", "cat", "/proc/self/status"]
    done = subprocess.run([*lacking, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and f"CapEff:\t{sum(1 << int(n) for n in KEPT - {'31'}):016x}" in done.stdout
    done = subprocess.run([*lacking, "--cap-add", "NET_RAW", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 18 and "NET_RAW can't be added" in done.stderr


def test_no_open_file_is_handed_over(run: Run, sysroot: Path, temporary: Path, tmp_path: Path) -> None:
    root, file = os.open("/", os.O_RDONLY), os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    environment = clean_environment(tmp_path) | {"TMPDIR": str(temporary)}
    for words in ((), ("--ephemeral",)):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tools", "run", "--sysroot", sysroot, *words, "--", "attacks", "descriptors"],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, pass_fds=(root, file),
        )  # fmt: skip
        assert (done.stdout, done.returncode) == ("0 1 2 ", 0), done.stderr
    os.close(root)
    os.close(file)


def _redirected(tmp_path: Path, temporary: Path, sysroot: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell outside, in which "$run" is `fsview run`."""
    command = f'run() {{ {sys.executable} -P -m tools run --sysroot {sysroot} -- "$@"; }}\n{text}'
    environment = clean_environment(tmp_path) | {"TMPDIR": str(temporary)}
    return subprocess.run(["sh", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True)


def test_a_file_that_is_read_is_not_written(sysroot: Path, temporary: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    file.chmod(0o600)
    _redirected(tmp_path, temporary, sysroot, "run attacks input < file")
    assert file.read_text() == "precious" and file.stat().st_mode & 0o7777 == 0o600


def test_a_file_that_is_written_becomes_no_program_of_roots(sysroot: Path, temporary: Path, tmp_path: Path) -> None:
    for text in ("run attacks output > file 2>&1", "run attacks output 2> file > other"):
        done = _redirected(tmp_path, temporary, sysroot, text)
        assert done.returncode == 0, done.stderr
        assert {path.stat().st_mode & 0o7777 for path in (tmp_path / "file",)} == {0o644}
    assert (tmp_path / "other").read_text() == "a program\n"


def test_a_directory_is_no_input(sysroot: Path, temporary: Path, tmp_path: Path) -> None:
    done = _redirected(tmp_path, temporary, sysroot, "run ls < /")
    assert done.returncode != 0 and done.stdout == ""


OUTER = """
import fcntl, os, select, subprocess, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
before = os.fstat(0)
subprocess.run(sys.argv[1:])
waiting = os.read(0, 100) if select.select([0], [], [], 0)[0] else b""
print("found", waiting, before[:6] == os.fstat(0)[:6], flush=True)
"""


def test_nothing_is_typed_into_the_callers_terminal(sysroot: Path, temporary: Path, tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "tools", "run", "--sysroot", str(sysroot), "--", "attacks", "type"]
    process = subprocess.Popen(
        [sys.executable, "-c", OUTER, *command],
        env=clean_environment(tmp_path) | {"TMPDIR": str(temporary)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    assert process.wait(60) == 0
    said = os.read(mine, 10_000)
    os.close(mine)
    assert b"tried" in said and b"found b'' True" in said, said


def test_shared_memory_processes_and_network_are_not_the_machines(run: Run) -> None:
    for name in ("ipc", "pid", "mnt"):
        inside = run("--", "ls", "-l", f"/proc/self/ns/{name}").stdout
        assert os.readlink(f"/proc/self/ns/{name}") not in inside and f"{name}:[" in inside
    inside = run("--no-network", "--", "ls", "-l", "/proc/self/ns/net").stdout
    assert os.readlink("/proc/self/ns/net") not in inside


def test_no_directory_for_temporary_files_that_another_may_exchange(
    sysroot: Path, run_fsview: RunFsview, nobodys: Path
) -> None:
    words = ("run", "--sysroot", sysroot, "--", "attacks", "descriptors")
    said = run_fsview(*words, env={"TMPDIR": str(nobodys)}, status=18).stderr
    assert f"other users may exchange what is in {nobodys}" in said and list(nobodys.iterdir()) == []
    os.chown(nobodys, 0, 0)
    for mode, status in ((0o777, 18), (0o1777, 0)):
        nobodys.chmod(mode)
        run_fsview(*words, env={"TMPDIR": str(nobodys)}, status=status)
    (nobodys / "link").symlink_to(nobodys)
    run_fsview(*words, env={"TMPDIR": str(nobodys / "link")})


def test_the_directory_of_a_run_is_closed_to_others(run: Run, temporary: Path) -> None:
    environment = os.environ | {"TMPDIR": str(temporary)}
    script = (
        "import os; from tools.guardian import Guardian\nwith Guardian() as one: print(oct(os.stat(one.path).st_mode))"
    )
    command = ["sh", "-c", 'umask 0; exec "$0" -P -c "$1"', sys.executable, script]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == "0o40700\n"


SWAPPING = """
import os, sys
import tools.sandbox
real, (_, root, elsewhere, *words) = tools.sandbox.run_captive, sys.argv
def swapped(*arguments):
    for name in ("srv", "etc"):
        os.rename(f"{root}/{name}", f"{root}/{name}-away")
        os.symlink(elsewhere, f"{root}/{name}")
    return real(*arguments)
tools.sandbox.run_captive = swapped
sys.argv = ["fsview", *words]
from tools.cli import main
main()
"""


@pytest.mark.parametrize("options", [(), ("--ephemeral",)], ids=repr)
def test_what_is_exchanged_after_it_was_looked_at_leads_nowhere(
    sysroot: Path, temporary: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (secrets := tmp_path / "secrets").mkdir()
    (secrets / "secret").write_text("root's")
    root = (sysroot / "deploy/main/current/root").resolve()
    words = ["run", "--sysroot", str(sysroot), *options, "--", "ls", "/srv", "/etc"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", SWAPPING, root, secrets, *words],
        env=clean_environment(tmp_path) | {"TMPDIR": str(temporary)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "/etc:\n\n/srv:\n", done.stderr
    assert (root / "srv").readlink() == secrets  # the exchange has happened
