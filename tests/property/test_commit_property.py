"""Whatever is done to a tree between commits, the stat cache never changes what is committed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

import tools.make_commit
from store.repository import Repository
from store.statcache import RACY_NS
from tests.checking import assert_sound
from tests.committing import TIME_S, commit_tree
from tools.make_commit import Message
from tools.patterns import compile_patterns
from tools.recipe import Recipe
from tools.sources import DiskOptions

NAMES = st.sampled_from(["a", "b", "c"])
CONTENTS = st.sampled_from([b"", b"1", b"2", b"long" * 5000])
MTIME_NS = 10**18
_TICK_S = 0.011  # where time is said to have gone by, at least the kernel's must have, which it counts in ticks

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"recipe": Recipe(canonical=True)},
    {"is_skipped": compile_patterns(["b"])},
    {"ignore_files": True},
)


class Editing(RuleBasedStateMachine):
    """Edits a tree; before each commit, as much time goes by as makes it old, or none."""

    directories = Bundle("directories")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="fsview-editing-"))
        self.tree = self.home / "tree"
        self.tree.mkdir()
        self.repository = Repository.create(self.home / "repo")
        self.ahead_ns = 0
        self.patch = pytest.MonkeyPatch()
        clock = SimpleNamespace(time=time.time, time_ns=lambda: time.time_ns() + self.ahead_ns)
        self.patch.setattr(tools.make_commit, "time", clock)

    def teardown(self) -> None:
        """Check the repository once for each run."""
        self.patch.undo()
        self.repository.close()
        assert_sound(self.home / "repo")
        shutil.rmtree(self.home)

    @initialize(target=directories)
    def root(self) -> Path:
        """Begin with an empty tree."""
        return self.tree

    @rule(target=directories, parent=directories, name=NAMES)
    def make_directory(self, parent: Path, name: str) -> Any:
        """Make a directory where nothing is."""
        if not parent.is_dir() or os.path.lexists(parent / name):
            return multiple()
        (parent / name).mkdir()
        return parent / name

    @rule(parent=directories, name=NAMES, content=CONTENTS, restore_time=st.booleans())
    def write_file(self, parent: Path, name: str, content: bytes, restore_time: bool) -> None:
        """Write a file, perhaps with the time that all files have."""
        path = parent / name
        if parent.is_dir() and not path.is_dir() and not path.is_symlink():
            path.write_bytes(content)
            if restore_time:
                os.utime(path, ns=(MTIME_NS, MTIME_NS))

    @rule(parent=directories, name=NAMES, to=NAMES)
    def make_symlink(self, parent: Path, name: str, to: str) -> None:
        """Make a symlink where nothing is."""
        if parent.is_dir() and not os.path.lexists(parent / name):
            (parent / name).symlink_to(to)

    @rule(parent=directories, name=NAMES)
    def remove(self, parent: Path, name: str) -> None:
        """Remove whatever is there."""
        path = parent / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)

    @rule(source=directories, name=NAMES, destination=directories, new_name=NAMES)
    def move(self, source: Path, name: str, destination: Path, new_name: str) -> None:
        """Move a file or a directory, over another perhaps."""
        try:
            (source / name).rename(destination / new_name)
        except OSError:  # not there, or not possible: a directory into itself, over a file, …
            return

    @rule(parent=directories, name=NAMES, mode=st.sampled_from([0o644, 0o755, 0o4755]))
    def change_mode(self, parent: Path, name: str, mode: int) -> None:
        """Change the mode of what is there."""
        if (parent / name).exists() and not (parent / name).is_symlink():
            (parent / name).chmod(mode)

    @rule(parent=directories, pattern=NAMES)
    def write_ignore_file(self, parent: Path, pattern: str) -> None:
        """Write an ignore file."""
        if parent.is_dir():
            (parent / ".fsviewignore").write_text(pattern + "\n")

    @rule(seconds=st.sampled_from([0, 3]))
    def wait(self, seconds: int) -> None:
        """Let time go by before the next commit; from then on all that was written is old."""
        self.ahead_ns = seconds * RACY_NS

    @rule(options=st.sampled_from(OPTIONS))
    def commit_with_options(self, options: dict[str, Any]) -> None:
        """Commit with options that leave something out or shape it."""
        assert self._commit(True, options) == self._commit(False, options)

    @invariant()
    def the_cache_changes_nothing(self) -> None:
        """Commit with the cache and without."""
        assert self._commit(True, {}) == self._commit(False, {})
        if self.ahead_ns:
            time.sleep(_TICK_S)

    def _commit(self, stat_cache: bool, options: dict[str, Any]) -> str:
        chosen = DiskOptions(stat_cache=stat_cache, **options)
        message = Message(None, "a tree", timestamp_s=TIME_S, bindings=False)
        return commit_tree(self.repository, self.tree, message=message, options=chosen).checksum.hex()


@pytest.mark.hypothesis
def test_edits_between_commits() -> None:
    run_state_machine_as_test(
        Editing, settings=settings(max_examples=12, stateful_step_count=25, suppress_health_check=list(HealthCheck))
    )
