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
from contextlib import suppress
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Final, NoReturn

from fsview.mountpoint import server_pid
from fsview.options import MountOptions
from fsview.server import serve
from store import errors
from store.errors import FsviewError, MountError

_log = logging.getLogger(__name__)

_LOG_BYTES_MAX: Final = 1 << 20  # and the one before it
_LOG_FORMAT: Final = "%(asctime)s %(levelname)s [%(process)d] %(message)s"


def start(repository_path: Path, point: Path, options: MountOptions, log_path: Path) -> None:
    """Mount in the background; return when the view answers.

    Raises:
        FsviewError: as `serve` does.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_server(repository_path, point, options, log_path, writer)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as stream:
        message = stream.read()
    if not message:
        raise MountError(f"the server for {point} ended without a word; see {log_path}")
    report = json.loads(message)
    if "error" in report:
        raise _raised(report["error"], report["text"])
    _check_answers(point, report["pid"], log_path)


def _become_server(repository_path: Path, point: Path, options: MountOptions, log_path: Path, writer: int) -> NoReturn:
    """Go on as a daemon, the grandchild of the process that was called; never return."""
    status = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        repository_path, point = Path(os.path.abspath(repository_path)), Path(os.path.abspath(point))
        status = _run_server(repository_path, point, options, log_path, writer)
    finally:
        os._exit(status)


def _run_server(repository_path: Path, point: Path, options: MountOptions, log_path: Path, writer: int) -> int:
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
        _leave_the_terminal(log_path, keep=writer)
        serve(repository_path, point, options, on_mounted, on_tick=lambda: _rotate(log_path))
        return 0
    except Exception as error:
        if not is_mounted:
            is_ours = isinstance(error, FsviewError)
            tell({"error": type(error).__name__ if is_ours else "MountError", "text": str(error)})
            return error.exit_status if isinstance(error, FsviewError) else MountError.exit_status
        _log.critical("the server of %s ends; its mount stays, dead, until it is mounted again", point, exc_info=error)
        return 1


def _leave_the_terminal(log_path: Path, keep: int) -> None:
    """Close what the caller had open, log to a file, stand where nothing can be in the way of an unmount."""
    try:
        log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MountError(
            f"the log {log_path} can't be written ({error.strerror}); set XDG_STATE_HOME to where it can be, "
            f"or stay in the foreground with -f, where the log goes to the terminal"
        ) from error
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for first, last in ((3, keep), (keep + 1, os.sysconf("SC_OPEN_MAX"))):
        os.closerange(first, last)
    os.chdir("/")
    faulthandler.enable(file=2)
    log_to(WatchedFileHandler(log_path))


def _rotate(log_path: Path) -> None:
    """Begin a new log when it is full; the workers notice, and follow."""
    with suppress(OSError):  # it was moved away, or the directory is: nothing that should end the service
        if os.stat(log_path).st_size > _LOG_BYTES_MAX:
            os.replace(log_path, f"{log_path}.1")


def log_to(handler: logging.Handler) -> None:
    """Send the log of this process, and of those forked from it, to *handler*."""
    logging.raiseExceptions = False  # a full disk costs lines of the log, nothing else
    logging.basicConfig(handlers=[handler], format=_LOG_FORMAT, level=logging.INFO, force=True)


def _raised(class_name: str, text: str) -> FsviewError:
    """Return the error that the server told of."""
    kind = getattr(errors, class_name, MountError)
    error: FsviewError = kind.__new__(kind, text)
    return error


def _check_answers(point: Path, pid: int, log_path: Path) -> None:
    """Look through the mount as anybody would.

    Raises:
        MountError: it doesn't answer, or is not ours.
    """
    try:
        os.listdir(point)
    except OSError as error:
        raise MountError(f"the view at {point} does not answer ({error.strerror}); see {log_path}") from error
    if server_pid(point) != pid:
        raise MountError(f"something else is mounted at {point}, over the view; see 'findmnt {point}'")
