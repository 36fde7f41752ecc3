"""Engines. `Engine` is the one interface; `OrtEngine` runs ONNX models in this process with ONNX Runtime."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import onnxruntime as ort

from services.common.errors import Internal, InvalidArgument
from services.inference.tensors import Array

Outputs = Mapping[str, Array]
# A run expected to be shorter than this is done on the event loop's own thread: handing it to another costs as much.
INLINE = 200e-6  # seconds
ort.set_default_logger_severity(3)


class ModelRefused(InvalidArgument, reason="MODEL_REFUSED_INPUT"):
    """The tensors fit the signature, but the model's graph does not take them."""


class EngineFailed(Internal, reason="ENGINE_FAILED"):
    """The engine failed in a run; the caller is not charged."""


class Loaded(Protocol):
    """A model that an engine holds."""

    async def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Outputs:
        """Raises ModelRefused or EngineFailed."""
        ...


class Engine(Protocol):
    """Holds and runs models."""

    async def load(self, path: Path) -> Loaded:
        """Raises EngineFailed when the file cannot be loaded."""
        ...

    async def close(self) -> None: ...


class OrtEngine:
    """ONNX Runtime on the CPU. `threads` work inside one run, `runs` runs go at a time. Runs release the GIL; making a
    session does not."""

    def __init__(self, *, threads: int, runs: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(runs, thread_name_prefix="ort")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="ort-load")

    async def load(self, path: Path) -> "OrtModel":
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared

        def make() -> ort.InferenceSession:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        try:
            session = await asyncio.get_running_loop().run_in_executor(self._loader, make)
        except Exception as e:  # ONNX Runtime's exceptions share no base class
            raise EngineFailed("the model could not be loaded") from e
        return OrtModel(session, self._pool)

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loader.shutdown(wait=False, cancel_futures=True)


class OrtModel:
    """One session."""

    def __init__(self, session: ort.InferenceSession, pool: ThreadPoolExecutor) -> None:
        self._session = session
        self._pool = pool
        self._expected = 1.0  # seconds a run is expected to take; the first goes to the pool

    async def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Outputs:
        if self._expected < INLINE:
            arrays = self._run(inputs, outputs)
        else:
            loop = asyncio.get_running_loop()
            arrays = await loop.run_in_executor(self._pool, self._run, inputs, outputs)
        return dict(zip(outputs, arrays, strict=True))

    def _run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        started = time.perf_counter()
        try:
            arrays: list[Any] = self._session.run(outputs, inputs)
        except Exception as e:
            text = str(e).partition("\n")[0][:300]
            if "INVALID_ARGUMENT" in text or "InvalidArgument" in type(e).__name__ or "Non-zero status code" in text:
                raise ModelRefused(f"the model does not take these tensors: {text}") from e
            raise EngineFailed("the engine failed") from e
        took = time.perf_counter() - started
        # Slow to believe a model fast, quick to believe it slow: one slow run on the loop's thread delays everybody.
        self._expected = took if took > self._expected else self._expected * 0.8 + took * 0.2
        return arrays
