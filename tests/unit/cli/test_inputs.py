"""Inputs as typed, as tensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from google.protobuf import json_format
from mercat.common.v1 import tensor_pb2

from services.cli.inputs import of_array, of_bytes, parse_input, parse_request, parse_shape, to_array


def data_of(text: str) -> Any:
    tensor = parse_input(text)
    return json_format.MessageToDict(tensor)["data"]


def test_json_is_kept_as_it_is_nested() -> None:
    assert data_of("x=[[1, 2.5], [3, 4]]") == [[1, 2.5], [3, 4]]
    assert data_of("x=[true, false]") == [True, False]
    assert data_of('text="some text"') == ["some text"]
    assert data_of("n=3") == [3]


def test_integers_that_json_numbers_cannot_hold_travel_as_text() -> None:
    assert data_of("ids=[9007199254740993, -9223372036854775808, 7]") == ["9007199254740993", "-9223372036854775808", 7]


@pytest.mark.parametrize("text", ["x", "=1", "x=hello", "x={}", "x=[null]", 'x=[{"a": 1}]', "x=@missing.npy", "x=[1"])
def test_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_input(text)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", ">i2", "<u2", "i4", "u4", "i8", "u8", "f2", "<f4", ">f8"])
def test_arrays_survive_the_wire(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = of_array("x", array)
    assert list(tensor.shape) == [2, 3]
    assert np.array_equal(to_array(tensor), array)


def test_texts_survive_the_wire() -> None:
    array = np.array([["eins", "zwei"], ["", "drei ✓"]])
    tensor = of_array("x", array)
    assert tensor.datatype == "BYTES"
    assert np.array_equal(to_array(tensor), array)


def test_columns_of_a_larger_array_are_copied_in_row_order() -> None:
    array = np.arange(6, dtype="i4").reshape(2, 3).T
    assert np.array_equal(to_array(of_array("x", array)), array)


def test_npy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 4), "f4"))
    tensor = parse_input(f"x=@{tmp_path / 'x.npy'}")
    assert (tensor.datatype, list(tensor.shape), len(tensor.raw)) == ("FP32", [1, 4], 16)


def test_a_pickle_in_an_npy_file_is_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(typer.BadParameter, match="plain numbers"):
        parse_input(f"x=@{tmp_path / 'x.npy'}")


def test_json_files(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([[1, 2]]))
    assert data_of(f"x=@{tmp_path / 'x.json'}") == [[1, 2]]


SIGNATURE = tensor_pb2.Signature(
    inputs=[
        tensor_pb2.TensorSpec(name="bytes", datatype="INT32", shape=[-1, 4]),
        tensor_pb2.TensorSpec(name="open", datatype="FP32", shape=[-1, -1]),
    ]
)


def test_the_one_open_axis_follows_from_the_bytes() -> None:
    assert list(of_bytes("bytes", bytes(48), SIGNATURE, {}).shape) == [3, 4]
    assert list(of_bytes("open", bytes(16), SIGNATURE, {"open": [2, 2]}).shape) == [2, 2]


@pytest.mark.parametrize(("name", "length"), [("bytes", 47), ("open", 16), ("other", 4)])
def test_bytes_that_say_too_little(name: str, length: int) -> None:
    with pytest.raises(typer.BadParameter):
        of_bytes(name, bytes(length), SIGNATURE, {})


def test_shapes_and_requests() -> None:
    assert parse_shape("x=1,2048") == ("x", [1, 2048])
    with pytest.raises(typer.BadParameter):
        parse_shape("x=a")
    request = parse_request(b'{"inputs": [{"name": "x", "data": [[1, 2]]}], "outputs": ["y"]}')
    assert (request.inputs[0].name, list(request.outputs)) == ("x", ["y"])
    for text in (b"[]", b"{", b'{"input": []}', b"\xff"):
        with pytest.raises(typer.BadParameter):
            parse_request(text)
