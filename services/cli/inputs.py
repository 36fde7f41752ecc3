"""Inputs as they are typed, as tensors: `name=JSON`, `name=@file.npy`, `name=@file.json`, and files of bare bytes."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from google.protobuf import json_format, struct_pb2
from mercat.common.v1 import tensor_pb2
from mercat.inference.v1 import inference_pb2

_EXACT = 1 << 53  # integers past this are not exact as JSON numbers
_KINDS = {"b": "BOOL", "i": "INT", "u": "UINT", "f": "FP"}
_SIZES = {"BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "INT32": 4, "UINT32": 4, "FP32": 4,
          "INT64": 8, "UINT64": 8, "FP64": 8}  # fmt: skip


def datatype_of(dtype: "np.dtype[Any]") -> str:
    """KServe's name of a numpy type. Raises BadParameter when it has none."""
    if dtype.kind not in _KINDS or dtype.itemsize > 8:
        raise typer.BadParameter(f"numpy type {dtype} has no counterpart; cast it to a number of at most 8 bytes")
    return "BOOL" if dtype.kind == "b" else f"{_KINDS[dtype.kind]}{8 * dtype.itemsize}"


def of_array(name: str, array: "np.ndarray[Any, Any]") -> inference_pb2.Tensor:
    """A tensor with an array's elements as little-endian bytes; BYTES for text."""
    if array.dtype.kind in "SU":
        parts = [v if isinstance(v, bytes) else str(v).encode() for v in array.ravel().tolist()]
        raw = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
        return inference_pb2.Tensor(name=name, datatype="BYTES", shape=array.shape, raw=raw)
    datatype = datatype_of(array.dtype)
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return inference_pb2.Tensor(name=name, datatype=datatype, shape=array.shape, raw=little.tobytes())


def of_json(name: str, value: Any) -> inference_pb2.Tensor:
    """A tensor of nested lists, or of a lone number, text or truth value. Raises BadParameter for objects and nulls."""
    return inference_pb2.Tensor(name=name, data=_list(name, value if isinstance(value, list) else [value]))


def _list(name: str, values: Sequence[Any]) -> struct_pb2.ListValue:
    return struct_pb2.ListValue(values=[_value(name, value) for value in values])


def _value(name: str, value: Any) -> struct_pb2.Value:
    if isinstance(value, list):
        return struct_pb2.Value(list_value=_list(name, value))
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int) and abs(value) > _EXACT:
        return struct_pb2.Value(string_value=str(value))
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    kind = "null" if value is None else "an object"
    raise typer.BadParameter(f"{name}: elements are numbers, texts, true or false, not {kind}")


def read(path: str) -> bytes:
    """A file's bytes; `-` is standard input. Raises BadParameter when it cannot be read."""
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read ({error.strerror})") from None


def read_text(path: str) -> str:
    """A file's text; empty when no file is named. Raises BadParameter when it cannot be read."""
    return read(path).decode(errors="replace") if path else ""


def read_npy(path: str) -> "np.ndarray[Any, Any]":
    """An array; never one that would have to be unpickled. Raises BadParameter when the file is none."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError):
        raise typer.BadParameter(f"{path} is not an .npy file of plain numbers") from None
    if not isinstance(array, np.ndarray):
        raise typer.BadParameter(f"{path} holds several arrays; give one .npy file an input")
    return array


def parse_input(text: str) -> inference_pb2.Tensor:
    """One `--input`. Raises BadParameter."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"{text[:60]!r} has no name; write it as name=JSON or name=@file.npy")
    if value.startswith("@") and value.endswith(".npy"):
        return of_array(name, read_npy(value[1:]))
    source = read(value[1:]).decode(errors="replace") if value.startswith("@") else value
    try:
        return of_json(name, json.loads(source))
    except ValueError:
        where = value if value.startswith("@") else repr(value[:40])
        hint = "" if value.startswith("@") else """; text needs its quotes: --input 'name="some text"'"""
        raise typer.BadParameter(f"{name}: {where} is not JSON{hint}") from None


def parse_shape(text: str) -> tuple[str, list[int]]:
    """`name=1,2048`. Raises BadParameter."""
    name, _, axes = text.partition("=")
    try:
        return name, [int(axis) for axis in axes.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no shape; write it as name=1,2048") from None


def of_bytes(
    name: str, raw: bytes, signature: tensor_pb2.Signature, shapes: Mapping[str, Sequence[int]]
) -> inference_pb2.Tensor:
    """A file's bytes as a tensor: the datatype as the model says, the shape as given, or as the model says with its
    one open axis as long as the bytes make it. Raises BadParameter when that is not enough."""
    spec = next((s for s in signature.inputs if s.name == name), None)
    if spec is None:
        known = ", ".join(s.name for s in signature.inputs)
        raise typer.BadParameter(f"the model has no input {name!r}; it takes {known}")
    shape = list(shapes.get(name, spec.shape))
    if name not in shapes and -1 in shape:
        known_axes = math.prod(axis for axis in shape if axis != -1) * _SIZES.get(spec.datatype, 0)
        if shape.count(-1) != 1 or not known_axes or len(raw) % known_axes:
            raise typer.BadParameter(f"the shape of {name} does not follow from {len(raw)} bytes; "
                                     f"give it with --shape {name}=…")  # fmt: skip
        shape[shape.index(-1)] = len(raw) // known_axes
    return inference_pb2.Tensor(name=name, datatype=spec.datatype, shape=shape, raw=raw)


def parse_request(text: bytes) -> inference_pb2.PredictRequest:
    """A Predict request body as REST takes it. Raises BadParameter."""
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("it must be an object")
        return json_format.ParseDict(document, inference_pb2.PredictRequest())
    except (ValueError, json_format.ParseError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"the request is not a Predict body: {str(error)[:200]}") from None


def to_array(tensor: inference_pb2.Tensor) -> "np.ndarray[Any, Any]":
    """An output that came as `raw`, as an array."""
    shape = tuple(tensor.shape)
    if tensor.datatype == "BYTES":
        texts: list[str] = []
        at = 0
        while at < len(tensor.raw):
            length = int.from_bytes(tensor.raw[at : at + 4], "little")
            texts.append(tensor.raw[at + 4 : at + 4 + length].decode(errors="replace"))
            at += 4 + length
        return np.array(texts, np.str_).reshape(shape)
    kind = tensor.datatype.rstrip("0123456789")
    letter = {"BOOL": "?", "INT": "i", "UINT": "u", "FP": "f"}[kind]
    dtype = np.dtype("?" if letter == "?" else f"<{letter}{int(tensor.datatype[len(kind) :]) // 8}")
    return np.frombuffer(tensor.raw, dtype).reshape(shape)
