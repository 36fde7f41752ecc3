from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from mercat.inference.v1 import inference_pb2

from gateway_rest import contracts, transcode
from gateway_rest.contracts import Binding
from gateway_rest.errors import Refusal


def binding(name: str) -> Binding:
    return next(found for found in contracts.bindings() if found.method.name == name)


def test_tensors_nested_as_deep_as_they_may_be_survive_the_wire() -> None:
    data = "[" * 32 + "1" + "]" * 32
    body = b'{"inputs":[{"name":"x","data":%s}]}' % data.encode()
    message = transcode.request(binding("Predict"), body, "", {"model": "a/b"})
    again = inference_pb2.PredictRequest.FromString(message.SerializeToString())
    assert json_format.MessageToDict(again)["inputs"][0]["data"] == json.loads(data)


@pytest.mark.parametrize("opening", ['{"a":', "[", '[{"a":'])
def test_depth_is_refused_quickly_however_large(opening: str) -> None:
    started = time.perf_counter()
    with pytest.raises(Refusal):
        transcode.request(binding("Predict"), (opening * 2_000_000).encode(), "", {})
    assert time.perf_counter() - started < 0.5


def test_brackets_inside_strings_are_no_depth() -> None:
    body = json.dumps({"inputs": [{"name": '[[["\\' * 100, "data": ["]" * 500]}]}).encode()
    message: Any = transcode.request(binding("Predict"), body, "", {})
    assert message.inputs[0].data[0] == "]" * 500


def test_number_of_many_digits_is_refused_quickly() -> None:
    started = time.perf_counter()
    with pytest.raises(Refusal):
        transcode.request(binding("ListApiKeys"), b"", "pageSize=" + "9" * 100_000, {})
    with pytest.raises(Refusal):
        transcode.request(binding("TopUpWallet"), b'{"amountNanos":' + b"9" * 1_000_000 + b"}", "", {})
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("body", [b'{"inputs":[{"data":[NaN]}]}', b'{"inputs":[{"data":[Infinity]}]}'])
def test_what_json_has_no_word_for_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        transcode.request(binding("Predict"), body, "", {})


def test_reply_without_json_form_is_said_so() -> None:
    reply = inference_pb2.PredictResponse()
    reply.outputs.add().data.append(float("nan"))
    with pytest.raises(Refusal, match="no JSON form"):
        transcode.reply(binding("Predict"), reply)


def test_repeated_parameter_fills_a_repeated_field() -> None:
    message = binding("CreateApiKey").request()
    transcode.bind(message, "scopes=a:b&scopes=c:d&name=k", {})
    assert json_format.MessageToDict(message) == {"scopes": ["a:b", "c:d"], "name": "k"}


@pytest.mark.parametrize("query", ["a=%ff", "profile.x=1", "name.x=1", "&".join(f"a{n}=1" for n in range(1001))])
def test_malformed_query_is_refused(query: str) -> None:
    with pytest.raises(Refusal):
        transcode.bind(binding("CreateApiKey").request(), query, {})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
names = st.sampled_from(["name", "inputs", "data", "shape", "raw", "model", "units", "x"])
objects = st.recursive(values, lambda inner: st.dictionaries(names, inner | st.lists(inner, max_size=3), max_size=4))


@given(objects)
def test_any_json_is_taken_or_refused(value: object) -> None:
    body = json.dumps(value).encode()
    for name in ("Predict", "CreateVersion"):
        with contextlib.suppress(Refusal):
            transcode.request(binding(name), body, "", {}).SerializeToString()


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    with contextlib.suppress(Refusal):
        transcode.request(binding("SignUp"), body, "", {}).SerializeToString()
