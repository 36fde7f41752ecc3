"""Small ONNX graphs for tests and benchmarks, built here."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tiny(seed: int = 7) -> bytes:
    """A perceptron, float32 [N, 4] → [N, 64] → [N, 4]: next to no work, so that all the time is the platform's."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((4, 64)), "b1": rng.standard_normal(64),
        "w2": rng.standard_normal((64, 4)), "b2": rng.standard_normal(4),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    return _model(
        nodes, [("x", TensorProto.FLOAT, ["N", 4])], [("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )  # fmt: skip


def addition() -> bytes:
    """int64 a [N] + int64 b [N] → sum [N]: an answer anybody can check."""
    shape = ["N"]
    return _model(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        [("a", TensorProto.INT64, shape), ("b", TensorProto.INT64, shape)], [("sum", TensorProto.INT64, shape)],
    )  # fmt: skip


ECHOED = {
    "f16": TensorProto.FLOAT16, "f32": TensorProto.FLOAT, "f64": TensorProto.DOUBLE, "i8": TensorProto.INT8,
    "i16": TensorProto.INT16, "i32": TensorProto.INT32, "i64": TensorProto.INT64, "u8": TensorProto.UINT8,
    "u16": TensorProto.UINT16, "u32": TensorProto.UINT32, "u64": TensorProto.UINT64, "bool": TensorProto.BOOL,
    "text": TensorProto.STRING,
}  # fmt: skip


def echo(*shape: int | str) -> bytes:
    """Every datatype in of one shape, and out again: `f16` → `f16_out`, …."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ECHOED]
    return _model(
        nodes, [(name, kind, list(shape)) for name, kind in ECHOED.items()],
        [(f"{name}_out", kind, list(shape)) for name, kind in ECHOED.items()],
    )  # fmt: skip


def labelled() -> bytes:
    """float32 x [N, 4] and strings text [N] → the same: numbers, and elements of their own lengths."""
    return _model(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("x", "text")],
        [("x", TensorProto.FLOAT, ["N", 4]), ("text", TensorProto.STRING, ["N"])],
        [("x_out", TensorProto.FLOAT, ["N", 4]), ("text_out", TensorProto.STRING, ["N"])],
    )  # fmt: skip


def picture() -> bytes:
    """Images in and out, as the graph itself says: x FP32 [N, 3, 2, 2] → y, the same twice as wide."""
    model = onnx.load_from_string(
        _model(
            [helper.make_node("Concat", ["x", "x"], ["y"], axis=3)],
            [("x", TensorProto.FLOAT, ["N", 3, 2, 2])], [("y", TensorProto.FLOAT, ["N", 3, 2, 4])],
        )
    )  # fmt: skip
    for value in (*model.graph.input, *model.graph.output):
        value.type.denotation = "IMAGE"
    return model.SerializeToString()


def lookup() -> bytes:
    """int64 index [N] → squares [N] of 0 to 3: the graph itself refuses every other index."""
    return _model(
        [helper.make_node("Gather", ["squares", "index"], ["square"])],
        [("index", TensorProto.INT64, ["N"])], [("square", TensorProto.INT64, ["N"])],
        [numpy_helper.from_array(np.array([0, 1, 4, 9], np.int64), "squares")],
    )  # fmt: skip


def slow(loops: int = 2_000_000, length: int | str = 1) -> bytes:
    """int64 [length] → [length]: counts up in a loop for as long as `loops` takes, then answers its input."""
    nodes = [
        helper.make_node("Loop", ["loops", "always", "x"], ["counted"], body=_counting(length)),
        helper.make_node("Sub", ["counted", "loops_1"], ["y"]),
    ]
    return _model(
        nodes, [("x", TensorProto.INT64, [length])], [("y", TensorProto.INT64, [length])],
        [
            numpy_helper.from_array(np.array(loops, np.int64), "loops"),
            numpy_helper.from_array(np.array([loops], np.int64), "loops_1"),
            numpy_helper.from_array(np.array(True), "always"),
        ],
    )  # fmt: skip


def count() -> bytes:
    """int64 n [1] → counted [1]: counts to n, one after the other."""
    nodes = [
        helper.make_node("Squeeze", ["n"], ["loops"]),
        helper.make_node("Loop", ["loops", "always", "zero"], ["counted"], body=_counting()),
    ]
    return _model(
        nodes, [("n", TensorProto.INT64, [1])], [("counted", TensorProto.INT64, [1])],
        [numpy_helper.from_array(np.array([0]), "zero"), numpy_helper.from_array(np.array(True), "always")],
    )  # fmt: skip


def _counting(length: int | str = 1) -> onnx.GraphProto:
    """A loop's body that adds 1 to every element."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["v", "one"], ["w"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.INT64, [length]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.INT64, [length]),
        ],
        [numpy_helper.from_array(np.array([1], np.int64), "one")],
    )


def _model(nodes: list, inputs: list, outputs: list, initializers: list | None = None) -> bytes:
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(*i) for i in inputs], [helper.make_tensor_value_info(*o) for o in outputs],
        initializers or [],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()
