"""Receipts of real calls: who gets them, and what they say."""

import hashlib
import json
import time
import urllib.request

import grpc
import jwt
import pytest
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2

from services.common.errors import from_rpc_error
from services.common.receipts import TYPE, recomputed, verify
from tests import graphs
from tests.platform import USD, Account, Platform

PRICE = 2_000_000  # nanos a call


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def model(platform: Platform, publisher: Account) -> str:
    return platform.publish(publisher, graphs.tiny(), batch=64, price={"requests": PRICE * 1_000_000})


def call(person: Account, model: str) -> str:
    """Calls once; answers the request id, when it is recorded."""
    request = inference_pb2.PredictRequest(model=model)
    request.inputs.append(inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16)))
    request_id = str(person.inference.Predict(request).request_id)
    deadline = time.monotonic() + 10
    while refusal(person, request_id) and time.monotonic() < deadline:
        time.sleep(0.05)
    return request_id


def get(person: Account, request_id: str) -> billing_pb2.Receipt:
    return person.receipts.GetReceipt(billing_pb2.GetReceiptRequest(request_id=request_id)).receipt


def refusal(person: Account, request_id: str) -> str:
    try:
        get(person, request_id)
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    return ""


def test_a_receipt_says_what_ran_and_what_it_cost(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    request_id = call(person, model)
    receipt = get(person, request_id)
    assert (receipt.request_id, receipt.model, receipt.version) == (request_id, model, "1.0.0")
    assert receipt.model_digest == "sha256:" + hashlib.sha256(graphs.tiny()).hexdigest()
    assert dict(receipt.units) == {"requests": 1, "rows": 1, "input_bytes": 16}
    assert receipt.cost_nanos == recomputed(receipt) == PRICE
    keys = platform.anonymous.receipts.GetReceiptKeys(billing_pb2.GetReceiptKeysRequest()).keys
    assert verify(receipt.signed, keys) == receipt


def test_it_says_what_was_corrected(platform: Platform, model: str) -> None:
    person, admin = platform.sign_up(credit=USD), platform.admin()
    request_id = call(person, model)
    correct = ("ledger", "correct", request_id, "--void", "--reason", "the answer was cut")
    done = platform.command(*correct, MERCAT_API_KEY=admin.api_key)
    assert done.returncode == 0, done.stderr
    assert "-0.002 USD: -16 input bytes, -1 requests, -1 rows" in done.stdout
    deadline = time.monotonic() + 10
    while not get(person, request_id).corrections and time.monotonic() < deadline:
        time.sleep(0.05)
    receipt = get(person, request_id)
    assert [(c.cost_nanos, c.reason) for c in receipt.corrections] == [(-PRICE, "the answer was cut")]
    assert receipt.cost_nanos == recomputed(receipt) == PRICE, "what was first recorded stays"
    assert verify(receipt.signed, platform.anonymous.receipts.GetReceiptKeys(billing_pb2.GetReceiptKeysRequest()).keys)
    for command in (("usage", request_id), ("receipts", "get", request_id)):
        assert "the answer was cut" in platform.command(*command, MERCAT_API_KEY=person.api_key).stdout
    assert person.balance() == USD


def test_it_names_the_price_that_was_in_force(platform: Platform, publisher: Account) -> None:
    model = platform.publish(publisher, graphs.tiny(), batch=64, price={"requests": PRICE * 1_000_000})
    person = platform.sign_up(credit=USD)
    before = call(person, model)
    dearer = billing_pb2.PriceComponent(meter="requests", nanos_per_million=9 * PRICE * 1_000_000)
    publisher.billing.SetModelPrice(billing_pb2.SetModelPriceRequest(model=model, components=[dearer]))
    publisher.registry.DeprecateVersion(registry_pb2.DeprecateVersionRequest(model=model, version="1.0.0"))
    receipt = get(person, before)
    assert receipt.cost_nanos == recomputed(receipt) == PRICE


def test_a_free_call_and_a_test_call_have_receipts(platform: Platform, publisher: Account, model: str) -> None:
    free = platform.publish(publisher, graphs.tiny(), batch=64)
    person = platform.sign_up()
    receipt = get(person, call(person, free))
    assert (receipt.cost_nanos, receipt.HasField("price"), recomputed(receipt)) == (0, False, 0)
    secret = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="test", test=True)).secret
    tester = Account(platform, secret)
    receipt = get(tester, call(tester, model))
    assert (receipt.test, receipt.cost_nanos, recomputed(receipt)) == (True, 0, 0)


def test_only_who_called_gets_it(platform: Platform, publisher: Account, model: str) -> None:
    person = platform.sign_up(credit=USD)
    request_id = call(person, model)
    for other in (platform.sign_up(), publisher, platform.admin()):
        assert refusal(other, request_id) == "USAGE_RECORD_NOT_FOUND"
    for nothing in ("req_x", "nothing", "req_" + "0" * 26):
        assert refusal(person, nothing) == "USAGE_RECORD_NOT_FOUND"


def test_rest_and_any_jose_library(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    request_id = call(person, model)
    asked = urllib.request.Request(
        f"{platform.rest}/v1/usage/{request_id}/receipt", headers={"authorization": f"Bearer {person.api_key}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        receipt = json.load(answer)
    keys = jwt.PyJWKClient(f"{platform.rest}/v1/receipts/jwks").get_signing_key_from_jwt(receipt["signed"])
    claims = jwt.decode_complete(receipt["signed"], keys, algorithms=["EdDSA"])
    assert claims["header"]["typ"] == TYPE
    assert claims["payload"]["receipt"]["costNanos"] == receipt["costNanos"] == str(PRICE)
