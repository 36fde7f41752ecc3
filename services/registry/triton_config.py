"""What Triton is told about a version: the model's name in the repository, and its config.pbtxt.
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md"""

import hashlib
from collections.abc import Iterable

from google.protobuf import text_format
from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import model_config_pb2

from services.registry.settings import RegistrySettings

_BESIDE = (registry_pb2.PLACEMENT_UNSPECIFIED, registry_pb2.PLACEMENT_EMBEDDED)
_FORM = "1"  # raised when versions must not go on under the names they have
# Backends by the form of what they serve, where that is not ONNX; their file in a version folder, and how each is told
# the threads of one run.
BACKENDS = {"torchscript": ("pytorch", "model.pt"), "saved-model": ("tensorflow", "model.savedmodel")}
ONNX = ("onnxruntime", "model.onnx")
DECODER = ("decoder", "model.onnx")
_THREADS = {
    "onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT", "tensorflow": "TF_NUM_INTRA_THREADS",
}  # fmt: skip
_CONFIGURED = (
    "max_batch_size", "max_queue_delay_us", "preferred_batch_sizes", "max_queue_size", "queue_timeout_us",
    "priority_levels", "default_priority_level",
)  # fmt: skip
_FLAGS = (
    "stream", "exclude_input_in_output", "return_finish_reason", "return_num_input_tokens", "return_num_output_tokens",
)  # fmt: skip


def backend(form: str, signature: tensor_pb2.Signature, settings: registry_pb2.InferenceSettings) -> tuple[str, str]:
    """The backend that serves a version, and its file: the framework's own for what is placed on Triton, as far as it
    has one that takes the version's names; ONNX Runtime's for all that Triton need not serve."""
    placed = settings.placement not in _BESIDE
    # TorchScript does not name what it gives, so that Triton's backend goes by numbers.
    named = form != "torchscript" or all(t.name.endswith(f"__{i}") for i, t in enumerate(signature.outputs))
    return BACKENDS.get(form, ONNX) if placed and named else ONNX


def family(
    model_id: str, signature: tensor_pb2.Signature, settings: registry_pb2.InferenceSettings, by: str = ONNX[0]
) -> str:
    """The Triton model of a version. Triton serves all versions of a model by one configuration, so those that take and
    give the same and are queued alike and served by the same backend share one name; any other has its own."""
    queued = registry_pb2.InferenceSettings()
    for name in _CONFIGURED:
        if name == "preferred_batch_sizes":
            queued.preferred_batch_sizes.extend(settings.preferred_batch_sizes)
        else:
            setattr(queued, name, getattr(settings, name))
    hasher = hashlib.sha256(_FORM.encode())
    for part in (signature, queued):
        data = part.SerializeToString(deterministic=True)
        hasher.update(len(data).to_bytes(8, "big") + data)
    if by != ONNX[0]:
        hasher.update(by.encode())
    return f"{model_id}-{hasher.hexdigest()[:12]}"


def config(
    name: str, signature: tensor_pb2.Signature, settings: registry_pb2.InferenceSettings, own: RegistrySettings,
    by: tuple[str, str] = ONNX,
) -> str:  # fmt: skip
    """The text of config.pbtxt. `own`: what the operator decides. `by`: as `backend` says."""
    made = model_config_pb2.ModelConfig(
        name=name, backend=by[0], default_model_filename=by[1], max_batch_size=settings.max_batch_size
    )
    if by[0] == "tensorflow":
        made.platform = "tensorflow_savedmodel"  # it serves other forms of graphs, too
    made.version_policy.all.SetInParent()
    _tensors(signature.inputs, made.input, batched=settings.max_batch_size > 0)
    _tensors(signature.outputs, made.output, batched=settings.max_batch_size > 0)
    made.instance_group.add(
        kind=model_config_pb2.ModelInstanceGroup.Kind.Value(own.triton_kind), count=own.triton_instances
    )
    if own.triton_threads:
        made.parameters[_THREADS[by[0]]].string_value = str(own.triton_threads)
    if settings.max_batch_size:
        _batching(made.dynamic_batching, settings)
    return str(text_format.MessageToString(made))


def decoder_config(name: str, settings: registry_pb2.InferenceSettings, own: RegistrySettings) -> str:
    """The text of config.pbtxt of a model that goes on with texts: the tensors of Triton's vLLM backend, all of them
    written out, so that another backend which takes and gives them differs by its name alone. The parameters are for
    Mercat's own one. https://github.com/triton-inference-server/vllm_backend"""
    made = model_config_pb2.ModelConfig(name=name, backend=DECODER[0], default_model_filename=DECODER[1])
    made.version_policy.all.SetInParent()
    made.model_transaction_policy.decoupled = True
    for text, optional in (("text_input", False), ("sampling_parameters", True)):
        made.input.add(name=text, data_type=model_config_pb2.TYPE_STRING, dims=[1], optional=optional)
    for flag in _FLAGS:
        made.input.add(name=flag, data_type=model_config_pb2.TYPE_BOOL, dims=[1], optional=True)
    for answer in ("text_output", "finish_reason"):
        made.output.add(name=answer, data_type=model_config_pb2.TYPE_STRING, dims=[-1])
    for count, length in (("num_input_tokens", 1), ("num_output_tokens", -1)):
        made.output.add(name=count, data_type=model_config_pb2.TYPE_UINT32, dims=[length])
    # One instance makes all answers together; where it does so is its own matter.
    made.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_MODEL, count=1)
    levels = settings.priority_levels
    said = {
        "threads": own.triton_threads, "slots": own.triton_slots, "context": own.triton_context,
        "memory_mb": own.triton_memory_mb, "waiting": settings.max_queue_size,
        "level": levels and (settings.default_priority_level or (levels + 1) // 2),
    }  # fmt: skip
    for parameter, value in said.items():
        if value:
            made.parameters[parameter].string_value = str(value)
    return str(text_format.MessageToString(made))


def _tensors(
    specs: Iterable[tensor_pb2.TensorSpec], into: "Iterable[model_config_pb2.ModelInput]", *, batched: bool
) -> None:
    for spec in specs:
        kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
        tensor = into.add(name=spec.name, data_type=model_config_pb2.DataType.Value(kind))  # type: ignore[attr-defined]
        tensor.dims.extend(spec.shape[1:] if batched else spec.shape)
        if not tensor.dims:  # Triton wants an axis besides the batch's; a scalar's its backend leaves away itself
            tensor.dims.append(1)
            if batched:
                tensor.reshape.SetInParent()


def _batching(into: "model_config_pb2.ModelDynamicBatching", settings: registry_pb2.InferenceSettings) -> None:
    into.preferred_batch_size.extend(sorted(set(settings.preferred_batch_sizes)))
    into.max_queue_delay_microseconds = settings.max_queue_delay_us
    into.default_queue_policy.max_queue_size = settings.max_queue_size
    into.default_queue_policy.default_timeout_microseconds = settings.queue_timeout_us
    if levels := settings.priority_levels:
        into.priority_levels = levels
        into.default_priority_level = settings.default_priority_level or (levels + 1) // 2
