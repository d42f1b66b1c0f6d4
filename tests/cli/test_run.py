"""`fsview run`: a command inside a commit or a deployment, by the real bubblewrap."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MountView, TreeFactory
from tests.marks import needs_fuse, needs_root
from tests.running import PROJECT, RunFsview, clean_environment, run_cli
from tests.trees import Directory, File, Node, Spec, Symlink, build_tree
from tests.users import run_as_nobody_with_fuse
from tools import guardian
from tools.sysroot.layout import Sysroot
from tools.sysroot.origin import Origin
from tools.sysroot.settings import SysrootSettings

BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "cat", "ls", "touch", "id", "sleep", "mount", "readlink", "stat", "chown", "tty", "ps")
PROGRAM = File(BUSYBOX.read_bytes(), mode=0o755)
PROGRAMS: Spec = {"busybox": PROGRAM, **{name: Symlink("busybox") for name in APPLETS}}

pytestmark = needs_fuse


def _tree(version: str) -> dict[str, Node]:
    return {
        "bin": Symlink("usr/bin"),
        "usr": {"bin": PROGRAMS},
        "etc": {"version": version.encode(), "secret": File(b"for root's eyes\n", mode=0o600)},
        "var": {"lib": {"data": b"as committed\n"}, "closed": Directory({"f": b""}, mode=0o555)},
        "top": Directory({"own": b"x\n"}, mode=0o700),
    }


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a small system on the refs os/1 and os/2, and one in a directory on os/inner."""
    home = tmp_path_factory.mktemp("run")
    trees: dict[str, Spec] = {
        "os/1": _tree("1\n"),
        "os/2": _tree("2\n"),
        "os/inner": {"srv": {"chroot": _tree("inner\n")}},
    }
    run_cli(home, "init", home / "repo")
    for ref, spec in trees.items():
        tree = build_tree(home / ref.replace("/", "-"), spec)
        run_cli(home, "commit", "--repo", home / "repo", "-b", ref, "-s", ref, tree)
    return home / "repo"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Have temporary directories made where nothing may be left."""
    path = tmp_path / "temporary"
    path.mkdir()
    path.chmod(0o1777)
    yield path
    assert list(path.iterdir()) == []


@pytest.fixture
def run(run_fsview: RunFsview, repo: Path, temporary: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function: (*arguments, status=0) -> what `fsview run` did."""

    def run_it(*arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
        return run_fsview("run", *arguments, repo=repo, env={"TMPDIR": str(temporary)}, **more)

    return run_it


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_command_runs_in_a_revision(run: Run) -> None:
    assert run("os/1", "--", "cat", "/etc/version").stdout == "1\n"
    assert run("os/2@{0}", "--", "cat", "/etc/version").stdout == "2\n"
    assert run("os/inner:/srv/chroot", "--", "cat", "/etc/version").stdout == "inner\n"
    assert run("os/1", "--chdir", "/etc", "--", "cat", "version").stdout == "1\n"


def test_the_tree_is_read_only_and_var_is_thrown_away(run: Run) -> None:
    script = """
    for path in /usr/x /etc/x /x /top/x; do touch $path 2>/dev/null && echo $path; done
    cat /var/lib/data; echo written > /var/lib/data && cat /var/lib/data; touch /var/new /tmp/new /run/new && echo ok
    """
    for _ in range(2):
        assert run("os/1", "--", "sh", "-c", script).stdout == "as committed\nwritten\nok\n"


def test_etc_is_writable_and_thrown_away_with_ephemeral(run: Run) -> None:
    script = "echo changed > /etc/version; cat /etc/version; cat /etc/secret; touch /usr/x 2>/dev/null || echo ro"
    assert run("--ephemeral", "os/1", "--", "sh", "-c", script).stdout == "changed\nfor root's eyes\nro\n"
    assert run("os/1", "--", "cat", "/etc/version").stdout == "1\n"


@pytest.mark.parametrize("options", [(), ("-o", "place-inodes")])
def test_a_command_runs_in_a_mounted_view(
    run: Run, repo: Path, mount_view: MountView, options: tuple[str, ...]
) -> None:
    point = mount_view(repo, *options)
    script = "cat /etc/version; echo x > /var/lib/data; cat /var/lib/data"
    assert run(f"{point}/refs/os/2/", "--", "sh", "-c", script).stdout == "2\nx\n"
    assert run(point / "refs/os/inner/srv/chroot", "--", "cat", "/etc/version").stdout == "inner\n"
    assert "above the commits" in run(point / "refs", "--", "true", status=1).stderr
    assert (point / "refs/os/2/var/lib/data").read_bytes() == b"as committed\n"


def test_a_tree_that_lacks_what_is_mounted_on(
    run: Run, run_fsview: RunFsview, repo: Path, tree_factory: TreeFactory
) -> None:
    tree = tree_factory({"usr": _tree("")["usr"], "sbin": b"a file", "etc": Symlink("/usr"), "odd name": {"f": b""}})
    run_fsview("commit", "--repo", repo, "-b", "bare", "-s", "bare", tree)
    script = "ls -d /etc /var /proc/self /dev/null /tmp /run /sbin /odd*; ls /etc; touch /var/x"
    found = run("bare", "--", "/usr/bin/sh", "-c", f"PATH=/usr/bin; {script}")
    assert found.stdout.split("\n")[:7] == [
        "/dev/null",
        "/etc",
        "/odd name",
        "/proc/self",
        "/run",
        "/sbin",
        "/tmp",
    ]


def test_no_symlink_of_the_tree_leads_to_the_machines_files(
    run: Run, run_fsview: RunFsview, repo: Path, tree_factory: TreeFactory
) -> None:
    spec = {"bin": PROGRAMS, "usr": Symlink("/"), "var": Symlink("/etc")}
    run_fsview("commit", "--repo", repo, "-b", "leading", "-s", "out", tree_factory(spec))
    assert run("leading", "--", "ls", "/etc/", "/var/").stdout == "/etc/:\n\n/var/:\n"


def test_usr_etc_stands_in_for_etc(run: Run, run_fsview: RunFsview, repo: Path, tree_factory: TreeFactory) -> None:
    tree = _tree("")
    del tree["etc"]
    tree["usr"] = {"bin": PROGRAMS, "etc": {"version": b"of usr\n"}}
    run_fsview("commit", "--repo", repo, "-b", "usr", "-s", "usr", tree_factory(tree))
    assert run("usr", "--", "cat", "/etc/version").stdout == "of usr\n"


def test_user_environment_and_input_are_the_callers(run: Run) -> None:
    assert run("os/1", "--", "id", "-u").stdout == f"{os.getuid()}\n"
    assert run("os/1", "--", "cat", input="to be read").stdout == "to be read"
    assert run("os/1", "--", "sh", "-c", "echo $LC_ALL $TMPDIR").stdout == "C.UTF-8\n"
    assert run("os/1", "--", "readlink", "/proc/self/ns/net").stdout.strip() == os.readlink("/proc/self/ns/net")


def test_signals_are_as_the_caller_has_them(run: Run) -> None:
    script = "while read name value; do echo $name $value; done < /proc/self/status"
    lines = dict(line.partition(" ")[::2] for line in run("os/1", "--", "sh", "-c", script).stdout.splitlines())
    assert not int(lines["SigIgn:"], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)  # as Python has them
    assert int(lines["SigBlk:"], 16) == 0


def test_the_exit_status_is_the_commands(run: Run) -> None:
    run("os/1", "--", "sh", "-c", "exit 7", status=7)
    run("os/1", "--", "sh", "-c", "kill -9 $$", status=137)
    assert "nowhere" in run("os/1", "--", "nowhere", status=1).stderr


@needs_root
def test_root_inside_is_root_but_can_not_undo_what_is_read_only(run: Run) -> None:
    script = """
    touch /var/f; chown 7:8 /var/f; stat -c %u:%g /var/f; cat /top/own
    mount -o remount,rw /usr 2>/dev/null || echo refused
    """
    assert run("os/1", "--", "sh", "-c", script).stdout == "7:8\nx\nrefused\n"


class Started:
    """`fsview run` in the background."""

    def __init__(self, home: Path, *arguments: str | Path, repo: Path, temporary: Path) -> None:
        environment = clean_environment(home) | {"FSVIEW_REPO": str(repo), "TMPDIR": str(temporary)}
        command = [sys.executable, "-P", "-m", "tools", "run", *arguments]
        self.process = subprocess.Popen(command, env=environment, cwd=home, stdout=subprocess.PIPE, text=True)

    def wait_for(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{line}\n"


def test_signals_reach_the_command(repo: Path, temporary: Path, tmp_path: Path) -> None:
    script = "trap 'echo heard; exit 9' TERM USR1; echo ready; sleep 60 & wait"
    for number in (signal.SIGTERM, signal.SIGUSR1):
        started = Started(tmp_path, "os/1", "--", "sh", "-c", script, repo=repo, temporary=temporary)
        started.wait_for("ready")
        started.process.send_signal(number)
        assert started.process.communicate(timeout=60)[0] == "heard\n"
        assert started.process.returncode == 9


def test_a_guardian_leaves_ctrl_c_to_the_command_from_its_first_moment(temporary: Path) -> None:
    script = """
import os, signal
from tools.guardian import Guardian
def fork(real=os.fork):
    pid = real()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return pid
os.fork = fork
with Guardian():
    pass
"""
    environment = os.environ | {"TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-P", "-c", script], env=environment, check=True)
    assert list(temporary.iterdir()) == []


def test_a_killed_run_leaves_nothing(repo: Path, temporary: Path, tmp_path: Path) -> None:
    started = Started(tmp_path, "--ephemeral", "os/1", "--", "sh", "-c", "echo ready; sleep 600 & sleep 600", repo=repo,
                      temporary=temporary)  # fmt: skip
    started.wait_for("ready")
    assert [path for path in temporary.iterdir() if (path / "view/usr").exists()]
    started.process.kill()
    assert started.process.communicate(timeout=60)[0] == ""  # nobody is left who could write there
    for _ in range(600):
        if not list(temporary.iterdir()):
            return
        time.sleep(0.1)
    pytest.fail("the guardian has not cleaned up within a minute")


def test_processes_that_the_command_leaves_end_with_it(run: Run) -> None:
    assert run("os/1", "--", "sh", "-c", "sleep 600 & echo over", timeout_s=60).stdout == "over\n"


LEADER = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("script", "typed", "status", "said"),
    [
        ("trap 'echo heard; exit 7' INT; echo ready; sleep 60 & wait", b"\x03", 7, b"heard"),
        ("echo ready; exec sleep 60", b"\x03", 130, b""),
        ("(trap '' INT; sleep 60) & echo ready; wait", b"\x03", 130, b""),
        ("echo ready; exec sh", b"tty; echo $((6*7)); exit 3\n", 3, b"42"),
    ],
)
def test_a_terminal(
    repo: Path, temporary: Path, tmp_path: Path, script: str, typed: bytes, status: int, said: bytes
) -> None:
    mine, theirs = pty.openpty()
    environment = clean_environment(tmp_path) | {"FSVIEW_REPO": str(repo), "TMPDIR": str(temporary)}
    command = [sys.executable, "-P", "-m", "tools", "run", "os/1", "--", "sh", "-c", script]
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER, *command],
        env=environment,
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = _read_until(mine, b"ready")
    os.write(mine, typed)
    text += _read_until(mine, None)
    os.close(mine)
    assert process.wait(60) == status, text
    assert said in text


def _read_until(terminal: int, word: bytes | None) -> bytes:
    """Return what is written to a terminal until *word* is, or until nobody has it open."""
    text = b""
    while word is None or word not in text:
        try:
            text += os.read(terminal, 1000)
        except OSError:
            break
    return text


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("os/1",), 2, "put the command behind --"),
        (("os/1", "--"), 2, "put the command behind --"),
        (("--", "true"), 1, "no sysroot was named"),
        (("--generation", "1", "os/1", "--", "true"), 2, "is no deployment"),
        (("os/9", "--", "true"), 1, "no ref, commit or abbreviation"),
        (("os/1:/etc/version", "--", "true"), 1, "is no directory"),
        (("/usr", "--", "true"), 1, "is not in a mounted view"),
        (("--sysroot", ".", "--", "true"), 1, "is not a sysroot"),
    ],
    ids=repr,
)
def test_what_can_not_be_run_is_named(run: Run, arguments: tuple[str, ...], status: int, message: str) -> None:
    done = run(*arguments, status=status)
    assert message in done.stderr and done.stdout == ""


def test_a_machine_without_bubblewrap(run_fsview: RunFsview, repo: Path) -> None:
    python_only = {"PATH": str(Path(sys.executable).parent)}
    done = run_fsview("run", "os/1", "--", "true", repo=repo, env=python_only, status=18)
    assert "apt install bubblewrap" in done.stderr


def test_a_bubblewrap_that_fails(run_fsview: RunFsview, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bwrap").write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
    (tmp_path / "bin/bwrap").chmod(0o755)
    path = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = run_fsview("run", "os/1", "--", "true", repo=repo, env=path, status=18)
    assert "no namespaces here" in done.stderr and "can't make a sandbox here" in done.stderr


@pytest.fixture
def sysroot(tmp_path: Path, repo: Path, run_fsview: RunFsview) -> Path:
    """Return a sysroot with two generations, of os/1 and os/2, of which the second is current."""
    made = Sysroot.create(tmp_path / "sysroot", SysrootSettings("00" * 8, repo))
    stateroot = made.make_stateroot("debian")
    for number in (1, 2):
        commit = run_fsview("rev-parse", "--repo", repo, f"os/{number}").stdout.strip()
        origin = Origin(commit, f"{commit}.0", datetime.now(UTC))
        generation = stateroot.generations_directory / str(number)
        generation.mkdir()
        origin.save(generation / "origin.toml")
        run_fsview("checkout", "--repo", repo, f"os/{number}", stateroot.deployments / origin.deployment)
        shutil.rmtree(stateroot.deployments / origin.deployment / "var")
    stateroot.current_link.symlink_to("generations/2")
    (stateroot.var / "lib").mkdir()
    return made.path


def test_a_command_runs_in_a_deployment(run: Run, sysroot: Path) -> None:
    options = ("--sysroot", sysroot)
    assert run(*options, "--", "cat", "/etc/version").stdout == "2\n"
    assert run(*options, "--os", "debian", "--generation", "1", "--", "cat", "/etc/version").stdout == "1\n"
    assert "there is no generation 3" in run(*options, "--generation", "3", "--", "true", status=1).stderr
    script = "echo edited > /etc/version; echo data > /var/lib/data; touch /usr/x 2>/dev/null || echo ro"
    assert run(*options, "--ephemeral", "--", "sh", "-c", f"{script}; cat /var/lib/data").stdout == "ro\ndata\n"
    assert run(*options, "--", "sh", "-c", "cat /etc/version; ls /var/lib").stdout == "2\n"
    assert run(*options, "--", "sh", "-c", script).stdout == "ro\n"
    assert run(*options, "--", "sh", "-c", "cat /etc/version /var/lib/data").stdout == "edited\ndata\n"
    assert run(*options, "--generation", "1", "--", "sh", "-c", "cat /etc/version /var/lib/data").stdout == "1\ndata\n"


def test_a_deployment_stays_while_a_command_runs_in_it(sysroot: Path, run_fsview: RunFsview, tmp_path: Path) -> None:
    (version,) = (one for one in sysroot.glob("deploy/debian/deployments/*/etc/version") if one.read_text() == "1\n")
    tree = version.parent.parent
    words: list[str | Path] = [
        "run",
        "--sysroot",
        sysroot,
        "--generation",
        "1",
        "--",
        "sh",
        "-c",
        "echo in; read line; cat /etc/version",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "tools", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=clean_environment(tmp_path), cwd=PROJECT,
    ) as running:  # fmt: skip
        assert running.stdin is not None and running.stdout is not None and running.stdout.readline() == "in\n"
        said = run_fsview("undeploy", "--sysroot", sysroot, "1")
        assert f"{tree.name} is in use ('fsview run')" in said.stderr and tree.is_dir()
        run_fsview("cleanup", "--sysroot", sysroot, "--keep", "1")
        again = run_fsview("run", "--sysroot", sysroot, "--generation", "1", "--", "true", status=1)
        assert "there is no generation 1" in again.stderr
        assert running.communicate("\n")[0] == "1\n"
    run_fsview("cleanup", "--sysroot", sysroot, "--keep", "1")
    assert not tree.exists() and running.returncode == 0


@needs_root
def test_who_is_not_root_runs_commands_too(repo: Path, nobodys: Path) -> None:
    shutil.copytree(repo, nobodys / "repo")
    subprocess.run(["chown", "-R", "65534:65534", nobodys], check=True)
    script = (
        "id -u; cat /etc/version /etc/secret; touch /usr/x 2>/dev/null || echo ro; cd /var/lib; echo y > data; cat data"
    )
    done = run_as_nobody_with_fuse(nobodys, nobodys / "repo", "os/1", "--", "sh", "-c", script)
    assert done == (0, "65534\n1\nfor root's eyes\nro\ny\n", "")
    done = run_as_nobody_with_fuse(
        nobodys, nobodys / "repo", "--ephemeral", "os/1", "--", "sh", "-c", "echo x > /etc/version; cat /etc/version"
    )
    assert done == (0, "x\n", "")
    assert not list(nobodys.glob("fsview-run-*"))


@pytest.mark.parametrize(
    "said", [b'{ "child-pid": 12 }\n', b'{ "child-pid": 12, "mnt-namespace": 4 }\n{ "exit-code": 0 }\n']
)
def test_a_command_that_ends_before_its_start_was_told_of(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int) -> int:
        raise ProcessLookupError

    monkeypatch.setattr("tools.guardian.os.pidfd_open", gone)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert guardian._tell(theirs, said) is None
        assert ours.recv(100) == b"12"
