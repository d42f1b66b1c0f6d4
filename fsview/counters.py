"""What the workers of a view count, in memory that they share with their supervisor.

One row of 64-bit cells for each worker, written by that worker alone, so that nothing has to be locked; a restarted
worker goes on in the row of the one before it. A row:

    PID, STARTED_S          who writes here, since when (seconds since 1970)
    PROVEN                  whether it has answered a request
    BUSY_SINCE_NS           when the request began that is answered now (monotonic clock); 0: none is
    READ_BYTES, DAMAGED     bytes of contents sent; answers that damage made impossible
    then for each kind of request: count, total ns; for each errno of ERRNOS: count;
    for each bucket: requests that took less than 2^bucket microseconds, and not less than half of that
"""

from __future__ import annotations

import errno
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

KINDS: Final = (
    "lookup", "getattr", "readlink", "open", "read", "release", "opendir", "readdir",
    "getxattr", "listxattr", "statfs",
)  # fmt: skip
ERRNOS: Final = (errno.EIO, errno.ENOENT, errno.ESTALE, errno.EROFS, errno.ENODATA, errno.EINVAL, errno.EAGAIN)
BUCKETS: Final = 25  # up to 16 seconds, and all that took longer

_PID, _STARTED_S, _PROVEN, _BUSY_SINCE_NS, _READ_BYTES, _DAMAGED, _FIRST_KIND = range(7)
_FIRST_ERRNO: Final = _FIRST_KIND + 2 * len(KINDS)
_OTHER_ERRNO: Final = _FIRST_ERRNO + len(ERRNOS)
_FIRST_BUCKET: Final = _OTHER_ERRNO + 1
_CELLS: Final = _FIRST_BUCKET + BUCKETS
_CELL_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker: its process, 0 if it is just being restarted, and since when it runs, in seconds since 1970."""

    pid: int
    started_s: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What all workers counted together since the view was mounted."""

    requests: dict[str, int]  # by kind
    request_ns: dict[str, int]  # time spent, by kind
    errors: dict[str, int]  # by the errno's name
    latencies: list[int]  # requests that took less than 2^index microseconds, and not less than half of that
    read_bytes: int
    damaged: int


class Row:
    """The cells of one worker."""

    def __init__(self, cells: memoryview, clock_ns: Callable[[], int]) -> None:
        self._cells, self._clock_ns = cells, clock_ns

    @property
    def status(self) -> WorkerStatus:
        """Who writes here."""
        return WorkerStatus(self._cells[_PID], self._cells[_STARTED_S])

    @property
    def busy_since_ns(self) -> int:
        """When the request that is answered now began, by the monotonic clock; 0 if none is."""
        busy_since_ns: int = self._cells[_BUSY_SINCE_NS]
        return busy_since_ns

    def occupy(self, pid: int, now_s: int) -> None:
        """Say that a worker writes here from now on; 0: none does."""
        self._cells[_PID], self._cells[_STARTED_S], self._cells[_PROVEN] = pid, now_s, False
        self._cells[_BUSY_SINCE_NS] = 0

    @property
    def is_proven(self) -> bool:
        """Whether the worker has answered a request."""
        return bool(self._cells[_PROVEN])

    def ready(self) -> None:
        """Note that the worker waits for requests; from `begin` until here it was starting."""
        self._cells[_BUSY_SINCE_NS] = 0

    def begin(self) -> None:
        """Note that a request has arrived."""
        self._cells[_BUSY_SINCE_NS] = self._clock_ns()

    def end(self, kind: int) -> None:
        """Note that it was answered; *kind* is an index of KINDS."""
        cells = self._cells
        took_ns = self._clock_ns() - cells[_BUSY_SINCE_NS]
        cells[_BUSY_SINCE_NS], cells[_PROVEN] = 0, True
        cells[_FIRST_KIND + 2 * kind] += 1
        cells[_FIRST_KIND + 2 * kind + 1] += took_ns
        cells[_FIRST_BUCKET + min((took_ns // 1000).bit_length(), BUCKETS - 1)] += 1

    def refused(self, number: int) -> None:
        """Count an answer that was an errno."""
        self._cells[_FIRST_ERRNO + ERRNOS.index(number) if number in ERRNOS else _OTHER_ERRNO] += 1

    def sent(self, size: int) -> None:
        """Count bytes of contents."""
        self._cells[_READ_BYTES] += size

    def damaged(self) -> None:
        """Count an answer that damage made impossible."""
        self._cells[_DAMAGED] += 1


class Counters:
    """The rows of all workers. Made before they are forked."""

    def __init__(self, workers: int, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """*clock_ns* tells what time it is, from any beginning on."""
        self._clock_ns = clock_ns
        memory = memoryview(mmap.mmap(-1, workers * _CELLS * _CELL_BYTES)).cast("Q")
        self._rows = [memory[index * _CELLS : (index + 1) * _CELLS] for index in range(workers)]

    def row(self, index: int) -> Row:
        """Return the cells of a worker."""
        return Row(self._rows[index], self._clock_ns)

    def workers(self) -> list[WorkerStatus]:
        """Return who answers requests now."""
        return [Row(cells, self._clock_ns).status for cells in self._rows]

    def totals(self) -> Totals:
        """Return the sums over all workers."""
        sums = [sum(column) for column in zip(*self._rows, strict=True)]
        kinds = sums[_FIRST_KIND:_FIRST_ERRNO]
        names = [errno.errorcode[number] for number in ERRNOS]
        return Totals(
            requests=dict(zip(KINDS, kinds[0::2], strict=True)),
            request_ns=dict(zip(KINDS, kinds[1::2], strict=True)),
            errors=dict(zip([*names, "other"], sums[_FIRST_ERRNO:_FIRST_BUCKET], strict=True)),
            latencies=sums[_FIRST_BUCKET:],
            read_bytes=sums[_READ_BYTES],
            damaged=sums[_DAMAGED],
        )
