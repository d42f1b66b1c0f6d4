"""The import table is the architecture: tools -> fsview -> store, one way, no circles.

A room (package) may import itself, the rooms below it, the standard library, and the third-party modules of its row.
Imports are read from the source, wherever they stand: at the top, inside a function, under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

ROOMS = {  # room: (rooms it may use, third-party modules it may use)
    "store": ({"store"}, {"lmdb", "pyroaring", "xxhash"}),
    "fsview": ({"fsview", "store"}, {"pyfuse3", "trio", "xxhash"}),
    "tools": ({"tools", "fsview", "store"}, {"click", "cryptography", "packaging", "pathspec", "tomli_w", "tqdm"}),
}
ONLY_IN = {  # third-party module: the only files that may import it
    "pyfuse3": {"fsview/connection.py", "fsview/operations.py", "fsview/server.py", "fsview/waiting.py"},
    "trio": {"fsview/connection.py", "fsview/waiting.py", "fsview/worker.py"},
}

SOURCES = {
    path.relative_to(PROJECT).as_posix(): ast.parse(path.read_bytes(), str(path))
    for room in ROOMS
    for path in sorted((PROJECT / room).rglob("*.py"))
}


@pytest.mark.parametrize("source", SOURCES)
def test_imports_only_what_its_room_may(source: str) -> None:
    rooms, third_party = ROOMS[source.partition("/")[0]]
    allowed = rooms | third_party | sys.stdlib_module_names
    found = {name.partition(".")[0] for name in _imports(SOURCES[source], source)}
    assert found - allowed == set()


@pytest.mark.parametrize("source", SOURCES)
def test_the_kernel_has_one_door(source: str) -> None:
    found = {name.partition(".")[0] for name in _imports(SOURCES[source], source)}
    assert {module for module in found & ONLY_IN.keys() if source not in ONLY_IN[module]} == set()


@pytest.mark.parametrize("room", ROOMS)
def test_no_circles_when_modules_load(room: str) -> None:
    modules = {_module(source): source for source in SOURCES if source.startswith(f"{room}/")}
    graph = {
        module: {_nearest(name, modules) for name in _imports(SOURCES[source], source, when_loaded=True)} - {module, ""}
        for module, source in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules that import each other: {' -> '.join(reversed(error.args[1]))}", pytrace=False)


@pytest.mark.parametrize("source", [source for source in SOURCES if source.startswith("store/")])
def test_store_neither_talks_nor_reads_the_environment(source: str) -> None:
    talk = {"print", "input", "environ", "environb", "getenv", "getenvb", "stdout", "stderr"}
    nodes = ast.walk(SOURCES[source])
    names = {getattr(node, "attr", None) or getattr(node, "id", "") for node in nodes if _names_something(node)}
    imported = {name.rpartition(".")[2] for name in _imports(SOURCES[source], source)}
    assert (names | imported) & talk == set()


def test_the_walk_sees_every_form_of_import() -> None:
    text = """
import lmdb.tool
from store import errors
from . import objects
from .. import outer
if TYPE_CHECKING:
    import pathspec
def lazy():
    from tools.cli import main
"""
    everything = set(_imports(ast.parse(text), "store/sub/module.py"))
    assert everything == {
        "lmdb.tool", "store", "store.errors", "store.sub", "store.sub.objects", "store.outer", "pathspec",
        "tools.cli", "tools.cli.main",
    }  # fmt: skip
    at_load = set(_imports(ast.parse(text), "store/sub/module.py", when_loaded=True))
    assert everything - at_load == {"pathspec", "tools.cli", "tools.cli.main"}


def _imports(tree: ast.AST, source: str, *, when_loaded: bool = False) -> Iterator[str]:
    """Yield what is imported, absolute; both "a.b" and "a.b.c" of `from a.b import c`, for c may be a module."""
    package = list(Path(source).parent.parts)
    for node in _nodes(tree, when_loaded):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ([base] if node.module or len(start) > 1 else [])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _nodes(tree: ast.AST, when_loaded: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        late = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        late |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not (late and when_loaded):
            yield node
            yield from _nodes(node, when_loaded)


def _module(source: str) -> str:
    return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _nearest(name: str, modules: dict[str, str]) -> str:
    """Return the module that importing *name* loads: itself, or the one that defines it; "" if in another room."""
    return name if name in modules else (name.rpartition(".")[0] if name.rpartition(".")[0] in modules else "")


def _names_something(node: ast.AST) -> bool:
    return isinstance(node, (ast.Name, ast.Attribute))
