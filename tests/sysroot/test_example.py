"""examples/switch-and-rollback.sh, whole, on three small trees that look like Debian's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.marks import needs_fuse, needs_root
from tests.running import PROJECT, clean_environment
from tests.trees import File, Spec, Symlink, build_tree

BUSYBOX = Path("/bin/busybox")
PACKAGE = "Package: {0}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {1}\n\n"


def debian(version: str, packages: dict[str, str]) -> Spec:
    """Return a tree with one program."""
    status = "".join(PACKAGE.format(name, number) for name, number in packages.items())
    program = File(BUSYBOX.read_bytes(), mode=0o755)
    return {
        "bin": Symlink("usr/bin"),
        "usr": {"bin": {"busybox": program, "cat": Symlink("busybox")}, "lib": {"own": version.encode() * 2000}},
        "etc": {"debian_version": f"{version}\n".encode(), "motd": b"Debian\n", "hostname": b"debian\n"},
        "var": {"lib": {"dpkg": {"status": status.encode()}}},
    }


@needs_root
@needs_fuse
def test_the_whole_story(tmp_path: Path) -> None:
    trees = [
        build_tree(tmp_path / "base", debian("12.0", {"bash": "5.2", "old": "1"})),
        build_tree(tmp_path / "updated", debian("12.1", {"bash": "5.2-1", "old": "1"})),
        build_tree(tmp_path / "next", debian("13.0", {"bash": "5.3", "new": "1"})),
    ]
    program = tmp_path / "bin/fsview"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m tools "$@"\n')
    program.chmod(0o755)
    environment = clean_environment(tmp_path)
    environment |= {"PATH": f"{program.parent}:{environment['PATH']}", "TMPDIR": str(tmp_path)}
    script = PROJECT / "examples/switch-and-rollback.sh"
    done = subprocess.run(["bash", script, *trees], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "packages: 1 upgraded, 1 added, 1 removed" in done.stderr
    assert "\n# That is all.\n$ fsview umount mnt\n" in done.stdout
    assert not list(tmp_path.glob("fsview-switch.*"))
