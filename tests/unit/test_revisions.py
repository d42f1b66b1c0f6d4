"""Every form of a revision, and every way to get one wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.database import Writing
from store.errors import InvalidNameError, NotFoundError
from store.objects import Checksum, Commit, ObjectType
from store.refs import set_ref
from store.repository import Repository
from store.revisions import abbreviate, format_time, parse_time, resolve, split_path
from store.schema import CommitNumber, CommitRecord, MetaId, TreeId, id_key

NOW_S = 1_800_000_000
FIRST, SECOND, THIRD = (Checksum(bytes((0xA1, 0xB0, number << 4)) + bytes(29)) for number in range(3))
LONE = Checksum(b"\x12\x34" + bytes(30))
CUT = Checksum(b"\xcc" * 32)  # its parent is not here


def _put_commit(writing: Writing, checksum: Checksum, parent: Checksum | None) -> CommitNumber:
    """Record a commit under a checksum of our choice: names don't look into it."""
    number = CommitNumber(writing.take_id("commit"))
    raw = Commit((), parent, "", "", 0, Checksum(bytes(32)), Checksum(bytes(32))).to_bytes()
    writing.put(b"commit", id_key(number), CommitRecord(checksum, TreeId(0), MetaId(0), 1, 0, raw).pack())
    writing.put(b"object", bytes((ObjectType.COMMIT,)) + checksum, id_key(number))
    return number


def _fill(writing: Writing) -> None:
    parents = {FIRST: None, SECOND: FIRST, THIRD: SECOND, LONE: None, CUT: Checksum(b"\xee" * 32)}
    numbers = {checksum: _put_commit(writing, checksum, parent) for checksum, parent in parents.items()}
    for checksum, time_s in ((FIRST, 1000), (SECOND, 2000), (THIRD, 3000)):
        set_ref(writing, "a/b", numbers[checksum], time_s=time_s, message="")
    refs = {"tags/v1": FIRST, "12": FIRST, "beef": SECOND, "origin:a/b": SECOND, "origin:x": LONE}
    for name, checksum in (refs | {"cut": CUT}).items():
        set_ref(writing, name, numbers[checksum], time_s=2500, message="")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with Repository.create(tmp_path_factory.mktemp("revisions") / "repo") as repository:
        repository.database.write(_fill)
        yield repository


def _resolve(repository: Repository, text: str) -> Checksum:
    with repository.database.reading() as reading:
        number = resolve(reading, text, now_s=NOW_S)
        return CommitRecord.unpack(reading.need(b"commit", id_key(number))).checksum


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FIRST.hex(), FIRST),
        (FIRST.hex()[:63], FIRST),
        ("a1b000", FIRST),
        ("a1b0", "ambiguous"),
        ("a1b01", SECOND),
        ("a1b020", THIRD),
        ("c", CUT),  # one digit does, as in OSTree
        ("a/b", THIRD),
        ("origin:a/b", SECOND),
        ("v1", FIRST),
        ("tags/v1", FIRST),
        ("a/b^", SECOND),
        ("a/b^^", FIRST),
        ("a/b~", SECOND),
        ("a/b~0", THIRD),
        ("a/b~2", FIRST),
        ("a/b~1^", FIRST),
        ("a/b~~", FIRST),
        ("a1b02^", SECOND),
        ("a/b@{0}", THIRD),
        ("a/b@{1}", SECOND),
        ("a/b@{2}", FIRST),
        ("a/b@{1}^~0", FIRST),
        ("a/b@{1}^", FIRST),
        ("a/b@{@2999}", SECOND),
        ("a/b@{@3000}", THIRD),
        ("a/b@{1970-01-01T00:33:20Z}", SECOND),
        ("a/b@{1970-01-01 00:33:19+00:00}^{0}", "none of"),
        ("a/b@{2026-11-01}", THIRD),
        ("a/b@{now}", THIRD),
        ("a/b@{yesterday}", THIRD),
        ("a/b@{2 weeks ago}", THIRD),
        ("v1@{0}", FIRST),
        ("origin:a/b@{0}", SECOND),
        ("beef", SECOND),  # hexadecimal, but no commit begins so
        ("12", FIRST),  # the ref, not the commit that begins so
        ("12@{0}", FIRST),
        ("123", LONE),
        ("", "must begin with"),
        ("^", "must begin with"),
        ("@{1}", "must begin with"),
        ("a/b^1", "is none of"),
        ("a/b~x", "is none of"),
        ("a/b@", "is none of"),
        ("a/b@{1", "is none of"),
        ("a/b^@{1}", "right behind the name of a ref"),
        ("a/b@{3}", "has 3 entries"),
        ("a/b@{@999}", "begins at 1970-01-01 00:16:40"),
        ("a/b@{soon}", "is not a time"),
        ("a/b~3", "is the first commit"),
        ("a/b~999999999", "is the first commit"),
        ("a/b~9999999999", "is none of"),
        ("cut^", "was pruned, or not brought here"),
        ("nowhere", "no ref, commit or abbreviation"),
        ("nowhere@{1}", "no ref nowhere"),
        ("origin:a", "named 'origin:a'; there is origin:a/b$"),
        ("a/", "named 'a/'; there is a/b$"),
        ("ffff", "no ref, commit or abbreviation"),
        ("f" * 64, "no commit"),
        ("a" * 65, "no ref, commit or abbreviation"),
        ("A1B000", "no ref, commit or abbreviation"),  # checksums are lower-case
        ("a/b/", "no ref"),
        ("/a/b", "no ref"),
        ("a b", "no ref"),
        ("x" * 600, "no ref"),
        ("é" * 300, "no ref"),
        ("\udcff", "no ref"),
    ],
    ids=repr,
)
def test_resolve(repository: Repository, text: str, expected: Checksum | str) -> None:
    if isinstance(expected, bytes):
        assert _resolve(repository, text) == expected
    else:
        with pytest.raises(NotFoundError, match=expected):
            _resolve(repository, text)


def test_an_ambiguous_abbreviation_lists_its_candidates(repository: Repository) -> None:
    with pytest.raises(NotFoundError) as caught:
        _resolve(repository, "a1")
    assert all(checksum.hex() in str(caught.value) for checksum in (FIRST, SECOND, THIRD))


@pytest.mark.unchecked
def test_at_most_five_candidates_are_listed(tmp_path: Path) -> None:
    with Repository.create(tmp_path / "repo") as repository:
        checksums = [Checksum(bytes((0xAB, number)) + bytes(30)) for number in range(7)]
        repository.database.write(lambda writing: [_put_commit(writing, checksum, None) for checksum in checksums])
        with pytest.raises(NotFoundError, match="and others") as caught:
            _resolve(repository, "ab")
    assert [checksum.hex() in str(caught.value) for checksum in checksums] == [True] * 5 + [False] * 2


def test_an_abbreviation_reads_no_more_than_its_candidates(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve(repository, "a1b01")  # what is known of all refs is read once, and kept
    with repository.database.reading() as reading:
        read: list[bytes] = []
        items = type(reading).items

        def counting(*args: object, **kwargs: object) -> Iterator[tuple[bytes, bytes]]:
            for key, value in items(*args, **kwargs):  # type: ignore[arg-type]
                read.append(key)
                yield key, value

        monkeypatch.setattr(type(reading), "items", counting)
        resolve(reading, "a1b01", now_s=NOW_S)
    assert len(read) == 2  # the one, and the one behind it


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b", ("a/b", None)),
        ("a/b:/etc/passwd", ("a/b", b"/etc/passwd")),
        ("a/b:etc", ("a/b", b"etc")),
        ("a/b:", ("a/b", b"")),
        ("origin:a/b", ("origin:a/b", None)),
        ("origin:/a/b", ("origin", b"/a/b")),  # ":/" is always a path
        ("origin:a/b:/x:y", ("origin:a/b", b"/x:y")),
        ("origin:a/b^:x", ("origin:a/b^", b"x")),
        ("a/b@{2026-11-01 10:00}", ("a/b@{2026-11-01 10:00}", None)),
        ("a/b@{2026-11-01 10:00}:/x@{1:2}", ("a/b@{2026-11-01 10:00}", b"/x@{1:2}")),
        ("a/b:/\udcff", ("a/b", b"/\xff")),
        ("x" * 600 + ":y", ("x" * 600, b"y")),
        (":/x", ("", b"/x")),
    ],
)
def test_split_path(repository: Repository, text: str, expected: tuple[str, bytes | None]) -> None:
    with repository.database.reading() as reading:
        assert split_path(reading, text) == expected


_PIECES = st.sampled_from(
    [
        "a/b",
        "main",
        "origin:",
        "a1b0",
        "12",
        "^",
        "~",
        "~2",
        "@{",
        "}",
        "@{1}",
        "@{now}",
        ":/",
        ":",
        "2026-11-01",
        "\x00",
    ]
)


@given(st.one_of(st.text(), st.lists(st.one_of(_PIECES, st.text(max_size=3))).map("".join)))
def test_no_text_is_more_than_not_found(repository: Repository, text: str) -> None:
    with repository.database.reading() as reading:
        try:
            revision, _ = split_path(reading, text)
            resolve(reading, revision, now_s=NOW_S)
        except NotFoundError as error:
            assert str(error)


@given(st.text())
def test_no_text_is_more_than_no_time(text: str) -> None:
    try:
        assert parse_time(text, NOW_S) >= 0
    except InvalidNameError as error:
        assert str(error)


def test_abbreviate_gives_what_resolves(repository: Repository) -> None:
    with repository.database.reading() as reading:
        assert abbreviate(reading, LONE) == LONE.hex()[:8]
        assert abbreviate(reading, FIRST, 4) == "a1b00"
        assert abbreviate(reading, SECOND, 1) == "a1b01"
        assert abbreviate(reading, LONE, 2) == "123"  # "12" is a ref


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW_S),
        ("Yesterday", NOW_S - 86400),
        ("1 second ago", NOW_S - 1),
        ("90 minutes ago", NOW_S - 5400),
        ("2 weeks ago", NOW_S - 14 * 86400),
        ("@0", 0),
        ("@1577836800", 1577836800),
        ("1577836800", 1577836800),
        ("2020-01-01T00:00:00Z", 1577836800),
        ("2020-01-01 01:00:00 +0100", 1577836800),
        ("2020-01-01T01:00+01:00", 1577836800),
        ("2020-01-01T00:00:00.9Z", 1577836800),
        ("Wed, 01 Jan 2020 00:00:00 +0000", 1577836800),
        ("1 Jan 2020 00:00:00 -0000", 1577836800),
        (" 2020-01-01T00:00:00Z\n", 1577836800),
        ("9999-12-31T23:59:59Z", 253402300799),
    ],
)
def test_parse_time(text: str, expected: int) -> None:
    assert parse_time(text, NOW_S) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a time"),
        ("tomorrow", "is not a time"),
        ("2020-02-30", "is not a time"),
        ("30 Feb 2020 00:00 +0000", "is not a time"),
        ("-5", "is not a time"),
        ("1969-12-31T23:59:59Z", "before 1970"),
        ("99999 weeks ago", "before 1970"),
        ("20201231", "may be a date or seconds"),
    ],
)
def test_what_is_no_time_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidNameError, match=message):
        parse_time(text, NOW_S)


def test_a_time_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for zone, expected in (("UTC", 1577836800), ("EST+5", 1577854800)):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert parse_time("2020-01-01", NOW_S) == parse_time("2020-01-01 00:00", NOW_S) == expected
            assert format_time(1577836800) == "2020-01-01 00:00:00 +0000"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_beyond_the_calendar_is_shown_as_seconds() -> None:
    assert format_time(2**63) == f"@{2**63}"
