"""The examples in docstrings: the format's documentation is true byte for byte."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
WITH_EXAMPLES = [
    path.relative_to(PROJECT).with_suffix("").as_posix().replace("/", ".")
    for room in ("store", "fsview", "tools")
    for path in sorted((PROJECT / room).glob("*.py"))
    if "\n>>> " in path.read_text() or "\n    >>> " in path.read_text()
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_are_true(name: str) -> None:
    tried = doctest.testmod(import_module(name))
    assert tried.attempted and not tried.failed


def test_the_format_has_an_example() -> None:
    assert "store.schema" in WITH_EXAMPLES
