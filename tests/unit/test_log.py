"""The server's log: the form of a line, and a log that can't be written."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsview.log import LogFile, LogFormatter, LogStream, is_journal

POINT = Path("/mnt/a b")


def _record(text: str, level: int = logging.ERROR, *, broken: bool = False) -> logging.LogRecord:
    try:
        raise ValueError("why")
    except ValueError:
        error = sys.exc_info() if broken else None
    record = logging.LogRecord("fsview.x", level, "x.py", 1, "%s", (text,), error)
    record.created, record.msecs, record.process = 1_800_000_000.5, 500.0, 42
    return record


def test_a_line_is_names_and_values() -> None:
    line = LogFormatter(POINT).format(_record('a "b"\nlevel=info'))
    assert line == (r'time=2027-01-15T08:00:00.500Z pid=42 level=error mount="/mnt/a b" text="a \"b\"\nlevel=info"')
    assert LogFormatter(Path("/mnt")).format(_record("fine", logging.INFO)).endswith("level=info mount=/mnt text=fine")


def test_a_traceback_is_on_the_same_line() -> None:
    line = LogFormatter(POINT).format(_record("bug", broken=True))
    assert "\n" not in line and json.loads(line.partition("traceback=")[2]).endswith("ValueError: why")


@pytest.mark.parametrize(("level", "priority"), [(logging.CRITICAL, 2), (logging.WARNING, 4), (logging.INFO, 6)])
def test_the_journal_has_times_and_wants_a_priority(level: int, priority: int) -> None:
    line = LogFormatter(POINT, journal=True).format(_record("x", level))
    assert line.startswith(f"<{priority}>level=") and "time=" not in line and "pid=" not in line


def test_the_journal_is_told_by_its_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "f").open("w") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(file.fileno()) and not is_journal(0)
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not is_journal(file.fileno())


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogFile]:
    """Return a log in a directory of its own."""
    (tmp_path / "state").mkdir()
    descriptor = os.open(os.devnull, os.O_WRONLY)
    handler = LogFile(tmp_path / "state/log", descriptor)
    handler.setFormatter(LogFormatter(POINT))
    yield handler
    os.close(descriptor)


def test_a_log_that_was_moved_away_begins_anew(log: LogFile, tmp_path: Path) -> None:
    log.handle(_record("first"))
    (tmp_path / "state/log").rename(tmp_path / "state/old")
    log.handle(_record("second"))
    assert "first" in (tmp_path / "state/old").read_text()
    assert (tmp_path / "state/log").read_text().endswith("text=second\n")


def test_a_log_that_is_full_is_put_aside(log: LogFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsview.log._BYTES_MAX", 100)
    log.handle(_record("first"))
    log.rotate()
    assert not (tmp_path / "state/log.1").exists()
    log.handle(_record("x" * 100))
    log.rotate()
    log.handle(_record("last"))
    assert "first" in (tmp_path / "state/log.1").read_text()
    assert "first" not in (tmp_path / "state/log").read_text() and "last" in (tmp_path / "state/log").read_text()


def test_a_log_that_cant_be_written_costs_lines(log: LogFile, tmp_path: Path) -> None:
    (tmp_path / "state").rename(tmp_path / "gone")
    log.handle(_record("lost or not"))
    log.rotate()
    (tmp_path / "gone").rename(tmp_path / "state")
    (tmp_path / "state/log").unlink()
    (tmp_path / "state/log").symlink_to("/dev/full")
    log.handle(_record("lost"))
    (tmp_path / "state/log").unlink()
    log.handle(_record("kept"))
    assert (tmp_path / "state/log").read_text().endswith("text=kept\n")


def test_a_line_that_was_cut_is_ended_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(data[:10] if not written else data)
        return len(written[-1])

    monkeypatch.setattr("fsview.log.os.write", write)
    stream = LogStream(99)
    for text in ("first, and long", "second", "third"):
        stream.handle(_record(text))
    assert written == [b"first, and", b"\nsecond\n", b"third\n"]


def test_a_log_that_cant_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogFile(tmp_path / "none/log", 99)
