"""Revisions: every way to name a commit.

    revision  = base { step }
    base      = checksum (64 hex digits)
              | ref | remote:ref
              | beginning of a checksum, as many digits as make it the only one
    step      = "^"                 the parent
              | "~" [ number ]      so many parents up; "~" is "~1"
              | "@{" number "}"     where the ref was so many moves ago; @{0} is where it is
              | "@{" time "}"       where the ref was at that time
    object    = revision [ ":/" path ] | revision ":" path | revision path

"@{…}" stands right behind a ref; what follows it counts from there: "a/b@{1}^~2". A ref "x" that does not exist is
looked for as "tags/x" too. A ref whose name is also the beginning of a checksum is the ref, as in git; OSTree takes the
commit, with which a new commit can take a name like "12" from its ref.

In "A:B" A is a remote if any ref's name begins with "A:"; else B is a path in A. "A:/B" is always a path.

    time      = ISO 8601 or RFC 3339, local unless it has a zone: 2026-11-01, "2026-11-01 10:00", 2026-11-01T10:00:00Z
              | RFC 2822: "Sun, 01 Nov 2026 10:00:00 +0100"
              | "@" seconds since 1970, or (not in "@{…}", where it is a number of moves) the seconds alone
              | "now" | "yesterday" | number unit "ago": "90 minutes ago", "2 weeks ago"

A day alone is its first moment, 00:00.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from store.database import Reading
from store.errors import InvalidNameError, NotFoundError, PrunedError
from store.listing import Entry
from store.objects import Checksum, ObjectType
from store.presence import check_no_commit
from store.refs import NAME_BYTES_MAX, find_ref, reflog
from store.schema import CommitNumber, ReflogRecord, RefRecord, id_key, key_id
from store.tree import commit_number, commit_record, find, load_parent_and_time, root_entry

TAGS: Final = "tags/"
_CANDIDATES_MAX: Final = 5
_SHORTEST: Final = 8  # digits of an abbreviation that we print ourselves

_BASE = re.compile(r"[^\^~@{}]+")
_STEP = re.compile(r"\^|~(?P<up>[0-9]{0,9})|@\{(?P<log>[^}]*)\}")
_REF = re.compile(r"(\w[-._\w]*:)?\w[-._\w]*(/\w[-._\w]*)*")
_REMOTE = re.compile(r"\w[-._\w]*")
_HEX = re.compile(r"[0-9a-f]+")
_INDEX = re.compile(r"[0-9]{1,9}")

_UNITS_S: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}
_SECONDS = re.compile(r"@?([0-9]{1,12})")
_DATE_OR_SECONDS = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])")
_AGO = re.compile(rf"([0-9]{{1,9}}) +({'|'.join(_UNITS_S)})s? +ago")
_SPACE_BEFORE_ZONE = re.compile(r"(?<=[0-9]) (?=[-+][0-9]{2}:?[0-9]{2}$)")
_RFC_2822 = re.compile(r"([A-Za-z]{3}, *)?[0-9]{1,2} [A-Za-z]{3} [0-9]{4} [0-9]{2}:[0-9]{2}(:[0-9]{2})? .+")


def resolve(reading: Reading, text: str, *, now_s: int) -> CommitNumber:
    """Return the commit that the revision *text* names; *now_s* is the present, for "@{2 days ago}".

    Raises:
        NotFoundError: nothing has this name, several commits have it, or it is not a revision at all.
    """
    match = _BASE.match(text)
    if match is None:
        raise NotFoundError(f"{text!r} is not a revision: it must begin with a ref or a checksum")
    base, steps = match[0], _steps(text, match.end())
    if steps and steps[0]["log"] is not None:
        number = _logged(reading, base, steps.pop(0)["log"], now_s)
    else:
        number = _resolve_base(reading, base)
    for step in steps:
        if step["log"] is not None:
            raise NotFoundError(f"in {text!r}, '{step[0]}' must stand right behind the name of a ref")
        for _ in range(1 if not step["up"] else int(step["up"])):
            number = _parent(reading, number, text)
    return number


def split_path(reading: Reading, text: str) -> tuple[str, bytes | None]:
    """Return (revision, path in it) of "REV:/path" or "REV:path"; the path is None where *text* is a revision alone.

    The revision may still turn out not to exist; the path is as it was given.
    """
    at = _colon(text, 0)
    if at >= 0 and text[at + 1 : at + 2] != "/" and _is_remote(reading, text[:at]):
        at = _colon(text, at + 1)
    if at < 0:
        return text, None
    try:
        return text[:at], os.fsencode(text[at + 1 :])
    except UnicodeEncodeError:
        raise NotFoundError(f"{text!r} has a path that no file system can have") from None


@dataclass(frozen=True, slots=True)
class Place:
    """Something in a commit: the commit, its root, the path as b"/a/b" (the root: b""), and what is there."""

    commit: CommitNumber
    root: Entry
    path: bytes
    entry: Entry


def find_place(reading: Reading, text: str, path: bytes | None = None, *, now_s: int) -> Place:
    """Return what "REV", "REV:/path" or "REV:path" names; *path* is a path given apart, taken from there.

    Raises:
        NotFoundError: the commit or the path is not there.
    """
    revision, inner = split_path(reading, text)
    number = resolve(reading, revision, now_s=now_s)
    root = root_entry(reading, commit_record(reading, number))
    names = [name for name in b"/".join((inner or b"", path or b"")).split(b"/") if name not in (b"", b".")]
    whole = b"".join(b"/" + name for name in names)
    return Place(number, root, whole, find(reading, root, whole))


def parse_time(text: str, now_s: int) -> int:
    """Return the time that *text* means (the grammar is above), in seconds since 1970; *now_s* is the present.

    Raises:
        InvalidNameError: not a time, or one before 1970.
    """
    wanted = text.strip()
    if _DATE_OR_SECONDS.fullmatch(wanted):
        raise InvalidNameError(f"{text!r} may be a date or seconds since 1970; write 2026-11-01, or @{wanted}")
    if match := _SECONDS.fullmatch(wanted):
        return int(match[1])
    seconds = _parse_relative(wanted.lower(), now_s)
    if seconds is None:
        seconds = _parse_date(wanted)
    if seconds is None:
        raise InvalidNameError(
            f"{text!r} is not a time; write 2026-11-01, '2026-11-01 10:00', 2026-11-01T10:00:00Z, @SECONDS, "
            f"now, yesterday or '2 days ago'"
        )
    if seconds < 0:
        raise InvalidNameError(f"{text!r} is before 1970, where the time of commits begins")
    return seconds


def format_time(time_s: int) -> str:
    """Return a time as OSTree prints it, in UTC; one that the calendar doesn't have as "@SECONDS"."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S +0000", time.gmtime(time_s))
    except (OverflowError, ValueError, OSError):
        return f"@{time_s}"


def abbreviate(reading: Reading, checksum: Checksum, digits: int = _SHORTEST) -> str:
    """Return the shortest beginning of *checksum*, of *digits* or more, that no ref and no other commit here has."""
    text = checksum.hex()
    while digits < len(text) and _means_another(reading, text[:digits]):
        digits += 1
    return text[:digits]


def _means_another(reading: Reading, digits: str) -> bool:
    named = any(reading.get(b"ref", name.encode()) is not None for name in (digits, TAGS + digits))
    return named or len(list(islice(_beginning_with(reading, digits), 2))) > 1


def find_named_ref(reading: Reading, name: str) -> tuple[str, RefRecord] | None:
    """Return the ref that *name* means, with its full name: itself, or the tag of this name."""
    for full in (name, TAGS + name):
        record = find_ref(reading, full) if _REF.fullmatch(full) else None
        if record is not None:
            return full, record
    return None


def named_ref(text: str) -> tuple[str, bool]:
    """Return the ref in whose name the revision *text* is asked for, and whether that is where it points now.

    "os/main" and "os/main@{0}" are; "os/main^" and "os/main@{yesterday}" are not. "" of a checksum, or where *text* is
    no revision; what looks like a ref may be none, but an abbreviation.
    """
    match = _BASE.match(text)
    if match is None or (len(match[0]) == 64 and _HEX.fullmatch(match[0])):
        return "", False
    return match[0], text[match.end() :] in ("", "@{0}")


def _parse_relative(text: str, now_s: int) -> int | None:
    if text == "now":
        return now_s
    if text == "yesterday":
        return now_s - _UNITS_S["day"]
    match = _AGO.fullmatch(text)
    return None if match is None else now_s - int(match[1]) * _UNITS_S[match[2]]


def _parse_date(text: str) -> int | None:
    try:
        if _RFC_2822.fullmatch(text):
            from email.utils import parsedate_to_datetime  # slow to import, seldom needed

            date = parsedate_to_datetime(text)
            return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())  # "-0000" is UTC, too
        return int(datetime.fromisoformat(_SPACE_BEFORE_ZONE.sub("", text)).timestamp() // 1)
    except (ValueError, OverflowError, OSError):
        return None


def _steps(text: str, start: int) -> list[re.Match[str]]:
    steps, at = [], start
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise NotFoundError(
                f"{text!r} is not a revision: {text[at:]!r} is none of '^', '~NUMBER', '@{{NUMBER}}' and '@{{TIME}}'"
            )
        steps.append(match)
        at = match.end()
    return steps


def _resolve_base(reading: Reading, base: str) -> CommitNumber:
    if len(base) == 64 and _HEX.fullmatch(base):
        number = commit_number(reading, Checksum(bytes.fromhex(base)))
        if number is None:
            raise NotFoundError(f"there is no commit {base} in this repository; 'fsview log' lists its commits")
        return number
    named = find_named_ref(reading, base)
    if named is not None:
        return named[1].commit
    number = resolve_abbreviation(reading, base) if _HEX.fullmatch(base) else None
    if number is None:
        raise NotFoundError(f"no ref, commit or abbreviation is named {base!r}; {_hint(reading, base)}")
    return number


def _hint(reading: Reading, base: str) -> str:
    """Return where to look instead of *base*: at a ref below it, if there is one."""
    start = base.rstrip("/").encode("utf-8", "surrogatepass") + b"/"
    below = next(reading.items(b"ref", prefix=start), None) if len(start) < NAME_BYTES_MAX else None
    return "'fsview refs' lists the refs" if below is None else f"there is {below[0].decode('utf-8', 'replace')}"


def resolve_abbreviation(reading: Reading, digits: str) -> CommitNumber | None:
    """Return the only commit whose checksum begins with these hex digits, or None.

    Raises:
        NotFoundError: several commits begin so.
        CorruptionError: there is such a commit, but it is not found.
    """
    commits = list(islice(_beginning_with(reading, digits), _CANDIDATES_MAX + 1))
    if len(commits) > 1:
        raise NotFoundError(f"{digits!r} is ambiguous, it begins {_listed(commits)}; write more digits")
    if not commits:
        check_no_commit(reading, digits)
        return None
    return commits[0][1]


def _beginning_with(reading: Reading, digits: str) -> Iterator[tuple[str, CommitNumber]]:
    """Yield the commits whose checksum begins with these hex digits, in order: a range of keys."""
    kind = bytes((ObjectType.COMMIT,))
    whole = bytes.fromhex(digits[: len(digits) & ~1])[:32]
    start = bytes.fromhex(digits + "0" * (len(digits) & 1))[:32]
    for key, value in reading.items(b"object", kind + start, kind + whole):
        checksum = key[1:].hex()
        if not checksum.startswith(digits):
            return
        yield checksum, CommitNumber(key_id(value))


def _listed(commits: list[tuple[str, CommitNumber]]) -> str:
    shown = ", ".join(checksum for checksum, _ in commits[:_CANDIDATES_MAX])
    return shown + (" and others" if len(commits) > _CANDIDATES_MAX else "")


def _parent(reading: Reading, number: CommitNumber, text: str) -> CommitNumber:
    record = commit_record(reading, number)
    checksum, here = load_parent_and_time(reading, number)[0], record.checksum.hex()
    if checksum is None:
        raise NotFoundError(f"{text!r} does not exist: {here} is the first commit and has no parent")
    parent = commit_number(reading, checksum)
    if parent is None:
        raise NotFoundError(
            f"{text!r} is not in this repository: it ends at {here}, whose parent {checksum.hex()} was pruned, "
            f"or not brought here"
        )
    return parent


def _logged(reading: Reading, base: str, when: str, now_s: int) -> CommitNumber:
    named = find_named_ref(reading, base)
    if named is None:
        raise NotFoundError(f"there is no ref {base}, so '@{{…}}' has no log to look in; 'fsview refs' lists the refs")
    name, record = named
    if _INDEX.fullmatch(when) and int(when) == 0:
        return record.commit
    moves = reflog(reading, record.ref_id, record.commit)
    number = _by_index(moves, name, int(when)) if _INDEX.fullmatch(when) else _by_time(moves, name, when, now_s)
    if number is None:
        raise NotFoundError(f"the ref {name} did not exist at '@{{{when}}}'; 'fsview refs --log {name}' shows its log")
    key = id_key(number)
    if reading.get(b"commit", key) is None and reading.was_pruned(b"commit", key):
        raise PrunedError(
            f"the commit at which the ref {name} was at '@{{{when}}}' is not here any more: 'fsview prune' deleted it"
        )
    return number


def _by_index(moves: Iterator[ReflogRecord], name: str, index: int) -> CommitNumber | None:
    count = 0
    for move in moves:
        if count == index:
            return move.new
        count += 1
    raise NotFoundError(f"the log of {name} has {count} entries, '@{{0}}' to '@{{{count - 1}}}'; there is no {index}")


def _by_time(moves: Iterator[ReflogRecord], name: str, when: str, now_s: int) -> CommitNumber | None:
    try:
        time_s = parse_time(when, now_s)
    except InvalidNameError as error:
        raise NotFoundError(f"'{name}@{{{when}}}' is not a revision: {error}") from None
    oldest: ReflogRecord | None = None
    for oldest in moves:
        if oldest.time_s <= time_s:
            return oldest.new
    begins = "is empty" if oldest is None else f"begins at {format_time(oldest.time_s)}"
    raise NotFoundError(f"the log of {name} {begins}, which is after {format_time(time_s)}")


def _colon(text: str, start: int) -> int:
    """Return where the next ":" outside of braces is, or -1: a time in "@{…}" may have some."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if text[at] == ":" and depth <= 0:
            return at
    return -1


def _is_remote(reading: Reading, name: str) -> bool:
    if not _REMOTE.fullmatch(name) or len(name.encode()) > 255:
        return False
    return next(reading.items(b"ref", prefix=name.encode() + b":"), None) is not None
