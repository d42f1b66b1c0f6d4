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
    now_ns = 1
    counters = Counters(1, lambda: now_ns)
    row = counters.row(0)
    for took_us, bucket in ((0, 0), (1, 1), (2047, 11), (2048, 12), (10**9, BUCKETS - 1)):
        before = counters.totals().latencies
        row.begin()
        now_ns += took_us * 1000
        row.end(0)
        after = counters.totals().latencies
        assert [index for index in range(BUCKETS) if after[index] > before[index]] == [bucket]
    assert counters.totals().request_ns["lookup"] == (1 + 2047 + 2048 + 10**9) * 1000


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
