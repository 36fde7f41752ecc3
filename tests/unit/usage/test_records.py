"""What is derived from a record before it is stored."""

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.usage.v1 import usage_pb2

from services.common import ids
from services.usage.consumer import statistics
from services.usage.partitions import month
from services.usage.store import moment, tokens

milliseconds = st.integers(0, int(datetime(2200, 1, 1, tzinfo=UTC).timestamp() * 1000))


@given(milliseconds)
def test_the_time_of_a_record_is_the_one_inside_its_id_to_the_millisecond(ms: int) -> None:
    request_id = ids.new("req", ms)
    assert moment(request_id).timestamp() * 1000 == pytest.approx(ms, abs=0.001)
    # So the key (request_id, timestamp) is unique by the id alone.
    assert moment(request_id) == ids.timestamp(request_id)


@given(milliseconds, milliseconds)
def test_ids_sort_as_their_times(one: int, other: int) -> None:
    """By which pages of usage, in the order of ids, are in the order of time."""
    if one < other:
        assert ids.new("req", one) < ids.new("req", other)
        assert moment(ids.new("req", one)) < moment(ids.new("req", other))


@pytest.mark.parametrize("text", ["", "req_", "nothing", "req_" + "u" * 26, "req_" + "0" * 25, "req_" + "z" * 26])
def test_what_is_no_id_has_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="not an identifier"):
        moment(text)


@given(milliseconds)
def test_every_time_is_in_the_month_it_is_filed_under(ms: int) -> None:
    at = moment(ids.new("req", ms))
    assert month(at.year, at.month) <= at < month(at.year, at.month + 1)


def test_tokens_of_every_kind_are_counted_and_nothing_else() -> None:
    assert tokens({"requests": 1, "rows": 7, "input_bytes": 90}) == 0
    assert tokens({"tokens": 3, "input_tokens": 20, "output_tokens": 100, "tokens_per_second": 9}) == 123


@given(st.lists(st.tuples(st.sampled_from(["a/x", "a/y", "b/x"]), st.integers(0, 10**9))))
def test_statistics_name_each_model_once_and_lose_nothing(calls: list[tuple[str, int]]) -> None:
    told = statistics([usage_pb2.UsageRecord(model=model, latency_us=latency) for model, latency in calls]).models
    assert len({each.model for each in told}) == len(told)
    assert {each.model: each.calls for each in told} == Counter(model for model, _ in calls)
    assert sum(each.latency_us_sum for each in told) == sum(latency for _, latency in calls)
