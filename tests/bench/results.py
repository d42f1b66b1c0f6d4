"""What was measured: rows of numbers by contender, the goals set for them, one table, and the same as JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from statistics import median

from tools.render import table

OWN = "fsview"


@dataclass(frozen=True, slots=True)
class Measured:
    """The median of some runs; *at_least* if the last was ended because it took too long."""

    value: float
    runs: int = 1
    at_least: bool = False


@dataclass(slots=True)
class Row:
    """One thing that was done by several contenders. Less is better; *notes* say more about one of them."""

    what: str
    unit: str = "s"
    goals: tuple[Goal, ...] = ()
    measured: dict[str, Measured] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str, own: str = OWN) -> float | None:
        """Return what *name* took as a multiple of what *own* took, or None if one of them is not there."""
        if name not in self.measured or own not in self.measured:
            return None
        return self.measured[name].value / self.measured[own].value

    def judge(self) -> list[Verdict]:
        """Return what became of each goal."""
        return [goal.judge(self) for goal in self.goals]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a goal was met; None: there was nothing to compare with."""

    goal: str
    is_met: bool | None
    why: str

    def __str__(self) -> str:
        word = {True: "met", False: "MISSED", None: "not judged"}[self.is_met]
        return f"{word}: {self.goal} ({self.why})"


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for what *own* took; *decide* answers only where that was measured."""

    text: str
    decide: Callable[[Row], tuple[bool | None, str]]
    own: str = OWN

    def judge(self, row: Row) -> Verdict:
        """Judge a row: a failure of our own misses every goal."""
        if self.own in row.failures:
            return Verdict(self.text, False, row.failures[self.own])
        if self.own not in row.measured:
            return Verdict(self.text, None, f"{self.own} was not measured")
        if row.measured[self.own].at_least:
            return Verdict(self.text, False, f"{self.own} took too long")
        return Verdict(self.text, *self.decide(row))


def faster_than(names: Collection[str]) -> Goal:
    """Every one of *names* that was measured takes longer."""

    def decide(row: Row) -> tuple[bool | None, str]:
        ratios = {name: ratio for name in names if (ratio := row.ratio(name)) is not None}
        if not ratios:
            return None, "none of them was measured"
        nearest = min(ratios, key=ratios.__getitem__)
        return ratios[nearest] > 1, f"{nearest} takes {ratios[nearest]:.2f} times as long"

    return Goal("faster than every FUSE peer", decide)


def within(times: float, peer: str, own: str = OWN) -> Goal:
    """*own* takes at most so many times as long as *peer*."""

    def decide(row: Row) -> tuple[bool | None, str]:
        if row.ratio(peer, own) is None or row.measured[peer].at_least:
            return None, f"{peer} was not measured"
        ratio = row.measured[own].value / row.measured[peer].value
        return ratio <= times, f"{ratio:.2f}"

    who = "" if own == OWN else f"{own} "
    return Goal(f"{who}within {times:g} times of {peer}", decide, own)


def times_faster(times: float, peer: str) -> Goal:
    """*peer* takes at least so many times as long; a lower bound of its time may be enough to see that."""

    def decide(row: Row) -> tuple[bool | None, str]:
        ratio = row.ratio(peer)
        if ratio is None or (row.measured[peer].at_least and ratio < times):
            return None, f"{peer} was not measured"
        return ratio >= times, f"{ratio:.2f}"

    return Goal(f"{times:g} times faster than {peer}", decide)


def at_most(limit: float, unit: str = "s") -> Goal:
    """Own takes at most *limit*."""

    def decide(row: Row) -> tuple[bool | None, str]:
        value = row.measured[OWN].value
        return value <= limit, f"{value:.3g} {unit}"

    return Goal(f"at most {limit:g} {unit}", decide)


@dataclass(slots=True)
class Results:
    """All rows, in the order in which they were begun, and what was left out."""

    only: re.Pattern[str] = re.compile("")
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # contender -> why

    def row(self, what: str, *goals: Goal, unit: str = "s") -> Row | None:
        """Begin a row, or return None if it isn't wanted."""
        if not self.wants(what):
            return None
        self.rows.append(Row(what, unit, goals))
        return self.rows[-1]

    def wants(self, what: str) -> bool:
        """Whether a row of this name is wanted."""
        return self.only.search(what) is not None

    def skip(self, name: str, why: str) -> None:
        """Leave a contender out, and say so once."""
        if name not in self.skipped:
            self.skipped[name] = why
            say(f"{name} is left out: {why}")

    def print(self) -> None:
        """Print the table, the failures, and what was left out."""
        print(f"\nIn brackets: multiples of what {OWN} took; more than 1: {OWN} is faster.\n")
        print(table(self._lines()))
        for row in self.rows:
            for name, note in row.notes.items():
                print(f"note: {row.what}: {name}: {note}")
            for name, why in row.failures.items():
                print(f"failed: {row.what}: {name}: {why}")
        for name, why in self.skipped.items():
            print(f"left out: {name}: {why}")
        verdicts = [verdict.is_met for row in self.rows for verdict in row.judge()]
        print(f"goals: {verdicts.count(True)} met, {verdicts.count(False)} missed, {verdicts.count(None)} not judged")

    def _lines(self) -> Iterable[tuple[str, ...]]:
        names = list(dict.fromkeys(name for row in self.rows for name in (OWN, *row.measured, *row.failures)))
        yield ("", *names, "goals")
        for row in self.rows:
            goals = "; ".join(map(str, row.judge()))
            yield (row.what, *(_cell(row, name) for name in names), goals)

    def as_json(self) -> dict[str, object]:
        """Return everything as plain values."""
        return {"rows": [_row_json(row) for row in self.rows], "skipped": self.skipped}


def _cell(row: Row, name: str) -> str:
    if name in row.failures:
        return "failed"
    measured = row.measured.get(name)
    if measured is None:
        return "-"
    text = f"{'> ' if measured.at_least else ''}{measured.value:.3g} {row.unit}"
    ratio = row.ratio(name)
    return text if name == OWN or ratio is None else f"{text} ({ratio:.2f})"


def _row_json(row: Row) -> dict[str, object]:
    return {
        "what": row.what,
        "unit": row.unit,
        "measured": {
            name: {"value": measured.value, "runs": measured.runs, "at_least": measured.at_least}
            for name, measured in row.measured.items()
        },
        "failures": row.failures,
        "notes": row.notes,
        "goals": [{"goal": it.goal, "met": it.is_met, "why": it.why} for it in row.judge()],
    }


def middle(values: list[float], *, at_least: bool = False) -> Measured:
    """Return the median of *values*."""
    return Measured(median(values), len(values), at_least)


def say(text: str) -> None:
    """Tell whoever waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
