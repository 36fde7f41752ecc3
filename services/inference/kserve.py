"""The KServe v2 / Triton contract `inference.GRPCInferenceService`, so that other people's clients work unchanged.

The messages are those that `tritonclient` brings: compiling the same proto a second time would clash with it. A model's
name is `publisher/name`, also with `:alias`; its version is the request's `model_version`, when it is given."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from mercat.common.v1 import policy_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from services.common import clock, ids
from services.common.errors import Internal, InvalidArgument, Malformed, MercatError
from services.common.rpc.context import Call, Context, current, enter
from services.common.rpc.pipeline import Guard, Pipeline, lenient
from services.common.rpc.policy import Policy
from services.common.tensors import BadTensor, Signature, to_raw
from services.inference.deployments import Deployment, Deployments
from services.inference.hotpath import HotPath, Inputs

log = logging.getLogger(__name__)
_CALL = Policy(
    policy_pb2.ACCESS_ACCOUNT, frozenset({"inference:call"}), frozenset(), True, False, policy_pb2.RATE_CLASS_INFERENCE
)
_OPEN = Policy(policy_pb2.ACCESS_PUBLIC, frozenset(), frozenset(), False, False, policy_pb2.RATE_CLASS_NONE)
# InferTensorContents has a field of values per family of datatypes.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
_TRITON_TYPES = {"BYTES": "TYPE_STRING"}
_STREAM_DEPTH = 64  # calls of one stream under way at a time


class Unsupported(InvalidArgument, reason="UNSUPPORTED_PARAMETER"):
    """An extension of the protocol that Mercat does not have."""


def reference(name: str, version: str) -> str:
    """The model reference of a KServe name and version."""
    return f"{name}@{version}" if version else name


def read_inputs(request: Any, signature: Signature) -> Inputs:
    """A ModelInferRequest's tensors as arrays. Raises BadTensor."""
    raws = request.raw_input_contents
    tensors = request.inputs
    if raws and len(raws) != len(tensors):
        raise BadTensor("raw_input_contents", f"{len(raws)} entries for {len(tensors)} inputs")
    inputs: Inputs = {}
    for i, tensor in enumerate(tensors):
        name = tensor.name
        spec = signature.spec(name)
        if name in inputs:
            raise BadTensor(name, "is given twice")
        if tensor.parameters and "shared_memory_region" in tensor.parameters:
            raise Unsupported(f"{name}: shared memory is not supported; send the tensor's bytes")
        if raws:
            if tensor.HasField("contents"):
                raise BadTensor(name, "give `contents` or `raw_input_contents`, not both")
            inputs[name] = spec.from_raw(tensor.datatype, tensor.shape, raws[i])
            continue
        field = _CONTENTS.get(tensor.datatype)
        if field is None:
            raise BadTensor(name, f"{tensor.datatype[:20] or 'an empty datatype'} must be sent as raw_input_contents")
        inputs[name] = spec.from_values(tensor.datatype, tensor.shape, getattr(tensor.contents, field))
    signature.check(inputs)
    return inputs


def wanted(request: Any, signature: Signature) -> list[str]:
    """The outputs a ModelInferRequest asks for. Raises BadTensor or Unsupported."""
    for output in request.outputs:
        for parameter in output.parameters:
            if parameter in ("classification", "shared_memory_region"):
                raise Unsupported(f"{output.name}: {parameter} is not supported")
    return signature.wanted(o.name for o in request.outputs)


def _queueing(call: Call, parameters: Any) -> int:
    """Triton's request parameters `timeout` (microseconds), which becomes the call's deadline, and `priority`: the
    class among the calls that wait. Raises BadTensor."""
    if "timeout" in parameters:
        microseconds = parameters["timeout"].int64_param or parameters["timeout"].uint64_param
        if microseconds <= 0:
            raise BadTensor("timeout", "is a number of microseconds")
        deadline = asyncio.get_running_loop().time() + microseconds / 1e6
        call.deadline = deadline if call.deadline is None else min(call.deadline, deadline)
    if "priority" not in parameters:
        return 0
    return int(parameters["priority"].uint64_param or parameters["priority"].int64_param)


class KServe:
    """Serves GRPCInferenceService: health, metadata, configuration, inference (unary and stream) and statistics."""

    def __init__(self, path: HotPath, deployments: Deployments) -> None:
        self._path = path
        self._deployments = deployments

    def handlers(self, guard: Guard) -> dict[str, Any]:
        """The methods, each in the pipeline; those Mercat does not have answer UNIMPLEMENTED."""
        p = service_pb2
        unary: list[tuple[str, Policy, Callable[[Any, Any], Awaitable[Any]], Any, Any]] = [
            ("ServerLive", _OPEN, self._server_live, p.ServerLiveRequest, p.ServerLiveResponse),
            ("ServerReady", _OPEN, self._server_ready, p.ServerReadyRequest, p.ServerReadyResponse),
            ("ServerMetadata", _OPEN, self._server_metadata, p.ServerMetadataRequest, p.ServerMetadataResponse),
            ("ModelReady", _CALL, self._model_ready, p.ModelReadyRequest, p.ModelReadyResponse),
            ("ModelMetadata", _CALL, self._model_metadata, p.ModelMetadataRequest, p.ModelMetadataResponse),
            ("ModelConfig", _CALL, self._model_config, p.ModelConfigRequest, p.ModelConfigResponse),
            ("ModelInfer", _CALL, self.infer, p.ModelInferRequest, p.ModelInferResponse),
            ("ModelStatistics", _CALL, self._statistics, p.ModelStatisticsRequest, p.ModelStatisticsResponse),
        ]
        made: dict[str, Any] = {}
        for name, policy, method, request, response in unary:
            pipeline = Pipeline(f"/inference.GRPCInferenceService/{name}", policy, guard)
            made[name] = grpc.unary_unary_rpc_method_handler(
                pipeline.unary(method, response), lenient(request.FromString), response.SerializeToString
            )
        stream = Pipeline("/inference.GRPCInferenceService/ModelStreamInfer", _CALL, guard)
        made["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream(stream), lenient(p.ModelInferRequest.FromString), p.ModelStreamInferResponse.SerializeToString
        )
        return made

    async def _server_live(self, request: Any, context: Context) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    async def _server_ready(self, request: Any, context: Context) -> Any:
        return service_pb2.ServerReadyResponse(ready=True)

    async def _server_metadata(self, request: Any, context: Context) -> Any:
        return service_pb2.ServerMetadataResponse(
            name="mercat", version="0.1.0", extensions=["binary_tensor_data", "model_configuration", "statistics"]
        )

    async def _get(self, request: Any) -> Deployment:
        """The version that a request about it names. Raises as Deployments.get."""
        return await self._deployments.get(reference(request.name, request.version), current().principal)

    async def _model_ready(self, request: Any, context: Context) -> Any:
        deployment = await self._get(request)
        await self._deployments.resident(deployment)
        return service_pb2.ModelReadyResponse(ready=True)

    async def _model_metadata(self, request: Any, context: Context) -> Any:
        proto = (await self._get(request)).proto
        metadata = service_pb2.ModelMetadataResponse(
            name=proto.model, versions=[proto.version], platform="onnxruntime_onnx"
        )
        for specs, into in ((proto.signature.inputs, metadata.inputs), (proto.signature.outputs, metadata.outputs)):
            for s in specs:
                into.add(name=s.name, datatype=s.datatype, shape=s.shape)
        return metadata

    async def _model_config(self, request: Any, context: Context) -> Any:
        proto = (await self._get(request)).proto
        config = model_config_pb2.ModelConfig(
            name=proto.model,
            platform="onnxruntime_onnx",
            backend="onnxruntime",
            max_batch_size=proto.settings.max_batch_size,
        )
        skip = 1 if proto.settings.max_batch_size else 0  # Triton leaves the batch axis out
        for specs, into in ((proto.signature.inputs, config.input), (proto.signature.outputs, config.output)):
            for s in specs:
                name = _TRITON_TYPES.get(s.datatype, f"TYPE_{s.datatype}")
                into.add(name=s.name, data_type=model_config_pb2.DataType.Value(name), dims=s.shape[skip:])
        if proto.settings.max_batch_size:
            config.dynamic_batching.max_queue_delay_microseconds = proto.settings.max_queue_delay_us
        return service_pb2.ModelConfigResponse(config=config)

    async def infer(self, request: Any, context: Any) -> Any:
        """ModelInfer."""
        call = current()
        level = _queueing(call, request.parameters) if request.parameters else 0
        result = await self._path.run(
            call, reference(request.model_name, request.model_version),
            lambda s: read_inputs(request, s), lambda s: wanted(request, s), level=level,
        )  # fmt: skip
        proto, signature = result.deployment.proto, result.deployment.signature
        response = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=proto.version, id=request.id
        )
        for name, array in result.outputs.items():
            response.outputs.add(name=name, datatype=signature.outputs[name].datatype, shape=array.shape)
            response.raw_output_contents.append(to_raw(array))
        # For clients that cannot see trailers.
        response.parameters["mercat_request_id"].string_param = call.request_id
        response.parameters["mercat_cost_nanos"].int64_param = result.cost
        for name, value in result.deployment.notices:
            if name.startswith("mercat-"):
                response.parameters[name.replace("-", "_")].string_param = value
        if result.cached:
            response.parameters["mercat_cached"].bool_param = True
        return response

    async def _statistics(self, request: Any, context: Context) -> Any:
        deployment = await self._get(request)
        resident = await self._deployments.resident(deployment)
        f = resident.batcher.figures
        response = service_pb2.ModelStatisticsResponse()
        s = response.model_stats.add(
            name=deployment.proto.model, version=deployment.proto.version, last_inference=f.last_ms,
            inference_count=int(f.rows.value), execution_count=int(f.runs.value),
        )  # fmt: skip
        stats = s.inference_stats
        for duration, count, seconds in (
            (stats.success, f.success.value, f.total.sum),
            (stats.fail, f.failure.value, f.failure_seconds),
            (stats.queue, f.queue.count, f.queue.sum),
            (stats.compute_infer, f.compute.count, f.compute.sum),
            (stats.cache_hit, f.hits.value, 0.0),
            (stats.cache_miss, f.misses.value, 0.0),
        ):
            duration.count, duration.ns = int(count), int(seconds * 1e9)
        return response

    def _stream(self, pipeline: Pipeline) -> Callable[..., Any]:
        """ModelStreamInfer: each message is a call of its own, with its own id and charge; answers come in the order of
        the requests, and a call's error is in band, as Triton's are."""

        async def serve(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            opened: Call | None = None
            running: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue(_STREAM_DEPTH)
            try:
                opened, _ = await pipeline.admit(context)
            except MercatError as e:
                await pipeline.fail(context, opened, e)
                return
            first = opened

            async def read() -> None:
                async for request in requests:
                    await running.put(asyncio.create_task(self._one(request, first)))
                await running.put(None)

            reader = asyncio.create_task(read())
            try:
                while (task := await running.get()) is not None:
                    yield await task
            finally:
                reader.cancel()
                while not running.empty():
                    if (task := running.get_nowait()) is not None:
                        task.cancel()

        return serve

    async def _one(self, request: Any, opened: Call) -> Any:
        now_ms = clock.time_ns() // 1_000_000
        call = Call(
            ids.new("req", now_ms), opened.method, now_ms, opened.principal, opened.address, opened.user_agent,
            traceparent=opened.traceparent, tags=opened.tags,
        )  # fmt: skip
        enter(call)
        try:
            if request is None:
                raise Malformed("the request cannot be decoded: its bytes are not a ModelInferRequest")
            return service_pb2.ModelStreamInferResponse(infer_response=await self.infer(request, None))
        except MercatError as e:
            error = e
        except Exception:
            log.exception("a call of a stream failed: %s", call.request_id)
            error = Internal("an internal error; tell support the request id")
        response = service_pb2.ModelStreamInferResponse(error_message=f"[{error.reason}] {error.message}")
        response.infer_response.id = request.id if request is not None else ""
        response.infer_response.parameters["mercat_request_id"].string_param = call.request_id
        return response
