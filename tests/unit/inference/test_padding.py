"""Padding: calls of different lengths run together and nobody sees it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2

from services.common.tensors import Signature
from services.inference.padding import Padder


def padder(buckets=(), fill=0.0) -> Padder:
    signature = tensor_pb2.Signature()
    signature.inputs.add(name="ids", datatype="INT64", shape=[-1, -1], axes=["batch", "sequence"])
    signature.outputs.add(name="each", datatype="INT64", shape=[-1, -1], axes=["batch", "sequence"])
    signature.outputs.add(name="sum", datatype="INT64", shape=[-1], axes=["batch"])
    padding = registry_pb2.AxisPadding(axis="sequence", buckets=buckets, values={"ids": fill} if fill else {})
    return Padder(Signature(signature), [padding])


def ids(*values) -> dict[str, np.ndarray]:
    return {"ids": np.array([values], np.int64)}


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=6))
def test_everybody_gets_what_they_would_have_got_alone(calls):
    pad = padder()
    inputs = [ids(*values) for values in calls]
    together = pad.together(inputs)["ids"]
    outputs = {"each": together * 2, "sum": together.sum(1)}
    for row, (mine, values) in enumerate(zip(inputs, calls, strict=True)):
        cut = pad.cut(mine, {name: array[row : row + 1] for name, array in outputs.items()})
        assert cut["each"].tolist() == [[2 * v for v in values]]
        assert cut["sum"].tolist() == [sum(values)]


def test_lengths_go_up_to_the_bucket_and_past_the_last_one_stay():
    pad = padder((4, 8))
    assert pad.together([ids(1, 2, 3)])["ids"].tolist() == [[1, 2, 3, 0]]
    assert pad.together([ids(*range(1, 10))])["ids"].shape == (1, 9)
    assert pad.key(ids(1)) == pad.key(ids(1, 2, 3, 4)) != pad.key(ids(1, 2, 3, 4, 5))


def test_what_is_added_is_what_the_model_says():
    assert padder((4,), fill=7).together([ids(1)])["ids"].tolist() == [[1, 7, 7, 7]]


@pytest.mark.parametrize("buckets", [(), (16,)])
def test_calls_of_all_lengths_may_run_together(buckets):
    pad = padder(buckets)
    assert pad.key(ids(1)) == pad.key(ids(1, 2, 3))
