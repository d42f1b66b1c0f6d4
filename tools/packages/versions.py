"""Which of two versions is newer, by the rules of each package manager.

dpkg    deb-version(7): [epoch:]upstream[-revision]; "~" is before the end, letters before all else
rpm     rpm-version(7): [epoch:]version[-release]; segments of digits or of letters; "~" is before the end, "^" after
pacman  vercmp(8): rpm's rule as it was, where a rest that begins with letters is older, and "." counts
apk     apk-tools' doc/apk-package.5: number{.number}[letter]{_suffix[number]}[~hash][-rN]
python  PEP 440, by the library of the Python Packaging Authority

The libraries that there are for the first four are dead, are under a licence that ours does not go with, or don't
know all of apk's suffixes; each rule is a page, and the tests hold them against the managers' own programs.
Numbers may have any number of digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, Final, NamedTuple

_SEGMENT: Final = re.compile(r"[0-9]+|[a-zA-Z]+|[~^]")
_DEB_PART: Final = re.compile(r"([^0-9]*)([0-9]*)")
_ALPM_PART: Final = re.compile(r"([^0-9a-zA-Z]*)([0-9]+|[a-zA-Z]+|)")


def compare_versions(manager: str, one: str, other: str) -> int:
    """Return a number below 0 if *one* is older than *other*, 0 if they are equal by *manager*'s rules, else above."""
    return 0 if one == other else _RULES[manager](one, other)


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


class _Evr(NamedTuple):
    epoch: str
    version: str
    release: str | None  # None: there is none


def _split(text: str) -> _Evr:
    epoch, colon, rest = text.partition(":")
    if not colon or epoch.strip("0123456789"):
        epoch, rest = "0", text
    version, dash, release = rest.rpartition("-")
    return _Evr(epoch, version, release) if dash else _Evr(epoch, rest, None)


def _number(digits: str) -> tuple[int, str]:
    """Return what orders strings of digits as the numbers that they are, however long."""
    significant = digits.lstrip("0")
    return len(significant), significant


def compare_dpkg(one: str, other: str) -> int:
    """Compare as `dpkg --compare-versions` does."""
    a, b = _split(one), _split(other)
    return (
        _sign(_number(a.epoch), _number(b.epoch))
        or _compare_deb_part(a.version, b.version)
        or _compare_deb_part(a.release or "", b.release or "")
    )


def _compare_deb_part(one: str, other: str) -> int:
    for (text, digits), (other_text, other_digits) in zip_longest(
        _DEB_PART.findall(one), _DEB_PART.findall(other), fillvalue=("", "")
    ):
        found = _sign(_deb_order(text), _deb_order(other_text)) or _sign(_number(digits), _number(other_digits))
        if found:
            return found
    return 0


def _deb_order(text: str) -> list[int]:
    """Return what orders text: "~", the end, letters, all else."""
    return [-1 if c == "~" else ord(c) + (0 if c.isalpha() else 0x110000) for c in text] + [0]


def compare_rpm(one: str, other: str) -> int:
    """Compare two of "[epoch:]version[-release]" as rpm does."""
    a, b = _split(one), _split(other)
    found = _sign(_number(a.epoch), _number(b.epoch)) or _compare_segments(a.version, b.version)
    if found or a.release is None or b.release is None:
        return found
    return _compare_segments(a.release, b.release)


def _compare_segments(one: str, other: str) -> int:
    for a, b in zip_longest(_SEGMENT.findall(one), _SEGMENT.findall(other), fillvalue=""):
        found = _sign(_segment_order(a), _segment_order(b))
        if found:
            return found
    return 0


def _segment_order(segment: str) -> tuple[int, Any]:
    """Return what orders segments: "~", the end, "^", letters, numbers."""
    if segment[:1].isdigit():
        return 4, _number(segment)
    return {"~": 0, "": 1, "^": 2}.get(segment, 3), segment


def compare_pacman(one: str, other: str) -> int:
    """Compare as vercmp does; a release counts only if both have one."""
    a, b = _split(one), _split(other)
    found = _sign(_number(a.epoch), _number(b.epoch)) or _compare_alpm_part(a.version, b.version)
    if found or a.release is None or b.release is None:
        return found
    return _compare_alpm_part(a.release, b.release)


def _compare_alpm_part(one: str, other: str) -> int:
    if one == other:
        return 0
    at = other_at = 0
    while at < len(one) and other_at < len(other):
        a, b = _ALPM_PART.match(one, at), _ALPM_PART.match(other, other_at)
        assert a is not None and b is not None  # both groups match nothing, too
        at, other_at = a.end(), b.end()
        if not (a[2] and b[2]):
            at, other_at = at - len(a[2]), other_at - len(b[2])  # one ended: the rest decides
            break
        if len(a[1]) != len(b[1]):
            return _sign(len(a[1]), len(b[1]))
        found = _sign(_segment_order(a[2]), _segment_order(b[2]))
        if found:
            return found
    return _compare_alpm_rests(one[at:], other[other_at:])


def _compare_alpm_rests(one: str, other: str) -> int:
    """Compare what is left when one has ended: letters are older than nothing, all else is newer."""
    if not one and not other:
        return 0
    return -1 if one[:1].isalpha() or (not one and not other[:1].isalpha()) else 1


_APK: Final = re.compile(
    r"(?P<first>[0-9]+)(?P<more>(\.[0-9]+)*)(?P<letter>[a-z]?)"
    r"(?P<suffixes>(_[a-z]+[0-9]*)*)(~(?P<hash>[0-9a-f]+))?(-r(?P<revision>[0-9]+))?"
)
_APK_SUFFIX: Final = re.compile(r"_([a-z]+)([0-9]*)")
_APK_BEFORE: Final = ("alpha", "beta", "pre", "rc")
_APK_AFTER: Final = ("cvs", "svn", "git", "hg", "p")
_PRE, _END = 0, 9  # kinds of tokens: a suffix that comes before the end, and the end itself


def compare_apk(one: str, other: str) -> int:
    """Compare as `apk version -t` does."""
    a, b = _apk_tokens(one), _apk_tokens(other)
    if a is None or b is None:
        return _compare_segments(one, other)  # what is no version of apk's: at least its numbers count
    for (kind, value), (other_kind, other_value) in zip(a, b, strict=False):
        if kind != other_kind:
            if _PRE in (kind, other_kind):
                return -1 if kind == _PRE else 1
            return _sign(other_kind, kind)  # the one that still has an earlier part is newer
        if value != other_value:
            return _compare_apk_values(kind, value, other_value)
    return 0


def _apk_tokens(text: str) -> list[tuple[int, Any]] | None:
    match = _APK.fullmatch(text)
    if match is None:
        return None
    tokens: list[tuple[int, Any]] = [(1, _number(match["first"]))]
    tokens += [(2, part) for part in match["more"].split(".")[1:]]
    tokens += [(3, match["letter"])] if match["letter"] else []
    for name, digits in _APK_SUFFIX.findall(match["suffixes"]):
        if name not in _APK_BEFORE + _APK_AFTER:
            return None
        tokens.append((_PRE, _APK_BEFORE.index(name)) if name in _APK_BEFORE else (4, _APK_AFTER.index(name)))
        tokens += [(5, _number(digits))] if digits else []
    tokens += [(6, match["hash"])] if match["hash"] else []
    tokens += [(7, _number(match["revision"]))] if match["revision"] else []
    return [*tokens, (_END, "")]


def _compare_apk_values(kind: int, one: Any, other: Any) -> int:
    if kind == 2 and "0" not in (one[0], other[0]):
        return _sign(_number(one), _number(other))
    return _sign(one, other)  # with a leading zero it is a fraction: 1.01 is older than 1.1


def compare_python(one: str, other: str) -> int:
    """Compare by PEP 440; what is no version by it is older, and among themselves such are compared as rpm would."""
    from packaging.version import Version  # slow to import, and few trees need it

    def parsed(text: str) -> Version | None:
        try:
            return Version(text)
        except ValueError:
            return None

    a, b = parsed(one), parsed(other)
    if a is None or b is None:
        return _sign(a is not None, b is not None) or _compare_segments(one, other)
    return _sign(a, b)


_RULES: Final[dict[str, Callable[[str, str], int]]] = {
    "dpkg": compare_dpkg,
    "rpm": compare_rpm,
    "pacman": compare_pacman,
    "apk": compare_apk,
    "python": compare_python,
}
