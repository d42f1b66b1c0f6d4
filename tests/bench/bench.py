"""What one run of the benchmarks has at hand: the results, a place to work in, and how much is wanted."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TypeVar

from tests.bench.contender import Contender
from tests.bench.results import OWN, Results, Row, say

AnyContender = TypeVar("AnyContender", bound=Contender)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run."""

    results: Results
    work: Path
    runs: int
    limit_s: float
    peers: frozenset[str] | None = None  # None: all

    def contenders(self, kinds: Iterable[type[Contender]]) -> Iterator[Contender]:
        """Yield a contender of each kind that is wanted and can be tried here."""
        for kind in kinds:
            contender = kind(self.work / kind.name)
            if self.peers is not None and kind.name not in self.peers | {OWN, "plain"}:
                continue
            why = contender.missing()
            if why is None:
                yield contender
            else:
                self.results.skip(kind.name, why)

    @contextmanager
    def removed(self, contender: AnyContender) -> Iterator[AnyContender]:
        """Leave nothing of a contender behind, neither when it fails nor after Ctrl-C."""
        try:
            yield contender
        finally:
            try:
                contender.remove()
            except (AssertionError, OSError, TimeoutExpired) as error:
                say(f"{contender.name} can't be removed: {error}")


def attempt(rows: Iterable[Row], name: str, step: Callable[[], object]) -> bool:
    """Do a step for *name*; if it fails, say so in those of *rows* that lack its number, and go on."""
    try:
        step()
    except (AssertionError, OSError, ValueError, TimeoutExpired) as error:
        text = " ".join(str(error).split()) or traceback.format_exc(limit=-1)
        say(f"{name} failed: {text}")
        for row in rows:
            if name not in row.measured:
                row.failures.setdefault(name, text[:300])
        return False
    return True
