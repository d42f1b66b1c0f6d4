"""The server of a mount: open the repository, mount, answer, unmount.

    foreground    this process serves until the view is unmounted, or SIGTERM, SIGINT or SIGHUP ends it
    background    a process of its own does; the caller comes back when the view has answered through the mount

The index is opened after the fork: LMDB's environments don't survive one. A server that was ended by a signal
unmounts; one that crashed leaves its mount in place (fsview/mountpoint.py tells why).
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, NoReturn

import pyfuse3
import trio

from fsview.mountpoint import (
    PID_MARK,
    REPOSITORY_MARK,
    SUBTYPE,
    check_machine,
    check_mount_point,
    server_pid,
    source_name,
)
from fsview.operations import Operations, find_ino_offset
from fsview.view import View
from store import errors
from store.errors import FsviewError, MountError
from store.repository import Repository

_log = logging.getLogger(__name__)

_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOG_BYTES_MAX: Final = 1 << 20  # and the one before it
_LOG_FORMAT: Final = "%(asctime)s %(levelname)s [%(process)d] %(message)s"


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What `-o` may say. overwrite_ino: write st_ino where pyfuse3 has no way to (fsview/operations.py)."""

    allow_other: bool = False
    default_permissions: bool = False
    overwrite_ino: bool = True

    def for_libfuse(self, repository: Path) -> set[str]:
        """Return the options as libfuse takes them."""
        options = {"ro", f"fsname={source_name(repository)}", f"subtype={SUBTYPE}"}
        options |= {"allow_other"} if self.allow_other else set()
        return options | ({"default_permissions"} if self.allow_other or self.default_permissions else set())


def serve(repository_path: Path, point: Path, options: MountOptions, on_mounted: Callable[[], None]) -> None:
    """Mount and answer until the view is unmounted or a signal ends it; *on_mounted* is called before the first answer.

    Raises:
        FsviewError: the repository can't be opened or the view not mounted.
    """
    repository_path, point = Path(os.path.realpath(repository_path)), Path(os.path.realpath(point))
    check_machine(allow_other=options.allow_other)
    check_mount_point(point, repository_path)
    with Repository.open(repository_path) as repository, _signals_blocked():
        view = _view(repository)
        offset = find_ino_offset() if options.overwrite_ino else None
        if offset is None:
            _log.warning("st_ino can't be set beside the node number here; each directory costs one request more")
        _mount(Operations(view, offset), point, options.for_libfuse(repository_path))
        is_clean = False
        try:
            _log.info("%s is mounted at %s", repository_path, point)
            on_mounted()
            trio.run(_answer)
            is_clean = True
        finally:
            pyfuse3.close(unmount=is_clean)
            view.close()
        _log.info("%s is unmounted", point)


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


def _view(repository: Repository) -> View:
    marks = {PID_MARK: str(os.getpid()).encode(), REPOSITORY_MARK: os.fsencode(repository.path)}
    return View(repository, uid=os.getuid(), gid=os.getgid(), now_s=lambda: int(time.time()), marks=marks)


def _mount(operations: Operations, point: Path, options: set[str]) -> None:
    try:
        with _caught_stderr() as caught:
            pyfuse3.init(operations, str(point), options)
    except RuntimeError as error:
        text = " ".join(caught()) or str(error)
        raise MountError(
            f"{point} could not be mounted: {text}; 'fsview doctor' says what this machine lacks"
        ) from error


async def _answer() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal)
        await pyfuse3.main(min_tasks=1, max_tasks=1)
        nursery.cancel_scope.cancel()


async def _end_on_signal() -> None:
    with trio.open_signal_receiver(*_END_SIGNALS) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
        async for number in signals:
            _log.info("%s: unmounting", signal.Signals(number).name)
            pyfuse3.terminate()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold back the signals that would end this process between mounting and serving."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _caught_stderr() -> Iterator[Callable[[], list[str]]]:
    """Catch what libfuse and fusermount3 write to stderr: the only place where they tell what went wrong."""
    with tempfile.TemporaryFile() as caught:
        saved = os.dup(2)
        os.dup2(caught.fileno(), 2)
        lines: list[str] = []
        try:
            yield lambda: lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            lines += caught.read().decode(errors="replace").splitlines()


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
        serve(repository_path, point, options, on_mounted)
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
    log_to(RotatingFileHandler(log_path, maxBytes=_LOG_BYTES_MAX, backupCount=1))


def log_to(handler: logging.Handler) -> None:
    """Send the log of this process to *handler*."""
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
        names = os.listdir(point)
    except OSError as error:
        raise MountError(f"the view at {point} does not answer ({error.strerror}); see {log_path}") from error
    if server_pid(point) != pid or "commits" not in names:
        raise MountError(f"something else is mounted at {point}, over the view; see 'findmnt {point}'")
