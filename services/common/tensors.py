"""Tensors on the wire and in memory. Checks everything the engine would otherwise have to trust: names, datatypes,
shapes, byte counts and the lengths inside BYTES; nothing is copied where the bytes can be viewed.

Datatypes and the BYTES layout (each element after a 4-byte little-endian length) are those of the KServe v2 protocol,
https://github.com/kserve/open-inference-protocol (binary tensor data)."""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from google.protobuf.struct_pb2 import ListValue, Value
from mercat.common.v1 import tensor_pb2

from services.common.errors import InvalidArgument, Violation

Array = np.ndarray[Any, np.dtype[Any]]
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype(np.int8), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "UINT8": np.dtype(np.uint8), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}  # fmt: skip
MAX_ELEMENTS = 1 << 28
MOST_BYTES = 64 << 20  # of a message
_EXACT = 1 << 53  # integers past this are not exact as JSON numbers


class BadTensor(InvalidArgument, reason="TENSOR_INVALID"):
    """A tensor does not fit the model's signature; the violation names it."""

    def __init__(self, field: str, problem: str, **kwargs: Any) -> None:
        kwargs.setdefault("violations", [Violation(field, problem)])
        super().__init__(f"{field}: {problem}", **kwargs)


@dataclass(frozen=True, slots=True)
class Spec:
    """One tensor of a signature. `shape` has -1 for an axis of any length."""

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    axes: tuple[str, ...]

    @classmethod
    def of(cls, spec: tensor_pb2.TensorSpec) -> "Spec":
        axes = tuple(spec.axes) if len(spec.axes) == len(spec.shape) else ("",) * len(spec.shape)
        return cls(spec.name, spec.datatype, DTYPES[spec.datatype], tuple(spec.shape), axes)

    def check(self, datatype: str, shape: Sequence[int]) -> int:
        """Elements of a tensor of this shape. Raises BadTensor when it does not fit."""
        if datatype != self.datatype:
            raise BadTensor(self.name, f"the model takes {self.datatype}, not {datatype[:20] or 'nothing'}")
        own = self.shape
        if len(shape) != len(own):
            raise BadTensor(self.name, f"the model takes {_show(own)}, not {_show(shape)}")
        elements = 1
        for i, length in enumerate(shape):
            if length < 0 or (own[i] >= 0 and length != own[i]):
                raise BadTensor(self.name, f"the model takes {_show(own)}, not {_show(shape)}")
            elements *= length
        if elements > MAX_ELEMENTS:
            raise BadTensor(self.name, f"a tensor of {elements} elements is too large; the most is {MAX_ELEMENTS}")
        return elements

    def from_raw(self, datatype: str, shape: Sequence[int], raw: bytes) -> Array:
        """A read-only view of `raw`; a copy only of BYTES. Raises BadTensor when shape × datatype is not its length."""
        elements = self.check(datatype, shape)
        if self.datatype == "BYTES":
            return _split_bytes(self.name, raw, elements).reshape(shape)
        expected = elements * self.dtype.itemsize
        if len(raw) != expected:
            raise BadTensor(self.name, f"{_show(shape)} of {datatype} is {expected} bytes, not {len(raw)}")
        array = np.frombuffer(raw, self.dtype).reshape(shape)
        if self.datatype == "BOOL" and array.size and array.view(np.uint8).max() > 1:
            raise BadTensor(self.name, "BOOL bytes are 0 or 1")
        return array

    def from_values(self, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Array:
        """An array of numbers, booleans or bytes in row-major order. Raises BadTensor when the count or a value does
        not fit."""
        elements = self.check(datatype, shape)
        if len(values) != elements:
            raise BadTensor(self.name, f"{_show(shape)} has {elements} elements, not {len(values)}")
        return self._array(values).reshape(shape)

    def _array(self, values: Sequence[Any]) -> Array:
        if self.datatype == "BYTES":
            array = np.empty(len(values), object)
            array[:] = [self._text(v) for v in values]
            return array
        kind = self.dtype.kind
        if kind in "iu":
            return self._integers(values)
        if kind == "b" and not all(v in (0, 1) for v in values):
            raise BadTensor(self.name, "BOOL elements are true or false")
        try:
            return np.array([float(v) for v in values], np.float64).astype(self.dtype)
        except (TypeError, ValueError):
            raise BadTensor(self.name, f"its elements are not all numbers, as {self.datatype} needs") from None

    def _integers(self, values: Sequence[Any]) -> Array:
        limits = np.iinfo(self.dtype)
        whole: list[int] = []
        for v in values:
            try:
                number = int(v)
            except (TypeError, ValueError, OverflowError):
                number = limits.max + 1
            if (number != v and not isinstance(v, str)) or not limits.min <= number <= limits.max:
                raise BadTensor(self.name, f"{v!r:.40} is no {self.datatype}")
            whole.append(number)
        return np.array(whole, self.dtype)

    def _text(self, value: Any) -> str:
        if isinstance(value, bytes):
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise BadTensor(self.name, "its strings must be UTF-8") from None
        if not isinstance(value, str):
            raise BadTensor(self.name, "its elements must be strings")
        return value


def _show(shape: Sequence[int]) -> str:
    return "[" + ", ".join("any" if d == -1 else str(d) for d in shape[:16]) + "]"


def _split_bytes(name: str, raw: bytes, elements: int) -> Array:
    if len(raw) < 4 * elements:  # before anything is allocated for them
        raise BadTensor(name, f"{elements} BYTES elements need at least {4 * elements} bytes, not {len(raw)}")
    array = np.empty(elements, object)
    at = 0
    for i in range(elements):
        if at + 4 > len(raw):
            raise BadTensor(name, f"its bytes end before element {i}")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise BadTensor(name, f"element {i} says {length} bytes, but {len(raw) - at} are left")
        try:
            array[i] = raw[at : at + length].decode()
        except UnicodeDecodeError:
            raise BadTensor(name, f"element {i} is not UTF-8") from None
        at += length
    if at != len(raw):
        raise BadTensor(name, f"{len(raw) - at} bytes are left after element {elements - 1}")
    return array


def raw_size(array: Array) -> int:
    """How many bytes `to_raw` makes."""
    if array.dtype.kind in "OUS":
        return sum(4 + (len(e) if isinstance(e, bytes) else len(str(e).encode())) for e in array.ravel())
    return int(array.nbytes)


def to_raw(array: Array) -> bytes:
    """Little-endian row-major bytes; BYTES elements each after their length."""
    if array.dtype.kind in "OUS":
        parts: list[bytes] = []
        for element in array.ravel():
            data = element if isinstance(element, bytes) else str(element).encode()
            parts += (struct.pack("<I", len(data)), data)
        return b"".join(parts)
    return array.tobytes()


def to_list(array: Array) -> ListValue:
    """Elements as JSON values, flat; what JSON numbers cannot hold (NaN, infinities, integers past 2^53) as strings."""
    flat = array.ravel()
    kind = flat.dtype.kind
    if kind == "f":
        values = [
            Value(number_value=x) if math.isfinite(x) else Value(string_value=str(x))
            for x in flat.astype(float).tolist()
        ]
    elif kind == "b":
        values = [Value(bool_value=x) for x in flat.tolist()]
    elif kind in "iu":
        values = [
            Value(number_value=x) if -_EXACT <= x <= _EXACT else Value(string_value=str(x)) for x in flat.tolist()
        ]
    else:
        values = [Value(string_value=x.decode(errors="replace") if isinstance(x, bytes) else str(x)) for x in flat]
    return ListValue(values=values)


def flatten(name: str, data: ListValue) -> tuple[list[int], list[Any]]:
    """The shape and the elements of nested lists. Raises BadTensor when they are ragged or deeper than 16."""
    shape: list[int] = []
    level: list[Any] = [data]
    while True:
        lengths = {len(lv.values) for lv in level}
        if len(lengths) > 1:
            raise BadTensor(name, "its nested lists are of different lengths")
        shape.append(lengths.pop() if lengths else 0)
        values = [v for lv in level for v in lv.values]
        kinds = {v.WhichOneof("kind") for v in values}
        if kinds == {"list_value"} and len(shape) < 16:
            level = [v.list_value for v in values]
            continue
        if not kinds <= {"number_value", "string_value", "bool_value"}:
            raise BadTensor(name, "its elements must be numbers, strings, booleans or evenly nested lists of them")
        return shape, [getattr(v, v.WhichOneof("kind") or "") for v in values]


class Signature:
    """What a model takes and gives."""

    def __init__(self, signature: tensor_pb2.Signature) -> None:
        self.inputs = {s.name: Spec.of(s) for s in signature.inputs}
        self.outputs = {s.name: Spec.of(s) for s in signature.outputs}
        self.output_names = list(self.outputs)
        self.images = sum(s.image for s in (*signature.inputs, *signature.outputs))  # of a row
        self._named = any(axis for s in self.inputs.values() for axis in s.axes)
        first = next(iter(self.inputs.values()), None)
        self._counts_rows = first is not None and bool(first.shape) and first.shape[0] == -1

    def spec(self, name: str) -> Spec:
        spec = self.inputs.get(name)
        if spec is None:
            raise BadTensor(name[:100], f"the model has no such input; it takes {', '.join(self.inputs)}")
        return spec

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Raises BadTensor when an input is missing or axes that share a name differ in length."""
        if len(inputs) != len(self.inputs):
            missing = [n for n in self.inputs if n not in inputs]
            raise BadTensor(missing[0], "is required by the model")
        if self._named and len(inputs) > 1:
            lengths: dict[str, tuple[str, int]] = {}
            for name, array in inputs.items():
                for axis, length in zip(self.inputs[name].axes, array.shape, strict=True):
                    if axis and lengths.setdefault(axis, (name, length))[1] != length:
                        raise BadTensor(
                            name, f"axis {axis!r} is {length} long, but in {lengths[axis][0]} {lengths[axis][1]}"
                        )

    def wanted(self, names: Iterable[str]) -> list[str]:
        """The outputs asked for, all of them when none is named. Raises BadTensor for one the model does not have."""
        wanted = list(names)
        for name in wanted:
            if name not in self.outputs:
                raise BadTensor(name[:100], f"the model has no such output; it gives {', '.join(self.outputs)}")
        return wanted or self.output_names

    def rows(self, inputs: Mapping[str, Array]) -> int:
        """What the `rows` meter counts: the length of the first input's first axis where that is dynamic, else 1."""
        return int(next(iter(inputs.values())).shape[0]) if self._counts_rows else 1

    def most_bytes(self, inputs: Mapping[str, Array], rows: int, outputs: Iterable[str]) -> int:
        """The most bytes that outputs can have: where an axis of any length has the name of an input's, it is that
        long, and the first one is `rows` long, if that is not 0. Others may fill a message."""
        known = {
            axis: length
            for name, array in inputs.items()
            for axis, length in zip(self.inputs[name].axes, array.shape, strict=True)
            if axis
        }
        total = 0
        for name in outputs:
            spec = self.outputs[name]
            size = spec.dtype.itemsize if spec.datatype != "BYTES" else MOST_BYTES
            for n, (length, axis) in enumerate(zip(spec.shape, spec.axes, strict=True)):
                size *= length if length >= 0 else rows if rows and not n else known.get(axis, MOST_BYTES)
            total += size
        return min(total, MOST_BYTES)

    def refuse_rows(self, rows: int, most: int) -> NoReturn:
        """Raises BadTensor for a call of more rows than the model takes at once."""
        raise BadTensor(next(iter(self.inputs)), f"{rows} rows; this model takes at most {most} in one call")
