"""StreamPredict: calls over one stream, in both directions."""

import itertools
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from mercat.auth.v1 import auth_pb2
from mercat.inference.v1 import inference_pb2

from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.integration.inference import many
from tests.integration.inference.many import PRICE, add, error, number
from tests.platform import USD, Account, Platform

PATH = "/mercat.inference.v1.InferenceService/StreamPredict"
Answer = inference_pb2.StreamPredictResponse


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def model(platform: Platform, publisher: Account) -> str:
    return platform.publish(publisher, graphs.addition(), batch=64, price={"requests": PRICE * 1_000_000})


@pytest.fixture(scope="module")
def slow(platform: Platform, publisher: Account) -> str:
    return platform.publish(publisher, graphs.slow(500_000), price={"requests": PRICE * 1_000_000})


def entry(index: int, request: inference_pb2.PredictRequest | None) -> inference_pb2.StreamPredictRequest:
    return inference_pb2.StreamPredictRequest(id=f"mine-{index}", request=request)


def test_answers_come_in_order_with_the_caller_s_ids(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    answers: list[Answer] = list(person.inference.StreamPredict(entry(i, add(model, i, 1)) for i in range(500)))
    assert [(a.id, a.index, number(a.response)) for a in answers] == [(f"mine-{i}", i, i + 1) for i in range(500)]
    made = {a.response.request_id for a in answers}
    assert len(made) == 500
    assert {r.request_id for r in many.records(person, 500)} == made
    assert sorted(many.posted(person)) == sorted(made)


def test_an_answer_comes_while_the_stream_is_open(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    turn = threading.Semaphore(1)

    def conversation() -> Iterator[inference_pb2.StreamPredictRequest]:
        for i in range(5):
            assert turn.acquire(timeout=10)
            yield entry(i, add(model, i, i))

    for i, answer in enumerate(person.inference.StreamPredict(conversation())):
        assert number(answer.response) == 2 * i
        turn.release()


def test_a_failure_is_answered_in_its_place_and_the_stream_goes_on(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    messages = [
        entry(0, add(model, 1, 2)).SerializeToString(),
        b"\xff\xff\xff",
        entry(2, None).SerializeToString(),
        entry(3, add("no/such", 1, 2)).SerializeToString(),
        entry(4, many.predict(model, a=1)).SerializeToString(),
        inference_pb2.StreamPredictRequest(id="x" * 201, request=add(model, 1, 2)).SerializeToString(),
        entry(6, add(model, 3, 4)).SerializeToString(),
    ]
    call = platform.channel.stream_stream(PATH, request_serializer=bytes, response_deserializer=Answer.FromString)
    answers = list(call(iter(messages), metadata=person.metadata, timeout=30))
    assert [a.index for a in answers] == list(range(7))
    assert [number(answers[i].response) for i in (0, 6)] == [3, 7]
    reasons = [error(answers[i]).reason for i in range(1, 6)]
    assert reasons == ["MALFORMED", "INVALID_FIELDS", "MODEL_NOT_FOUND", "TENSOR_INVALID", "INVALID_FIELDS"]
    assert error(answers[3]).metadata["request_id"].startswith("req_")
    assert len(many.records(person, 2)) == 2
    assert person.balance() == USD - 2 * PRICE


def ended(call: Any) -> MercatError:
    with pytest.raises(grpc.RpcError) as e:
        list(call)
    return from_rpc_error(e.value)


def test_who_may_not_call(platform: Platform, model: str) -> None:
    requests = [entry(0, add(model, 1, 2))]
    assert ended(platform.anonymous.inference.StreamPredict(iter(requests))).reason == "CREDENTIAL_MISSING"
    person = platform.sign_up()
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="reader", scopes=["usage:read"]))
    assert ended(Account(platform, made.secret).inference.StreamPredict(iter(requests))).reason == "SCOPE_MISSING"


def test_a_revoked_key_ends_its_stream(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="stream"))
    stop = threading.Event()

    def requests() -> Iterator[inference_pb2.StreamPredictRequest]:
        for i in itertools.count():
            if stop.wait(0.05):
                return
            yield entry(i, add(model, 1, 2))

    stream = Account(platform, made.secret).inference.StreamPredict(requests())
    try:
        assert number(next(stream).response) == 3
        person.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=made.api_key.key_id))
        began = time.monotonic()
        assert ended(stream).reason == "CREDENTIAL_INVALID"
        assert time.monotonic() - began < 5
    finally:
        stop.set()


def test_cancelling_the_stream_cancels_its_calls(platform: Platform, slow: str) -> None:
    person = platform.sign_up(credit=USD)
    stream = person.inference.StreamPredict(entry(i, many.predict(slow, x=1)) for i in range(60))
    next(stream)
    stream.cancel()
    time.sleep(1)
    before = many.runs(platform, person, slow)
    time.sleep(0.5)
    assert many.runs(platform, person, slow) == before
    assert len(many.records(person, 1)) < 20


def test_a_stream_that_is_not_read_is_not_read_on(platform: Platform, publisher: Account) -> None:
    """Each call and its answer are 64 KiB."""
    model = platform.publish(publisher, graphs.tiny())
    person = platform.sign_up()
    taken = 0
    tensor = inference_pb2.Tensor(name="x", shape=[4096, 4], raw=bytes(64 << 10))

    def requests() -> Iterator[inference_pb2.StreamPredictRequest]:
        nonlocal taken
        for i in range(5000):
            taken += 1
            yield entry(i, inference_pb2.PredictRequest(model=model, inputs=[tensor], raw_output=True))

    stream = person.inference.StreamPredict(requests())
    deadline = time.monotonic() + 10
    seen = -1
    while taken != seen and time.monotonic() < deadline:
        seen = taken
        time.sleep(1)
    stream.cancel()
    assert 0 < taken < 2500  # what client and front door hold is some 80 MiB, whatever comes after


def test_a_stream_over_rest(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    inputs = [{"name": "a", "data": [1]}, {"name": "b", "data": [2]}]
    body = [{"id": "first", "request": {"model": model, "inputs": inputs}}, {"id": "second"}]
    gateway = "http://" + platform.addresses()["gateway"]
    for door in (platform.rest, gateway):
        request = urllib.request.Request(
            door + "/v1/models:streamPredict", json.dumps(body).encode(),
            {"authorization": f"Bearer {person.api_key}", "content-type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines = [json.loads(line) for line in answer.read().splitlines()]
            assert answer.headers["content-type"] == "application/x-ndjson"
        assert [(line["id"], line["index"]) for line in lines] == [("first", "0"), ("second", "1")]
        assert lines[0]["response"]["outputs"][0]["data"] == [3]
        assert lines[1]["error"]["details"][0]["reason"] == "INVALID_FIELDS"
