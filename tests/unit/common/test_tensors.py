"""Tensors: what fits is viewed without loss, what does not is refused by name before anything is allocated for it."""

import struct

import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import ListValue
from hypothesis import given
from hypothesis import strategies as st
from mercat.common.v1 import tensor_pb2

from services.common.tensors import DTYPES, BadTensor, Signature, Spec, flatten, to_list, to_raw


def spec(datatype: str, *shape: int, name: str = "x") -> Spec:
    return Spec.of(tensor_pb2.TensorSpec(name=name, datatype=datatype, shape=shape))


NUMERIC = sorted(set(DTYPES) - {"BYTES", "BOOL"})


@given(st.sampled_from(NUMERIC), st.lists(st.integers(0, 4), min_size=1, max_size=3), st.binary(max_size=600))
def test_numbers_are_viewed_exactly_when_shape_times_datatype_is_the_byte_count(datatype, shape, raw):
    s = spec(datatype, *[-1] * len(shape))
    expected = int(np.prod(shape)) * DTYPES[datatype].itemsize
    if len(raw) >= expected:
        array = s.from_raw(datatype, shape, raw[:expected])
        assert array.shape == tuple(shape)
        assert to_raw(array) == raw[:expected]
    if len(raw) != expected:
        with pytest.raises(BadTensor) as e:
            s.from_raw(datatype, shape, raw)
        assert e.value.violations[0].field == "x"


@given(st.lists(st.text(max_size=20), max_size=8))
def test_strings_survive_the_bytes_layout(texts):
    raw = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    array = spec("BYTES", -1).from_raw("BYTES", [len(texts)], raw)
    assert array.tolist() == texts
    assert to_raw(array) == raw


@given(st.binary(max_size=60), st.integers(0, 10))
def test_no_bytes_layout_reads_past_its_end(raw, count):
    try:
        array = spec("BYTES", -1).from_raw("BYTES", [count], raw)
    except BadTensor:
        return
    assert to_raw(array) == raw


@pytest.mark.parametrize(
    ("shape", "raw"),
    [
        ([-1, 4], b""), ([2**63 - 1], b""), ([2**62, 4], b""), ([0, 2**63 - 1], b"x"), ([1, 2, 3], bytes(24)),
        ([], bytes(4)), ([2**31, 2**31], bytes(4)),
    ],
)  # fmt: skip
def test_shapes_that_lie_are_refused(shape, raw):
    with pytest.raises(BadTensor):
        spec("FP32", -1, -1).from_raw("FP32", shape, raw)


def test_a_huge_bytes_tensor_is_refused_before_it_is_allocated():
    with pytest.raises(BadTensor, match="at least"):
        spec("BYTES", -1).from_raw("BYTES", [2**27], b"\0\0\0\0")


def test_bool_takes_only_zero_and_one():
    assert spec("BOOL", -1).from_raw("BOOL", [2], b"\0\1").tolist() == [False, True]
    with pytest.raises(BadTensor):
        spec("BOOL", -1).from_raw("BOOL", [2], b"\0\2")


@pytest.mark.parametrize(
    ("datatype", "bad"), [("INT8", 128), ("UINT8", -1), ("INT32", 1.5), ("INT64", "x"), ("FP32", "y")]
)
def test_values_outside_of_a_datatype_are_refused(datatype, bad):
    with pytest.raises(BadTensor):
        spec(datatype, -1).from_values(datatype, [1], [bad])


def as_list(value: object) -> ListValue:
    return json_format.ParseDict(value, ListValue())


def test_nested_lists_say_their_shape():
    assert flatten("x", as_list([[1, 2, 3], [4, 5, 6]])) == ([2, 3], [1, 2, 3, 4, 5, 6])
    for ragged in ([[1, 2], [3]], [[1], 2], [None], [{}]):
        with pytest.raises(BadTensor):
            flatten("x", as_list(ragged))


def test_json_keeps_what_its_numbers_cannot_hold():
    big = np.array([2**53, 2**53 + 1, -(2**62)], np.int64)
    values = json_format.MessageToDict(to_list(big))
    assert [int(v) for v in values] == big.tolist()
    assert json_format.MessageToDict(to_list(np.array([np.nan, np.inf, 1.5], np.float32))) == ["nan", "inf", 1.5]
    back = spec("FP32", -1).from_values("FP32", [3], ["nan", "inf", 1.5])
    assert np.isnan(back[0])
    assert back[1] == np.inf


def test_a_signature_names_what_is_missing_unknown_or_uneven():
    signature = Signature(
        tensor_pb2.Signature(
            inputs=[
                tensor_pb2.TensorSpec(name="ids", datatype="INT64", shape=[-1, -1], axes=["batch", "length"]),
                tensor_pb2.TensorSpec(name="mask", datatype="INT64", shape=[-1, -1], axes=["batch", "length"]),
            ],
            outputs=[tensor_pb2.TensorSpec(name="y", datatype="FP32", shape=[-1])],
        )
    )
    ids = np.zeros((2, 3), np.int64)
    with pytest.raises(BadTensor, match="mask"):
        signature.check({"ids": ids})
    with pytest.raises(BadTensor, match="length"):
        signature.check({"ids": ids, "mask": np.zeros((2, 4), np.int64)})
    with pytest.raises(BadTensor, match="no such input"):
        signature.spec("other")
    with pytest.raises(BadTensor, match="no such output"):
        signature.wanted(["z"])
    signature.check({"ids": ids, "mask": ids})
    assert signature.rows({"ids": ids, "mask": ids}) == 2
