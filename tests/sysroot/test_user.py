"""A sysroot of somebody who is not root, with a tree whose directories forbid its owner to write."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.marks import needs_root
from tests.trees import Directory, build_tree
from tests.users import NOBODY, Said, run_as_nobody


@needs_root
def test_edit_switch_and_roll_back(nobodys: Path) -> None:
    def run(*arguments: str | Path) -> Said:
        said = run_as_nobody(nobodys, *arguments, "--sysroot", nobodys / "sysroot")
        assert said.status == 0, said
        return said

    assert run_as_nobody(nobodys, "init", nobodys / "repo").status == 0
    for ref in ("a", "b"):
        sub = Directory({"f": b"f", "gone": b""}, mode=0o555)
        old = Directory({"x": Directory({"y": b""}, mode=0o555)}, mode=0o555)
        etc = Directory({"sub": sub, "old": old, "ref": ref.encode()}, mode=0o555)
        tree = build_tree(nobodys / ref, {"etc": etc, "own": ref.encode()})
        tree.chmod(0o555)
        subprocess.run(["chown", "-R", str(NOBODY), tree], check=True)
        assert run_as_nobody(nobodys, "commit", "--repo", nobodys / "repo", "-b", ref, tree).status == 0
    assert run_as_nobody(nobodys, "sysroot", "init", nobodys / "sysroot", "--repo", nobodys / "repo").status == 0
    run("os-init", "main")
    run("deploy", "a")
    root = nobodys / "sysroot/deploy/main/current/root"
    (root / "etc/sub/f").write_bytes(b"edited")
    (root / "etc/sub/gone").unlink()
    for path in ("old/x/y", "old/x", "old"):
        os.remove(root / "etc" / path) if path.endswith("y") else os.rmdir(root / "etc" / path)
    assert "2 deleted" in run("switch", "b").stderr
    assert (root / "own").read_bytes() == b"b" and (root / "etc/sub/f").read_bytes() == b"edited"
    assert sorted(path.name for path in root.glob("etc/*")) == ["ref", "sub"] and not (root / "etc/sub/gone").exists()
    assert {path.stat().st_mode & 0o777 for path in (root, root / "etc", root / "etc/sub")} == {0o555}
    run("rollback")
    assert (root / "own").read_bytes() == b"a"
    run("cleanup", "--keep", "1")
