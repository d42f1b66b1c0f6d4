"""Which paths of a source are left out: patterns in gitignore's syntax."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

IGNORE_FILE: Final = b".fsviewignore"
IsIgnored = Callable[[bytes, bool], bool]  # (path, is a directory)


def compile_patterns(lines: Iterable[str]) -> IsIgnored:
    """Return whether a path relative to the place of the patterns (with or without a leading "/") matches."""
    from pathspec import GitIgnoreSpec

    spec = GitIgnoreSpec.from_lines(lines)

    def is_ignored(path: bytes, is_directory: bool) -> bool:
        text = os.fsdecode(path).lstrip("/") + ("/" if is_directory else "")
        return spec.match_file(text)

    return is_ignored


def nested(outer: IsIgnored | None, directory: bytes) -> IsIgnored:
    """Return *outer* together with the ignore file in *directory*, whose patterns hold from there down."""
    text = Path(os.fsdecode(os.path.join(directory, IGNORE_FILE))).read_text("utf-8", "surrogateescape")
    inner = compile_patterns(text.splitlines())

    def is_ignored(path: bytes, is_directory: bool) -> bool:
        return inner(path[len(directory) :], is_directory) or (outer is not None and outer(path, is_directory))

    return is_ignored
