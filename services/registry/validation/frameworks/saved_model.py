"""TensorFlow SavedModels, run by TensorFlow and converted by tf2onnx."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.registry.validation.frameworks.cases import Array, Case, Feeds
from services.registry.validation.report import Refused, Tensor

OPSET = 18
SIGNATURE = "serving_default"

_DATATYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "float16": "FP16", "float32": "FP32",
    "float64": "FP64",
}  # fmt: skip
# Operators that reach files, other machines, Python or machine code, by the beginnings of their names.
_FORBIDDEN = (
    "ReadFile", "WriteFile", "MatchingFiles", "WholeFileReader", "TextLineReader", "TFRecordReader", "LMDBReader",
    "FixedLengthRecordReader", "InitializeTableFromTextFile", "PyFunc", "EagerPyFunc", "Print", "Debug", "Rpc",
    "RemoteCall", "Summary", "Write", "CreateSummary", "FileSystem", "DistributedSave", "DTensorRestore",
    "XlaCustomCall", "XlaLaunch", "CalibrationStatisticsSaver", "CustomAggregator", "Collective", "_Send", "_Recv",
    "_HostSend", "_HostRecv", "Send", "Recv", "DataService", "Bigtable", "TextLineDataset", "TFRecordDataset",
    "SqlDataset", "FixedLengthRecordDataset", "LMDBDataset", "SaveDataset", "LoadDataset", "SnapshotDataset",
    "MatchingFilesDataset", "ExperimentalLMDB", "ExperimentalSql", "ExperimentalMatchingFiles", "DatasetToTFRecord",
    "ExperimentalDatasetToTFRecord", "CSVDataset", "ExperimentalCSV", "RegisterDataset", "TfLite", "TRTEngine",
)  # fmt: skip
# A SavedModel's own functions to save and restore its variables have these; what is served has not.
_SAVERS = ("Save", "Restore", "Sharded", "MergeV2Checkpoints", "ReaderRestore")


def check(folder: Path) -> None:
    """Raises Refused for a graph that reaches out of itself. Nothing is loaded for it."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((folder / "saved_model.pb").read_bytes())
    except (DecodeError, OSError):
        raise Refused("ARCHIVE_BROKEN", "saved_model.pb cannot be read", "saved_model.pb") from None
    for meta in model.meta_graphs:
        bodies = {f.signature.name: f.node_def for f in meta.graph_def.library.function}
        for node in (*meta.graph_def.node, *(node for body in bodies.values() for node in body)):
            if node.op.startswith(_FORBIDDEN):
                raise Refused("OPERATOR_FORBIDDEN", f"{node.op} reaches out of the graph", node.name)
        for node in _served(meta, bodies):
            if node.op.startswith(_SAVERS):
                raise Refused("OPERATOR_FORBIDDEN", f"{node.op} reads or writes files", node.name)


def _served(meta: Any, bodies: dict[str, Any]) -> Iterator[Any]:
    """The nodes that a call of any signature runs."""
    nodes = {node.name: node for node in meta.graph_def.node}
    waiting = [t.name for s in meta.signature_def.values() for t in s.outputs.values()]
    functions: list[str] = []
    seen: set[str] = set()
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        yield nodes[name]
        waiting += nodes[name].input
        functions += _called(nodes[name], bodies)
    seen.clear()
    while functions:
        name = functions.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in bodies[name]:
            yield node
            functions += _called(node, bodies)


def _called(node: Any, bodies: dict[str, Any]) -> list[str]:
    named = [f.name for a in node.attr.values() for f in ([a.func] if a.HasField("func") else a.list.func)]
    return [name for name in (*named, node.op) if name in bodies]


class SavedModelSource:
    """One signature of a SavedModel: `serving_default`, or the only one."""

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        self._model = tf.saved_model.load(str(folder))  # kept: its variables live as long as it does
        signatures = dict(self._model.signatures)
        if SIGNATURE not in signatures and len(signatures) != 1:
            text = f"it has {len(signatures)} signatures and none of them is {SIGNATURE}; save it with signatures=…"
            raise Refused("SIGNATURE_MISSING", text)
        self._function = signatures.get(SIGNATURE) or next(iter(signatures.values()))
        self._specs = list(self._function.structured_input_signature[1].values())
        self.inputs = tuple(self._spec(spec) for spec in self._specs)
        self.outputs = tuple(sorted(self._function.structured_outputs))

    @staticmethod
    def _spec(spec: Any) -> Tensor:
        if not hasattr(spec, "shape") or spec.shape.rank is None:
            raise Refused("NOT_A_TENSOR", "an input is no tensor, or has any number of axes", str(spec.name))
        shape = tuple(-1 if n is None else int(n) for n in spec.shape)
        return Tensor(spec.name, _DATATYPES.get(spec.dtype.name, spec.dtype.name), shape, ("",) * len(shape))

    def run(self, feeds: Feeds) -> list[Array]:
        import tensorflow as tf

        given = self._function(**{spec.name: tf.constant(feeds[spec.name]) for spec in self.inputs})
        return [np.asarray(given[name].numpy()) for name in self.outputs]

    def export(self, cases: Sequence[Case], path: Path) -> None:
        import onnx
        import tensorflow as tf
        import tf2onnx.convert

        # tf2onnx takes a function that it can specialise, which a loaded signature is not.
        names = [spec.name for spec in self.inputs]
        call = tf.function(lambda *args: self._function(**dict(zip(names, args, strict=True))), autograph=False)
        model, _ = tf2onnx.convert.from_function(call, input_signature=self._specs, opset=OPSET)
        _name_axes(model.graph, cases)
        onnx.save(model, str(path))


def _name_axes(graph: Any, cases: Sequence[Case]) -> None:
    """The first axis of what grows together is the batch's; tf2onnx gives each axis another name without a meaning."""
    rows = [next(iter(feeds.values())).shape[:1] for feeds, _ in cases]
    batched = {name for name in cases[0][0] if [feeds[name].shape[:1] for feeds, _ in cases] == rows}
    outputs = sorted(value.name for value in graph.output)
    batched |= {name for i, name in enumerate(outputs) if [given[i].shape[:1] for _, given in cases] == rows}
    for value in (*graph.input, *graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_param"):
                dim.dim_param = "batch" if axis == 0 and value.name in batched else ""
