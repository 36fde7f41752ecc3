"""What Mercat's Triton backends for models of tensors share: reading requests, putting the rows of a dynamic batch
together and apart again, and an answer or an error for each request. Needs numpy; a backend says how it opens and runs.

Triton hands over the requests of a dynamic batch together; putting their rows together is left to the backend."""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton brings it

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]


class _Unreadable(Exception):
    """Python backends that were built before numpy 2 misread its arrays, without a word."""


@dataclass(frozen=True)
class Instance:
    """What Triton says of one instance. `inputs` and `outputs`: as in config.pbtxt, in its order. `gpu`: the number of
    its device; None: a processor."""

    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    parameters: Mapping[str, str]
    gpu: int | None

    def count(self, parameter: str) -> int:
        """A parameter that is a number; 0 when it is absent."""
        return int(self.parameters.get(parameter, 0))


class TensorModel:
    """One instance of one version of a model.

    `file`: what lies in a version's folder, unless its configuration says otherwise. `scalars`: the inputs without an
    axis; Triton has them as [1]."""

    file = ""
    scalars: frozenset[str] = frozenset()

    # What a backend says

    def open(self, path: Path, instance: Instance) -> None:
        """An exception is the reason that Triton gives for the failure."""
        raise NotImplementedError

    def run(self, inputs: Inputs, outputs: list[str], gone: Callable[[], bool]) -> list[Array]:
        """Runs the model. `gone`: whether nobody waits for it any more."""
        raise NotImplementedError

    def explain(self, error: Exception) -> tuple[str, bool]:
        """What a run failed with, in a line; and whether that was because of its inputs."""
        raise NotImplementedError

    # What Triton calls

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Takes configurations as they are: they are complete."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Opens `<repository>/<version>/<file>`; an exception is the reason that Triton gives for the failure."""
        config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or self.file
        parameters = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        gpu = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        self._batched = config["max_batch_size"] > 0
        self._inputs = {i["name"]: i["data_type"] for i in config["input"]}
        instance = Instance(config["input"], config["output"], parameters, gpu)
        self.open(Path(args["model_repository"]) / args["model_version"] / file, instance)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers each request, in order: with its own outputs or its own error."""
        answers: list[Any] = [None] * len(requests)
        groups: dict[Any, list[tuple[int, Inputs]]] = {}
        for i, request in enumerate(requests):
            if request.is_cancelled():
                answers[i] = _failed("the call was cancelled", pb_utils.TritonError.CANCELLED)
                continue
            try:
                inputs = self._read(request)
            except UnicodeDecodeError:
                answers[i] = _failed("strings must be UTF-8", pb_utils.TritonError.INVALID_ARG)
                continue
            except _Unreadable as e:
                answers[i] = _failed(str(e), pb_utils.TritonError.INTERNAL)
                continue
            # Rows go together when the rest of their shapes agrees and the same outputs are wanted.
            shapes = tuple(array.shape[1:] for array in inputs.values())
            outputs = tuple(request.requested_output_names())
            groups.setdefault((shapes, outputs) if self._batched else i, []).append((i, inputs))
        for group in groups.values():
            self._run_group(requests, group, answers)
        return answers

    def finalize(self) -> None:
        """Called when the instance is unloaded."""

    def _read(self, request: Any) -> Inputs:
        inputs: Inputs = {}
        for name, kind in self._inputs.items():
            array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            if not array.flags.c_contiguous:  # tensors arrive in one piece
                raise _Unreadable(f"this Triton's Python backend misreads numpy {np.__version__}; give it numpy<2")
            if kind == "TYPE_STRING":
                texts = np.empty(array.size, object)
                texts[:] = [element.decode() for element in array.ravel()]
                array = texts.reshape(array.shape)
            inputs[name] = array.reshape(()) if name in self.scalars else array
        return inputs

    def _run_group(self, requests: list[Any], group: list[tuple[int, Inputs]], answers: list) -> None:
        members = [requests[i] for i, _ in group]
        names = list(members[0].requested_output_names())
        counts = [len(next(iter(own.values()))) for _, own in group] if len(group) > 1 else []
        inputs = group[0][1]
        if counts:
            inputs = {name: np.concatenate([own[name] for _, own in group]) for name in inputs}
        try:
            arrays = self.run(inputs, names, lambda: all(member.is_cancelled() for member in members))
            if counts and any(array.shape[:1] != (sum(counts),) for array in arrays):
                raise ValueError("the model gives other rows than it takes")
        except Exception as e:
            if counts:  # somebody else's rows must not fail a request: each is tried alone
                for one in group:
                    self._run_group(requests, [one], answers)
                return
            text, refused = self.explain(e)
            code = pb_utils.TritonError.INVALID_ARG if refused else pb_utils.TritonError.INTERNAL
            answers[group[0][0]] = _failed(text[:300], code)
            return
        at = 0
        for (i, _), rows in zip(group, counts or [0], strict=True):
            parts = [array[at : at + rows] for array in arrays] if counts else arrays
            tensors = [pb_utils.Tensor(name, np.atleast_1d(part)) for name, part in zip(names, parts, strict=True)]
            answers[i] = pb_utils.InferenceResponse(output_tensors=tensors)
            at += rows


def framework(name: str, package: str, instance: Instance) -> Any:
    """The module `package`, with which models of the framework `name` are served.

    Raises RuntimeError where it is missing, and for a GPU, where the framework's own backend is to be had."""
    if instance.gpu is not None:
        raise RuntimeError(f"this {name} backend runs on processors only; for GPUs take Triton's own")
    try:
        module = importlib.import_module(package)
        if getattr(module, "__file__", None) is None:  # the folder of a backend of that name is no package
            raise ImportError(f"No module named '{package}'")
    except ImportError as e:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        text = f"the {name} backend needs {package} for Python {version} on PYTHONPATH, where MERCAT_CONVERTERS puts it"
        raise RuntimeError(f"{text}: {e}") from e
    return module


def last_line(error: Exception) -> str:
    """Frameworks say first where a run failed, and last why; after that TensorFlow names nodes, in brackets."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("[[")), type(error).__name__)


def _failed(text: str, code: int) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(text, code))
