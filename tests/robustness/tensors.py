"""Tensors for `graphs.labelled()` that are not what they say, and the ways to send them."""

import base64
import json
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.struct_pb2 import ListValue, Value
from google.rpc import code_pb2, status_pb2
from hypothesis import strategies as st
from mercat.inference.v1 import inference_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.errors import MercatError, from_rpc_error, from_status
from tests.platform import Account

ROWS = 2  # of every good tensor
MOST = 8  # rows that the model takes
TEXTS = [b"one", b"eleven"]


@dataclass(frozen=True)
class Tensor:
    """As it travels: `raw` says the elements as bytes, or `values` as numbers or strings."""

    name: str
    datatype: str
    shape: list[int]
    raw: bytes | None = None
    values: list[Any] | None = None


def layout(elements: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(e)) + e for e in elements)


GOOD = {
    "x": Tensor("x", "FP32", [ROWS, 4], bytes(16 * ROWS)),
    "text": Tensor("text", "BYTES", [ROWS], layout(TEXTS)),
}
GOOD_VALUES = {
    "x": Tensor("x", "FP32", [ROWS, 4], values=[0.5] * 4 * ROWS),
    "text": Tensor("text", "BYTES", [ROWS], values=[t.decode() for t in TEXTS]),
}

# Lengths of axes: none of them is that of a good tensor.
lengths = st.sampled_from(
    [-1, -2, -4, -(2**31), -(2**63), 2**63 - 1, 2**62, 2**61, 2**33, 2**32, 2**31, 2**31 - 1, 2**28 + 1, 0, 1, 3, 5, 9]
)


@st.composite
def wrong_shapes(draw: st.DrawFn, of: dict[str, Tensor]) -> Tensor:
    """One axis is another, or there are fewer, or more, whose product may be the same or overflow into it."""
    good = of[draw(st.sampled_from(["x", "text"]))]
    shape = list(good.shape)
    kind = draw(st.sampled_from(["axis", "axes", "fewer", "more", "none"]))
    if kind == "axis":
        shape[draw(st.integers(0, len(shape) - 1))] = draw(lengths)
    elif kind == "axes":
        shape = [draw(lengths) for _ in shape]
    elif kind == "fewer" and len(shape) > 1:  # no shape at all may mean that of the signature
        shape.pop()
    elif kind == "more":
        shape.insert(draw(st.integers(0, len(shape))), draw(st.sampled_from([1, 0, -1, 2**63 - 1])))
    else:
        shape = [2**32, 2**32] if draw(st.booleans()) else [2**62] * draw(st.integers(1, 8))
    return Tensor(good.name, good.datatype, shape, good.raw, good.values)


@st.composite
def wrong_bytes(draw: st.DrawFn) -> Tensor:
    """More or fewer bytes than shape × datatype."""
    good = GOOD["x"]
    size = draw(st.integers(0, 4 * len(good.raw or b"")).filter(lambda n: n != 16 * ROWS))
    return Tensor("x", "FP32", good.shape, bytes(size))


@st.composite
def lying_lengths(draw: st.DrawFn) -> Tensor:
    """BYTES whose lengths are too long, too short, negative, or leave something over."""
    first, second = TEXTS
    kind = draw(st.sampled_from(["long", "short", "negative", "over", "cut", "fewer", "more", "no text"]))
    lie = draw(st.integers(1, 1000))
    raw = {
        "long": struct.pack("<I", len(first) + lie) + first + layout([second]),
        "short": struct.pack("<I", len(first) - draw(st.integers(1, 2))) + first + layout([second]),
        "negative": struct.pack("<i", -lie) + first + layout([second]),
        "over": layout(TEXTS) + bytes(lie),
        "cut": layout(TEXTS)[: -draw(st.integers(1, len(second) + 3))],
        "fewer": layout([first]),
        "more": layout([*TEXTS, b""]),
        "no text": layout([first, b"\xff\xfe" + second]),
    }[kind]
    return Tensor("text", "BYTES", [ROWS], raw)


@st.composite
def wrong_datatypes(draw: st.DrawFn, of: dict[str, Tensor]) -> Tensor:
    good = of[draw(st.sampled_from(["x", "text"]))]
    known = ["INT32", "INT64", "UINT8", "UINT32", "FP16", "FP64", "BOOL", "BYTES", "FP32", "fp32", "float", "FP33"]
    names = st.sampled_from(known) | st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=10)
    return Tensor(
        good.name, draw(names.filter(lambda n: n != good.datatype)), good.shape, good.raw, good.values
    )  # fmt: skip


@st.composite
def wrong_values(draw: st.DrawFn) -> Tensor:
    """Typed contents of another count than the shape's."""
    good = GOOD_VALUES[draw(st.sampled_from(["x", "text"]))]
    assert good.values is not None
    count = draw(st.integers(0, 20).filter(lambda n: n != len(good.values or [])))
    return Tensor(good.name, good.datatype, good.shape, values=[good.values[0]] * count)


bad_raw = st.one_of(wrong_shapes(GOOD), wrong_bytes(), lying_lengths(), wrong_datatypes(GOOD))
bad_values = st.one_of(wrong_shapes(GOOD_VALUES), wrong_values(), wrong_datatypes(GOOD_VALUES))


def both(bad: Tensor) -> list[Tensor]:
    """A request's tensors, one of them bad."""
    good = GOOD if bad.values is None else GOOD_VALUES
    return [bad if bad.name == name else good[name] for name in good]


# The ways to send them. Each answers the error, and None where there was none.

Send = Callable[[Account, str, list[Tensor]], MercatError | None]


def infer_request(model: str, tensors: list[Tensor]) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    for t in tensors:
        sent = request.inputs.add(name=t.name, datatype=t.datatype, shape=t.shape)
        if t.values is None:
            request.raw_input_contents.append(t.raw)
        elif t.name == "x":
            sent.contents.fp32_contents.extend(t.values)
        else:
            sent.contents.bytes_contents.extend(v.encode() for v in t.values)
    return request


def predict_request(model: str, tensors: list[Tensor]) -> inference_pb2.PredictRequest:
    request = inference_pb2.PredictRequest(model=model)
    for t in tensors:
        sent = request.inputs.add(name=t.name, datatype=t.datatype, shape=t.shape)
        if t.values is None:
            sent.raw = t.raw or b""
        else:
            sent.data.CopyFrom(ListValue(values=[_value(v) for v in t.values]))
    return request


def _value(v: object) -> Value:
    return Value(string_value=v) if isinstance(v, str) else Value(number_value=v)


def model_infer(person: Account, model: str, tensors: list[Tensor]) -> MercatError | None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(person.platform.channel)
    try:
        stub.ModelInfer(infer_request(model, tensors), metadata=person.metadata, timeout=20)
    except grpc.RpcError as e:
        return from_rpc_error(e)
    return None


def predict(person: Account, model: str, tensors: list[Tensor]) -> MercatError | None:
    try:
        person.inference.Predict(predict_request(model, tensors), timeout=20)
    except grpc.RpcError as e:
        return from_rpc_error(e)
    return None


def stream_predict(person: Account, model: str, tensors: list[Tensor]) -> MercatError | None:
    request = inference_pb2.StreamPredictRequest(id="1", request=predict_request(model, tensors))
    (answer,) = person.inference.StreamPredict(iter([request]), timeout=20)
    return from_status(answer.error) if answer.HasField("error") else None


def rest(person: Account, model: str, tensors: list[Tensor]) -> MercatError | None:
    inputs: list[dict[str, Any]] = []
    for t in tensors:
        body: dict[str, Any] = {"name": t.name, "datatype": t.datatype, "shape": t.shape}
        elements = {"data": t.values} if t.values is not None else {"raw": base64.b64encode(t.raw or b"").decode()}
        inputs.append(body | elements)
    request = urllib.request.Request(
        f"{person.platform.rest}/v1/models/{model}:predict", json.dumps({"inputs": inputs}).encode(),
        {"authorization": f"Bearer {person.api_key}", "content-type": "application/json"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=20):
            return None
    except urllib.error.HTTPError as e:
        with e:
            error = json.load(e)["error"]
        return _from_json(e.code, error)


def _from_json(status: int, error: dict[str, Any]) -> MercatError:
    assert error["code"] == status
    known = {**error, "code": code_pb2.Code.Value(error["status"])}
    return from_status(json_format.ParseDict(known, status_pb2.Status(), ignore_unknown_fields=True))


WAYS: dict[str, Send] = {
    "ModelInfer": model_infer, "Predict": predict, "StreamPredict": stream_predict, "REST": rest,
}  # fmt: skip
