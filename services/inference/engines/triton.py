"""`TritonEngine` runs models on a Triton Inference Server: over gRPC, from the model repository that the registry
writes, each version loaded and unloaded by name. The messages are Triton's own, which `tritonclient` brings."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import grpc
import numpy as np
from grpc import aio
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.errors import DeadlineExceeded, EngineFailed
from services.common.tensors import DTYPES, Array, Signature, Spec, to_raw
from services.common.texts import limits
from services.common.texts.limits import Limits
from services.inference.engines import EngineUnavailable, Inputs, ModelRefused, Outputs
from services.inference.engines.triton_decoder import TritonDecoder
from services.inference.engines.triton_version import Crashed, Gone, TritonVersion
from services.inference.text import wire
from services.inference.text.process import DecoderProcess
from services.inference.tickets import QueueFull

log = logging.getLogger(__name__)
Prompts = Callable[[registry_pb2.Deployment, Limits], Awaitable[DecoderProcess]]
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
# Calls of one model in flight: enough that Triton never waits for this worker, few enough that calls gather meanwhile.
_RUNS, _RUNS_UNBATCHED = 4, 16


class TritonEngine:
    """One Triton at `target` (host:port), which must see the registry's model repository."""

    def __init__(self, target: str, prompts: Prompts) -> None:
        """`prompts`: what writes the prompts of a decoder, within limits."""
        self._target, self._prompts = target, prompts
        self._channel = aio.insecure_channel(target, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._calls: set[aio.Call] = set()
        self._watch: asyncio.Task[None] | None = None
        self._up = self._hung = False

    async def load(self, deployment: registry_pb2.Deployment) -> "TritonModel":
        self._keep_watch()
        model = TritonModel(self, deployment)
        await model.ensure()
        return model

    async def load_decoder(self, deployment: registry_pb2.Deployment) -> TritonDecoder:
        self._keep_watch()
        version = TritonVersion(self, deployment)
        decoder = TritonDecoder(version, await self._prompts(deployment, limits.read(version.parameters)))
        await decoder.open()
        return decoder

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
        """ModelInfer. Raises Gone, Crashed, and what `Loaded.run` raises."""
        self._check()
        call = self._stub.ModelInfer(request)
        with self._under_way(call):
            return await call

    async def stream(self, requests: Sequence[Any], seconds: float) -> AsyncGenerator[Any, None]:
        """ModelStreamInfer: what is answered to the requests, as it comes. One that fails ends them all, and so does
        closing. Raises Gone, Crashed, and what `Decoder.generate` raises."""
        timeout = None if seconds == float("inf") else seconds
        self._check()
        # With this word an error has a code and ends the stream.
        words = (("triton_grpc_error", "true"),)
        call = self._stub.ModelStreamInfer(iter(requests), timeout=timeout, metadata=words)
        with self._under_way(call):
            try:
                async for answer in call:
                    if answer.error_message:  # of a Triton that does not know it
                        raise self._error(grpc.StatusCode.UNKNOWN, answer.error_message)
                    yield answer.infer_response
            except aio.AioRpcError as e:
                if timeout is not None and e.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise DeadlineExceeded("the answer was not whole before the deadline") from e
                raise
            finally:
                call.cancel()

    @contextmanager
    def _under_way(self, call: Any) -> Iterator[None]:
        """A call that is ended when Triton hangs, and whose errors are raised as ours."""
        self._calls.add(call)
        try:
            yield
        except aio.AioRpcError as e:
            raise self._error(e.code(), e.details() or "") from e
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
            raise self._error(e.code(), e.details() or "") from e
        self._set_up(True)
        return answer

    def lock(self, name: str) -> asyncio.Lock:
        """Held while the versions of a Triton model are changed."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def _check(self) -> None:
        if self._hung:
            raise self._away()

    def _away(self) -> EngineUnavailable:
        return EngineUnavailable("Triton cannot be reached just now; try again in a moment", retry_after=1)

    def _error(self, code: grpc.StatusCode, text: str) -> Exception:
        text = re.sub(r"^\[request id: [^\]]*\] ", "", text).partition("\n")[0][:300]
        if (named := wire.named(text)) is not None:
            return named
        # In streams some errors come without a code.
        if code is grpc.StatusCode.NOT_FOUND or "not at ready state" in text or "unknown model" in text:
            return Gone(text)
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
            return Crashed(text)
        return EngineFailed("the engine failed")


class TritonModel(TritonVersion):
    """A version that is called with tensors."""

    # Triton puts the calls of all workers together; those of one travel together too, for that costs a tenth as much.
    ahead = False
    batches = False

    def __init__(self, engine: TritonEngine, deployment: registry_pb2.Deployment) -> None:
        super().__init__(engine, deployment)
        signature = Signature(deployment.signature)
        self._inputs, self._outputs = signature.inputs, signature.outputs
        self._batched = deployment.settings.max_batch_size > 0
        self.runs = _RUNS if self._batched else _RUNS_UNBATCHED

    async def run(self, inputs: Inputs, outputs: Sequence[str]) -> Outputs:
        if self._batched and any(a.shape[0] == 0 for a in inputs.values()):
            return self._nothing(outputs)
        request = service_pb2.ModelInferRequest(model_name=self.name, model_version=str(self.number))
        for name, array in inputs.items():
            spec = self._inputs[name]
            shape = array.shape if self._has_axis(spec) else (*array.shape, 1)
            request.inputs.add(name=name, datatype=spec.datatype, shape=shape)
            request.raw_input_contents.append(to_raw(array))
        for name in outputs:
            request.outputs.add(name=name)
        response = await self.held(lambda: self.engine.infer(request))
        got = {
            output.name: self._array(output, raw)
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }
        return {name: got[name] for name in outputs}

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
