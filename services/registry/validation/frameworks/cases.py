"""Inputs that a model of another framework is converted and compared with: its version's samples, and random ones."""

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from services.registry.validation.report import Refused, Tensor

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]

DTYPES = {
    "BOOL": "?", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "<u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_MOST_SAMPLES = 4
_BATCHES = (2, 3)  # of random inputs; neither is 1, which a graph may take for granted
_LENGTHS = (8, 64, 224, 512, 1)  # of other open axes, tried until the model takes one
_MOST_ELEMENTS = 1 << 27  # of one random input


class Source(Protocol):
    """A model as its framework runs it. `inputs`: in the order that it takes them. `outputs`: names, in the order that
    `run` gives them. All raise what the framework raises."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]

    def run(self, feeds: Feeds) -> list[Array]: ...

    def export(self, cases: "Sequence[Case]", path: Path) -> None:
        """Writes the model as ONNX."""


Case = tuple[Feeds, list[Array]]


def cases(source: Source, samples: Sequence[str]) -> list[Case]:
    """Inputs that the source takes and what it gives for them; the random ones last, with one more row each time where
    the first axis is open. Raises Refused when there are none, what `run` raises only if it is MemoryError."""
    for spec in source.inputs:
        if spec.datatype not in DTYPES:
            raise Refused("DATATYPE_UNSUPPORTED", f"{spec.datatype} cannot be converted", spec.name)
    found = [case for feeds in _samples(source.inputs, samples) if (case := _tried(source, feeds)[0])]
    problem = ""
    for length in _LENGTHS:
        tries = [_tried(source, _random(source.inputs, batch, length)) for batch in _BATCHES]
        drawn = [case for case, _ in tries if case is not None]
        if drawn:
            return found + drawn
        problem = problem or tries[0][1]
        if not any(-1 in spec.shape for spec in source.inputs):
            break
    if found:
        return found
    text = f"the model runs neither on its samples nor on random inputs: {problem}; give it a sample that it takes"
    raise Refused("SAMPLE_RUN_FAILED", text)


def save(found: Sequence[Case], outputs: Sequence[str], path: Path) -> None:
    """Writes cases as an .npz of `0.in.x`, `0.out.y`, …."""
    arrays: dict[str, Array] = {}
    for i, (feeds, given) in enumerate(found):
        arrays |= {f"{i}.in.{name}": array for name, array in feeds.items()}
        arrays |= {f"{i}.out.{name}": array for name, array in zip(outputs, given, strict=True)}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type,unused-ignore]


def load(path: Path) -> list[tuple[Feeds, dict[str, Array]]]:
    """What `save` wrote. Raises OSError and ValueError."""
    found: dict[int, tuple[Feeds, dict[str, Array]]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            number, side, name = key.split(".", 2)
            found.setdefault(int(number), ({}, {}))[side == "out"][name] = arrays[key]
    return [found[number] for number in sorted(found)]


def _tried(source: Source, feeds: Feeds) -> tuple[Case | None, str]:
    try:
        given = source.run(feeds)
    except MemoryError:
        raise
    except Exception as e:
        return None, first_line(e)
    for name, array in zip(source.outputs, given, strict=False):
        if array.dtype.newbyteorder("<").str not in DTYPES.values() and array.dtype.kind != "b":
            raise Refused("DATATYPE_UNSUPPORTED", f"{array.dtype} cannot be converted", name)
    if len(given) != len(source.outputs):
        raise Refused("SIGNATURE_DIFFERS", f"it gives {len(given)} tensors; {len(source.outputs)} are declared")
    return (feeds, given), ""


def first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0].strip() if lines else type(error).__name__)[:300]


def _random(inputs: Sequence[Tensor], batch: int, length: int) -> Feeds:
    rng = np.random.default_rng(batch)
    feeds: Feeds = {}
    for spec in inputs:
        shape = [n if n >= 0 else batch if axis == 0 else length for axis, n in enumerate(spec.shape)]
        if np.prod(shape, dtype=np.float64) > _MOST_ELEMENTS:
            raise Refused("INPUT_TOO_LARGE", "an input has more elements than are tried", spec.name)
        dtype = np.dtype(DTYPES[spec.datatype])
        if dtype.kind == "f":
            feeds[spec.name] = rng.standard_normal(shape).astype(dtype)
        else:  # small, since they may be places in a table
            feeds[spec.name] = rng.integers(0, 2 if dtype.kind == "b" else 8, shape).astype(dtype)
    return feeds


def _samples(inputs: Sequence[Tensor], samples: Sequence[str]) -> Iterator[Feeds]:
    """Those samples of Predict requests that name every input."""
    for text in samples[:_MOST_SAMPLES]:
        try:
            given = {tensor["name"]: tensor for tensor in json.loads(text)["inputs"]}
            yield {spec.name: _array(spec, given[spec.name]) for spec in inputs}
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error):
            continue


def _array(spec: Tensor, tensor: dict[str, Any]) -> Array:
    dtype = np.dtype(DTYPES[spec.datatype])
    if raw := tensor.get("raw"):
        array = np.frombuffer(base64.b64decode(raw), dtype)
    else:
        array = np.array(tensor["data"], dtype)
    shape = [int(n) for n in tensor.get("shape") or array.shape]
    array = array.reshape(shape)
    if len(shape) != len(spec.shape) or any(n not in (-1, m) for n, m in zip(spec.shape, shape, strict=True)):
        raise ValueError("of another shape")
    return array
