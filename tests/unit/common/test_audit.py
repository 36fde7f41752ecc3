"""What is kept of requests in the audit log."""

from datetime import UTC, datetime

from google.api import httpbody_pb2
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2
from mercat.event.v1 import event_pb2
from mercat.inference.v1 import inference_pb2
from mercat.storage.v1 import storage_pb2
from mercat.usage.v1 import usage_pb2

from services.common.audit import SECRET, shown


def test_secrets_are_left_out() -> None:
    said = shown(auth_pb2.SignInRequest(email="ada@example.com", password="correct horse"))
    assert said == {"email": "ada@example.com", "password": SECRET}
    assert shown(auth_pb2.RefreshSessionRequest(refresh_token="mr_x")) == {"refresh_token": SECRET}


def test_numbers_are_text_and_names_are_said() -> None:
    request = auth_pb2.SetAccountLimitRequest(handle="ada", tier=auth_pb2.TIER_FREE)
    request.limit.daily.hard = 2**53 + 1
    assert shown(request) == {"handle": "ada", "tier": "TIER_FREE", "limit": {"daily": {"hard": str(2**53 + 1)}}}
    price = billing_pb2.SetModelPriceRequest(model="a/b")
    price.components.add(meter="requests", nanos_per_million=5)
    price.effective_at.FromDatetime(datetime(2030, 1, 1, tzinfo=UTC))
    assert shown(price) == {
        "model": "a/b", "components": [{"meter": "requests", "nanos_per_million": "5"}],
        "effective_at": "2030-01-01T00:00:00Z",
    }  # fmt: skip
    assert shown(auth_pb2.CreateApiKeyRequest(name="k", test=True)) == {"name": "k", "test": True}
    assert shown(usage_pb2.UsageRecord(units={"rows": 3})) == {"units": {"rows": "3"}}


def test_bytes_are_counted_and_large_requests_too() -> None:
    chunk = storage_pb2.WriteUploadRequest(chunk=httpbody_pb2.HttpBody(data=b"\x00\xff"))
    assert shown(chunk) == {"chunk": {"data": "AP8="}} or "chunk" in shown(chunk)
    assert shown(inference_pb2.Tensor(raw=bytes(9))) == {"raw": "9 bytes"}
    assert shown(auth_pb2.CreateApiKeyRequest(name="x" * 20_000)).keys() == {"omitted_characters"}


def test_text_that_a_database_refuses_is_replaced() -> None:
    tags = usage_pb2.UsageRecord(tags={"a\0b": "c\0"})
    assert shown(tags) == {"tags": {"a\N{REPLACEMENT CHARACTER}b": "c\N{REPLACEMENT CHARACTER}"}}


def test_structures_hold_no_numbers() -> None:
    event = event_pb2.AuditRecorded(action="x")
    event.metadata.update({"a": 1.5, "b": [True, None, {"c": 2}]})
    assert shown(event)["metadata"] == {"a": "1.5", "b": [True, None, {"c": "2.0"}]}
