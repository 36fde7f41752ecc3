"""Calls of a model in the child, read and answered as its workers do: what is refused here is refused there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from mercat.common.v1 import tensor_pb2
from mercat.inference.v1 import inference_pb2

from services.common.errors import EngineFailed, MercatError
from services.common.predict import read_inputs
from services.common.rpc.policy import validate
from services.common.tensors import Array, Signature, to_list
from services.common.text_model import DECODER, TEXT_KEY, TextConfig
from services.registry.validation import engine
from services.registry.validation.report import Refused, Tensor
from services.registry.validation.samples import Task

LONGEST = 16_000  # characters of a reply that is kept
_ELEMENTS = 4_000  # of all outputs together that are written down
Request = TypeVar("Request", bound=Message)


def open_model(path: Path, task: Task) -> Callable[[str], str]:
    """What answers a request's JSON with its reply's. It raises Refused for one that fails, MemoryError; this here,
    too."""
    session, _ = engine.load(path)
    carried = session.get_modelmeta().custom_metadata_map
    if TEXT_KEY in carried and TextConfig.from_json(carried[TEXT_KEY]).kind == DECODER:
        from services.registry.validation.sample_texts import TextCalls  # slow to import

        try:
            return _checked(TextCalls(session, carried, task.context), path)
        except EngineFailed as e:
            raise Refused("TEXT_CONFIG_INVALID", e.message) from None
    return _checked(_Predicts(session, task), path)


def parsed(body: dict[str, Any], request: Request) -> Request:
    """Raises Refused for what is no such request, InvalidFields for fields that break their rules."""
    try:
        json_format.ParseDict({"model": "a/model", **body}, request)
    except json_format.ParseError as e:
        kind = request.DESCRIPTOR.name.removesuffix("Request")
        raise Refused("SAMPLE_INVALID", f"it is no body of {kind}: {engine.first_line(e, Path())}") from None
    validate(request)
    return request


def _checked(call: Callable[[dict[str, Any]], Message], path: Path) -> Callable[[str], str]:
    def reply(text: str) -> str:
        try:
            answer = call(json.loads(text))
        except Refused:
            raise
        except MercatError as e:
            said = "; ".join(f"{v.field}: {v.description}" for v in e.violations) or e.message
            code = "SAMPLE_RUN_FAILED" if isinstance(e, EngineFailed) else "SAMPLE_INVALID"
            raise Refused(code, said) from None
        except Exception as e:  # ONNX Runtime's exceptions share no base class
            engine.no_memory(e)
            raise Refused("SAMPLE_RUN_FAILED", engine.first_line(e, path)) from None
        return _written(answer)

    return reply


def _written(answer: Message) -> str:
    text = json.dumps(json_format.MessageToDict(answer), ensure_ascii=False)
    if len(text) > LONGEST and isinstance(answer, inference_pb2.PredictResponse):
        for tensor in answer.outputs:
            tensor.ClearField("data")
        text = json.dumps(json_format.MessageToDict(answer), ensure_ascii=False)
    return text if len(text) <= LONGEST else "{}"


class _Predicts:
    def __init__(self, session: Any, task: Task) -> None:
        self._session, self._most_rows = session, task.most_rows
        self._signature = Signature(
            tensor_pb2.Signature(inputs=map(_spec, task.inputs), outputs=map(_spec, task.outputs))
        )

    def __call__(self, body: dict[str, Any]) -> inference_pb2.PredictResponse:
        signature = self._signature
        request = parsed(body, inference_pb2.PredictRequest())
        inputs = read_inputs(request, signature)
        rows = signature.rows(inputs)
        if self._most_rows and rows > self._most_rows:
            signature.refuse_rows(rows, self._most_rows)
        names = signature.wanted(request.outputs)
        arrays: list[Array] = self._session.run(names, inputs)
        whole = sum(array.size for array in arrays) <= _ELEMENTS
        made = inference_pb2.PredictResponse()
        for name, array in zip(names, arrays, strict=True):
            tensor = made.outputs.add(name=name, datatype=signature.outputs[name].datatype, shape=array.shape)
            if whole:
                tensor.data.CopyFrom(to_list(array))
        return made


def _spec(t: Tensor) -> tensor_pb2.TensorSpec:
    return tensor_pb2.TensorSpec(name=t.name, datatype=t.datatype, shape=t.shape, axes=t.axes, image=t.image)
