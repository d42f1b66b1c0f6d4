"""Locks that any user could hold for good, lock files that are something else, and whom a command waits for."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from store.errors import AccessError
from store.locking import LockFile
from store.repository import Repository
from tests.running import PROJECT, RunFsview, clean_environment
from tests.sysroot.rig import Machine, release
from tests.users import AS_NOBODY, NOBODY, run_as_nobody, try_as_nobody

EACCES = 13


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _lock_for_good(path: Path) -> None:
    """What any user could do with a file that he may read: a shared lock stops everybody who wants it for himself."""
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))


@pytest.fixture
def opened(run_fsview: RunFsview, open_path: Path) -> Machine:
    """Return a machine that others may look into, with the locks that it had once."""
    machine = Machine.make(run_fsview, open_path)
    machine.commit("os/a", release("1", {}))
    machine.run("deploy", "os/a")
    for path in (machine.repository, machine.repository / "index"):
        path.chmod(0o755)
    for lock in _locks(machine):
        lock.touch()
        lock.chmod(0o644)
    return machine


def _locks(machine: Machine) -> list[Path]:
    own = [machine.repository / "lock", machine.repository / "index/lock.mdb"]
    return [*own, machine.path / "lock", machine.path / "in-use"]


@pytest.mark.unchecked  # for its directories are open to others, too
def test_no_lock_is_open_to_others(opened: Machine) -> None:
    """Old ones are narrowed by the next command of their owner."""
    locks = _locks(opened)
    assert [try_as_nobody(partial(_lock_for_good, lock)) for lock in locks] == [0] * 4
    opened.commit("os/b", release("2", {}), second=1)
    opened.run("deploy", "os/b")
    opened.run("undeploy", "1")
    assert [try_as_nobody(partial(_lock_for_good, lock)) for lock in locks] == [EACCES] * 4


def test_locks_are_made_for_their_owner_or_the_group_that_may_write(run_fsview: RunFsview, open_path: Path) -> None:
    repo = open_path / "repo"
    os.umask(0)
    Repository.create(repo).close()
    for mode, expected in ((0o700, 0o600), (0o755, 0o600), (0o2770, 0o660), (0o700, 0o600)):
        repo.chmod(mode)
        with Repository.open(repo) as repository, repository.lock():
            assert _mode(repo / "lock") == expected
    assert _mode(repo / "index/lock.mdb") == 0o600
    os.umask(0o077)
    (repo / "lock").unlink()
    repo.chmod(0o2770)
    with Repository.open(repo) as repository, repository.lock():
        assert _mode(repo / "lock") == 0o660


def test_root_makes_no_lock_that_shuts_the_owner_out(run_fsview: RunFsview, nobodys: Path) -> None:
    with LockFile(nobodys / "lock") as file:
        file.take(0, exclusive=True)
    assert (nobodys / "lock").stat().st_uid == NOBODY


def _symlink(lock: Path, victim: Path) -> None:
    lock.symlink_to(victim)


def _dangling(lock: Path, victim: Path) -> None:
    lock.symlink_to(victim.with_name("new"))


def _fifo(lock: Path, victim: Path) -> None:
    os.mkfifo(lock)


def _device(lock: Path, victim: Path) -> None:
    os.mknod(lock, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def _directory(lock: Path, victim: Path) -> None:
    lock.mkdir()


def _somebodys(lock: Path, victim: Path) -> None:
    lock.touch()
    os.chown(lock, NOBODY, NOBODY)


ODD = {one.__name__.strip("_"): one for one in (_symlink, _dangling, _fifo, _device, _directory, _somebodys)}


@pytest.mark.parametrize("how", ODD)
def test_a_lock_that_is_something_else_is_refused(run_fsview: RunFsview, open_path: Path, how: str) -> None:
    machine = Machine.make(run_fsview, open_path)
    machine.commit("os/a", release("1", {}))
    victim = open_path / "victim"
    victim.write_bytes(b"of root's")
    for lock, words in (
        (machine.repository / "lock", ("refs", "--create=x", "os/a", "--repo", machine.repository)),
        (machine.path / "lock", ("deploy", "os/a", "--sysroot", machine.path)),
    ):
        lock.unlink(missing_ok=True)
        ODD[how](lock, victim)
        done = run_fsview(*words, status=None, timeout_s=60)
        assert done.returncode in (1, 10) and str(lock) in done.stderr and "Traceback" not in done.stderr
        os.rmdir(lock) if how == "directory" else lock.unlink()
        run_fsview(*words)
    assert victim.read_bytes() == b"of root's" and not (open_path / "new").exists()


@pytest.mark.unchecked
def test_who_may_not_lock_is_told_what_to_do(opened: Machine, nobodys: Path) -> None:
    opened.run("deploy", "os/a")
    with Repository.open(opened.repository), pytest.raises(AccessError, match="run fsview as the owner of"):
        _raise_as_nobody(lambda: LockFile(opened.repository / "lock"))
    said = run_as_nobody(nobodys, "deploy", "--sysroot", opened.path, "os/a")
    assert said.status == 1 and "Traceback" not in said.stderr


def _raise_as_nobody(act: Callable[[], object]) -> None:
    """Do something with nobody's rights to files, in this process."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        act()
    finally:
        os.seteuid(0)
        os.setegid(0)


# Waiting


@contextmanager
def _holding(program: str, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that says that it holds a lock, and gives it up when its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=clean_environment(Path("/")), cwd=PROJECT,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            holder.communicate()


HOLD = (
    "import sys; from pathlib import Path; from store.repository import Repository\n"
    "with Repository.open(Path(sys.argv[1])) as repository, repository.lock(exclusive=True):\n"
    "    print('held', flush=True); sys.stdin.read()"
)
WRITE = (
    "import sys; from pathlib import Path; from store.repository import Repository\n"
    "with Repository.open(Path(sys.argv[1])) as repository:\n"
    "    repository.database.write(lambda writing: (print('held', flush=True), sys.stdin.read()))"
)
WAITING = {  # who holds a repository, and what is said of him
    "its lock": (HOLD, "waiting for process {pid} ("),
    "its index": (WRITE, "waiting for another command, which is writing to {repo}/index"),
}


@pytest.mark.parametrize("what", WAITING)
def test_a_command_that_waits_says_for_whom(run_fsview: RunFsview, tmp_path: Path, what: str) -> None:
    program, text = WAITING[what]
    repo, tree = tmp_path / "repo", tmp_path / "tree"
    tree.mkdir()
    run_fsview("init", repo)
    run_fsview("commit", "--repo", repo, "-b", "main", tree)
    command: list[str | Path] = [sys.executable, "-m", "tools", "refs", "--repo", repo, "--create=x", "main"]
    with (
        _holding(program, repo) as holder,
        subprocess.Popen(command, stderr=subprocess.PIPE, env=clean_environment(tmp_path), cwd=PROJECT) as waiting,
    ):
        assert waiting.stderr is not None
        has_spoken = select.select([waiting.stderr], [], [], 60)[0]
        line = waiting.stderr.readline().decode() if has_spoken else "it waits, and says nothing"
        holder.communicate()
        assert line.startswith(f"fsview: {text.format(pid=holder.pid, repo=repo)}")
        assert waiting.wait() == 0 and waiting.stderr.read() == b""


def test_several_who_share_a_lock_and_what_they_forked(tmp_path: Path) -> None:
    """A child has its parent's descriptor, and with that the lock; it isn't one more who is waited for."""
    with Repository.create(tmp_path / "repo") as repository:
        pass
    shared = HOLD.replace("exclusive=True", "").replace(
        "    print", "    import os; pid = os.fork() or os.read(0, 1) or os._exit(0); print"
    )
    shared = shared.replace("sys.stdin.read()", "os.read(0, 1); os.waitpid(pid, 0)")
    with _holding(shared, repository.path) as one, _holding(shared, repository.path) as other:
        with LockFile(repository.path / "lock") as file:
            assert not file.try_to_take(0, exclusive=True)
            said = file.holder(0, exclusive=True)
        first = min(one.pid, other.pid)
        assert said.startswith(f"process {first} (") and said.endswith(") and 1 more")


def test_who_can_not_be_seen_is_somebody(nobodys: Path) -> None:
    """A user who waits for root may not look into root's processes."""
    hold = (
        "import sys; from pathlib import Path; from store.locking import LockFile\n"
        "with LockFile(Path(sys.argv[1])) as file:\n"
        "    file.take(0, exclusive=True); print('held', flush=True); sys.stdin.read()"
    )

    def look() -> None:
        with LockFile(nobodys / "lock") as other:
            assert not other.try_to_take(0, exclusive=True)
            assert other.holder(0, exclusive=True) == "another process"

    with _holding(hold, nobodys / "lock"):
        assert try_as_nobody(look) == 0


# Trees in use


def test_nobody_can_keep_others_from_running_in_a_deployment(opened: Machine) -> None:
    """Any user may open the root of a tree, and lock it."""
    root = opened.root.resolve()
    hold = (
        "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command: list[str | Path] = [*AS_NOBODY, "/usr/bin/python3", "-c", hold, root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        said = opened.fsview("run", "--sysroot", opened.path, "--", "nothing-of-this-name", status=None, timeout_s=60)
        assert "nothing-of-this-name" in said.stderr
        holder.communicate()
