"""Mounting on other machines and as other users: in a namespace whose mounts nobody else sees."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TreeFactory
from tests.marks import needs_fuse, needs_root
from tests.running import RunFsview, clean_environment
from tests.trees import Directory, File

pytestmark = [
    needs_fuse,
    needs_root,
]


def _in_a_namespace(script: str, *arguments: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root with mounts that nobody else sees."""
    environment = clean_environment(home) | {"PYTHON": sys.executable}
    command: list[str | Path] = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        script,
        "sh",
        *arguments,
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


MOUNT = '"$PYTHON" -P -m tools mount "$1" "$2"'
MISSING = {
    "no /dev/fuse": ("mount -t tmpfs none /dev", "modprobe fuse"),
    "another device": ('mknod "$3/null" c 1 3; mount --bind "$3/null" /dev/fuse; rm "$3/null"', "can't be mounted"),
}


@pytest.mark.parametrize("what", MISSING)
def test_a_machine_without_fuse(repo: Path, point: Path, tmp_path: Path, what: str) -> None:
    prepare, text = MISSING[what]
    done = _in_a_namespace(f"{prepare}; {MOUNT}", repo, point, tmp_path, home=tmp_path)
    assert done.returncode == 17 and text in done.stderr, done


# A user of no account, with a /dev/fuse that everybody may open, as distributions have it. The capability is for
# finding Python and this project, wherever they are; the setuid helper doesn't have it.
AS_NOBODY = """
mount -t tmpfs -o mode=755 none /mnt
mknod -m 666 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse
mkdir /mnt/home /mnt/home/mnt; cp -r "$1" /mnt/home/repo; chown -R 65534:65534 /mnt/home; export HOME=/mnt/home; cd /mnt
nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +dac_read_search \
    --ambient-caps +dac_read_search -- "$@"; }
fsview() { nobody "$PYTHON" -P -m tools "$@" 2>&1; }
"""


def test_a_user_mounts_reads_and_unmounts(repo: Path, tmp_path: Path) -> None:
    script = """
    fsview mount home/repo home/mnt
    nobody cat home/mnt/refs/r/d/f
    fsview mount home/repo home/mnt || echo $?
    fsview umount home/mnt
    fsview mount -o allow_other home/repo home/mnt || echo $?
    fsview mount home/repo / || echo $?
    """
    done = _in_a_namespace(AS_NOBODY + script, repo, home=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("content") and "is mounted at /mnt/home/mnt already" in lines[0] and lines[1] == "17", (
        done
    )
    assert "user_allow_other" in lines[2] and lines[3] == "17"
    assert "mount point" in lines[4] and lines[5] == "17" and done.returncode == 0


def test_a_user_without_the_helper(repo: Path, tmp_path: Path) -> None:
    script = """
    nobody env PATH=/nowhere "$PYTHON" -P -m tools mount home/repo home/mnt
    """
    done = _in_a_namespace(AS_NOBODY + script, repo, home=tmp_path)
    assert done.returncode == 17 and "apt install fuse3" in done.stderr


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("allow_other", "open\n1\nsecret of root's\n"),  # modes and owners bind whoever is let in, but not root
        ("ro", "1\n1\nsecret of root's\n"),  # nobody but root is let in
    ],
)
def test_who_may_read_what(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory, tmp_path: Path, option: str,
    expected: str,
) -> None:  # fmt: skip
    repo = make_repo()
    tree = tree_factory({"open": b"open\n", "shadow": File(b"secret of root's\n", mode=0o600)})
    run_fsview("commit", "--repo", repo, "-b", "r", tree)
    script = """
    mount -t tmpfs -o mode=755 none /mnt; mkdir /mnt/view
    "$PYTHON" -P -m tools mount -o "$2" "$1" /mnt/view
    for name in open shadow; do
        setpriv --reuid 65534 --regid 65534 --clear-groups cat /mnt/view/refs/r/$name 2>/dev/null || echo $?
    done
    cat /mnt/view/refs/r/shadow
    "$PYTHON" -P -m tools umount /mnt/view
    """
    done = _in_a_namespace(script, repo, Path(option), home=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("owner=me,default_permissions", ["600 65534:65534", "400 65534:65534", "755 65534:65534", "shadow", "none"]),
        ("default_permissions", ["640 0:42", "0 0:0", "755 0:0", "denied", "denied"]),
        ("ro", ["640 0:42", "0 0:0", "755 0:0", "shadow", "none"]),  # one's own view hides nothing from oneself
        ("uid=7,gid=8", ["640 7:8", "0 7:8", "755 7:8", "shadow", "none"]),  # nothing is checked, nothing but shown
    ],
)
def test_who_takes_root_s_place_reads_what_root_could(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory, tmp_path: Path, options: str,
    expected: list[str],
) -> None:  # fmt: skip
    repo = make_repo()
    tree = tree_factory({"shadow": File(b"shadow", mode=0o640, owner=(0, 42)), "none": File(b"none", mode=0), "d": {}})
    run_fsview("commit", "--repo", repo, "-b", "r", tree)
    script = f"""
    fsview mount -o {options} home/repo home/mnt
    fsview mount -o suid home/repo home/mnt > told || echo suid $?
    plain() {{ setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all -- "$@"; }}
    for name in shadow none d; do plain stat -c '%a %u:%g' home/mnt/refs/r/$name; done
    for name in shadow none; do plain cat home/mnt/refs/r/$name 2>/dev/null || printf denied; echo; done
    fsview umount home/mnt
    """
    done = _in_a_namespace(AS_NOBODY + script, repo, home=tmp_path)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["suid 17", *expected]), done


def test_a_user_s_workspace_of_what_root_owns(
    make_repo: Callable[..., Path], run_fsview: RunFsview, tree_factory: TreeFactory, tmp_path: Path
) -> None:
    """It equals what root would have made of the tree: nothing becomes the user's."""
    repo = make_repo()
    mail = Directory(
        {"shadow": File(b"secret\n", mode=0o640, owner=(0, 42)), "f": b"f\n", "g": b"f\n"}, mode=0o2775, owner=(3, 8)
    )
    spec: dict[str, Any] = {"d": mail, "root": File(b"r\n", mode=0o644, owner=(0, 0)), "away": b"x", "e": {"h": b"h\n"}}
    run_fsview("commit", "--repo", repo, "-b", "r", "--timestamp=@5", tree_factory(spec))
    script = """
    fsview workspace --repo home/repo r home/work
    nobody sh -ec 'cd home/work; echo more >> d/shadow; echo >> root; chmod 755 d/f; rm away; mkdir d/new; > d/new/x'
    fsview workspace umount home/work
    fsview workspace mount home/work
    fsview commit --workspace home/work -b new
    fsview ls --repo home/repo -R new
    fsview diff --repo home/repo r new
    fsview workspace remove home/work
    fsview workspace list
    ls -A home
    """
    done = _in_a_namespace(AS_NOBODY + script, repo, home=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, [
        "d00755 0 0      0 /",
        "-00644 0 0      3 /root",
        "d02775 3 8      0 /d",
        "-00755 0 0      2 /d/f",
        "-00644 0 0      2 /d/g",
        "-00640 0 42     12 /d/shadow",
        "d00755 3 8      0 /d/new",
        "-00644 3 8      0 /d/new/x",
        "d00755 0 0      0 /e",
        "-00644 0 0      2 /e/h",
        "D    /away", "M    /d/f", "A    /d/new", "A    /d/new/x", "M    /d/shadow", "M    /root",
        ".local", "mnt", "repo",
    ]), done  # fmt: skip
