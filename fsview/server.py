"""The server of a view: mount, shake hands with the kernel, have workers answer, unmount."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyfuse3

from fsview.connection import connect, is_unmounted
from fsview.counters import Counters
from fsview.kernel_reads import uncover
from fsview.mounting import detach, mount
from fsview.mountpoint import (
    PID_MARK,
    REPOSITORY_MARK,
    ROOT_MARK,
    STATUS_MARK,
    check_machine,
    open_mount_point,
    source_name,
)  # fmt: skip
from fsview.notify import is_watched, notify
from fsview.operations import Operations, find_ino_offset
from fsview.options import MountOptions
from fsview.pinned import Pinned, pin
from fsview.status import Service, metrics, stats_json, status_json
from fsview.supervisor import Supervisor, signals_held
from fsview.view import View
from fsview.worker import Job, start_worker
from store.check_pages import check_pages
from store.errors import CorruptionError
from store.repository import Repository

_log = logging.getLogger(__name__)


def serve(
    repository_path: Path,
    point: Path,
    options: MountOptions,
    on_mounted: Callable[[], None],
    on_tick: Callable[[], None] = lambda: None,
    place: int | None = None,
) -> None:
    """Mount and answer until the view is unmounted or a signal ends it.

    *on_mounted* is called when requests are about to be answered, *on_tick* every second or so. If this raises after
    that, the mount stays, dead (fsview/mountpoint.py tells why). *place*: the directory *point*, open, for root; it is
    closed.

    Raises:
        FsviewError: the repository can't be opened, the view not mounted, or no worker kept alive.
    """
    repository_path, point = Path(os.path.realpath(repository_path)), Path(os.path.realpath(point))
    check_machine(
        allow_other=options.allow_other, suid_or_dev=options.suid or options.dev, kernel_reads=options.kernel_reads
    )
    place = open_mount_point(point, repository_path, place)
    pinned = _look_ahead(repository_path, options)
    # Given handles, overlayfs asks by handle for the file that it copied up, when the kernel has forgotten it, and the
    # second look at the copy is ESTALE, without a request. Without handles it does not ask (Linux 6.18).
    operations = Operations(
        _ino_offset(options), gives_handles=not options.place_inodes, heeds_acls=options.heeds_acls()
    )
    with signals_held():
        device = mount(str(point), source_name(repository_path), options.flags(), options.names(), place)
        os.close(place)  # it is below the view, now, and would be held
        try:
            descriptor = connect(operations, device)
        except BaseException:
            detach(str(point), lazy=True)
            raise
        counters = Counters(options.workers)
        root = None if pinned is None else pinned.revision
        service = Service(repository_path, point, ",".join(options.texts()), os.getpid(), int(time.time()), root)
        job = Job(descriptor, operations, partial(_open_view, service, counters, options, pinned))
        gc.freeze()  # what is here now stays, and the workers share its pages
        _log.info("%s is mounted at %s", repository_path, point)
        on_mounted()
        notify(READY=1, STATUS=f"{repository_path} is mounted at {point}, with {options.workers} workers")
        tick = partial(_tick, on_tick, is_watched())
        Supervisor(counters, partial(start_worker, job), partial(is_unmounted, descriptor), tick).run()
        notify(STOPPING=1, STATUS="unmounting")
        if not is_unmounted(descriptor):
            uncover(str(point), lazy=True)
            detach(str(point), lazy=True)
        pyfuse3.close(unmount=False)
        _log.info("%s is unmounted", point)


def _tick(on_tick: Callable[[], None], watched: bool) -> None:
    on_tick()
    if watched:
        notify(WATCHDOG=1)


def _ino_offset(options: MountOptions) -> int | None:
    offset = find_ino_offset() if options.overwrite_ino else None
    if offset is None:
        _log.warning("st_ino can't be set beside the node number here; each directory costs one request more")
    return offset


def _look_ahead(repository_path: Path, options: MountOptions) -> Pinned | None:
    """Return what is to be mounted alone, if anything.

    Each worker opens the repository for itself; what is wrong with it is better told now. Above all if LMDB took an
    older state for the present one: each name and each byte in it would be right, and what came later gone.

    Raises:
        FsviewError: it can't be opened, or nothing is what is to be mounted.
    """
    with Repository.open(repository_path) as repository:
        for finding in check_pages(repository.database.path):
            raise CorruptionError("the index", finding.where, "two sound meta pages", finding.what)
        return None if options.root is None else pin(repository, options.root, now_s=int(time.time()))


def _open_view(service: Service, counters: Counters, options: MountOptions, pinned: Pinned | None) -> View:
    repository, ownership = Repository.open(service.repository), options.ownership()
    marks = {
        PID_MARK: lambda: str(service.pid).encode(),
        REPOSITORY_MARK: lambda: os.fsencode(service.repository),
        STATUS_MARK: lambda: status_json(service, counters),
    }
    if pinned is not None:
        marks[ROOT_MARK] = lambda: pinned.commit.hex().encode() + pinned.path
    return View(
        repository,
        uid=os.getuid() if ownership.uid is None else ownership.uid,
        gid=os.getgid() if ownership.gid is None else ownership.gid,
        now_s=lambda: int(time.time()),
        marks=marks,
        status={b"stats.json": lambda: stats_json(service, counters), b"metrics": lambda: metrics(service, counters)},
        ownership=ownership,
        certify_contents=options.verify == "sha256",
        pinned=pinned,
        place_inodes=options.place_inodes,
        place_st_ino=options.place_st_ino,
        kernel_reads=options.kernel_reads,
        heeds_acls=options.heeds_acls(),
    )
