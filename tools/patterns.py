"""Which paths of a source are left out: patterns in gitignore's syntax.

Those of ignore files are part of the tree, and so perhaps a stranger's: pathspec's regular expressions are made such
that none takes more than a look at each place in a path, however many wildcards it has (`_linear`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from store.bounds import shortened
from store.errors import InvalidNameError, SourceError
from tools.render import size_text

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE: Final = b".fsviewignore"
IsIgnored = Callable[[bytes, bool], bool]  # (path, is a directory)
_Verdict = Callable[[bytes, bool], bool | None]  # None: no pattern says anything of it
_FILES_BYTES_MAX: Final = 256 << 10  # of all ignore files from the root to a directory: each path is compared with all
_DEEP, _DEEP_START = "(?:/.+)?/", "^(?:.+/)?"  # pathspec's "**": between names, and where a pattern begins
_ENDS: Final = ("(?:(?P<ps_d>/)|$)", "(?P<ps_d>/)", "/")


def compile_patterns(lines: Iterable[str]) -> IsIgnored:
    """Return whether a path relative to the place of the patterns (with or without a leading "/") matches.

    Raises:
        InvalidNameError: a line is no pattern.
    """
    verdict = _compile(lines, "a pattern of what to leave out")
    return lambda path, is_directory: bool(verdict(path, is_directory))


@dataclass(frozen=True, slots=True)
class IgnoreFiles:
    """The ignore files from the root of a source to a directory; those further down win."""

    verdicts: tuple[tuple[int, _Verdict], ...] = ()  # with the length of the path of the directory that has the file
    size_bytes: int = 0

    def __call__(self, path: bytes, is_directory: bool) -> bool:
        """Whether a path is left out."""
        found = (verdict(path[length:], is_directory) for length, verdict in reversed(self.verdicts))
        return next((is_ignored for is_ignored in found if is_ignored is not None), False)

    def with_file(self, directory: bytes, file: bytes) -> IgnoreFiles:
        """Return these together with the one of *directory*.

        Raises:
            InvalidNameError: a line of the file is no pattern.
            SourceError: the files are too large.
            OSError: it can't be read.
        """
        left = _FILES_BYTES_MAX - self.size_bytes
        with open(os.fsdecode(file), "rb") as stream:
            data = stream.read(left + 1)
        where = shortened(os.path.join(directory, IGNORE_FILE))
        if len(data) > left:
            raise SourceError(
                f"{where} has, with those above it, more than {size_text(_FILES_BYTES_MAX)} of patterns, which would "
                f"be compared with each path; nothing was committed; commit without --ignore-files, or with --ignore"
            )
        verdict = _compile(data.decode("utf-8", "surrogateescape").split("\n"), where)
        return IgnoreFiles((*self.verdicts, (len(directory), verdict)), self.size_bytes + len(data))


def _compile(lines: Iterable[str], where: str) -> _Verdict:
    try:
        spec = _spec(lines)
    except (ValueError, re.error) as error:
        raise InvalidNameError(f"{where}: {error}"[:500]) from error

    def verdict(path: bytes, is_directory: bool) -> bool | None:
        return spec.check_file(os.fsdecode(path).lstrip("/") + ("/" if is_directory else "")).include

    return verdict


def _spec(lines: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    class Pattern(GitIgnoreSpecPattern):
        @classmethod
        def pattern_to_regex(cls, pattern: str) -> tuple[str | None, bool | None]:  # type: ignore[override]  # only str
            regex, include = super().pattern_to_regex(pattern)
            return _linear(regex) if regex is not None else None, include

    return GitIgnoreSpec.from_lines(lines, Pattern, backend="simple")


def _linear(regex: str) -> str:
    r"""Return pathspec's regular expression of a pattern so that it tries no second way where the first one will do.

    Of what stands between two "*" of a name, or two "**" of a path, the first match is as good as any: what follows can
    take up the rest. So it is never looked for again (an atomic group).

    >>> _linear(r"^(?:.+/)?[^/]*a[^/]*b[^/]*c(?:(?P<ps_d>/)|$)")
    '^(?:.+/)?(?>[^/]*?a)(?>[^/]*?b)[^/]*c(?:(?P<ps_d>/)|$)'
    >>> _linear(r"^a(?:/.+)?/b(?:/.+)?/c(?:(?P<ps_d>/)|$)")
    '^a(?>(?:/.+?)??/b(?=/))(?:/.+)?/c(?:(?P<ps_d>/)|$)'
    """
    start = _DEEP_START if regex.startswith(_DEEP_START) else "^"
    end = next((end for end in _ENDS if regex.endswith(end)), None)
    if not regex.startswith(start) or end is None:  # "**" and the like, without any wildcard
        return regex
    first, *rest = regex[len(start) : -len(end)].split(_DEEP)
    first = _linear_names(first)
    rest = [_linear_names(names) for names in rest]
    if rest and start == _DEEP_START:
        start, first = "^", f"(?>(?:.+?/)??{first}(?=/))"
    middle = "".join(f"(?>(?:/.+?)??/{names}(?=/))" for names in rest[:-1])
    return "".join((start, first, middle, *(_DEEP + names for names in rest[-1:]), end))


def _linear_names(names: str) -> str:
    """Return the expression of some names, one in another; no "/" in it but in pathspec's own "[^/]"."""
    any_one = "\n"  # stands for that: no line has it
    parts = (_linear_name(name.split(f"{any_one}*"), any_one) for name in names.replace("[^/]", any_one).split("/"))
    return "/".join(parts).replace(any_one, "[^/]")


def _linear_name(parts: list[str], any_one: str) -> str:
    """Return the expression of a name from what stands before, between and behind its "*"."""
    if len(parts) == 1:
        return parts[0]
    between = "".join(f"(?>{any_one}*?{part})" for part in parts[1:-1] if part)
    return f"{parts[0]}{between}{any_one}*{parts[-1]}"
