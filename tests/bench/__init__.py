"""Benchmarks: `make bench`, or `python -m tests.bench [commit] [view] [diff]` as root with the trees built."""
