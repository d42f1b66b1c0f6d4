"""Benchmarks: `make bench`, or `python -m tests.bench --help` as root with the trees built."""
