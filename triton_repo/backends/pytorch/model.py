"""Triton's `pytorch` backend in Python, for Tritons that lack the official one of libtorch: it serves the same model
folders and configurations, on processors. Needs numpy, PyTorch and Mercat's folder on `PYTHONPATH`.

Inputs are called as the arguments of `forward`, or `<any>__<place>`; outputs `<any>__<place>`, in their order: the
official backend's rules. https://github.com/triton-inference-server/pytorch_backend"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

# Triton starts its Python without looking at the environment.
sys.path += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]

from services.registry.validation.frameworks.torch_source import ScriptSource
from services.registry.validation.report import Tensor
from triton_repo.backends.tensor_model import Array, Inputs, Instance, TensorModel, framework, last_line

# Read when PyTorch is imported: whatever asks for a Python pickle is refused; cores are shared, so nobody spins on one.
os.environ |= {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "OMP_WAIT_POLICY": "PASSIVE"}
_NO_MEMORY = ("allocate memory", "bad_alloc")


class TritonPythonModel(TensorModel):
    """A TorchScript archive, called by the code that validation compared its ONNX with. A run under way goes on to its
    end: TorchScript cannot be interrupted."""

    file = "model.pt"

    def open(self, path: Path, instance: Instance) -> None:
        """Takes `INTRA_OP_THREAD_COUNT` and `INTER_OP_THREAD_COUNT` from the configuration's parameters; absent or 0:
        as many as there are cores. Raises RuntimeError, and Refused for inputs that `forward` does not take."""
        self._torch = torch = framework("pytorch", "torch", instance)
        if threads := instance.count("INTRA_OP_THREAD_COUNT"):
            torch.set_num_threads(threads)
        if threads := instance.count("INTER_OP_THREAD_COUNT"):
            torch.set_num_interop_threads(threads)
        inputs = [Tensor(i["name"], i["data_type"].removeprefix("TYPE_"), (), ()) for i in instance.inputs]
        self._source = ScriptSource(path, inputs, [output["name"] for output in instance.outputs])

    def run(self, inputs: Inputs, outputs: list[str], gone: Callable[[], bool]) -> list[Array]:
        with self._torch.inference_mode():
            arrays = dict(zip(self._source.outputs, self._source.run(inputs), strict=True))
        return [arrays[name] for name in outputs]

    def explain(self, error: Exception) -> tuple[str, bool]:
        """TorchScript has one exception for all that its operators refuse, and for what they lack memory for."""
        refused = isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_MEMORY)
        return last_line(error).removeprefix("RuntimeError: "), refused
