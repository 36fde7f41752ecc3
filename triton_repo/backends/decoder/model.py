"""Triton's `decoder` backend: goes on with texts by Mercat's ONNX decoders, many answers at a time, with the tensors of
Triton's vLLM backend (https://github.com/triton-inference-server/vllm_backend), which can stand in its place. Needs
Mercat and what it depends on on `PYTHONPATH`.

Each request is answered for itself, so the model is decoupled. A thread of the engine makes the tokens, another one
sends them and looks whether the callers are still there."""

import json
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Triton starts its Python without looking at the environment.
sys.path += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton brings it

from services.common.errors import EngineFailed, Internal, InvalidArgument, InvalidFields, MercatError, Violation
from services.common.texts import Prompt, limits
from services.inference.text import sampling_parameters
from services.inference.text.decoder.engine import Engine

_LOOK = 0.05  # seconds between two looks at whether callers are gone
_SWITCH = 0.0005  # seconds after which a thread that makes tokens of a prompt lets the one that generates go on
_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


@dataclass
class _Call:
    """`wanted`: outputs asked for beside the text. Without `stream`, `text` and
    `tokens` are gathered."""

    sender: Any
    stream: bool
    wanted: frozenset[str]
    text: str
    input_tokens: int = 0
    tokens: int = 0
    finish: str = ""


class TritonPythonModel:
    """One instance of one version of a model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Takes configurations as they are: they are complete."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Opens `<repository>/<version>/model.onnx`; an exception is the reason that Triton gives for the failure. The
        configuration's parameters are those of `services.common.texts.limits.Limits`."""
        config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / file
        said = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        own = limits.read({"threads": str(os.cpu_count() or 1), **said})
        sys.setswitchinterval(_SWITCH)
        self._news: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._calls: dict[int, _Call] = {}
        self._name, self._number = args["model_name"], 0
        self._engine = Engine(path, own, self._news.put)
        self._making = threading.Thread(target=self._engine.loop.run, name="decode", daemon=True)
        self._sending = threading.Thread(target=self._send, name="send", daemon=True)
        self._making.start()
        self._sending.start()

    def execute(self, requests: list[Any]) -> None:
        """Begins with each request; what it cannot take is answered at once."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._begin(request, sender)
            except MercatError as e:
                _fail(sender, e)
            except Exception as e:  # a caller's tensors must not end the others
                pb_utils.Logger.log_error(f"a request could not be begun: {e!r}")
                _fail(sender, _broken())

    def finalize(self) -> None:
        """Triton waits for the requests under way before."""
        self._engine.loop.close()
        self._making.join()
        self._news.put(None)
        self._sending.join()

    def _begin(self, request: Any, sender: Any) -> None:
        text = _text(request, "text_input")
        stream = _flag(request, "stream", otherwise=False)
        prepended = not _flag(request, "exclude_input_in_output", otherwise=stream)
        if stream and prepended:
            raise InvalidFields(violations=[Violation("exclude_input_in_output", "a stream leaves the input out")])
        names = ("finish_reason", "num_input_tokens", "num_output_tokens")
        wanted = frozenset(name for name in names if _flag(request, f"return_{name}", otherwise=False))
        options = sampling_parameters.read(_text(request, "sampling_parameters", otherwise="{}"))
        more = json.loads(request.parameters() or "{}")
        seconds = int(request.timeout()) / 1e6 or None
        self._number = number = self._number + 1
        prepared = self._engine.prepare(number, Prompt(text=text), options)
        call = _Call(sender, stream, wanted, text if prepended else "", prepared.input_tokens)
        self._calls[number] = call
        self._engine.generate(number, str(more.get("account", "")), int(more.get("level", 0)), seconds)
        self._news.put([])  # there is one more to look after

    # In the thread that sends

    def _send(self) -> None:
        look = 0.0
        while True:
            try:
                events = self._news.get(timeout=_LOOK if self._calls else None)
            except queue.Empty:
                events = []
            if events is None:
                return
            for event in events:
                try:
                    self._tell(event)
                except Exception as e:  # what is wrong with one caller's connection must not end the others
                    pb_utils.Logger.log_error(f"an answer could not be sent: {e!r}")
                    self._engine.cancel(event.number)
                    self._calls.pop(event.number, None)
            if (now := time.monotonic()) >= look:
                look = now + _LOOK
                self._look()

    def _look(self) -> None:
        if not self._making.is_alive():
            self._give_up()
        for number, call in list(self._calls.items()):
            if call.sender.is_cancelled():
                self._engine.cancel(number)
                del self._calls[number]
                _fail(call.sender, None)

    def _give_up(self) -> None:
        """No answer will come any more. Whoever calls next finds the model unloaded, and loads it again."""
        while self._calls:
            _fail(self._calls.popitem()[1].sender, _broken())
        pb_utils.unload_model(self._name)

    def _tell(self, event: Any) -> None:
        call = self._calls.get(event.number)
        if call is None:  # cancelled
            return
        if event.end:
            del self._calls[event.number]
        if event.error is not None:
            _fail(call.sender, event.error)
            return
        for piece in event.pieces:
            call.text += piece.text
            call.tokens += piece.tokens
            call.finish = piece.finish
        if event.end or (call.stream and event.pieces):
            call.sender.send(_response(call), flags=_FINAL if event.end else 0)
            call.text, call.tokens = "", 0


def _broken() -> EngineFailed:
    return EngineFailed("the engine failed")


def _text(request: Any, name: str, otherwise: str | None = None) -> str:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        if otherwise is None:
            raise InvalidFields(violations=[Violation(name, "give it")])
        return otherwise
    try:
        return str(tensor.as_numpy().ravel()[0].decode())
    except (UnicodeDecodeError, IndexError) as e:
        raise InvalidFields(violations=[Violation(name, "it must be one UTF-8 string")]) from e


def _flag(request: Any, name: str, *, otherwise: bool) -> bool:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return otherwise if tensor is None else bool(tensor.as_numpy().any())


def _response(call: _Call) -> Any:
    made = {"text_output": np.array([call.text.encode()], np.object_)}
    if "finish_reason" in call.wanted:  # vLLM writes None while there is none
        made["finish_reason"] = np.array([(call.finish or "None").encode()], np.object_)
    for name, count in (("num_input_tokens", call.input_tokens), ("num_output_tokens", call.tokens)):
        if name in call.wanted:
            made[name] = np.array([count], np.uint32)
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(*named) for named in made.items()])


def _fail(sender: Any, error: MercatError | None) -> None:
    """The last response. `error` None: the call was cancelled. The reason goes before the message, by which Mercat's
    workers make the same error of it."""
    if error is None:
        text, code = "the call was cancelled", pb_utils.TritonError.CANCELLED
    else:
        text = f"{error.reason}: {error.message}"
        invalid, internal = isinstance(error, InvalidArgument), isinstance(error, Internal)
        codes = pb_utils.TritonError
        code = codes.INVALID_ARG if invalid else codes.INTERNAL if internal else codes.UNAVAILABLE
    response = pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(text, code))
    sender.send(response, flags=_FINAL)
