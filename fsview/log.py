"""The server's log: one line an event, as name=value pairs that people read and programs parse.

    time=2026-11-23T07:16:04.123Z level=error pid=4711 mount=/mnt/releases text="read of 4096 bytes at 0: …"

To stderr in front; where that is the journal, with a priority instead of time and pid, which the journal has. To a
file in the background. A log that can't be written (a full disk, a directory that is gone, a symlink that somebody put
there) costs lines, nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from store.own_files import open_own, own_directory

_STDERR: Final = 2
_BYTES_MAX: Final = 1 << 20  # and the file before it
_PLAIN = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f]+")
_PRIORITIES: Final = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
_JOURNAL_VARIABLE: Final = "JOURNAL_STREAM"


class LogFormatter(logging.Formatter):
    """Makes the line of an event; what it tells is quoted as in JSON, so that no name can look like another line."""

    def __init__(self, point: Path, *, journal: bool = False) -> None:
        super().__init__()
        self._point, self._journal = os.path.abspath(point), journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*; a traceback is one of its values."""
        pairs = {"level": record.levelname.lower(), "mount": self._point, "text": record.getMessage()}
        if record.exc_info:
            pairs["traceback"] = self.formatException(record.exc_info)
        if self._journal:
            return f"<{_PRIORITIES.get(record.levelname, 6)}>{_line(pairs)}"
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return _line({"time": f"{seconds}.{record.msecs:03.0f}Z", "pid": str(record.process)} | pairs)


class LogStream(logging.Handler):
    """Writes each line to a descriptor with one write, for several processes do it, and without a buffer to fill."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._is_cut = False  # the last line, by a disk that became full

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of *record*, if that can be done."""
        with suppress(OSError):
            line = f"{'' if not self._is_cut else os.linesep}{self.format(record)}{os.linesep}"
            data = line.encode("utf-8", "surrogateescape")
            self._is_cut = os.write(self._descriptor, data) < len(data)


class LogFile(LogStream):
    """Appends to a file, which may be moved away at any time.

    Not logging's WatchedFileHandler, which raises where the file can't be opened any more.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Open *path*, and have *descriptor* be it: also what is written there past this goes to the log.

        Raises:
            OSError: it can't be opened, or is no plain file of this user's in a directory that is root's or his.
        """
        super().__init__(descriptor)
        self._path = path
        self._reopen()

    def emit(self, record: logging.LogRecord) -> None:
        """Append the line of *record*, if that can be done."""
        with suppress(OSError):
            self._follow()
        super().emit(record)

    def rotate(self) -> None:
        """Begin a new file if this one is full; only one of the processes that write there may do it."""
        with suppress(OSError):
            if os.fstat(self._descriptor).st_size > _BYTES_MAX:
                with self._directory() as directory:
                    name = self._path.name
                    os.replace(name, f"{name}.1", src_dir_fd=directory, dst_dir_fd=directory)
                self._follow()

    def _follow(self) -> None:
        """Open the file anew if it is not the one of this name any more."""
        try:
            there: os.stat_result | None = os.lstat(self._path)
        except FileNotFoundError:
            there = None
        if there is None or not os.path.samestat(there, os.fstat(self._descriptor)):
            self._reopen()

    def _reopen(self) -> None:
        with self._directory() as directory:
            opened = open_own(directory, self._path.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, self._descriptor)
        os.close(opened)

    @contextmanager
    def _directory(self) -> Iterator[int]:
        directory = own_directory(self._path.parent)
        try:
            yield directory
        finally:
            os.close(directory)


def log_to_stderr(point: Path) -> None:
    """Send the log of this process, and of those forked from it, to stderr."""
    _send_to(LogStream(_STDERR), LogFormatter(point, journal=is_journal(_STDERR)))


def log_to_file(point: Path, file: LogFile) -> None:
    """Send the log of this process, and of those forked from it, to *file*."""
    _send_to(file, LogFormatter(point))


def is_journal(descriptor: int) -> bool:
    """Whether what is written there goes to systemd's journal."""
    status = os.fstat(descriptor)
    return os.environ.get(_JOURNAL_VARIABLE) == f"{status.st_dev}:{status.st_ino}"


def _send_to(handler: logging.Handler, formatter: logging.Formatter) -> None:
    logging.raiseExceptions = False
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def _line(pairs: dict[str, str]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in pairs.items())


def _quoted(value: str) -> str:
    """Return a value for people and terminals: in JSON where it has to be, all that can't be seen as its escape."""
    if value.isprintable():
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(value, ensure_ascii=False))
