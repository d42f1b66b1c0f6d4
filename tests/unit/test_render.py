"""How paths, sizes and progress look."""

from __future__ import annotations

import doctest
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trees import ODD_NAMES
from tools import render

_ESCAPE = re.compile(rb'\\([abtnvfr"\\]|[0-7]{3})')
_LETTERS = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))


def _unquote(text: str) -> bytes:
    """Read a quoted path as git does."""
    raw = text.encode()
    if not raw.startswith(b'"'):
        return raw
    return _ESCAPE.sub(lambda m: bytes([_LETTERS[m[1][0]] if len(m[1]) == 1 else int(m[1], 8)]), raw[1:-1])


def test_the_examples_in_the_text_hold() -> None:
    assert doctest.testmod(render).failed == 0


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_a_quoted_path_is_one_printable_line_and_can_be_read_back(path: bytes) -> None:
    quoted = render.quote_path(path)
    assert quoted.isprintable() and _unquote(quoted) == path


@pytest.mark.parametrize("name", ODD_NAMES, ids=repr)
def test_git_quotes_the_same_names_the_same_way(name: bytes, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(name)).touch()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    listed = subprocess.run(
        ["git", "-c", "core.quotePath=false", "ls-files", "-o"], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    if name.decode().isprintable() or name.isascii():  # we also quote what turns the direction of text
        assert render.quote_path(name).encode() + b"\n" == listed
    else:
        assert render.quote_path(name) == '"\\342\\200\\256gnp.exe"'


@given(st.text())
def test_printable_text_leaves_the_terminal_alone(text: str) -> None:
    assert all(character.isprintable() or character in "\n\t" for character in render.printable(text))


def test_json_lines_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for values in ([], [1], [{"path": render.json_path(b"\xff")}, None]):
        output = io.StringIO()
        monkeypatch.setattr(sys, "stdout", output)
        render.print_json_lines(values)
        assert json.loads(output.getvalue()) == values
        assert output.getvalue().isascii()


_SHOW = "from tools.render import progress\nwith progress('checking', 3, 'files') as advance:\n    advance(3)\n"


def test_progress_is_silent_without_a_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", _SHOW], capture_output=True, cwd=Path(render.__file__).parents[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_progress_shows_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    os.set_blocking(ours, False)
    try:
        subprocess.run([sys.executable, "-c", _SHOW], stderr=theirs, cwd=Path(render.__file__).parents[1], check=True)
        assert b"checking" in os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
