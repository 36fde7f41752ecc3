"""The pure parts of webhooks: signatures, the schedule, the catalogue."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from mercat.event.v1 import event_pb2 as e
from mercat.inference.v1 import inference_pb2
from standardwebhooks import Webhook, WebhookVerificationError

from services.auth.scopes import BY_MEMBER_ROLE
from services.notification.webhooks import schedule, signing
from services.notification.webhooks.catalogue import TYPES, types_of

NOW = datetime(2027, 1, 1, tzinfo=UTC)


@given(st.dictionaries(st.text(), st.text()), st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3))
def test_the_library_of_others_finds_each_signature_genuine(said: dict[str, str], secrets: list[bytes]) -> None:
    body = json.dumps(said, ensure_ascii=True).encode()
    headers = signing.headers("evt_1", int(datetime.now(UTC).timestamp()), body, secrets)
    for secret in secrets:
        assert signing.read(signing.shown(secret)) == secret
        assert Webhook(signing.shown(secret)).verify(body, headers) == said
        for changed in ({"webhook-id": "evt_2"}, {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}):
            with pytest.raises(WebhookVerificationError):
                Webhook(signing.shown(secret)).verify(body, headers | changed)


def test_the_vector_of_the_specification() -> None:
    secret = signing.read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signing.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_short", "whsec_????", "whsec_" + "A" * 100])
def test_what_is_no_secret(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several parsers
        signing.read(text)


@given(st.floats(0, 1))
def test_ten_attempts_in_about_three_days(chance: float) -> None:
    at, tries = NOW, 1
    while (following := schedule.next_attempt(tries, at, lambda: chance)) is not None:
        assert following > at
        at, tries = following, tries + 1
    assert tries == 10
    assert timedelta(days=3) < at - NOW <= schedule.LONGEST < timedelta(days=4)


@given(st.integers(0, 10_000))
def test_pauses_grow_and_end(failures: int) -> None:
    until = schedule.pause(failures, NOW)
    assert (until is None) == (failures < schedule.FAILURES)
    if until is not None:
        assert NOW < until <= NOW + timedelta(minutes=10)
        following = schedule.pause(failures + 1, NOW)
        assert following is not None
        assert following >= until


def test_examples_are_of_their_type_alone_where_the_event_tells() -> None:
    for kind in TYPES.values():
        if kind.source is not e.AuditRecorded:
            assert types_of(kind.example) == [kind]
        said = json.loads(kind.body(kind.example, NOW))
        assert list(said) == ["type", "timestamp", "data"]
        assert said["data"].keys() == kind.schema()["properties"].keys()
        assert kind.scope in BY_MEMBER_ROLE["owner"]


@pytest.mark.parametrize(
    ("state", "name"),
    [("SUCCEEDED", "completed"), ("FAILED", "failed"), ("EXPIRED", "failed"), ("CANCELLED", "cancelled")],
)  # fmt: skip
def test_how_a_job_ended(state: str, name: str) -> None:
    event = e.JobFinished(
        job_id="job_1", org_id="org_1", user_id="usr_1", cost_nanos=2**60,
        state=inference_pb2.JobState.Value(f"JOB_STATE_{state}"),
    )  # fmt: skip
    [kind] = types_of(event)
    data = json.loads(kind.body(event, NOW))["data"]
    assert kind.name == f"inference.job.{name}"
    assert (data["state"], data["costNanos"], data["endTime"]) == (f"JOB_STATE_{state}", str(2**60), None)
    assert "userId" not in data


def test_of_the_audit_log_only_what_was_done_to_keys() -> None:
    done = e.AuditRecorded(action="/mercat.auth.v1.ApiKeyService/RevokeLeakedKey", resource_id="key_1", org_id="org_1")
    done.created_at.CopyFrom(Timestamp(seconds=1_800_000_000))
    [kind] = types_of(done)
    assert kind.name == "api_key.leaked"
    assert json.loads(kind.body(done, NOW))["data"] == {
        "keyId": "key_1", "userId": "", "ipAddress": "", "time": "2027-01-15T08:00:00Z",
    }  # fmt: skip
    denied = Struct()
    denied.update({"denied": "SCOPE_MISSING"})
    done.metadata.CopyFrom(denied)
    assert types_of(done) == []
    assert types_of(e.AuditRecorded(action="/mercat.auth.v1.AuthService/SignIn")) == []
    assert types_of(e.UsageStored()) == []
