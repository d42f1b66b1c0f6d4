"""The server of a view as a process of its own.

The caller comes back when the view has answered through the mount, or with the error that the server ended with. The
index is opened after the fork: LMDB's environments don't survive one.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final, NoReturn

from fsview.kernel_reads import cover
from fsview.log import LogFile, is_journal, log_to_file, log_to_stderr
from fsview.mounting import OPEN, open_unfollowed
from fsview.mountpoint import server_pid, unmount
from fsview.options import MountOptions
from fsview.server import serve
from store import errors
from store.errors import FsviewError, MountError
from store.own_files import own_directory

_log = logging.getLogger(__name__)

_STDERR: Final = 2


def start(
    repository_path: Path, point: Path, options: MountOptions, log_path: Path, place: int | None = None
) -> None:  # fmt: skip
    """Mount in the background; return when the view answers. *place*: the directory *point*, open, for root.

    Raises:
        FsviewError: as `serve` does.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_server(repository_path, point, options, log_path, writer, place)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as stream:
        message = stream.read()
    if not message:
        raise MountError(f"the server for {point} ended without a word; see {log_path}")
    report = json.loads(message)
    if "error" in report:
        raise _raised(report["error"], report["text"])
    view = _open_view(point, report["pid"], log_path)
    try:
        if options.kernel_reads:
            _cover(repository_path, point, view, options)
    finally:
        os.close(view)


def _cover(repository_path: Path, point: Path, view: int, options: MountOptions) -> None:
    try:
        cover(view, point, repository_path, options.flags())
    except BaseException:
        unmount(point)
        raise


def _become_server(
    repository_path: Path, point: Path, options: MountOptions, log_path: Path, writer: int, place: int | None
) -> NoReturn:  # fmt: skip
    """Go on as a daemon, the grandchild of the process that was called; never return."""
    status = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        repository_path, point = Path(os.path.abspath(repository_path)), Path(os.path.abspath(point))
        status = _run_server(repository_path, point, options, log_path, writer, place)
    finally:
        os._exit(status)


def _run_server(
    repository_path: Path, point: Path, options: MountOptions, log_path: Path, writer: int, place: int | None
) -> int:  # fmt: skip
    def tell(report: dict[str, str | int]) -> None:
        with suppress(BrokenPipeError):  # the caller was interrupted
            os.write(writer, json.dumps(report).encode())
        os.close(writer)

    is_mounted = False

    def on_mounted() -> None:
        nonlocal is_mounted
        is_mounted = True
        tell({"pid": os.getpid()})

    try:
        rotate = _leave_the_terminal(log_path, point, {writer} if place is None else {writer, place})
        serve(repository_path, point, options, on_mounted, rotate, place)
        return 0
    except Exception as error:
        if not is_mounted:
            is_ours = isinstance(error, FsviewError)
            tell({"error": type(error).__name__ if is_ours else "MountError", "text": str(error)})
            return error.exit_status if isinstance(error, FsviewError) else MountError.exit_status
        _log.critical("the server of %s ends; its mount stays, dead, until it is mounted again", point, exc_info=error)
        return 1


def _leave_the_terminal(log_path: Path, point: Path, keep: set[int]) -> Callable[[], None]:
    """Close what the caller had open, log to a file, stand where nothing can be in the way of an unmount.

    Where the caller's stderr is the journal, as that of a mount unit of systemd's, it is kept for the log. Return what
    begins a new file when the log is full.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    rotate = _begin_log(log_path, point)
    for first, last in pairwise((2, *sorted(keep), os.sysconf("SC_OPEN_MAX"))):
        os.closerange(first + 1, last)
    os.chdir("/")
    faulthandler.enable(file=_STDERR)
    return rotate


def _begin_log(log_path: Path, point: Path) -> Callable[[], None]:
    if is_journal(_STDERR):
        log_to_stderr(point)
        return lambda: None
    try:
        os.close(own_directory(log_path.parent, make=True))
        file = LogFile(log_path, _STDERR)
    except OSError as error:
        raise MountError(
            f"the log {log_path} can't be written ({error.strerror}); set XDG_STATE_HOME to where it can be, "
            f"or stay in the foreground with -f, where the log goes to the terminal"
        ) from error
    log_to_file(point, file)
    return file.rotate


def _raised(class_name: str, text: str) -> FsviewError:
    """Return the error that the server told of."""
    kind = getattr(errors, class_name, MountError)
    error: FsviewError = kind.__new__(kind, text)
    return error


def _open_view(point: Path, pid: int, log_path: Path) -> int:
    """Look through the mount as anybody would; return it open.

    Raises:
        MountError: it doesn't answer, or is not ours.
    """
    try:
        view = open_unfollowed(Path(os.path.realpath(point)))
        os.listdir(f"{OPEN}{view}")
    except OSError as error:
        raise MountError(f"the view at {point} does not answer ({error.strerror}); see {log_path}") from error
    if server_pid(Path(f"{OPEN}{view}")) != pid:
        os.close(view)
        raise MountError(f"something else is mounted at {point}, over the view; see 'findmnt {point}'")
    return view
