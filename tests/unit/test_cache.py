"""The bound of a bounded cache."""

from __future__ import annotations

from fsview.cache import BoundedCache


def test_the_least_recently_used_goes_first() -> None:
    dropped: list[str] = []
    cache: BoundedCache[int, str] = BoundedCache(3, dropped.append)
    for number in range(3):
        cache.put(number, str(number))
    assert cache.get(0) == "0"
    cache.put(3, "3")
    assert dropped == ["1"] and cache.get(1) is None and len(cache) == 3


def test_weights_count_and_one_that_is_too_heavy_is_kept_beside_the_others() -> None:
    dropped: list[str] = []
    cache: BoundedCache[int, str] = BoundedCache(10, dropped.append)
    cache.put(1, "small", 4)
    cache.put(2, "huge", 100)
    assert dropped == [] and cache.get(2) == "huge"
    cache.put(3, "next", 10)
    assert dropped == ["small"] and cache.get(2) == "huge"
    cache.put(4, "as huge", 100)
    assert dropped == ["small", "next", "huge"] and cache.get(4) == "as huge"
    cache.clear()
    assert dropped == ["small", "next", "huge", "as huge"] and len(cache) == 0
    cache.put(5, "heavy", 10)
    cache.put(6, "light", 1)
    assert dropped[-1] == "heavy"  # what was huge is forgotten
