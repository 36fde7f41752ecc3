"""Names and configurations in the model repository."""

import pytest
from google.protobuf import text_format
from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import model_config_pb2

from services.common.settings import load
from services.registry.settings import RegistrySettings
from services.registry.triton_config import backend, config, decoder_config, family

Settings = registry_pb2.InferenceSettings
SIGNATURE = tensor_pb2.Signature(
    inputs=[
        tensor_pb2.TensorSpec(name="rows", datatype="FP32", shape=[-1, 4]),
        tensor_pb2.TensorSpec(name="words", datatype="BYTES", shape=[-1]),
    ],
    outputs=[tensor_pb2.TensorSpec(name="half", datatype="FP16", shape=[-1, -1, 2])],
)


def made(settings: registry_pb2.InferenceSettings, **own: object) -> model_config_pb2.ModelConfig:
    text = config("name", SIGNATURE, settings, load(RegistrySettings, **own))
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize(
    "settings",
    [
        Settings(timeout_ms=5),
        Settings(placement=registry_pb2.PLACEMENT_TRITON),
        Settings(response_cache=registry_pb2.ResponseCache(ttl_seconds=1)),
        Settings(fallback_version="1.0.0"),
    ],
)
def test_versions_that_triton_serves_alike_share_a_name(settings: registry_pb2.InferenceSettings) -> None:
    assert family("mdl_1", SIGNATURE, settings) == family("mdl_1", SIGNATURE, Settings())


def test_every_other_has_its_own() -> None:
    other = tensor_pb2.Signature(inputs=SIGNATURE.inputs)
    queued = [
        Settings(), Settings(max_batch_size=8), Settings(max_batch_size=8, max_queue_delay_us=1),
        Settings(max_batch_size=8, preferred_batch_sizes=[4]), Settings(max_batch_size=8, max_queue_size=1),
        Settings(max_batch_size=8, queue_timeout_us=1), Settings(max_batch_size=8, priority_levels=2),
        Settings(max_batch_size=8, priority_levels=2, default_priority_level=2),
    ]  # fmt: skip
    names = [family("mdl_1", SIGNATURE, settings) for settings in queued]
    names += [family("mdl_2", SIGNATURE, Settings()), family("mdl_1", other, Settings())]
    assert len(set(names)) == len(names)
    assert all(name.startswith("mdl_") for name in names)


def test_tensors_leave_the_batch_axis_out() -> None:
    c = made(Settings(max_batch_size=8))
    assert c.max_batch_size == 8
    assert [(i.name, i.data_type, list(i.dims), i.HasField("reshape")) for i in c.input] == [
        ("rows", model_config_pb2.TYPE_FP32, [4], False),
        ("words", model_config_pb2.TYPE_STRING, [1], True),
    ]
    assert list(c.output[0].dims) == [-1, 2]


def test_a_model_that_is_not_batched_has_all_its_axes() -> None:
    c = made(Settings())
    assert not c.HasField("dynamic_batching")
    assert [list(i.dims) for i in c.input] == [[-1, 4], [-1]]


def test_queueing_is_said_in_tritons_words() -> None:
    c = made(
        Settings(
            max_batch_size=16, max_queue_delay_us=200, preferred_batch_sizes=[8, 4], max_queue_size=100,
            queue_timeout_us=5000, priority_levels=3,
        ),
        triton_kind="KIND_GPU", triton_instances=2, triton_threads=3,
    )  # fmt: skip
    batching = c.dynamic_batching
    assert list(batching.preferred_batch_size) == [4, 8]
    assert batching.max_queue_delay_microseconds == 200
    assert batching.default_queue_policy.max_queue_size == 100
    assert batching.default_queue_policy.default_timeout_microseconds == 5000
    assert (batching.priority_levels, batching.default_priority_level) == (3, 2)
    assert (c.instance_group[0].kind, c.instance_group[0].count) == (model_config_pb2.ModelInstanceGroup.KIND_GPU, 2)
    assert c.parameters["intra_op_thread_count"].string_value == "3"


def test_a_decoder_has_the_tensors_of_the_vllm_backend() -> None:
    settings = Settings(max_queue_size=7, priority_levels=3)
    text = decoder_config("name", settings, load(RegistrySettings, triton_threads=2))
    c = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (c.backend, c.max_batch_size, c.model_transaction_policy.decoupled) == ("decoder", 0, True)
    assert not c.HasField("dynamic_batching")
    strings, flags = model_config_pb2.TYPE_STRING, model_config_pb2.TYPE_BOOL
    assert {i.name: (i.data_type, list(i.dims), i.optional) for i in c.input} == {
        "text_input": (strings, [1], False), "sampling_parameters": (strings, [1], True),
        "stream": (flags, [1], True), "exclude_input_in_output": (flags, [1], True),
        "return_finish_reason": (flags, [1], True), "return_num_input_tokens": (flags, [1], True),
        "return_num_output_tokens": (flags, [1], True),
    }  # fmt: skip
    assert {o.name: (o.data_type, list(o.dims)) for o in c.output} == {
        "text_output": (strings, [-1]), "finish_reason": (strings, [-1]),
        "num_input_tokens": (model_config_pb2.TYPE_UINT32, [1]),
        "num_output_tokens": (model_config_pb2.TYPE_UINT32, [-1]),
    }  # fmt: skip
    assert [(g.kind, g.count) for g in c.instance_group] == [(model_config_pb2.ModelInstanceGroup.KIND_MODEL, 1)]
    said = {name: value.string_value for name, value in c.parameters.items()}
    assert said == {
        "threads": "2", "slots": "16", "context": "2048", "memory_mb": "2048", "waiting": "7", "level": "2"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "placement", "by"),
    [
        ("torchscript", registry_pb2.PLACEMENT_TRITON, ("pytorch", "model.pt")),
        ("saved-model", registry_pb2.PLACEMENT_TRITON_OR_EMBEDDED, ("tensorflow", "model.savedmodel")),
        # Triton's PyTorch backend takes TorchScript only.
        ("torch-export", registry_pb2.PLACEMENT_TRITON, ("onnxruntime", "model.onnx")),
        ("torchscript", registry_pb2.PLACEMENT_EMBEDDED, ("onnxruntime", "model.onnx")),
        ("", registry_pb2.PLACEMENT_TRITON, ("onnxruntime", "model.onnx")),
    ],
)
def test_what_is_placed_on_triton_has_its_frameworks_backend(form: str, placement: int, by: tuple[str, str]) -> None:
    settings = Settings(placement=placement, max_batch_size=2)  # type: ignore[arg-type]
    assert backend(form, tensor_pb2.Signature(), settings) == by
    own = load(RegistrySettings, triton_threads=3)
    c = text_format.Parse(config("name", SIGNATURE, settings, own, by), model_config_pb2.ModelConfig())
    assert (c.backend, c.default_model_filename) == by
    assert c.platform == ("tensorflow_savedmodel" if by[0] == "tensorflow" else "")
    assert [v.string_value for v in c.parameters.values()] == ["3"]
    alike = family("mdl_1", SIGNATURE, settings, by[0]) == family("mdl_1", SIGNATURE, settings)
    assert alike == (by[0] == "onnxruntime")


@pytest.mark.parametrize(
    ("outputs", "by"),
    [
        (("output__0", "any__1"), "pytorch"),
        (("output__1", "output__0"), "onnxruntime"),
        (("output__0", "scores"), "onnxruntime"),
    ],
)
def test_torchscript_whose_outputs_are_not_numbered_is_onnx(outputs: tuple[str, ...], by: str) -> None:
    takes = tensor_pb2.Signature(outputs=[tensor_pb2.TensorSpec(name=name) for name in outputs])
    placed = Settings(placement=registry_pb2.PLACEMENT_TRITON)
    assert backend("torchscript", takes, placed)[0] == by
    assert backend("saved-model", takes, placed)[0] == "tensorflow"
