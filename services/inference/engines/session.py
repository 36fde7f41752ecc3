"""ONNX Runtime sessions: how they are made, and what their errors mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from services.common.errors import EngineFailed
from services.common.tensors import Array
from services.inference.engines import ModelRefused

# A run expected to be shorter than this is done at once, where it was asked for: handing it to a thread costs as much.
INLINE = 200e-6  # seconds
_WANTED = ("CUDAExecutionProvider", "CPUExecutionProvider")  # the first is there with `onnxruntime-gpu`
ort.set_default_logger_severity(4)


def make(path: Path, threads: int) -> ort.InferenceSession:
    """A session on the GPU where its provider is installed, else on the CPU. Raises EngineFailed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared
    providers = [p for p in _WANTED if p in ort.get_available_providers()]
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as e:  # ONNX Runtime's exceptions share no base class
        raise EngineFailed("the model could not be loaded") from e


def run(
    session: ort.InferenceSession, inputs: Mapping[str, Array], outputs: Sequence[str], options: ort.RunOptions
) -> list[Array]:
    """The outputs in their order. Raises ModelRefused, EngineFailed."""
    try:
        arrays: list[Any] = session.run(outputs, inputs, options)
    except Exception as e:
        text = str(e).partition("\n")[0][:300]
        if "INVALID_ARGUMENT" in text or "InvalidArgument" in type(e).__name__ or "Non-zero status code" in text:
            raise ModelRefused(f"the model does not take these tensors: {text}") from e
        raise EngineFailed("the engine failed") from e
    return arrays


class Expected:
    """What a run is expected to take, seconds: slow to believe a model fast and quick to believe it slow, for one slow
    run where it was asked for delays everybody."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 1.0

    def took(self, seconds: float) -> None:
        self.seconds = seconds if seconds > self.seconds else self.seconds * 0.8 + seconds * 0.2
