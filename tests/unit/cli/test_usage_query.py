"""Charts in the terminal."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.usage.v1 import usage_pb2

from services.cli.usage_query import buckets, following, show_value, sparkline


def point(value: int, *when: int) -> usage_pb2.UsagePoint:
    made = usage_pb2.UsagePoint(value=value)
    made.start_time.FromDatetime(datetime(*when, tzinfo=UTC))  # type: ignore[arg-type,misc]
    return made


@given(st.lists(st.integers(-5, 2**62), max_size=500))
def test_a_chart_fits_the_line_and_its_top_is_the_most(values: list[int]) -> None:
    chart = sparkline(values)
    assert len(chart) == (-(-len(values) // -(-len(values) // 60)) if values else 0)
    assert ("█" in chart) == (max(values, default=0) > 0)


def test_hours_without_calls_are_the_lowest_bar() -> None:
    own = [point(4, 2026, 3, 1, 22), point(8, 2026, 3, 2, 1)]
    assert buckets(own, [*own, point(1, 2026, 3, 1, 21)], "hour") == [0, 4, 0, 0, 8]
    assert sparkline([0, 4, 0, 0, 8]) == "▁▄▁▁█"


@pytest.mark.parametrize(
    ("bucket", "start", "then"),
    [("month", (2026, 12, 1), (2027, 1, 1)), ("month", (2026, 2, 1), (2026, 3, 1)),
     ("day", (2026, 2, 28), (2026, 3, 1)),
     ("hour", (2026, 12, 31, 23), (2027, 1, 1))],
)  # fmt: skip
def test_the_next_bucket(bucket: str, start: tuple[int, ...], then: tuple[int, ...]) -> None:
    assert following(datetime(*start, tzinfo=UTC), bucket) == datetime(*then, tzinfo=UTC)  # type: ignore[arg-type,misc]


def test_values_have_their_meters_form() -> None:
    assert show_value(1_500_000_000, "cost_nanos") == "1.50 USD"
    assert show_value(1500, "latency_us") == "1.5 ms"
    assert show_value(12345, "rows") == "12,345"
