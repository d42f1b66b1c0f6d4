"""The server of a view: mount, shake hands with the kernel, have workers answer, unmount."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import pyfuse3

from fsview.connection import connect, is_unmounted
from fsview.counters import Counters
from fsview.mounting import detach, mount
from fsview.mountpoint import PID_MARK, REPOSITORY_MARK, STATUS_MARK, check_machine, check_mount_point, source_name
from fsview.operations import Operations, find_ino_offset
from fsview.status import Service, status_json
from fsview.supervisor import Supervisor, signals_held
from fsview.view import View
from fsview.worker import Job, start_worker
from store.repository import Repository

_log = logging.getLogger(__name__)

WORKERS_MAX: Final = 8
PLACE_INODES: Final = "place-inodes"


def default_workers() -> int:
    """Return how many workers serve a view unless somebody says otherwise: one for each core that this process has."""
    return min(len(os.sched_getaffinity(0)), WORKERS_MAX)


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What `-o` may say.

    place_inodes: equal files have node numbers of their own, as a writable overlay over the view needs.
    overwrite_ino: write st_ino where pyfuse3 has no way to (fsview/operations.py).
    """

    allow_other: bool = False
    default_permissions: bool = False
    place_inodes: bool = False
    workers: int = field(default_factory=default_workers)
    overwrite_ino: bool = True

    def names(self) -> list[str]:
        """Return the options as the kernel takes them; who lets others in must have modes and owners checked."""
        checked = ["default_permissions"] if self.allow_other or self.default_permissions else []
        return checked + (["allow_other"] if self.allow_other else [])

    def texts(self) -> list[str]:
        """Return the options as people write them."""
        return self.names() + ([PLACE_INODES] if self.place_inodes else [])


def serve(
    repository_path: Path,
    point: Path,
    options: MountOptions,
    on_mounted: Callable[[], None],
    on_tick: Callable[[], None] = lambda: None,
) -> None:
    """Mount and answer until the view is unmounted or a signal ends it.

    *on_mounted* is called when requests are about to be answered, *on_tick* every second or so. If this raises after
    that, the mount stays, dead (fsview/mountpoint.py tells why).

    Raises:
        FsviewError: the repository can't be opened, the view not mounted, or no worker kept alive.
    """
    repository_path, point = Path(os.path.realpath(repository_path)), Path(os.path.realpath(point))
    check_machine(allow_other=options.allow_other)
    check_mount_point(point, repository_path)
    Repository.open(repository_path).close()  # each worker opens its own; what is wrong is better told now
    operations = Operations(_ino_offset(options))
    with signals_held():
        device = mount(str(point), source_name(repository_path), options.names())
        try:
            descriptor = connect(operations, device)
        except BaseException:
            detach(str(point), lazy=True)
            raise
        counters = Counters(options.workers)
        service = Service(repository_path, point, ",".join(options.texts()), os.getpid(), int(time.time()))
        job = Job(descriptor, operations, partial(_open_view, service, counters, options))
        gc.freeze()  # what is here now stays, and the workers share its pages
        _log.info("%s is mounted at %s", repository_path, point)
        on_mounted()
        Supervisor(counters, partial(start_worker, job), partial(is_unmounted, descriptor), on_tick).run()
        if not is_unmounted(descriptor):
            detach(str(point), lazy=True)
        pyfuse3.close(unmount=False)
        _log.info("%s is unmounted", point)


def _ino_offset(options: MountOptions) -> int | None:
    offset = find_ino_offset() if options.overwrite_ino else None
    if offset is None:
        _log.warning("st_ino can't be set beside the node number here; each directory costs one request more")
    return offset


def _open_view(service: Service, counters: Counters, options: MountOptions) -> View:
    repository = Repository.open(service.repository)
    marks = {
        PID_MARK: lambda: str(service.pid).encode(),
        REPOSITORY_MARK: lambda: os.fsencode(service.repository),
        STATUS_MARK: lambda: status_json(service, counters),
    }
    return View(
        repository,
        uid=os.getuid(),
        gid=os.getgid(),
        now_s=lambda: int(time.time()),
        marks=marks,
        place_inodes=options.place_inodes,
    )
