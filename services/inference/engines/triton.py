"""`TritonEngine` runs models on a Triton Inference Server: over gRPC, from the model repository that the registry
writes, each version loaded and unloaded by name. The messages are Triton's own, which `tritonclient` brings."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import grpc
import numpy as np
from google.protobuf import json_format, text_format
from grpc import aio
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from services.common.errors import DeadlineExceeded, MercatError
from services.inference.engines import EngineFailed, EngineUnavailable, Inputs, ModelRefused, Outputs
from services.inference.tensors import DTYPES, Array, Signature, Spec, to_raw
from services.inference.tickets import QueueFull

log = logging.getLogger(__name__)
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A Triton that comes back is used at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
]
_LOOK = 0.25  # seconds between two looks at Triton's health
_SILENCE = 2.0  # seconds for which Triton may leave such a look unanswered, twice, before it counts as hung
_LOAD = 300.0  # seconds that loading may take
# Calls of one model in flight: enough that Triton never waits for this worker, few enough that calls gather meanwhile.
_RUNS, _RUNS_UNBATCHED = 4, 16
_ATTEMPTS = 3  # another worker's load can take a version away between this one's load and run


class _Gone(Exception):
    """Triton lives, but does not hold the version: it was started anew, or somebody unloaded it."""


class _Crashed(Exception):
    """The process in which Triton runs the model is dead, by this call's tensors or by others'."""


class TritonEngine:
    """One Triton at `target` (host:port), which must see the registry's model repository."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = aio.insecure_channel(target, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._calls: set[aio.UnaryUnaryCall[Any, Any]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._up = self._hung = False

    async def load(self, deployment: registry_pb2.Deployment) -> "TritonModel":
        if not deployment.repository_model:
            raise EngineFailed(f"{deployment.model}@{deployment.version} is not in the model repository")
        self._keep_watch()
        model = TritonModel(self, deployment)
        await model.ensure()
        return model

    async def healthy(self) -> bool:
        """As of the last look, a quarter of a second ago or less."""
        if self._watch is None:
            self._keep_watch()
            await self._look()
        return self._up

    async def close(self) -> None:
        """Ends the calls under way. What Triton holds it goes on holding: other workers use it."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self._channel.close(None)

    # Health

    def _keep_watch(self) -> None:
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._keep_looking())

    async def _keep_looking(self) -> None:
        silent = 0
        while True:
            await asyncio.sleep(_LOOK)
            silent = 0 if await self._look() else silent + 1
            self._hung = silent >= 2
            if self._hung:  # it takes connections and does not answer: nor will it answer the calls under way
                self._set_up(False)
                for call in list(self._calls):
                    call.cancel()

    async def _look(self) -> bool:
        """Asks Triton whether it lives; ready it is not while any model of anybody's failed to load. False when it said
        nothing at all."""
        try:
            answer = await self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=_SILENCE)
            self._set_up(answer.live)
        except aio.AioRpcError as e:
            if e.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return False
            self._set_up(False)
        return True

    def _set_up(self, up: bool) -> None:
        if up != self._up:
            log.info("Triton at %s is %s", self._target, "there" if up else "away")
        self._up = up

    # Calls

    async def infer(self, request: Any) -> Any:
        """ModelInfer. Raises _Gone, _Crashed, and what `Loaded.run` raises."""
        if self._hung:
            raise self._away()
        call = self._stub.ModelInfer(request)
        self._calls.add(call)
        try:
            return await call
        except aio.AioRpcError as e:
            raise self._error(e) from e
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the caller is gone; the call was cancelled with the task
            raise self._away() from None
        finally:
            self._calls.discard(call)

    async def control(self, method: str, request: Any, timeout: float = 5.0) -> Any:
        """Any other of Triton's methods, by name. Raises as `infer`, and EngineFailed when a model cannot be loaded."""
        try:
            answer = await getattr(self._stub, method)(request, timeout=timeout)
        except aio.AioRpcError as e:
            raise self._error(e) from e
        self._set_up(True)
        return answer

    def lock(self, name: str) -> asyncio.Lock:
        """Held while the versions of a Triton model are changed."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def _away(self) -> EngineUnavailable:
        return EngineUnavailable("Triton cannot be reached just now; try again in a moment", retry_after=1)

    def _error(self, e: aio.AioRpcError) -> Exception:
        code, text = e.code(), re.sub(r"^\[request id: [^\]]*\] ", "", e.details() or "").partition("\n")[0][:300]
        if code is grpc.StatusCode.NOT_FOUND or "not at ready state" in text:
            return _Gone(text)
        if code is grpc.StatusCode.UNAVAILABLE:
            if "maximum queue size" in text:
                return QueueFull("too many calls wait for this model in Triton", retry_after=0.5)
            if "timeout expired" in text:
                return DeadlineExceeded("the call waited longer than the model allows")
            self._set_up(False)
            return self._away()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._away()
        # The official backend calls what a graph refuses INTERNAL, with ONNX Runtime's number of the error.
        if code is grpc.StatusCode.INVALID_ARGUMENT or "onnx runtime error 2" in text or "Non-zero status" in text:
            return ModelRefused(f"the model does not take these tensors: {text}")
        log.warning("Triton failed: %s %s", code.name, text)
        if "Stub process" in text:
            return _Crashed(text)
        return EngineFailed("the engine failed")


class TritonModel:
    """One version in Triton."""

    # Triton puts the calls of all workers together; those of one travel together too, for that costs a tenth as much.
    ahead = False
    batches = False

    def __init__(self, engine: TritonEngine, deployment: registry_pb2.Deployment) -> None:
        self._engine = engine
        self._name = deployment.repository_model
        self._number = deployment.repository_version
        self._config = deployment.repository_config
        self._reviving: asyncio.Task[None] | None = None
        signature = Signature(deployment.signature)
        self._inputs, self._outputs = signature.inputs, signature.outputs
        self._batched = deployment.settings.max_batch_size > 0
        self.runs = _RUNS if self._batched else _RUNS_UNBATCHED

    async def run(self, inputs: Inputs, outputs: Sequence[str]) -> Outputs:
        if self._batched and any(a.shape[0] == 0 for a in inputs.values()):
            return self._nothing(outputs)
        request = service_pb2.ModelInferRequest(model_name=self._name, model_version=str(self._number))
        for name, array in inputs.items():
            spec = self._inputs[name]
            shape = array.shape if self._has_axis(spec) else (*array.shape, 1)
            request.inputs.add(name=name, datatype=spec.datatype, shape=shape)
            request.raw_input_contents.append(to_raw(array))
        for name in outputs:
            request.outputs.add(name=name)
        response = await self._held(lambda: self._engine.infer(request))
        got = {
            output.name: self._array(output, raw)
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }
        return {name: got[name] for name in outputs}

    async def ensure(self) -> None:
        """Has Triton hold this version beside those it holds. Raises EngineFailed, EngineUnavailable."""
        async with self._engine.lock(self._name):
            if await self._is_ready():
                return
            await self._serve({*await self._served(), self._number})
            if not await self._is_ready():
                raise EngineFailed(f"Triton's model repository has no version {self._number} of {self._name}")

    async def unload(self) -> None:
        async with self._engine.lock(self._name):
            others = await self._served() - {self._number}
            if others:
                await self._serve(others)
            else:
                request = service_pb2.RepositoryModelUnloadRequest(model_name=self._name)
                await self._engine.control("RepositoryModelUnload", request)

    async def statistics(self) -> Any:
        """Triton's own `ModelStatistics` of this version: counts, and nanoseconds by stage."""
        request = service_pb2.ModelStatisticsRequest(name=self._name, version=str(self._number))
        answer = await self._held(lambda: self._engine.control("ModelStatistics", request))
        return answer.model_stats[0]

    async def _held(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a call that needs the version, loading it again when Triton lost it."""
        for _ in range(_ATTEMPTS):
            try:
                return await call()
            except _Gone:
                await self.ensure()
            except _Crashed as e:
                if self._reviving is None or self._reviving.done():
                    self._reviving = asyncio.get_running_loop().create_task(self._revive())
                raise EngineFailed("the engine failed") from e
        raise EngineUnavailable("Triton does not keep this model loaded; try again in a moment", retry_after=1)

    async def _revive(self) -> None:
        """Triton leaves a version whose process is dead as it is; unloaded and loaded it gets another."""
        try:
            await self.unload()
            await self.ensure()
        except MercatError as e:
            log.warning("%s, version %d, stays dead: %s", self._name, self._number, e.message)

    async def _is_ready(self) -> bool:
        request = service_pb2.ModelReadyRequest(name=self._name, version=str(self._number))
        return bool((await self._engine.control("ModelReady", request)).ready)

    async def _served(self) -> set[int]:
        """The versions that Triton holds."""
        try:
            answer = await self._engine.control("ModelMetadata", service_pb2.ModelMetadataRequest(name=self._name))
        except _Gone:
            return set()
        return {int(version) for version in answer.versions}

    async def _serve(self, versions: set[int]) -> None:
        """Has Triton hold just these versions. Those it holds already go on undisturbed."""
        config = text_format.Parse(self._config, model_config_pb2.ModelConfig())
        config.version_policy.specific.versions[:] = sorted(versions)
        request = service_pb2.RepositoryModelLoadRequest(model_name=self._name)
        request.parameters["config"].string_param = json_format.MessageToJson(config, preserving_proto_field_name=True)
        try:
            await self._engine.control("RepositoryModelLoad", request, _LOAD)
        except (ModelRefused, EngineFailed, _Gone, _Crashed) as e:
            log.warning("Triton does not load %s, versions %s: %s", self._name, sorted(versions), e)
            raise EngineFailed("the model could not be loaded") from e

    def _has_axis(self, spec: Spec) -> bool:
        """Whether it has an axis besides the batch's. Triton wants one: others travel with an axis of length 1 more."""
        return len(spec.shape) > self._batched

    def _array(self, output: Any, raw: bytes) -> Array:
        shape = tuple(output.shape)
        kind = output.datatype
        array = Spec(output.name, kind, DTYPES[kind], (-1,) * len(shape), ()).from_raw(kind, shape, raw)
        return array if self._has_axis(self._outputs[output.name]) else array.reshape(shape[:-1])

    def _nothing(self, outputs: Sequence[str]) -> Outputs:
        """What no rows give; Triton takes none."""
        specs = [self._outputs[name] for name in outputs]
        return {s.name: np.empty([0, *(max(n, 0) for n in s.shape[1:])], s.dtype) for s in specs}
