"""Where root happens to be, and what the environment says, is another user's: his directory, his home."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.attacker import make_his
from tools.sysroot import etc_text
from tools.sysroot.etc_tree import opened

TEXTS = {"old": "a\nb\nc\nd\n", "own": "A\nb\nc\nd\n", "new": "a\nb\nc\nD\n"}
MERGED = b"A\nb\nc\nD\n"


@pytest.fixture
def his(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of nobody's, which is the current one, and home."""
    path = open_path / "his"
    path.mkdir()
    make_his(path)
    monkeypatch.chdir(path)
    monkeypatch.setenv("HOME", str(path))
    return path


def _merged(where: Path) -> bytes | None:
    where.mkdir()
    for name, text in TEXTS.items():
        (where / name).write_text(text)
    with opened(where) as (top,):
        old, own, new = (top.children()[name.encode()] for name in TEXTS)
        return etc_text.merge_text(old, own, new)


def test_no_repository_around_it_keeps_a_text_from_being_merged(his: Path, tmp_path: Path) -> None:
    (his / ".git").write_text("gitdir: /nowhere\n")
    make_his(his)
    assert _merged(tmp_path / "etc") == MERGED


def test_git_writes_nothing_where_settings_of_his_say(his: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (his / ".gitconfig").write_text(f"[trace2]\n\tnormalTarget = {victim}\n")
    make_his(his)
    assert _merged(tmp_path / "etc") == MERGED
    assert not victim.exists()


def test_git_writes_nothing_where_the_environment_says(
    his: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TRACE2", str(tmp_path / "victim"))
    monkeypatch.setenv("GIT_DIR", str(his / "nowhere"))
    assert _merged(tmp_path / "etc") == MERGED
    assert not (tmp_path / "victim").exists()
