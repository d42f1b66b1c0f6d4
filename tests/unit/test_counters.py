"""What workers count together, and how it is told."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from fsview.counters import BUCKETS, KINDS, Counters
from fsview.status import Service, metrics, stats_json

SERVICE = Service(Path("/r\udcff"), Path("/mnt"), "allow_other", 7, 1_700_000_000)


def _used() -> Counters:
    counters = Counters(2)
    counters.row(0).occupy(11, 1_700_000_001)
    for index, kind in ((0, "read"), (0, "read"), (1, "lookup")):
        counters.row(index).begin()
        counters.row(index).end(KINDS.index(kind))
    counters.row(1).refused(2)
    counters.row(1).refused(95)
    counters.row(0).sent(1000)
    counters.row(1).sent(24)
    counters.row(1).damaged()
    return counters


def test_sums_over_all_workers() -> None:
    totals = _used().totals()
    assert {kind: count for kind, count in totals.requests.items() if count} == {"read": 2, "lookup": 1}
    assert {name: count for name, count in totals.errors.items() if count} == {"ENOENT": 1, "other": 1}
    assert (totals.read_bytes, totals.damaged, sum(totals.latencies)) == (1024, 1, 3)


def test_a_forked_worker_counts_in_the_same_cells() -> None:
    counters = Counters(2)
    pid = os.fork()
    if pid == 0:
        counters.row(1).occupy(os.getpid(), 5)
        counters.row(1).begin()
        os._exit(0)
    os.waitpid(pid, 0)
    assert [worker.pid for worker in counters.workers()] == [0, pid]
    assert 0 < counters.row(1).busy_since_ns <= time.monotonic_ns() and counters.row(0).busy_since_ns == 0


def test_a_latency_is_in_the_bucket_that_ends_above_it() -> None:
    counters = Counters(1)
    row = counters.row(0)
    row.begin()
    time.sleep(0.002)
    row.end(0)
    bucket = counters.totals().latencies.index(1)
    took_us = counters.totals().request_ns["lookup"] / 1000
    assert took_us >= 2000 and 2 ** (bucket - 1) <= took_us < 2**bucket
    row.begin()
    row._cells[3] -= 10**12  # a request of 1,000 s
    row.end(0)
    assert counters.totals().latencies[BUCKETS - 1] == 1


def test_json() -> None:
    told = json.loads(stats_json(SERVICE, _used()))
    assert told["repository"] == "/r\udcff" and told["pid"] == 7 and told["requests"]["read"] == 2
    assert told["workers"] == [{"pid": 11, "started_s": 1_700_000_001}, {"pid": 0, "started_s": 0}]


def test_metrics_are_in_the_format_of_prometheus() -> None:
    lines = metrics(SERVICE, _used()).decode().splitlines()
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"\})? [0-9.e+-]+')
    samples = [line for line in lines if not line.startswith("#")]
    assert all(sample.fullmatch(line) for line in samples)
    assert 'fsview_requests_total{kind="read"} 2' in samples and "fsview_workers 1" in samples
    assert (
        samples.count('fsview_request_seconds_bucket{le="+Inf"} 3') == 1 and "fsview_request_seconds_count 3" in samples
    )
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {re.split(r"[{ ]", line)[0] for line in samples} - named == {
        "fsview_request_seconds_bucket", "fsview_request_seconds_sum", "fsview_request_seconds_count",
    }  # fmt: skip
