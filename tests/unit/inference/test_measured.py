"""What is measured of a call is never more than the most, and that is no less than outputs can have."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mercat.common.v1 import tensor_pb2

from services.common.tensors import MOST_BYTES, Signature, raw_size, to_raw
from services.inference import measured
from services.inference.measured import COMPUTE_US, OUTPUT_BYTES

METERS = ("images", "compute_us", "output_bytes")


def signature(*outputs: tuple[str, list[int], list[str]], images: int = 0) -> Signature:
    made = tensor_pb2.Signature()
    made.inputs.add(name="x", datatype="FP32", shape=[-1, -1], axes=["batch", "length"])
    for n, (datatype, shape, axes) in enumerate(outputs):
        made.outputs.add(name=f"y{n}", datatype=datatype, shape=shape, axes=axes, image=n < images)
    return Signature(made)


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 9))
def test_the_most_is_what_named_axes_and_rows_say(rows: int, length: int, width: int) -> None:
    of = signature(
        ("FP32", [-1, -1], ["batch", "length"]), ("INT8", [-1, width], ["", ""]), ("FP64", [2, -1], ["", "length"])
    )
    inputs = {"x": np.zeros((rows, length), np.float32)}
    most = of.most_bytes(inputs, rows, of.output_names)
    made = [np.zeros((rows, length), np.float32), np.zeros((rows, width), np.int8), np.zeros((2, length))]
    assert most == sum(a.nbytes for a in made)
    assert of.most_bytes(inputs, rows, ["y1"]) == rows * width
    assert of.most_bytes(inputs, 0, ["y1"]) == MOST_BYTES  # nothing says how many its first axis has


def test_what_nothing_bounds_may_fill_a_message() -> None:
    of = signature(("BYTES", [-1], ["batch"]), ("FP32", [-1, 3], ["found", ""]))
    inputs = {"x": np.zeros((2, 2), np.float32)}
    assert of.most_bytes(inputs, 0, ["y0"]) == of.most_bytes(inputs, 0, ["y1"]) == MOST_BYTES


@given(st.lists(st.text(max_size=5), max_size=5), st.floats(0, 10), st.integers(0, 60), st.integers(1, 10**7))
def test_what_is_measured_is_within_the_most(words: list[str], seconds: float, most: int, time: int) -> None:
    texts = np.array(words, object)
    outputs = {"text": texts, "x": np.zeros(3, np.float32)}
    assert raw_size(texts) == len(to_raw(texts))
    found = dict(measured.ran(((OUTPUT_BYTES, most), (COMPUTE_US, time)), outputs, seconds))
    assert found == {
        OUTPUT_BYTES: min(most, len(to_raw(texts)) + 12), COMPUTE_US: min(time, round(seconds * 1e6)),
    }  # fmt: skip


def test_only_meters_of_the_price_are_counted() -> None:
    of = signature(("FP32", [-1, 3], ["batch", ""]), ("FP32", [-1, 3], ["batch", ""]), images=1)
    inputs = {"x": np.zeros((4, 2), np.float32)}
    assert measured.declared(METERS, of, 4) == (("images", 4),)
    assert measured.declared(("compute_us",), of, 4) == ()
    assert measured.most(METERS, of, inputs, 4, ["y0"], 2.5) == (("compute_us", 2_500_000), ("output_bytes", 48))
    assert measured.most(("images",), of, inputs, 4, ["y0"], 2.5) == ()
    assert measured.ran((), {"y0": np.zeros(3)}, 1.0) == ()
