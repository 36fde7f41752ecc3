"""Counters and histograms for the hot path, in Prometheus's form: the event loop's own thread bumps plain numbers,
where `prometheus_client` takes a lock for each. Scrapes read them as they are."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from prometheus_client import REGISTRY
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UntypedMetricFamily,
)
from prometheus_client.registry import Collector

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Value:
    """One number."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, by: float = 1) -> None:
        self.value += by


class Distribution:
    """How often values fell between bounds, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def buckets(self) -> Iterator[tuple[str, float]]:
        """(upper bound, how many values up to it), the last bound infinite."""
        total = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            yield "+Inf" if bound == float("inf") else str(bound), total


T = TypeVar("T", Value, Distribution)


class _Family(Collector, Generic[T]):
    """A metric and its children by label values; at most `most` of them, the oldest is dropped first."""

    def __init__(self, name: str, text: str, labels: Sequence[str], *, most: int = 10_000) -> None:
        self.name, self.text, self._labels, self._most = name, text, tuple(labels), most
        self._children: dict[tuple[str, ...], T] = {}
        REGISTRY.register(self)

    def labels(self, *values: str) -> T:
        child = self._children.get(values)
        if child is None:
            if len(self._children) >= self._most:
                self._children.pop(next(iter(self._children)))
            child = self._children[values] = self._make()
        return child

    def _make(self) -> T:
        raise NotImplementedError

    def describe(self) -> Iterable[Metric]:
        return []


class Counter(_Family[Value]):
    """Only goes up. `name` without `_total`."""

    def _make(self) -> Value:
        return Value()

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self.name, self.text, labels=self._labels)
        for values, child in list(self._children.items()):
            family.add_metric(values, child.value)
        yield family


class ForeignCounter(Counter):
    """A counter under a name that others gave it, without `_total`: exported untyped, which `rate()` takes as well."""

    def collect(self) -> Iterable[Metric]:
        family = UntypedMetricFamily(self.name, self.text, labels=self._labels)
        for values, child in list(self._children.items()):
            family.add_metric(values, child.value)
        yield family


class Gauge(_Family[Value]):
    """Goes up and down."""

    def _make(self) -> Value:
        return Value()

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self.name, self.text, labels=self._labels)
        for values, child in list(self._children.items()):
            family.add_metric(values, child.value)
        yield family


class Histogram(_Family[Distribution]):
    """`bounds`: the buckets' upper bounds, ascending; by default seconds from 100 µs to 10 s."""

    def __init__(self, name: str, text: str, labels: Sequence[str], *, bounds: Sequence[float] = SECONDS) -> None:
        super().__init__(name, text, labels)
        self._bounds = bounds

    def _make(self) -> Distribution:
        return Distribution(self._bounds)

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self.name, self.text, labels=self._labels)
        for values, child in list(self._children.items()):
            family.add_metric(values, list(child.buckets()), child.sum)
        yield family
