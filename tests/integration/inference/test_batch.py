"""BatchPredict: each entry is a call of its own."""

import json
import time
import urllib.request
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


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def model(platform: Platform, publisher: Account) -> str:
    return platform.publish(publisher, graphs.addition(), batch=64, price={"requests": PRICE * 1_000_000})


def batch(person: Account, *requests: Any, **options: Any) -> inference_pb2.BatchPredictResponse:
    answer: inference_pb2.BatchPredictResponse
    answer = person.inference.BatchPredict(inference_pb2.BatchPredictRequest(requests=requests), **options)
    return answer


def refused(person: Account, *requests: Any, **options: Any) -> MercatError:
    with pytest.raises(grpc.RpcError) as e:
        batch(person, *requests, **options)
    return from_rpc_error(e.value)


def test_entries_are_answered_in_order_and_each_is_a_call(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    answer = batch(person, *(add(model, i, 1000) for i in range(300)))
    assert [number(r.response) for r in answer.results] == [1000 + i for i in range(300)]
    assert [r.index for r in answer.results] == list(range(300))
    assert (answer.cost_nanos, answer.failed_count) == (300 * PRICE, 0)
    made = {r.response.request_id for r in answer.results}
    assert len(made) == 300
    rows = many.records(person, 300)
    assert sorted(r.request_id for r in rows) == sorted(made)
    assert sorted(many.posted(person)) == sorted(made)
    assert person.balance() == USD - 300 * PRICE


def test_entries_are_run_together(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    batch(person, add(model, 1, 1))
    rows, taken = many.runs(platform, person, model)
    batch(person, *(add(model, i, i) for i in range(200)))
    rows_now, taken_now = many.runs(platform, person, model)
    assert rows_now - rows == 200
    assert taken_now - taken < 100


def test_a_failure_is_answered_in_its_place_and_is_free(platform: Platform, publisher: Account, model: str) -> None:
    person = platform.sign_up(credit=USD)
    squares = platform.publish(publisher, graphs.lookup(), batch=8, price={"requests": PRICE * 1_000_000})
    answer = batch(
        person, add(model, 1, 2), many.predict(squares, index=3), inference_pb2.PredictRequest(), add("no/such", 1, 2),
        many.predict(model, a=1), many.predict(squares, index=7), add(model, 3, 4),
    )  # fmt: skip
    results = answer.results
    assert [number(results[i].response) for i in (0, 1, 6)] == [3, 9, 7]
    reasons = [error(results[i]).reason for i in (2, 3, 4, 5)]
    assert reasons[:3] == ["INVALID_FIELDS", "MODEL_NOT_FOUND", "TENSOR_INVALID"]
    assert {v.field for v in error(results[2]).violations} == {"model", "inputs"}
    assert error(results[3]).metadata["request_id"].startswith("req_")
    assert (answer.failed_count, answer.cost_nanos) == (4, 3 * PRICE)
    assert len(many.records(person, 3)) == 3
    assert person.balance() == USD - 3 * PRICE


def test_credit_ends_in_the_middle(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=5 * PRICE)
    answer = batch(person, *(add(model, i, i) for i in range(20)))
    assert answer.failed_count == 15
    assert {error(r).reason for r in answer.results if r.HasField("error")} == {"INSUFFICIENT_CREDIT"}
    assert len(many.records(person, 5)) == 5
    assert person.balance() == 0


def test_what_is_refused_as_a_whole(platform: Platform, model: str) -> None:
    person = platform.sign_up()
    none = refused(person)
    assert (none.reason, none.violations[0].field) == ("INVALID_FIELDS", "requests")
    many_of_them = refused(person, *[inference_pb2.PredictRequest()] * 1001)
    assert "1000" in many_of_them.violations[0].description
    assert refused(platform.anonymous, add(model, 1, 2)).reason == "CREDENTIAL_MISSING"
    signed = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="reader", scopes=["usage:read"]))
    assert refused(Account(platform, signed.secret), add(model, 1, 2)).reason == "SCOPE_MISSING"


def test_a_message_past_64_mib_is_refused(platform: Platform, model: str) -> None:
    person = platform.sign_up()
    request = add(model, 1, 2)
    request.inputs[0].raw = bytes(33 << 20)
    with pytest.raises(grpc.RpcError) as e:
        batch(person, request, request)
    assert e.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_idempotency_key_makes_one_batch(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    key = [("idempotency-key", "once")]
    first = batch(person, add(model, 1, 2), add(model, 3, 4), metadata=key)
    assert batch(person, add(model, 1, 2), add(model, 3, 4), metadata=key) == first
    assert refused(person, add(model, 1, 2), metadata=key).reason == "IDEMPOTENCY_KEY_REUSED"
    assert len(many.records(person, 2)) == 2


def test_entries_end_with_the_batch_s_deadline(platform: Platform, publisher: Account) -> None:
    endless = platform.publish(publisher, graphs.count(), price={"requests": PRICE * 1_000_000})
    person = platform.sign_up(credit=USD)
    batch(person, many.predict(endless, n=1))  # which loads it
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as e:
        batch(person, *[many.predict(endless, n=500_000_000)] * 20, timeout=1)
    assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 3
    batch(person, many.predict(endless, n=1), timeout=5)  # nothing runs on for a caller who is gone
    assert len(many.records(person, 2)) == 2


def test_an_answer_that_would_not_fit_is_not_run(platform: Platform, publisher: Account) -> None:
    """Each entry answers 4 MiB: 15 of them fit."""
    zeros = platform.publish(publisher, many.zeros(), price={"requests": PRICE * 1_000_000})
    person = platform.sign_up(credit=USD)
    requests = [many.predict(zeros, length=1 << 20) for _ in range(40)]
    for request in requests:
        request.raw_output = True
    channel = grpc.insecure_channel(platform.grpc, options=[("grpc.max_receive_message_length", 64 << 20)])
    with channel:
        call = channel.unary_unary(
            "/mercat.inference.v1.InferenceService/BatchPredict",
            request_serializer=inference_pb2.BatchPredictRequest.SerializeToString,
            response_deserializer=inference_pb2.BatchPredictResponse.FromString,
        )
        answer = call(inference_pb2.BatchPredictRequest(requests=requests), metadata=person.metadata, timeout=60)
    given = [r for r in answer.results if r.HasField("response")]
    assert 8 <= len(given) <= 15
    assert all(len(r.response.outputs[0].raw) == 4 << 20 for r in given)
    assert {error(r).reason for r in answer.results if r.HasField("error")} == {"BATCH_TOO_LARGE"}
    assert answer.cost_nanos == len(given) * PRICE
    assert len(many.records(person, len(given))) == len(given)


def test_a_batch_over_rest(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    inputs = [{"name": "a", "data": [1]}, {"name": "b", "data": [2]}]
    body = {"requests": [{"model": model, "inputs": inputs}, {"model": "no/such", "inputs": inputs}]}
    request = urllib.request.Request(
        platform.rest + "/v1/models:batchPredict", json.dumps(body).encode(),
        {"authorization": f"Bearer {person.api_key}", "content-type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        got = json.load(answer)
        assert answer.headers["mercat-cost-nanos"] == str(PRICE)
    assert got["results"][0]["response"]["outputs"][0]["data"] == [3]
    assert got["results"][1]["error"]["details"][0]["reason"] == "MODEL_NOT_FOUND"
    assert (got["costNanos"], got["failedCount"]) == (str(PRICE), 1)
