"""Triton's `onnxruntime` backend in Python, for Tritons that lack the official one in C++: it serves the same model
folders and configurations, and fails the way the official one does. Needs numpy, onnxruntime and Mercat's folder on
`PYTHONPATH`."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

# Triton starts its Python without looking at the environment.
sys.path += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]

import onnxruntime as ort

from triton_repo.backends.tensor_model import Array, Inputs, Instance, TensorModel

_LOOK = 0.02  # seconds between two looks at whether the callers of a long run are gone
_SHORT = 0.005  # seconds; a run expected to be shorter is not looked after
ort.set_default_logger_severity(4)


class TritonPythonModel(TensorModel):
    """An ONNX graph."""

    file = "model.onnx"

    def open(self, path: Path, instance: Instance) -> None:
        """Takes `intra_op_thread_count` and `inter_op_thread_count` from the configuration's parameters; absent or 0:
        as many as there are cores."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = instance.count("intra_op_thread_count")
        options.inter_op_num_threads = instance.count("inter_op_thread_count")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared
        providers: list[Any] = ["CPUExecutionProvider"]
        if instance.gpu is not None:
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": instance.gpu}))
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        self.scalars = frozenset(i.name for i in self._session.get_inputs() if not i.shape)
        self._pool = ThreadPoolExecutor(1)
        self._expected = 1.0  # seconds that a run is expected to take

    def run(self, inputs: Inputs, outputs: list[str], gone: Callable[[], bool]) -> list[Array]:
        """Ends a long run once all its callers are gone."""
        began = time.perf_counter()
        options = ort.RunOptions()
        if self._expected < _SHORT:
            arrays = self._session.run(outputs, inputs, options)
        else:
            running = self._pool.submit(self._session.run, outputs, inputs, options)
            while not wait([running], _LOOK).done:
                options.terminate = gone()
            arrays = running.result()
        took = time.perf_counter() - began
        # Slow to believe a model fast, quick to believe it slow.
        self._expected = took if took > self._expected else self._expected * 0.8 + took * 0.2
        return list(arrays)

    def explain(self, error: Exception) -> tuple[str, bool]:
        text = str(error).partition("\n")[0]
        refused = "INVALID_ARGUMENT" in text or "Non-zero status code" in text
        return text, refused or type(error).__name__ == "InvalidArgument"

    def finalize(self) -> None:
        self._pool.shutdown()
