"""Examines an ONNX model: form, bounds, outside references, operators, signature, and a run. Runs in the child only."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from services.common.text_model import DECODER, TEXT_KEY, TOKENIZER_KEY
from services.registry.validation import engine, text_model
from services.registry.validation.formats import foreign
from services.registry.validation.report import Finding, Limits, Refused, Report, Scan, Tensor

_DATATYPES = {
    onnx.TensorProto.BOOL: "BOOL", onnx.TensorProto.INT8: "INT8", onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32", onnx.TensorProto.INT64: "INT64", onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16", onnx.TensorProto.UINT32: "UINT32", onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.FLOAT16: "FP16", onnx.TensorProto.FLOAT: "FP32", onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.STRING: "BYTES",
}  # fmt: skip
_NUMPY = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8,
    "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "FP16": np.float16, "FP32": np.float32,
    "FP64": np.float64,
}  # fmt: skip
_MOST_FINDINGS = 20
_MOST_AXES = 32
_MOST_TENSORS = 1000  # inputs, and outputs
_LONGEST_NAME = 200
_MOST_OPERATORS = 200  # that a report names


def examine(path: Path, limits: Limits) -> Report:
    """A report of one file. Raises Refused, and MemoryError when the limits do not suffice to look."""
    if kind := foreign(path):
        raise Refused("NOT_ONNX", f"this is {kind}, not an ONNX model")
    if (size := path.stat().st_size) > limits.artifact_bytes:
        raise Refused("FILE_TOO_LARGE", f"it has {size:,} bytes; at most {limits.artifact_bytes:,}")
    model = parse(path)
    findings = list(islice(_walk(model, limits), _MOST_FINDINGS))
    if findings:
        return Report(findings=tuple(findings))
    inputs, outputs = signature(model)
    _check(path)
    scan = _scan(model, limits)
    entries = {p.key: p.value for p in model.metadata_props if p.key in (TEXT_KEY, TOKENIZER_KEY)}
    del model
    texts = text_model.read(entries) if entries else None
    if texts is not None and texts.config.kind == DECODER:
        return replace(text_model.decoder(path, texts, inputs, outputs), scan=scan)
    session, load_us = engine.load(path)
    report = replace(_run(session, path, inputs, outputs, limits), load_us=load_us, scan=scan)
    return report if texts is None else text_model.encoder(session, texts, report)


def parse(path: Path) -> onnx.ModelProto:
    """Raises Refused."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise Refused("NOT_ONNX", "the file is no ONNX model, or is cut off") from None
    if not model.graph.node or not model.ir_version or not model.graph.output:
        raise Refused("NOT_ONNX", "the file holds no ONNX graph")
    return model


def bodies(body: Any, depth: int, limits: Limits) -> Iterator[Any]:
    """A graph or function, and every graph inside it."""
    if depth > limits.depth:
        raise Refused("GRAPH_TOO_DEEP", f"graphs inside graphs deeper than {limits.depth}", body.name)
    yield body
    attributes = [a for node in body.node for a in node.attribute]
    if isinstance(body, onnx.FunctionProto):
        attributes += body.attribute_proto
    for attribute in attributes:
        for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from bodies(inner, depth + 1, limits)


def tensors(body: Any) -> Iterator[Any]:
    """Every tensor written down in a graph or function, graphs inside it excepted."""
    attributes = [a for node in body.node for a in node.attribute]
    sparse: list[Any] = []
    if isinstance(body, onnx.FunctionProto):
        attributes += body.attribute_proto
    else:
        yield from body.initializer
        sparse += body.sparse_initializer
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse += ([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []) + list(
            attribute.sparse_tensors
        )
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices


def _walk(model: onnx.ModelProto, limits: Limits) -> Iterator[Finding]:
    """What is wrong with the graphs, before any library follows what they say."""
    if model.functions:
        names = {f"{f.domain}.{f.name}" for f in model.functions}
        for f in model.functions:
            if any(f"{n.domain}.{n.op_type}" in names for n in f.node):
                yield Finding("FUNCTION_CALLS", "a function of the model calls another; inline them", f.name)
    nodes = 0
    training = [g for info in model.training_info for g in (info.initialization, info.algorithm)]
    for outer in (model.graph, *model.functions, *training):
        for body in bodies(outer, 0, limits):
            nodes += len(body.node)
            if nodes > limits.nodes:
                raise Refused("GRAPH_TOO_LARGE", f"more than {limits.nodes} nodes")
            for tensor in tensors(body):
                yield from _tensor(tensor, limits)


def _scan(model: onnx.ModelProto, limits: Limits) -> Scan:
    operators: Counter[str] = Counter()
    parameters = weight_bytes = 0
    for outer in (model.graph, *model.functions):
        for body in bodies(outer, 0, limits):
            operators.update(f"{n.domain}.{n.op_type}"[:_LONGEST_NAME].removeprefix(".") for n in body.node)
            for tensor in tensors(body):
                size = size_of(tensor, limits) or 0
                weight_bytes += size
                parameters += size * 8 // _bits(tensor.data_type)
    return Scan(tuple(operators.most_common(_MOST_OPERATORS)), parameters, weight_bytes)


def _tensor(tensor: Any, limits: Limits) -> Iterator[Finding]:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        yield Finding("EXTERNAL_DATA", f"its values lie outside of the file, at {location[:200]!r}", tensor.name)
        return
    if (least := min(tensor.dims, default=0)) < 0:
        yield Finding("TENSOR_DIMENSIONS", f"a dimension is {least}", tensor.name)
        return
    size = size_of(tensor, limits)
    if size is None:
        yield Finding("TENSOR_TOO_LARGE", f"it claims more than {limits.tensor_bytes:,} bytes", tensor.name)
    elif tensor.raw_data and len(tensor.raw_data) < size:
        yield Finding("TENSOR_CUT_OFF", f"it claims {size:,} bytes and has {len(tensor.raw_data):,}", tensor.name)


def size_of(tensor: Any, limits: Limits) -> int | None:
    """Bytes of what a tensor claims to hold, none of its dimensions being negative; None for more than one may."""
    return _bytes(tensor.dims, _bits(tensor.data_type), limits.tensor_bytes)


def _bytes(dims: Iterable[int], bits: int, most: int) -> int | None:
    """What a tensor takes; None for more than `most`, without working out how many more."""
    lengths = list(dims)
    if 0 in lengths:
        return 0
    total = bits
    for length in lengths:
        total *= length
        if total > most * 8:
            return None
    return total // 8


def _bits(data_type: int) -> int:
    """Of one element; those of a type nobody knows count as a byte."""
    if data_type in (onnx.TensorProto.UINT4, onnx.TensorProto.INT4):
        return 4
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8
    except (KeyError, TypeError, ValueError):
        return 8


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=False)
    except (onnx.checker.ValidationError, ValueError) as e:
        text = engine.first_line(e, path)
        # Operators of ONNX Runtime's own domains are unknown to the checker and tried in the run.
        if "No Op registered" not in text and "No opset import" not in text:
            raise Refused("GRAPH_INVALID", text) from None


def signature(model: onnx.ModelProto) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What the graph takes and gives. Raises Refused for what cannot be sent."""
    constants = {t.name for t in model.graph.initializer}
    inputs = tuple(_spec(v) for v in model.graph.input if v.name not in constants)
    outputs = tuple(_spec(v) for v in model.graph.output)
    if not inputs:
        raise Refused("NO_INPUTS", "the graph takes nothing")
    for t in (*inputs, *outputs):
        if not t.name or any(len(n) > _LONGEST_NAME or (n and not n.isprintable()) for n in (t.name, *t.axes)):
            text = f"inputs, outputs and their axes have names of at most {_LONGEST_NAME} printable characters"
            raise Refused("NAME_INVALID", text, t.name)
    if max(len(inputs), len(outputs)) > _MOST_TENSORS:
        raise Refused("TOO_MANY_TENSORS", f"more than {_MOST_TENSORS} inputs or outputs")
    return inputs, outputs


def _spec(value: Any) -> Tensor:
    if not value.type.HasField("tensor_type"):
        raise Refused("NOT_A_TENSOR", "only tensors can be sent: sequences, maps and optionals cannot", value.name)
    tensor = value.type.tensor_type
    datatype = _DATATYPES.get(tensor.elem_type)
    if datatype is None:
        known = tensor.elem_type in onnx.TensorProto.DataType.values()
        name = onnx.TensorProto.DataType.Name(tensor.elem_type) if known else f"type {tensor.elem_type}"
        raise Refused("DATATYPE_UNSUPPORTED", f"{name} cannot be sent", value.name)
    shape: list[int] = []
    axes: list[str] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value < -1:  # some exporters write -1 for any length
            raise Refused("TENSOR_DIMENSIONS", f"a dimension is {dim.dim_value}", value.name)
        fixed = dim.HasField("dim_value") and dim.dim_value > 0
        shape.append(dim.dim_value if fixed else -1)
        axes.append("" if fixed else dim.dim_param)
    image = value.type.denotation == "IMAGE"  # https://github.com/onnx/onnx/blob/main/docs/TypeDenotation.md
    return Tensor(value.name, datatype, tuple(shape), tuple(axes), image)


def _run(session: Any, path: Path, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], limits: Limits) -> Report:
    run_us = 0
    # A model may need more than one of an axis (a convolution's window, say): lengths are tried until one works.
    problem = ""
    # Axes between the first and the last grow with it, as an image's do, or stay 1, as the rows of a state do.
    open_inside = any(d < 0 for t in inputs for d in t.shape[1:-1])
    for length, inner in ((n, i) for n in (1, 16, 64, 320, 512) for i in ((n, 1) if open_inside and n > 1 else (n,))):
        feeds = {t.name: _example(t, length, inner, limits) for t in inputs}
        before = time.perf_counter()
        try:
            session.run(None, feeds)
        except Exception as e:
            engine.no_memory(e)
            problem = problem or engine.first_line(e, path)
            continue
        run_us = int((time.perf_counter() - before) * 1e6)
        break
    else:
        raise Refused("SAMPLE_RUN_FAILED", f"a run on zeros failed: {problem}")
    memory = engine.peak_memory()
    ranked = {o.name: len(o.shape) for o in session.get_outputs() if o.shape}
    known = tuple(
        t if t.shape or not ranked.get(t.name)
        else replace(t, shape=(-1,) * ranked[t.name], axes=("",) * ranked[t.name])
        for t in outputs
    )  # fmt: skip
    return Report((), inputs, known, run_us=run_us, memory_bytes=memory)


def _example(tensor: Tensor, length: int, inner: int, limits: Limits) -> Any:
    """Zeros. Of the axes that may have any length the first is 1, the last `length`, those between `inner`."""
    last = len(tensor.shape) - 1
    lengths = [1 if i == 0 else length if i == last else inner for i in range(len(tensor.shape))]
    shape = [d if d >= 0 else n for d, n in zip(tensor.shape, lengths, strict=True)]
    texts = tensor.datatype == "BYTES"
    dtype = np.dtype(object if texts else _NUMPY[tensor.datatype])
    if len(shape) > _MOST_AXES:
        raise Refused("INPUT_TOO_LARGE", f"it has {len(shape)} axes; at most {_MOST_AXES}", tensor.name)
    if _bytes(shape, dtype.itemsize * 8, limits.tensor_bytes) is None:
        raise Refused("INPUT_TOO_LARGE", f"one call would need more than {limits.tensor_bytes >> 20} MiB", tensor.name)
    return np.full(shape, "", object) if texts else np.zeros(shape, dtype)
