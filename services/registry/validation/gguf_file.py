"""Reads a GGUF file: metadata, and where its tensors lie. Nothing a header claims is believed before it has been held
against the file's own size.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian)."""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from services.registry.validation.report import Refused

MAGIC = b"GGUF"
_MOST_KEYS, _MOST_TENSORS, _MOST_ELEMENTS = 10_000, 20_000, 4_000_000  # elements of all arrays together
_LONGEST_KEY, _MOST_AXES, _LARGEST_ALIGNMENT = 1000, 4, 1 << 20
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_T = GGMLQuantizationType
_READ = (
    _T.F32, _T.F16, _T.BF16, _T.Q4_0, _T.Q4_1, _T.Q5_0, _T.Q5_1, _T.Q8_0,
    _T.Q2_K, _T.Q3_K, _T.Q4_K, _T.Q5_K, _T.Q6_K, _T.IQ4_NL, _T.IQ4_XS,
)  # fmt: skip
_ROWS_AT_ONCE = 1 << 22  # weights that are held as float32 at a time, about


@dataclass(frozen=True)
class Tensor:
    """`rows` × `columns` weights (one row for a vector); `data`: the file's bytes of each row, uint8 [rows, …]."""

    name: str
    kind: str  # by llama.cpp's name, such as Q4_1
    rows: int
    columns: int
    data: np.ndarray[Any, np.dtype[np.uint8]]

    def values(self, start: int = 0, stop: int | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Rows as float32. Raises Refused for weights that are no numbers."""
        with np.errstate(invalid="ignore", over="ignore"):
            values = dequantize(self.data[start:stop], GGMLQuantizationType[self.kind]).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise Refused("WEIGHTS_NOT_FINITE", "a weight is infinite or no number", self.name)
        return values

    def chunks(self) -> list[tuple[int, int]]:
        """Ranges of rows, each small enough to be held as float32."""
        step = max(1, _ROWS_AT_ONCE // self.columns)
        return [(at, min(at + step, self.rows)) for at in range(0, self.rows, step)]


@dataclass(frozen=True)
class Gguf:
    """Metadata as Python values, arrays of numbers as numpy arrays; tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """A value of the metadata. Raises Refused when it is of another kind, or absent without a default."""
        value = self.metadata.get(key)
        if value is None:
            if default is None:
                raise Refused("METADATA_MISSING", "the file does not say this", key)
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Refused("METADATA_INVALID", f"this is not of type {kind.__name__}", key)
        return value


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.at = 0
        self.left = len(data)
        self._elements = 0

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise Refused("GGUF_CUT_OFF", f"it claims {size:,} bytes at {self.at:,} and has {self.left:,}")
        start, self.at, self.left = self.at, self.at + size, self.left - size
        return self._data[start : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self, most: int | None = None) -> str:
        size = self.number("Q")
        if most is not None and size > most:
            raise Refused("GGUF_INVALID", f"a name of {size:,} bytes at {self.at:,}; at most {most}")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise Refused("GGUF_INVALID", f"a text at {self.at:,} is not UTF-8") from None

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise Refused("GGUF_INVALID", f"a value of unknown type {kind}", key)
        kind, count = self.number("I"), self.number("Q")
        self._elements += count
        if self._elements > _MOST_ELEMENTS:
            raise Refused("GGUF_INVALID", f"{self._elements:,} elements of arrays; at most {_MOST_ELEMENTS:,}", key)
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        if kind in _SCALARS:
            code = _SCALARS[kind]
            return np.frombuffer(self.take(count * struct.calcsize(f"<{code}")), f"<{np.dtype(code).str[1:]}")
        raise Refused("GGUF_INVALID", f"an array of values of type {kind}", key)


def read(path: Path) -> Gguf:
    """Raises Refused for a file that is not well-formed or holds tensors of a type not known here."""
    if not path.stat().st_size:
        raise Refused("GGUF_INVALID", "the file is empty")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    cursor = _Cursor(data)
    if cursor.take(4) != MAGIC:
        raise Refused("GGUF_INVALID", "the file does not begin with GGUF")
    if (version := cursor.number("I")) not in (2, 3):
        raise Refused("GGUF_VERSION", f"version {version} of the format; known are 2 and 3, little-endian")
    tensors, keys = cursor.number("Q"), cursor.number("Q")
    if tensors > _MOST_TENSORS or keys > _MOST_KEYS:
        raise Refused("GGUF_INVALID", f"it claims {tensors:,} tensors and {keys:,} keys")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = cursor.text(_LONGEST_KEY)
        if key in metadata:
            raise Refused("GGUF_INVALID", "a key occurs twice", key)
        metadata[key] = cursor.value(cursor.number("I"), key)
    heads = [_head(cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise Refused("GGUF_INVALID", "an alignment is a power of two", "general.alignment")
    start = -(-cursor.at // alignment) * alignment
    return Gguf(metadata, _tensors(data, heads, start))


def _head(cursor: _Cursor) -> tuple[str, list[int], int, int]:
    name = cursor.text(_LONGEST_KEY)
    axes = cursor.number("I")
    if not 0 < axes <= _MOST_AXES:
        raise Refused("TENSOR_DIMENSIONS", f"it has {axes:,} axes; at most {_MOST_AXES}", name)
    return name, [cursor.number("Q") for _ in range(axes)], cursor.number("I"), cursor.number("Q")


def _tensors(data: mmap.mmap, heads: list[tuple[str, list[int], int, int]], start: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    known = {int(t): t for t in _READ}
    end = start
    for name, lengths, kind, offset in sorted(heads, key=lambda h: h[3]):
        if name in found:
            raise Refused("GGUF_INVALID", "a tensor occurs twice", name)
        if kind not in known:
            try:
                said = GGMLQuantizationType(kind).name
            except ValueError:
                said = str(kind)
            raise Refused("TENSOR_TYPE_UNKNOWN", f"its weights are of type {said}", name)
        block, size = GGML_QUANT_SIZES[known[kind]]
        columns, rows = lengths[0], 1
        for length in lengths[1:]:
            rows *= length
        if not columns or not rows or columns % block:
            raise Refused("TENSOR_DIMENSIONS", f"lengths {lengths} do not go with blocks of {block}", name)
        at, bytes_ = start + offset, rows * (columns // block) * size
        if at + bytes_ > len(data):
            raise Refused("TENSOR_CUT_OFF", f"it claims {bytes_:,} bytes at {at:,} of {len(data):,}", name)
        if at < end:
            raise Refused("GGUF_INVALID", "two tensors lie over each other", name)
        end = at + bytes_
        view = np.frombuffer(data, np.uint8, bytes_, at).reshape(rows, -1)
        found[name] = Tensor(name, known[kind].name, rows, columns, view)
    return found
