"""Triton's `onnxruntime` backend in Python, for Tritons that lack the official one in C++: it serves the same model
folders and configurations, and fails the way the official one does. Needs numpy and onnxruntime on `PYTHONPATH`.

Triton hands over the requests of a dynamic batch together; putting their rows together is left to the backend."""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

# Triton starts its Python without looking at the environment.
sys.path += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # Triton brings it

_LOOK = 0.02  # seconds between two looks at whether the callers of a long run are gone
_SHORT = 0.005  # seconds; a run expected to be shorter is not looked after
ort.set_default_logger_severity(4)


class _Unreadable(Exception):
    """Python backends that were built before numpy 2 misread its arrays, without a word."""


class TritonPythonModel:
    """One instance of one version of a model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Takes configurations as they are: they are complete."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Opens `<repository>/<version>/model.onnx`; an exception is the reason that Triton gives for the failure.

        Takes `intra_op_thread_count` and `inter_op_thread_count` from the configuration's parameters; absent or 0: as
        many as there are cores.
        """
        config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / file
        parameters = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
        options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared
        providers: list[Any] = ["CPUExecutionProvider"]
        if args["model_instance_kind"] == "GPU":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])}))
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        self._batched = config["max_batch_size"] > 0
        self._inputs = {i["name"]: i["data_type"] for i in config["input"]}
        self._scalars = {i.name for i in self._session.get_inputs() if not i.shape}  # Triton has them as [1]
        self._pool = ThreadPoolExecutor(1)
        self._expected = 1.0  # seconds that a run is expected to take

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers each request, in order: with its own outputs or its own error."""
        answers: list[Any] = [None] * len(requests)
        groups: dict[Any, list[tuple[int, dict[str, np.ndarray]]]] = {}
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
        self._pool.shutdown()

    def _read(self, request: Any) -> dict[str, np.ndarray]:
        inputs: dict[str, np.ndarray] = {}
        for name, kind in self._inputs.items():
            array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            if not array.flags.c_contiguous:  # tensors arrive in one piece
                raise _Unreadable(f"this Triton's Python backend misreads numpy {np.__version__}; give it numpy<2")
            if kind == "TYPE_STRING":
                texts = np.empty(array.size, object)
                texts[:] = [element.decode() for element in array.ravel()]
                array = texts.reshape(array.shape)
            inputs[name] = array.reshape(()) if name in self._scalars else array
        return inputs

    def _run_group(self, requests: list[Any], group: list[tuple[int, dict[str, np.ndarray]]], answers: list) -> None:
        members = [requests[i] for i, _ in group]
        names = list(members[0].requested_output_names())
        inputs = group[0][1]
        if len(group) > 1:
            inputs = {name: np.concatenate([own[name] for _, own in group]) for name in inputs}
        try:
            arrays = self._run(members, names, inputs)
        except Exception as e:
            if len(group) > 1:  # somebody else's rows must not fail a request: each is tried alone
                for one in group:
                    self._run_group(requests, [one], answers)
                return
            answers[group[0][0]] = _failed(*_reason(e))
            return
        at = 0
        for i, own in group:
            rows = len(next(iter(own.values()))) if len(group) > 1 else 0
            parts = [array[at : at + rows] for array in arrays] if rows or len(group) > 1 else arrays
            tensors = [pb_utils.Tensor(name, np.atleast_1d(part)) for name, part in zip(names, parts, strict=True)]
            answers[i] = pb_utils.InferenceResponse(output_tensors=tensors)
            at += rows

    def _run(self, members: list[Any], names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs the graph; ends a long run once all its callers are gone."""
        began = time.perf_counter()
        options = ort.RunOptions()
        if self._expected < _SHORT:
            arrays = self._session.run(names, inputs, options)
        else:
            running = self._pool.submit(self._session.run, names, inputs, options)
            while not wait([running], _LOOK).done:
                options.terminate = all(member.is_cancelled() for member in members)
            arrays = running.result()
        took = time.perf_counter() - began
        # Slow to believe a model fast, quick to believe it slow.
        self._expected = took if took > self._expected else self._expected * 0.8 + took * 0.2
        return arrays


def _reason(error: Exception) -> tuple[str, int]:
    text = str(error).partition("\n")[0][:300]
    refused = "INVALID_ARGUMENT" in text or "Non-zero status code" in text or type(error).__name__ == "InvalidArgument"
    return text, pb_utils.TritonError.INVALID_ARG if refused else pb_utils.TritonError.INTERNAL


def _failed(text: str, code: int) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(text, code))
