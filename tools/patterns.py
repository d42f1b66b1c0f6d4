"""Which paths of a source are left out: patterns in gitignore's syntax."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from store.errors import InvalidNameError

IGNORE_FILE: Final = b".fsviewignore"
IsIgnored = Callable[[bytes, bool], bool]  # (path, is a directory)
_Verdict = Callable[[bytes, bool], bool | None]  # None: no pattern says anything of it


def compile_patterns(lines: Iterable[str]) -> IsIgnored:
    """Return whether a path relative to the place of the patterns (with or without a leading "/") matches.

    Raises:
        InvalidNameError: a line is no pattern.
    """
    verdict = _compile(lines, "a pattern of what to leave out")
    return lambda path, is_directory: bool(verdict(path, is_directory))


def nested(outer: IsIgnored | None, directory: bytes, file: bytes) -> IsIgnored:
    """Return *outer* together with the ignore file of *directory*, whose patterns hold from there down and win.

    Raises:
        InvalidNameError: a line of the file is no pattern.
        OSError: it can't be read.
    """
    text = Path(os.fsdecode(file)).read_text("utf-8", "surrogateescape")
    inner = _compile(text.split("\n"), os.fsdecode(os.path.join(directory, IGNORE_FILE)))

    def is_ignored(path: bytes, is_directory: bool) -> bool:
        verdict = inner(path[len(directory) :], is_directory)
        return verdict if verdict is not None else outer is not None and outer(path, is_directory)

    return is_ignored


def _compile(lines: Iterable[str], where: str) -> _Verdict:
    from pathspec import GitIgnoreSpec

    try:
        spec = GitIgnoreSpec.from_lines(lines)
    except (ValueError, re.error) as error:
        raise InvalidNameError(f"{where}: {error}") from error

    def verdict(path: bytes, is_directory: bool) -> bool | None:
        return spec.check_file(os.fsdecode(path).lstrip("/") + ("/" if is_directory else "")).include

    return verdict
