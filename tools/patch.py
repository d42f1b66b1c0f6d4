"""Changes as a patch that `git apply` takes; the lines come from the user's own `diff -u`.

What a patch can't say (owners, xattrs, directories) stands before each file's part, in lines that begin with "#"; also
that a file is too large to be compared line by line, which is then shown as a binary one is.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from store.content import chunks, open_content
from store.database import Reading
from store.errors import FsviewError
from store.listing import Entry
from store.repository import Repository
from store.schema import FileId
from tools.changes import Change, Kind
from tools.facts import Facts, describe_changes, load_facts
from tools.render import quote_path, size_text
from tools.searching import is_binary

# What `diff` may get of each file: it holds both whole, and some 100 bytes for each line.
_TEXT_BYTES_MAX: Final = 64 << 20
_TEXT_LINES_MAX: Final = 1_000_000
_LIMITS: Final = f"which is for up to {size_text(_TEXT_BYTES_MAX)} and {_TEXT_LINES_MAX:,} lines"


def print_patch(repository: Repository, reading: Reading, changes: Iterable[Change]) -> None:
    """Print *changes* on stdout.

    Raises:
        FsviewError: there is no `diff`, or it failed.
    """
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="fsview-diff-") as scratch:
        printer = _Printer(repository, reading, Path(scratch), sys.stdout.buffer)
        for part in _parts(changes):
            printer.print_part(part)
    sys.stdout.buffer.flush()


class _TooLargeError(Exception):
    """A file is more than `diff` is given."""


class _Printer:
    def __init__(self, repository: Repository, reading: Reading, scratch: Path, output: BinaryIO) -> None:
        self._repository, self._reading, self._scratch, self._output = repository, reading, scratch, output

    def print_part(self, part: Change) -> None:
        old = load_facts(self._reading, part.old) if part.old else None
        new = load_facts(self._reading, part.new) if part.new else None
        for line in _remarks(old, new):
            self._line(f"# {quote_path(part.path or b'/')}: {line}")
        if "d" not in (old and old.letter, new and new.letter):
            self._print_file(part, old, new)

    def _print_file(self, part: Change, old: Facts | None, new: Facts | None) -> None:
        names = quote_path(b"a" + part.path), quote_path(b"b" + part.path)
        labels = names[0] if old else "/dev/null", names[1] if new else "/dev/null"
        header = [f"diff --git {names[0]} {names[1]}", *_mode_lines(part)]
        if self._is_binary(old) or self._is_binary(new):
            self._print_whole(header, labels, old, new)
            return
        try:
            files = self._write("old", old), self._write("new", new)
        except _TooLargeError:
            if self._differ(old, new):
                self._line(f"# {quote_path(part.path)}: too large to be compared line by line, {_LIMITS}")
            self._print_whole(header, labels, old, new)
            return
        self._lines_with_diff(header, labels, *files)

    def _print_whole(self, header: list[str], labels: tuple[str, str], old: Facts | None, new: Facts | None) -> None:
        """Print that two files differ, if they do."""
        if self._differ(old, new):
            header.append(f"Binary files {labels[0]} and {labels[1]} differ")
        self._lines_if_more(header)

    def _lines_if_more(self, header: list[str]) -> None:
        if len(header) > 1:
            self._line("\n".join(header))

    def _lines_with_diff(self, header: list[str], labels: tuple[str, str], old: Path, new: Path) -> None:
        process = _start_diff(labels, old, new)
        assert process.stdout is not None
        with process:
            first = process.stdout.read(1 << 16)
            if first or len(header) > 1:
                self._line("\n".join(header))
            self._output.write(first)
            shutil.copyfileobj(process.stdout, self._output)
        if process.returncode not in (0, 1):
            raise FsviewError(f"'diff -u' failed with status {process.returncode}; its message is above")

    def _write(self, name: str, facts: Facts | None) -> Path:
        path = self._scratch / name
        lines = 0
        if facts is not None and facts.entry.size > _TEXT_BYTES_MAX:
            raise _TooLargeError
        with path.open("wb") as file:
            for data in self._data(facts):
                lines += data.count(b"\n")
                if lines > _TEXT_LINES_MAX:
                    raise _TooLargeError
                file.write(data)
        return path

    def _data(self, facts: Facts | None) -> Iterator[bytes]:
        if facts is None:
            return iter(())
        if facts.letter == "l":
            return iter((facts.target,))
        return chunks(self._repository, self._reading, FileId(facts.entry.id))

    def _is_binary(self, facts: Facts | None) -> bool:
        if facts is None or facts.letter != "-":
            return False
        content = open_content(self._repository, self._reading, FileId(facts.entry.id))
        try:
            return is_binary(content)
        finally:
            content.close()

    def _differ(self, old: Facts | None, new: Facts | None) -> bool:
        if old is None or new is None or old.entry.size != new.entry.size:
            return True
        pairs = zip(self._data(old), self._data(new), strict=True)
        return any(a != b for a, b in pairs)

    def _line(self, text: str) -> None:
        self._output.write(os.fsencode(text) + b"\n")


def _parts(changes: Iterable[Change]) -> Iterator[Change]:
    """Yield the changes, those of kind as a deletion and an addition: this when everything below the path is gone."""
    waiting: Change | None = None
    for change in changes:
        if waiting and not change.path.startswith(waiting.path + b"/"):
            yield waiting
            waiting = None
        if change.kind is Kind.TYPE and change.old and change.new:
            yield Change(change.path, change.old, None)
            addition = Change(change.path, None, change.new)
            if change.old.is_directory:
                waiting = addition
            else:
                yield addition
        else:
            yield change
    if waiting:
        yield waiting


def _remarks(old: Facts | None, new: Facts | None) -> list[str]:
    """Return what of a change a patch has no line for."""
    if old and new:
        said_elsewhere = ("target ", "mode ") if new.letter == "-" else ("target ",)
        return [line for line in describe_changes(old, new) if not line.startswith(said_elsewhere)]
    facts = new or old
    assert facts is not None
    if facts.letter == "d":
        return [f"directory {'added' if new else 'deleted'}, {_owner_mode(facts)}"]
    return [f"xattr {quote_path(name)} added" for name, _ in facts.xattrs] if new else []


def _owner_mode(facts: Facts) -> str:
    entry = facts.entry
    return f"mode {stat.S_IMODE(entry.mode):05o}, owner {entry.uid}:{entry.gid}"


def _mode_lines(part: Change) -> list[str]:
    old, new = _patch_mode(part.old), _patch_mode(part.new)
    if part.old is None or part.new is None:
        return [f"new file mode {new}" if part.old is None else f"deleted file mode {old}"]
    return [] if old == new else [f"old mode {old}", f"new mode {new}"]


def _patch_mode(entry: Entry | None) -> str:
    """Return a mode as git writes it: that of a symlink has no permissions."""
    if entry is None:
        return ""
    return "120000" if stat.S_ISLNK(entry.mode) else f"{entry.mode:06o}"


def _start_diff(labels: tuple[str, str], old: Path, new: Path) -> subprocess.Popen[bytes]:
    command = ["diff", "-u", "--text", "--label", labels[0], "--label", labels[1], str(old), str(new)]
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise FsviewError("there is no 'diff' program in PATH; install it: apt install diffutils") from None
