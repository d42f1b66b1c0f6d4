"""What a running view tells of itself: as JSON, and as text for Prometheus."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from fsview.counters import Counters
from store.errors import FormatError

_PREFIX: Final = "fsview"
_SIZE_STEP: Final = 4096
_TEXTS: Final = ("repository", "mount", "options", "version")
_NUMBERS: Final = ("pid", "started")
_NUMBER_END: Final = 1 << 48
_ROOT: Final = re.compile("[0-9a-f]{64}(?::/.*)?", re.DOTALL)


def program_version() -> str:
    """Return this program's version, or "uninstalled" where it runs from a checkout."""
    try:
        return version("fsview")
    except PackageNotFoundError:
        return "uninstalled"


@dataclass(frozen=True, slots=True)
class Service:
    """What stays the same while a view is mounted."""

    repository: Path
    point: Path
    options: str
    pid: int  # of the supervisor
    started_s: int  # since 1970
    root: str | None = None  # with --root: "CHECKSUM:/PATH", the path left out if it is the commit's root


def status_json(service: Service, counters: Counters) -> bytes:
    """Return who serves a view: a JSON object on one line."""
    return _json(_who(service, counters))


def stats_json(service: Service, counters: Counters) -> bytes:
    """Return who serves a view and what was counted: a JSON object."""
    return _padded(_json(_who(service, counters) | asdict(counters.totals()), indent=2), b" ")


def metrics(service: Service, counters: Counters) -> bytes:
    """Return what was counted, in Prometheus's text format (version 0.0.4)."""
    text = "".join(f"{line}\n" for line in _metrics(service, counters)) + "#\n"
    return _padded(text.encode("utf-8", "surrogateescape"), b"#")


def parse_status(answer: bytes) -> dict[str, Any]:
    """Return what `status_json` said, as far as it is that: what is mounted as a view need not be one.

    Raises:
        FormatError: it is something else.
    """
    try:
        found = json.loads(answer)
        status = {name: found[name] for name in (*_TEXTS, *_NUMBERS, "root", "workers")}
        pids = [worker["pid"] for worker in status["workers"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FormatError("what a view says of itself is not what a server of fsview's says") from None
    numbers = [*(status[name] for name in _NUMBERS), *pids]
    root = status["root"]
    if (
        any(type(status[name]) is not str for name in _TEXTS)
        or any(type(number) is not int or not 0 <= number < _NUMBER_END for number in numbers)
        or not (root is None or (type(root) is str and _ROOT.fullmatch(root)))
        or not status["repository"].startswith("/")
        or "\0" in status["repository"]
    ):
        raise FormatError("what a view says of itself is not what a server of fsview's says")
    return status


def _padded(text: bytes, filler: bytes) -> bytes:
    """Return *text* in a round size, so that it has the same when it is made anew for whoever reads on."""
    size = -(-len(text) // _SIZE_STEP) * _SIZE_STEP
    return text.removesuffix(b"\n").ljust(size - 1, filler) + b"\n"


def _json(value: dict[str, object], indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent).encode() + b"\n"


def _who(service: Service, counters: Counters) -> dict[str, object]:
    return {
        "repository": os.fspath(service.repository),
        "mount": os.fspath(service.point),
        "options": service.options,
        "root": service.root,
        "version": program_version(),
        "pid": service.pid,
        "started": service.started_s,
        "workers": [asdict(worker) for worker in counters.workers()],
    }


def _metrics(service: Service, counters: Counters) -> Iterator[str]:
    totals = counters.totals()
    alive = sum(1 for worker in counters.workers() if worker.pid)
    yield from _metric("info", "gauge", "The program.", {f'version="{program_version()}"': 1})
    yield from _metric("start_time_seconds", "gauge", "When the view was mounted.", {"": service.started_s})
    yield from _metric("workers", "gauge", "Workers that answer requests.", {"": alive})
    yield from _metric("requests_total", "counter", "Requests answered.", _labelled("kind", totals.requests))
    yield from _metric("errors_total", "counter", "Answers that were an errno.", _labelled("errno", totals.errors))
    yield from _metric("read_bytes_total", "counter", "Bytes of contents sent.", {"": totals.read_bytes})
    yield from _metric("damaged_total", "counter", "Answers that damage made impossible.", {"": totals.damaged})
    yield from _histogram(totals.latencies, sum(totals.request_ns.values()))


def _metric(name: str, kind: str, text: str, values: dict[str, int]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_{name} {text}"
    yield f"# TYPE {_PREFIX}_{name} {kind}"
    for label, value in values.items():
        yield f"{_PREFIX}_{name}{{{label}}} {value}" if label else f"{_PREFIX}_{name} {value}"


def _labelled(label: str, values: dict[str, int]) -> dict[str, int]:
    return {f'{label}="{key}"': value for key, value in values.items()}


def _histogram(latencies: list[int], total_ns: int) -> Iterator[str]:
    name = f"{_PREFIX}_request_seconds"
    yield f"# HELP {name} Time from a request's arrival to its answer."
    yield f"# TYPE {name} histogram"
    count = 0
    for bucket, found in enumerate(latencies[:-1]):
        count += found
        yield f'{name}_bucket{{le="{2**bucket / 1e6:g}"}} {count}'
    count += latencies[-1]
    yield f'{name}_bucket{{le="+Inf"}} {count}'
    yield f"{name}_sum {total_ns / 1e9:g}"
    yield f"{name}_count {count}"
