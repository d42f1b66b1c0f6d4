"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
LINES_MAX = 450

MODULES = sorted(path for room in ("store", "fsview", "tools", "tests") for path in (PROJECT / room).rglob("*.py"))
TEXTS = MODULES + sorted(
    path
    for pattern in ("*.md", "*.toml", "Makefile", ".ci/*", "docs/**/*.md", "examples/**/*", "tests/**/*.sh")
    for path in PROJECT.glob(pattern)
    if path.is_file() and "__pycache__" not in path.parts
)

_LATER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
_MACHINE = re.compile(r"(?<![\w.$}*])/(?:work|root|home/\w+)/")


def _name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the module has no docstring"
    assert text.count("\n") <= LINES_MAX, f"longer than {LINES_MAX} lines: it is two modules"


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_nothing_is_left_for_later_and_nothing_names_one_machine(path: Path) -> None:
    lines = enumerate(path.read_text().splitlines(), 1)
    assert [f"{number}: {line}" for number, line in lines if _LATER.search(line) or _MACHINE.search(line)] == []


@pytest.mark.parametrize("path", [path for path in MODULES if _name(path).startswith(("store/", "fsview/"))], ids=_name)
def test_everything_public_is_explained(path: Path) -> None:
    assert [name for name, node in _public(ast.parse(path.read_bytes())) if not ast.get_docstring(node)] == []


def _public(
    tree: ast.Module | ast.ClassDef, prefix: str = ""
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield public classes and functions, and the public methods of those classes; overloads and overrides aside."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            if not {ast.unparse(decorator) for decorator in node.decorator_list} & {"overload", "override"}:
                yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node, f"{prefix}{node.name}.")
