"""Options that say how a version is served."""

import pytest
import typer
from mercat.registry.v1 import registry_pb2

from services.cli import serving


def test_padding_is_an_axis_and_its_lengths() -> None:
    (first, second) = serving.padding(["sequence=128,64", "width"], ["ids=1"])
    assert (first.axis, list(first.buckets), dict(first.values)) == ("sequence", [64, 128], {"ids": 1.0})
    assert (second.axis, list(second.buckets)) == ("width", [])


def test_a_cache_is_there_only_when_asked_for() -> None:
    assert serving.cache(None, 0) is None
    assert serving.cache(0, 10) == registry_pb2.ResponseCache(hit_price_percent=10)


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in (
        lambda: serving.padding(["sequence=a"], []),
        lambda: serving.padding(["sequence"], ["ids"]),
        lambda: serving.padding([], ["ids=1"]),
        lambda: serving.cache(None, 10),
        lambda: serving.placement("gpu"),
    ):
        with pytest.raises(typer.BadParameter):
            wrong()
