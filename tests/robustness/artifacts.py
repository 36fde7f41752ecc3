"""Artifacts that somebody made to do harm, or that arrived broken. Built by hand: ONNX's own helpers refuse most."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests import graphs

GIB = 1024**3


def base() -> onnx.ModelProto:
    """y = x + w, fit to be served; every artifact here differs from it in what its name says."""
    return onnx.load_from_string(graphs.tiny())


def external(location: str, **entries: str) -> bytes:
    """An initialiser whose values lie in another file."""
    model = base()
    _make_external(model.graph.initializer[0], location, entries)
    return model.SerializeToString()


def external_in_function(location: str) -> bytes:
    """The same, hidden in the body of a function of the model."""
    tensor = onnx.TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4])
    _make_external(tensor, location, {})
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    body = [constant, helper.make_node("Add", ["a", "c"], ["b"])]
    function = helper.make_function("local", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model = base()
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(helper.make_node("F", ["x"], ["z"], domain="local"))
    return model.SerializeToString()


def external_in_subgraph(location: str) -> bytes:
    """The same, in a branch that is never taken."""
    model = base()
    tensor = onnx.TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4])
    _make_external(tensor, location, {})
    branch = onnx.GraphProto(name="branch", initializer=[tensor])
    model.graph.node[0].attribute.append(helper.make_attribute("then_branch", branch))
    return model.SerializeToString()


def external_in_sparse(location: str) -> bytes:
    model = base()
    sparse = model.graph.sparse_initializer.add()
    sparse.values.name = "sparse"
    sparse.values.data_type = TensorProto.FLOAT
    sparse.values.dims.append(1)
    sparse.dims.append(8)
    _make_external(sparse.values, location, {})
    return model.SerializeToString()


def _make_external(tensor: Any, location: str, entries: dict[str, str]) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)


def nested(depth: int) -> bytes:
    """Graphs within graphs within graphs."""
    inner = onnx.GraphProto(name="innermost")
    for i in range(depth):
        node = onnx.NodeProto(op_type="If", name=f"if{i}")
        node.attribute.append(onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH, g=inner))
        inner = onnx.GraphProto(name=f"level{i}", node=[node])
    model = base()
    model.graph.node.extend(inner.node)
    return model.SerializeToString()


def nested_deeper_than_parsers(depth: int) -> bytes:
    """The same without any library: a field within itself, as often as wanted."""
    body = b""
    for _ in range(depth):
        graph = _field(6, body)  # AttributeProto.g
        node = _field(5, graph)  # NodeProto.attribute
        body = _field(1, node)  # GraphProto.node
    return _field(7, body)  # ModelProto.graph


def _field(number: int, body: bytes) -> bytes:
    length, digits = len(body), b""
    while length > 127:
        digits += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + digits + bytes([length]) + body


def claims(dims: list[int], data_type: int = TensorProto.FLOAT) -> bytes:
    """An initialiser of these dimensions, with no values."""
    model = base()
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    tensor.data_type = data_type
    tensor.ClearField("raw_data")
    return model.SerializeToString()


def too_few_values() -> bytes:
    model = base()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    return model.SerializeToString()


def makes_when_run(elements: int) -> bytes:
    """Small to look at; a run of it fills `elements` floats."""
    return graphs._model(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["N"])], [("y", TensorProto.FLOAT, ["N"])],
        [onnx.numpy_helper.from_array(np.array([elements], np.int64), "shape")],
    )  # fmt: skip


def input_of(dims: list[int], data_type: int = TensorProto.FLOAT) -> bytes:
    """A graph whose input has this shape."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", data_type, dims)], [helper.make_tensor_value_info("y", data_type, dims)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def unknown_type() -> bytes:
    model = base()
    model.graph.input[0].type.tensor_type.elem_type = 12345
    return model.SerializeToString()


def many_nodes(count: int) -> bytes:
    model = base()
    node = onnx.NodeProto(op_type="Identity", input=["x"], output=["z"])
    return model.SerializeToString() + _field(7, b"".join([_field(1, node.SerializeToString())] * count))


def function_bomb(levels: int) -> bytes:
    """Functions that call each other twice: 2 ** levels nodes when they are expanded."""
    model = base()
    model.opset_import.append(helper.make_opsetid("local", 1))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for i in range(levels):
        domain, name = ("local", f"F{i + 1}") if i + 1 < levels else ("", "Identity")
        body = [
            helper.make_node(name, ["a"], ["m"], domain=domain),
            helper.make_node(name, ["m"], ["b"], domain=domain),
        ]
        model.functions.append(helper.make_function("local", f"F{i}", ["a"], ["b"], body, opsets))
    model.graph.node.append(helper.make_node("F0", ["x"], ["z"], domain="local"))
    return model.SerializeToString()


def unknown_operator() -> bytes:
    model = base()
    model.graph.node[0].op_type = "Exec"
    model.graph.node[0].domain = "com.example"
    return model.SerializeToString()


def named(name: str) -> bytes:
    """A broken tensor with this name, which the findings then tell."""
    model = onnx.load_from_string(claims([-1]))
    model.graph.initializer[0].name = name
    return model.SerializeToString()


def opset(version: int) -> bytes:
    model = base()
    model.opset_import[0].version = version
    return model.SerializeToString()


def no_inputs() -> bytes:
    model = base()
    del model.graph.input[:]
    return model.SerializeToString()


class _Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return (Path.touch, (self.witness,))


def pickled(witness: Path, protocol: int = 4) -> bytes:
    return pickle.dumps(_Harm(witness), protocol)


def torch_archive(witness: Path) -> bytes:
    """What `torch.save` writes: a zip archive with a pickle."""
    return archive({"archive/data.pkl": pickled(witness, 2), "archive/version": b"3\n"})


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return buffer.getvalue()


def object_array(witness: Path) -> bytes:
    """A `.npy` file whose elements are pickles."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Harm(witness)], object), allow_pickle=True)
    return buffer.getvalue()
