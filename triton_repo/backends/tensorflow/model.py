"""Triton's `tensorflow` backend in Python, for Tritons that lack the official one: it serves the same folders of
SavedModels and configurations, on processors. Needs numpy, TensorFlow and Mercat's folder on `PYTHONPATH`.

Serves the signature `serving_default`, or the only one; tensors have its names, as with the official backend.
https://github.com/triton-inference-server/tensorflow_backend"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

# Triton starts its Python without looking at the environment.
sys.path += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]

from services.registry.validation.frameworks.saved_model import SavedModelSource
from triton_repo.backends.tensor_model import Array, Inputs, Instance, TensorModel, framework, last_line

# Read when TensorFlow is imported: no GPU is looked for, and only errors are logged.
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}


class TritonPythonModel(TensorModel):
    """A SavedModel, called by the code that validation compared its ONNX with. A run under way goes on to its end."""

    file = "model.savedmodel"

    def open(self, path: Path, instance: Instance) -> None:
        """Takes `TF_NUM_INTRA_THREADS` and `TF_NUM_INTER_THREADS` from the configuration's parameters; absent or 0: as
        many as there are cores. Raises RuntimeError, Refused, and what TensorFlow does for what is no SavedModel."""
        self._tensorflow = tensorflow = framework("tensorflow", "tensorflow", instance)
        tensorflow.config.threading.set_intra_op_parallelism_threads(instance.count("TF_NUM_INTRA_THREADS"))
        tensorflow.config.threading.set_inter_op_parallelism_threads(instance.count("TF_NUM_INTER_THREADS"))
        self._source = SavedModelSource(path)
        self.scalars = frozenset(spec.name for spec in self._source.inputs if not spec.shape)
        for side, named, there in (
            ("input", instance.inputs, [spec.name for spec in self._source.inputs]),
            ("output", instance.outputs, self._source.outputs),
        ):
            for tensor in named:
                if tensor["name"] not in there:
                    raise RuntimeError(f"the model has no {side} {tensor['name']}; it has {', '.join(there)}")

    def run(self, inputs: Inputs, outputs: list[str], gone: Callable[[], bool]) -> list[Array]:
        arrays = dict(zip(self._source.outputs, self._source.run(inputs), strict=True))
        return [arrays[name] for name in outputs]

    def explain(self, error: Exception) -> tuple[str, bool]:
        errors = self._tensorflow.errors
        refused = (errors.InvalidArgumentError, errors.OutOfRangeError, errors.FailedPreconditionError)
        return last_line(error), isinstance(error, refused)
