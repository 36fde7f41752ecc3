"""`OrtEngine` runs ONNX models in this process with ONNX Runtime."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import onnxruntime as ort
from mercat.registry.v1 import registry_pb2

from services.common.tensors import Array
from services.inference.artifacts import Artifacts
from services.inference.engines import Inputs, Outputs, session
from services.inference.text.decoders import Decoders


class OrtEngine:
    """`threads` work inside one run, `runs` runs go at a time. Runs release the GIL; making a session does not.
    `decoders` have processes of their own."""

    def __init__(self, artifacts: Artifacts, *, threads: int, runs: int, decoders: Decoders) -> None:
        self._runs = runs
        self.load_decoder = decoders.load
        self._artifacts = artifacts
        self._threads = threads
        self._pool = ThreadPoolExecutor(runs, thread_name_prefix="ort")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="ort-load")

    async def load(self, deployment: registry_pb2.Deployment) -> "OrtModel":
        path = await self._artifacts.find(deployment)
        made = await asyncio.get_running_loop().run_in_executor(self._loader, session.make, path, self._threads)
        return OrtModel(made, self._pool, self._runs)

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loader.shutdown(wait=False, cancel_futures=True)


class OrtModel:
    """One session."""

    ahead = False
    batches = False

    def __init__(self, made: ort.InferenceSession, pool: ThreadPoolExecutor, runs: int) -> None:
        self.runs = runs
        self._session = made
        self._pool = pool
        self._expected = session.Expected()

    async def run(self, inputs: Inputs, outputs: Sequence[str]) -> Outputs:
        options = ort.RunOptions()
        if self._expected.seconds < session.INLINE:
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
        arrays = session.run(self._session, inputs, outputs, options)
        self._expected.took(time.perf_counter() - started)
        return arrays
