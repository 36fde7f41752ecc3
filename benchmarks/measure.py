"""Rounds in turn and what they add up to: medians, paired ratios, and the processor time behind each call."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load import Load


@dataclass(frozen=True)
class Round:
    """One side's turn: the load, and the processor time each process took for it, seconds."""

    load: Load
    cpu: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """Something that is measured beside others. `run(seconds)` is one turn of it."""

    name: str
    run: Callable[[float], Round]


@dataclass(frozen=True)
class Figure:
    """A figure with what it should reach, by round. `at_most`: the reach is a ceiling."""

    name: str
    rounds: Sequence[float]
    reach: float
    unit: str = ""
    at_most: bool = False
    aim: float | None = None

    @property
    def value(self) -> float:
        return statistics.median(self.rounds)

    @property
    def reached(self) -> bool:
        return self.value <= self.reach if self.at_most else self.value >= self.reach

    @property
    def of_reach(self) -> float:
        """1: just reached; more is better whichever way the reach goes."""
        ratio = self.value / self.reach
        return (1 / ratio if ratio > 0 else float("inf")) if self.at_most else ratio


@dataclass(frozen=True)
class Row:
    """One side's medians over the rounds: calls per second with the least and the most, latencies in milliseconds,
    failed calls of all rounds, and processor time per call by process, microseconds."""

    name: str
    per_second: float
    least: float
    most: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: Mapping[str, float]
    unit: str = "calls/s"


@dataclass
class Result:
    """What a group found. `curves`: points to draw, by name."""

    group: str
    title: str
    rows: list[Row] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def alternate(
    sides: Sequence[Side], *, seconds: float, rounds: int, tell: Callable[[str], None], warm_up: float = 1.0
) -> dict[str, list[Round]]:
    """Runs the sides in turn, as many rounds as asked for, after a short turn of each that does not count."""
    taken: dict[str, list[Round]] = {side.name: [] for side in sides}
    for number in range(rounds + 1):
        for side in sides:
            got = side.run(seconds if number else warm_up)
            if number:
                taken[side.name].append(got)
                tell(f"round {number} of {rounds}  {side.name:34} {rate(got)}")
    return taken


def rate(got: Round) -> str:
    """A round in a few words."""
    failed = f"  {got.load.failed} FAILED: {dict(got.load.statuses)}" if got.load.failed else ""
    return f"{got.load.per_second:9,.0f}/s  p50 {got.load.p50_ms:8.2f} ms{failed}"


def ratios(over: Sequence[Round], under: Sequence[Round]) -> list[float]:
    """Calls per second of one side by those of another, each pair from the same round."""
    return [a.load.per_second / b.load.per_second for a, b in zip(over, under, strict=True)]


def differences(more: Sequence[Round], less: Sequence[Round]) -> list[float]:
    """The p50 that one side adds to another's, milliseconds, each pair from the same round."""
    return [a.load.p50_ms - b.load.p50_ms for a, b in zip(more, less, strict=True)]


def summarise(name: str, rounds: Sequence[Round], unit: str = "calls/s") -> Row:
    rates = [r.load.per_second for r in rounds]
    parts = list(dict.fromkeys(part for r in rounds for part in r.cpu))
    calls = [max(1, r.load.ok + r.load.failed) for r in rounds]
    cpu = {
        part: statistics.median(r.cpu.get(part, 0.0) / n * 1e6 for r, n in zip(rounds, calls, strict=True))
        for part in parts
    }
    return Row(
        name, statistics.median(rates), min(rates), max(rates), statistics.median(r.load.p50_ms for r in rounds),
        statistics.median(r.load.p99_ms for r in rounds), sum(r.load.failed for r in rounds), cpu, unit,
    )  # fmt: skip
