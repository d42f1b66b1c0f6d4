"""A cache with a bound. What is in it must never change: it is kept to be quick, not to be right."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Values by key. The least recently used ones go when the weights add up to more than *limit*.

    One value that is heavier than that is kept beside the others: else each of them would drive it out, and using a
    huge directory with what is in it would mean to read it again for each name.
    """

    __slots__ = ("_huge", "_items", "_limit", "_on_drop", "_weight")

    def __init__(self, limit: int, on_drop: Callable[[Value], None] | None = None) -> None:
        self._items: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._limit, self._huge, self._weight, self._on_drop = limit, 0, 0, on_drop

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Key) -> Value | None:
        """Return the value of *key*, or None."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: Key, value: Value, weight: int = 1) -> None:
        """Keep *value*; *key* must not be there yet."""
        assert key not in self._items
        self._items[key] = value, weight
        self._weight += weight
        if weight > self._limit:
            self._huge = max(self._huge, weight)
        while self._weight > self._limit + self._huge and len(self._items) > 1:
            self._drop()

    def clear(self) -> None:
        """Drop everything."""
        while self._items:
            self._drop()
        self._huge = 0

    def _drop(self) -> None:
        _, (value, weight) = self._items.popitem(last=False)
        self._weight -= weight
        if self._on_drop is not None:
            self._on_drop(value)
