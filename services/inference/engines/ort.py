"""`OrtEngine` runs ONNX models in this process with ONNX Runtime."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import onnxruntime as ort
from mercat.registry.v1 import registry_pb2

from services.inference.artifacts import Artifacts
from services.inference.engines import EngineFailed, Inputs, ModelRefused, Outputs
from services.inference.tensors import Array

# A run expected to be shorter than this is done on the event loop's own thread: handing it to another costs as much.
INLINE = 200e-6  # seconds
_WANTED = ("CUDAExecutionProvider", "CPUExecutionProvider")  # the first is there with `onnxruntime-gpu`
ort.set_default_logger_severity(4)


class OrtEngine:
    """ONNX Runtime, on the GPU where its provider is installed, else on the CPU. `threads` work inside one run, `runs`
    runs go at a time. Runs release the GIL; making a session does not."""

    def __init__(self, artifacts: Artifacts, *, threads: int, runs: int) -> None:
        self._runs = runs
        self._artifacts = artifacts
        self._threads = threads
        self._pool = ThreadPoolExecutor(runs, thread_name_prefix="ort")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="ort-load")

    async def load(self, deployment: registry_pb2.Deployment) -> "OrtModel":
        path = await self._artifacts.find(deployment)
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared
        providers = [p for p in _WANTED if p in ort.get_available_providers()]

        def make() -> ort.InferenceSession:
            return ort.InferenceSession(str(path), options, providers=providers)

        try:
            session = await asyncio.get_running_loop().run_in_executor(self._loader, make)
        except Exception as e:  # ONNX Runtime's exceptions share no base class
            raise EngineFailed("the model could not be loaded") from e
        return OrtModel(session, self._pool, self._runs)

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loader.shutdown(wait=False, cancel_futures=True)


class OrtModel:
    """One session."""

    batches = False

    def __init__(self, session: ort.InferenceSession, pool: ThreadPoolExecutor, runs: int) -> None:
        self.runs = runs
        self._session = session
        self._pool = pool
        self._expected = 1.0  # seconds a run is expected to take; the first goes to the pool

    async def run(self, inputs: Inputs, outputs: Sequence[str]) -> Outputs:
        options = ort.RunOptions()
        if self._expected < INLINE:
            arrays = self._run(inputs, outputs, options)
        else:
            running = asyncio.get_running_loop().run_in_executor(self._pool, self._run, inputs, outputs, options)
            try:
                arrays = await asyncio.shield(running)
            except asyncio.CancelledError:
                options.terminate = True  # ONNX Runtime looks at it between two nodes of the graph
                await asyncio.wait([running])
                running.exception()
                raise
        return dict(zip(outputs, arrays, strict=True))

    async def unload(self) -> None:
        """The session is freed with the last run that uses it."""

    def _run(self, inputs: Inputs, outputs: Sequence[str], options: ort.RunOptions) -> list[Array]:
        started = time.perf_counter()
        try:
            arrays: list[Any] = self._session.run(outputs, inputs, options)
        except Exception as e:
            text = str(e).partition("\n")[0][:300]
            if "INVALID_ARGUMENT" in text or "InvalidArgument" in type(e).__name__ or "Non-zero status code" in text:
                raise ModelRefused(f"the model does not take these tensors: {text}") from e
            raise EngineFailed("the engine failed") from e
        took = time.perf_counter() - started
        # Slow to believe a model fast, quick to believe it slow: one slow run on the loop's thread delays everybody.
        self._expected = took if took > self._expected else self._expected * 0.8 + took * 0.2
        return arrays
