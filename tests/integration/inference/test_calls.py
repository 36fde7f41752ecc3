"""Calling models: Mercat's own contract and Triton's client, every typed refusal, and that none of those is charged."""

import queue
import time
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf import json_format
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.platform import USD, Account, Platform

PRICE = 3_000_000  # nanos a call


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def model(platform: Platform, publisher: Account) -> str:
    price = {"requests": PRICE * 1_000_000}
    return platform.publish(publisher, graphs.addition(), "adder", batch=16, price=price)


@pytest.fixture(scope="module")
def consumer(platform: Platform) -> Account:
    return platform.sign_up(credit=USD)


def predict(person: Account, body: dict[str, Any], model: str, **options: Any) -> inference_pb2.PredictResponse:
    request = json_format.ParseDict(body, inference_pb2.PredictRequest(model=model))
    answer: inference_pb2.PredictResponse = person.inference.Predict(request, **options)
    return answer


def refused(person: Account, body: dict[str, Any], model: str) -> MercatError:
    with pytest.raises(grpc.RpcError) as e:
        predict(person, body, model)
    return from_rpc_error(e.value)


def settled(person: Account) -> int:
    """The balance, once calls made before have been posted."""
    seen, since = person.balance(), time.monotonic()
    while time.monotonic() < since + 0.3:
        time.sleep(0.02)
        if (now := person.balance()) != seen:
            seen, since = now, time.monotonic()
    return seen


def sums(a: list[Any], b: list[Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "a", "data": a}, {"name": "b", "data": b}]}


def test_numbers_as_a_person_writes_them(consumer: Account, model: str) -> None:
    answer = predict(consumer, sums([1, 2, "9007199254740993"], [10, 20, 1]), model)
    assert json_format.MessageToDict(answer.outputs[0].data) == [11, 22, "9007199254740994"]
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("INT64", [3])
    assert (answer.model, answer.version, answer.cost_nanos) == (model, "1.0.0", PRICE)


def test_raw_bytes_are_answered_as_raw_bytes(consumer: Account, model: str) -> None:
    row = np.arange(4, dtype=np.int64)
    tensors = [inference_pb2.Tensor(name=n, shape=[4], raw=row.tobytes()) for n in ("a", "b")]
    answer = consumer.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=tensors))
    assert np.frombuffer(answer.outputs[0].raw, np.int64).tolist() == [0, 2, 4, 6]


def test_a_quote_is_what_the_call_costs_and_costs_nothing(consumer: Account, model: str) -> None:
    before = settled(consumer)
    request = json_format.ParseDict(sums([1], [2]), inference_pb2.QuoteRequest(model=model))
    quote = consumer.inference.Quote(request)
    assert (quote.cost_nanos, quote.currency, dict(quote.units)) == (
        PRICE, "USD", {"requests": 1, "rows": 1, "input_bytes": 16},
    )  # fmt: skip
    assert settled(consumer) == before
    signature = consumer.inference.GetSignature(inference_pb2.GetSignatureRequest(model=model)).signature
    assert [(t.name, t.datatype, list(t.shape)) for t in signature.inputs] == [
        ("a", "INT64", [-1]),
        ("b", "INT64", [-1]),
    ]


REFUSALS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "unknown model": ("nobody/nothing", sums([1], [2]), "MODEL_NOT_FOUND", ""),
    "unknown version": ("{model}@9.9.9", sums([1], [2]), "VERSION_NOT_FOUND", ""),
    "unknown alias": ("{model}:beta", sums([1], [2]), "ALIAS_NOT_FOUND", ""),
    "no reference": ("nonsense", sums([1], [2]), "INVALID_FIELDS", "model"),
    "wrong name": ("{model}", {"inputs": [{"name": "c", "data": [1]}]}, "TENSOR_INVALID", "c"),
    "missing input": ("{model}", {"inputs": [{"name": "a", "data": [1]}]}, "TENSOR_INVALID", "b"),
    "given twice": ("{model}", {"inputs": [{"name": "a", "data": [1]}] * 2}, "TENSOR_INVALID", "a"),
    "wrong datatype": (
        "{model}", {"inputs": [{"name": "a", "datatype": "FP32", "data": [1]}]}, "TENSOR_INVALID", "a",
    ),
    "not whole": ("{model}", sums([1.5], [2]), "TENSOR_INVALID", "a"),
    "wrong rank": ("{model}", sums([[1, 2]], [[3, 4]]), "TENSOR_INVALID", "a"),
    "ragged": ("{model}", sums([[1], [2, 3]], [1]), "TENSOR_INVALID", "a"),
    "uneven": ("{model}", sums([1, 2], [3]), "TENSOR_INVALID", "b"),
    "wrong byte count": (
        "{model}", {"inputs": [{"name": "a", "shape": [2], "raw": "AAAA"}]}, "TENSOR_INVALID", "a",
    ),
    "too many rows": ("{model}", sums([0] * 17, [0] * 17), "TENSOR_INVALID", "a"),
    "unknown output": ("{model}", {**sums([1], [2]), "outputs": ["z"]}, "TENSOR_INVALID", "z"),
    "nothing": ("{model}", {}, "INVALID_FIELDS", "inputs"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSALS)
def test_each_mistake_is_named_and_free(consumer: Account, model: str, what: str) -> None:
    before = settled(consumer)
    reference, body, reason, field = REFUSALS[what]
    error = refused(consumer, body, reference.format(model=model))
    assert error.reason == reason
    if field:
        assert field in {v.field for v in error.violations}
    assert error.metadata["request_id"].startswith("req_")
    assert settled(consumer) == before


def test_who_may_not_call_is_told_why(platform: Platform, publisher: Account, consumer: Account, model: str) -> None:
    body = sums([1], [2])
    assert refused(platform.anonymous, body, model).reason == "CREDENTIAL_MISSING"
    assert refused(Account(platform, "mk_live_nonsense"), body, model).reason == "CREDENTIAL_INVALID"
    assert refused(platform.sign_up(), body, model).reason == "INSUFFICIENT_CREDIT"
    made = consumer.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="reader", scopes=["usage:read"]))
    assert refused(Account(platform, made.secret), body, model).reason == "SCOPE_MISSING"
    unpublished = f"{publisher.profile.username}/draft"
    publisher.registry.CreateModel(
        registry_pb2.CreateModelRequest(name="draft", summary="x", category="other", task="test", license="MIT")
    )
    platform.validated(publisher, unpublished, platform.upload(publisher, graphs.addition()))
    assert refused(consumer, body, unpublished).reason == "MODEL_NOT_FOUND"


def test_a_test_key_costs_nothing(platform: Platform, consumer: Account, model: str) -> None:
    made = consumer.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="try", test=True))
    assert made.secret.startswith("mk_test_")
    before = settled(consumer)
    assert predict(Account(platform, made.secret), sums([1], [2]), model).cost_nanos == 0
    assert settled(consumer) == before


def test_a_new_price_counts_at_once(platform: Platform, publisher: Account, consumer: Account) -> None:
    model = platform.publish(publisher, graphs.addition(), batch=16, price={"rows": 10**12})
    assert predict(consumer, sums([1, 2], [3, 4]), model).cost_nanos == 2_000_000
    component = billing_pb2.PriceComponent(meter="rows", nanos_per_million=2 * 10**12)
    publisher.billing.SetModelPrice(billing_pb2.SetModelPriceRequest(model=model, components=[component]))
    deadline = time.monotonic() + 5
    while predict(consumer, sums([1, 2], [3, 4]), model).cost_nanos != 4_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_model_its_graph_refuses_is_free(platform: Platform, publisher: Account, consumer: Account) -> None:
    model = platform.publish(publisher, graphs.lookup(), price={"requests": 10**12})
    before = settled(consumer)
    assert refused(consumer, {"inputs": [{"name": "index", "data": [7]}]}, model).reason == "MODEL_REFUSED_INPUT"
    assert settled(consumer) == before


def test_a_deadline_that_cannot_be_kept_is_free(platform: Platform, publisher: Account, consumer: Account) -> None:
    model = platform.publish(publisher, graphs.slow(), price={"requests": 10**12})
    before = settled(consumer)
    with pytest.raises(grpc.RpcError) as e:
        predict(consumer, {"inputs": [{"name": "x", "data": [1]}]}, model, timeout=0.3)
    assert e.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    time.sleep(2)
    assert settled(consumer) == before


# Triton's own client, unmodified.


@pytest.fixture
def client(platform: Platform) -> Any:
    with triton.InferenceServerClient(platform.grpc) as made:
        yield made


def inputs(a: list[int], b: list[int]) -> list[triton.InferInput]:
    made = []
    for name, values in (("a", a), ("b", b)):
        tensor = triton.InferInput(name, [len(values)], "INT64")
        tensor.set_data_from_numpy(np.array(values, np.int64))
        made.append(tensor)
    return made


def test_triton_client_sees_a_server_and_its_models(
    client: triton.InferenceServerClient, consumer: Account, model: str
) -> None:
    headers = dict(consumer.metadata)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata().name == "mercat"
    assert client.is_model_ready(model, headers=headers)
    metadata = client.get_model_metadata(model, headers=headers)
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
        ("a", "INT64", [-1]),
        ("b", "INT64", [-1]),
    ]
    config = client.get_model_config(model, headers=headers).config
    assert config.max_batch_size == 16
    calls = client.get_inference_statistics(model, headers=headers).model_stats[0].inference_stats.success.count
    client.infer(model, inputs([1], [2]), headers=headers)
    again = client.get_inference_statistics(model, headers=headers).model_stats[0]
    assert again.inference_stats.success.count == calls + 1
    assert again.inference_stats.success.ns > 0


def test_triton_client_infers(client: triton.InferenceServerClient, consumer: Account, model: str) -> None:
    before = settled(consumer)
    headers = dict(consumer.metadata)
    result = client.infer(model, inputs([1, 2], [3, 4]), model_version="1.0.0", request_id="mine", headers=headers)
    assert result.as_numpy("sum").tolist() == [4, 6]
    assert result.get_response().id == "mine"
    assert result.get_response().parameters["mercat_cost_nanos"].int64_param == PRICE
    wanted = [triton.InferRequestedOutput("sum")]
    assert client.infer(model, inputs([5], [6]), outputs=wanted, headers=headers).as_numpy("sum").tolist() == [11]
    assert settled(consumer) == before - 2 * PRICE
    with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
        client.infer(model, inputs([1], [2]))
    with pytest.raises(InferenceServerException, match="not supported"):
        client.infer(
            model, inputs([1], [2]), outputs=[triton.InferRequestedOutput("sum", class_count=2)], headers=headers
        )


def test_triton_client_streams(client: triton.InferenceServerClient, consumer: Account, model: str) -> None:
    """Each message is a call of its own: answers in order, an error in its place, one charge each."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=dict(consumer.metadata))
    for n in range(20):
        client.async_stream_infer(model if n != 7 else "nobody/nothing", inputs([n], [1]), request_id=str(n))
    got = [answers.get(timeout=10) for _ in range(20)]
    client.stop_stream()
    for n, (result, error) in enumerate(got):
        if n == 7:
            assert "MODEL_NOT_FOUND" in str(error)
        else:
            assert error is None
            assert result.as_numpy("sum").tolist() == [n + 1]
            assert result.get_response().id == str(n)


def test_bytes_that_are_no_request_are_refused_in_their_place(
    platform: Platform, consumer: Account, model: str
) -> None:
    stream = platform.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )
    good = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[bytes(8), bytes(8)])
    for name in ("a", "b"):
        good.inputs.add(name=name, datatype="INT64", shape=[1])
    first, second = stream(iter([b"\xff\xff", good.SerializeToString()]), metadata=consumer.metadata, timeout=10)
    assert "MALFORMED" in first.error_message
    assert not second.error_message


def test_a_stream_without_a_key_is_refused(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    _, error = answers.get(timeout=10)
    assert "API key" in str(error)
    client.stop_stream()
