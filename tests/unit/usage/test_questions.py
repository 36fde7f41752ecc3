"""What may be asked of usage, and what is refused by name."""

from datetime import UTC, datetime
from typing import Any

import pytest
from mercat.usage.v1 import usage_pb2

from services.common.errors import InvalidFields
from services.usage.questions import point_of, read

START, UNTIL = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
PUBLISHER = usage_pb2.USAGE_VIEW_PUBLISHER
UNIQUE = usage_pb2.USAGE_AGGREGATION_UNIQUE


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({"aggregation": 9}, ["aggregation"]), ({"bucket": 9}, ["bucket"]),
        ({"group_by": [1, 9, 0]}, ["group_by[1]", "group_by[2]"]),
        ({"unique_of": 4}, ["unique_of"]), ({"tag_name": "team"}, ["tag_name"]), ({"tags": ["team"]}, ["tags"]),
        ({"tags": ["team=a", "team=b"]}, ["tags"]),
        ({"view": PUBLISHER, "group_by": [1, 3, 4, 5]}, ["group_by[1]", "group_by[2]", "group_by[3]"]),
        ({"view": PUBLISHER, "aggregation": UNIQUE, "unique_of": 4}, ["unique_of"]),
        ({"view": PUBLISHER, "key_id": "k", "user_id": "u", "tags": ["team=a"]}, ["key_id", "user_id", "tags"]),
    ],
)  # fmt: skip
def test_what_may_not_be_asked_is_named(asked: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(InvalidFields) as refused:
        read(usage_pb2.QueryUsageRequest(meter="requests", **asked), START, UNTIL)
    assert [v.field for v in refused.value.violations] == fields


def test_what_is_not_given_is_a_sum_of_all() -> None:
    question = read(usage_pb2.QueryUsageRequest(meter="rows"), START, UNTIL)
    assert (question.aggregation, question.groups, question.bucket, question.publisher) == ("sum", set(), "", False)
    assert question.filters == {"model": "", "version": "", "key_id": "", "user_ids": None, "tags": None}
    unique = read(usage_pb2.QueryUsageRequest(meter="rows", aggregation=UNIQUE), START, UNTIL)
    assert unique.unique_of == "value"
    named = usage_pb2.QueryUsageRequest(meter="rows", aggregation=UNIQUE, unique_of=5, tag_name="team", tags=["a=b"])
    question = read(named, START, UNTIL)
    assert (question.unique_of, question.tag_name, question.filters["tags"]) == ("tag", "team", '{"a": "b"}')


def test_a_team_is_who_is_in_it() -> None:
    asked = {"meter": "rows", "team_id": "tem_1"}
    assert read(usage_pb2.QueryUsageRequest(**asked), START, UNTIL, ["a", "b"]).filters["user_ids"] == ["a", "b"]
    empty = read(usage_pb2.QueryUsageRequest(**asked), START, UNTIL, [])
    assert (empty.filters["user_ids"], empty.rolls_up) == ([], False)
    for user, found in (("a", ["a"]), ("c", [])):
        request = usage_pb2.QueryUsageRequest(**asked, user_id=user)
        assert read(request, START, UNTIL, ["a", "b"]).filters["user_ids"] == found
    with pytest.raises(InvalidFields) as refused:
        read(usage_pb2.QueryUsageRequest(**asked, view=PUBLISHER), START, UNTIL, ["a"])
    assert [v.field for v in refused.value.violations] == ["team_id"]


def test_a_row_is_a_point() -> None:
    row = {"bucket": START, "model": "a/b", "version": "", "key_id": "", "user_id": "", "value": 7}
    assert point_of(row | {"tags": '{"team": "x", "env": "y"}'}).tag == "env=y,team=x"
    point = point_of(row | {"tags": None, "bucket": None})
    assert (point.tag, point.value, point.HasField("start_time")) == ("", 7, False)


@pytest.mark.parametrize(
    ("asked", "rolls_up"),
    [
        ({}, True), ({"group_by": [1], "model": "a/b", "aggregation": 3, "bucket": 1}, True),
        ({"aggregation": 4}, False),
        ({"aggregation": 5}, False), ({"group_by": [1, 2]}, False), ({"key_id": "k"}, False),
        ({"tags": ["a=b"]}, False),
    ],
)  # fmt: skip
def test_rollups_answer_what_they_know(asked: dict[str, Any], rolls_up: bool) -> None:
    assert read(usage_pb2.QueryUsageRequest(meter="rows", **asked), START, UNTIL).rolls_up == rolls_up


def test_parts_of_a_bucket_make_its_value() -> None:
    values = [
        read(usage_pb2.QueryUsageRequest(meter="rows", aggregation=n), START, UNTIL).merge(3, 5) for n in (1, 2, 3)
    ]
    assert values == [8, 8, 5]
