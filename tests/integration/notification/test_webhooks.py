"""Webhooks on real servers: what happens on the platform comes to somebody's endpoint, which fails, is slow, comes
back."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import asyncpg
import jsonschema
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from mercat.auth.v1 import audit_pb2, auth_pb2
from mercat.billing.v1 import budgets_pb2
from mercat.inference.v1 import inference_pb2
from mercat.notification.v1 import webhooks_pb2 as w
from standardwebhooks import WebhookVerificationError

from services.common import clock
from tests import graphs
from tests.expect import fails, until
from tests.platform import Account, Platform
from tests.webhook_receiver import SETTINGS, Receiver

PENDING, SUCCEEDED, FAILED = (
    w.WEBHOOK_DELIVERY_STATE_PENDING, w.WEBHOOK_DELIVERY_STATE_SUCCEEDED, w.WEBHOOK_DELIVERY_STATE_FAILED,
)  # fmt: skip


def endpoint(person: Account, url: str, *types: str) -> tuple[w.WebhookEndpoint, str]:
    made = person.webhooks.CreateWebhookEndpoint(w.CreateWebhookEndpointRequest(url=url, event_types=types))
    return made.endpoint, made.secret


def happen(person: Account, name: str = "another") -> str:
    """Something that is told as `api_key.created`; the key's id."""
    made: str = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name=name)).api_key.key_id
    return made


def send(person: Account, where: w.WebhookEndpoint) -> w.WebhookDelivery:
    request = w.SendTestEventRequest(endpoint_id=where.endpoint_id)
    return person.webhooks.SendTestEvent(request).delivery  # type: ignore[no-any-return]


def deliveries(person: Account, where: w.WebhookEndpoint, state: int = 0) -> list[w.WebhookDelivery]:
    request = w.ListWebhookDeliveriesRequest(endpoint_id=where.endpoint_id, state=state)  # type: ignore[arg-type]
    return list(person.webhooks.ListWebhookDeliveries(request).deliveries)


def delivery(person: Account, delivery_id: str) -> w.WebhookDelivery:
    request = w.GetWebhookDeliveryRequest(delivery_id=delivery_id)
    return person.webhooks.GetWebhookDelivery(request).delivery  # type: ignore[no-any-return]


def now(person: Account, where: w.WebhookEndpoint) -> w.WebhookEndpoint:
    request = w.GetWebhookEndpointRequest(endpoint_id=where.endpoint_id)
    return person.webhooks.GetWebhookEndpoint(request).endpoint  # type: ignore[no-any-return]


def test_what_happens_comes_signed(platform: Platform, person: Account, there: Receiver) -> None:
    made, secret = endpoint(person, there.url("/keys"), "api_key.created")
    endpoint(person, there.url("/payments"), "payment.succeeded")
    key_id = happen(person)
    [came] = there.wait("/keys")
    said = came.verified(secret)
    assert said["type"] == "api_key.created"
    assert said["data"]["keyId"] == key_id
    assert came.id.startswith("evt_")
    with pytest.raises(WebhookVerificationError):
        came.verified("whsec_" + "A" * 43 + "=")
    until(lambda: [d.state for d in deliveries(person, made)] == [SUCCEEDED])
    logged = delivery(person, deliveries(person, made)[0].delivery_id)
    assert (logged.event_id, logged.body.encode()) == (came.id, came.body)
    assert [(a.status_code, a.response, a.error) for a in logged.attempts] == [(200, "heard", "")]
    assert not there.at("/payments")


def test_a_job_tells_when_it_has_ended(platform: Platform, person: Account, there: Receiver) -> None:
    _, secret = endpoint(person, there.url("/jobs"), "inference.job.completed")
    vendor = platform.publisher()
    _, theirs = endpoint(vendor, there.url("/models"), "model.published")
    model = platform.publish(vendor, graphs.tiny())
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    request = inference_pb2.CreateJobRequest(predict=inference_pb2.PredictRequest(model=model, inputs=[x]))
    job = person.jobs.CreateJob(request).job
    [came] = there.wait("/jobs")
    assert came.verified(secret)["data"]["jobId"] == job.job_id
    [published] = there.wait("/models")
    assert published.verified(theirs)["data"] | {"versionId": ""} == {
        "versionId": "", "model": model, "version": "1.0.0"
    }  # fmt: skip


def test_a_budget_tells_of_each_part_that_is_spent(platform: Platform, person: Account, there: Receiver) -> None:
    _, secret = endpoint(person, there.url("/budgets"), "budget.threshold_reached")
    model = platform.publish(platform.publisher(), graphs.tiny(), price={"requests": 10**12})  # 1,000,000 nanos each
    person.budgets.SetBudget(
        budgets_pb2.SetBudgetRequest(name="all", period=2, limit_nanos=4_000_000, thresholds=[50, 100])  # type: ignore[arg-type]
    )
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))

    def told(calls: int, count: int) -> list[tuple[int, str]]:
        for _ in range(calls):
            person.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[x]))
        said = [one.verified(secret)["data"] for one in there.wait("/budgets", count)]
        assert len(said) == count
        return [(one["percent"], one["spentNanos"]) for one in said]

    assert told(2, 1) == [(50, "2000000")]
    assert sorted(told(2, 2)) == [(50, "2000000"), (100, "4000000")]  # the half is not told again


def test_every_type_has_an_example_of_its_schema(person: Account) -> None:
    types = person.webhooks.ListEventTypes(w.ListEventTypesRequest(page_size=1000)).event_types
    assert len(types) > 20
    for one in types:
        example = json.loads(json.dumps(MessageToDict(one.example)))
        assert example["type"] == one.name
        jsonschema.validate(_whole(example["data"]), _whole(MessageToDict(one.schema)))
    first = person.webhooks.ListEventTypes(w.ListEventTypesRequest(page_size=5))
    second = person.webhooks.ListEventTypes(w.ListEventTypesRequest(page_size=1000, page_token=first.next_page_token))
    assert [t.name for t in (*first.event_types, *second.event_types)] == [t.name for t in types]


def _whole(value: Any) -> Any:
    """A Struct knows fractions alone."""
    if isinstance(value, dict):
        return {name: _whole(of) for name, of in value.items()}
    if isinstance(value, list):
        return [_whole(of) for of in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def test_both_secrets_sign_while_they_overlap(person: Account, there: Receiver) -> None:
    made, old = endpoint(person, there.url())
    rotate = w.RotateWebhookSecretRequest(endpoint_id=made.endpoint_id)
    rotated = person.webhooks.RotateWebhookSecret(rotate)
    assert rotated.secret != old
    assert rotated.endpoint.previous_secret_until.seconds - time.time() > 23 * 3600
    send(person, made)
    [came] = there.wait("/")
    assert came.verified(old) == came.verified(rotated.secret)
    assert len(came.headers["webhook-signature"].split(" ")) == 2
    assert fails(person.webhooks.RotateWebhookSecret, rotate).reason == "WEBHOOK_SECRET_OVERLAPS"
    rotate.overlap.CopyFrom(Duration())
    last = person.webhooks.RotateWebhookSecret(rotate)
    send(person, made)
    came = there.wait("/", 2)[1]
    assert came.verified(last.secret)["test"] is True
    for ended in (old, rotated.secret):
        with pytest.raises(WebhookVerificationError):
            came.verified(ended)
    rotate.overlap.seconds = 31 * 86_400
    assert fails(person.webhooks.RotateWebhookSecret, rotate).reason == "INVALID_FIELDS"


def test_what_fails_is_tried_again_under_the_same_id(platform: Platform, person: Account, there: Receiver) -> None:
    made, secret = endpoint(person, there.url("/down"), "api_key.created")
    there.answers["/down"] = 503
    happen(person)
    [first] = there.wait("/down")
    until(lambda: deliveries(person, made)[0].status_code == 503)
    waits = deliveries(person, made)[0]
    assert (waits.state, waits.error) == (PENDING, "answered 503")
    second = there.wait("/down", 2)[1]  # by itself, after five seconds
    assert second.id == first.id
    until(lambda: deliveries(person, made)[0].attempt_count == 2)
    there.answers.clear()
    clock.move(timedelta(minutes=6), platform.home)
    third = there.wait("/down", 3)[2]
    assert third.id == first.id
    assert third.verified(secret)["type"] == "api_key.created"  # dated by the machine's clock
    until(lambda: deliveries(person, made)[0].state == SUCCEEDED)
    attempts = delivery(person, deliveries(person, made)[0].delivery_id).attempts
    assert [(a.number, a.status_code) for a in attempts] == [(1, 503), (2, 503), (3, 200)]
    assert not now(person, made).HasField("failing_since")


def test_a_slow_endpoint_holds_up_itself_alone(person: Account, there: Receiver) -> None:
    slow, _ = endpoint(person, there.url("/slow"), "api_key.created")
    endpoint(person, there.url("/quick"), "api_key.created")
    there.slow["/slow"] = 5
    began = time.monotonic()
    for number in range(8):
        happen(person, f"k{number}")
    there.wait("/quick", 8, seconds=10)
    took = time.monotonic() - began
    assert len(there.at("/slow")) <= 4 * (1 + took / 1.5)  # four at once, each a second and a half
    until(lambda: any(d.error == "no answer within 1.5 s" for d in deliveries(person, slow)))
    there.slow.clear()


def test_an_endpoint_that_keeps_failing_is_left_alone_and_then_disabled(
    platform: Platform, person: Account, there: Receiver
) -> None:
    made, _ = endpoint(person, there.url("/dead"), "api_key.created")
    other, _ = endpoint(person, there.url("/told"), "webhook_endpoint.disabled")
    there.answers["/dead"] = 500
    for number in range(6):
        happen(person, f"k{number}")
    until(lambda: now(person, made).HasField("paused_until"))
    reached = len(there.at("/dead"))
    time.sleep(1.5)
    assert len(there.at("/dead")) <= reached + 1
    clock.move(timedelta(minutes=11), platform.home)  # one is tried, and it fails
    there.wait("/dead", reached + 1)
    assert now(person, made).enabled
    clock.move(timedelta(days=5, minutes=1), platform.home)
    happen(person)
    until(lambda: not now(person, made).enabled)
    assert now(person, made).disabled_reason == "failing"
    [told] = there.wait("/told")
    assert json.loads(told.body)["data"]["endpointId"] == made.endpoint_id
    until(lambda: made.url in platform.command("mail", person.email, "-n", "5").stdout)
    assert other.enabled
    count = len(deliveries(person, made))
    happen(person)
    until(lambda: bool(there.at("/told")))
    assert len(deliveries(person, made)) == count  # who is disabled hears of nothing
    again = w.RedeliverFailedRequest(endpoint_id=made.endpoint_id)
    assert fails(person.webhooks.RedeliverFailed, again).reason == "WEBHOOK_ENDPOINT_DISABLED"


def test_what_failed_for_good_is_sent_again_when_asked(platform: Platform, person: Account, there: Receiver) -> None:
    made, secret = endpoint(person, there.url("/x"))
    there.answers["/x"] = 400
    told = [send(person, made).delivery_id for _ in range(2)]
    until(lambda: all(delivery(person, d).state == FAILED for d in told))
    there.answers.clear()
    since = w.RedeliverFailedRequest(endpoint_id=made.endpoint_id)
    assert person.webhooks.RedeliverFailed(since).deliveries == 2
    until(lambda: all(delivery(person, d).state == SUCCEEDED for d in told))
    again = person.webhooks.RedeliverWebhook(w.RedeliverWebhookRequest(delivery_id=told[0])).delivery
    assert again.state == PENDING
    came = there.wait("/x", 5)
    until(lambda: delivery(person, told[0]).attempt_count == 3)
    assert {one.id for one in came} == {delivery(person, d).event_id for d in told}
    assert came[-1].verified(secret)["test"] is True


def test_who_is_gone_is_asked_no_more(person: Account, there: Receiver) -> None:
    made, _ = endpoint(person, there.url("/gone"))
    there.answers["/gone"] = 410
    send(person, made)
    until(lambda: not now(person, made).enabled)
    assert now(person, made).disabled_reason == "gone"
    there.answers.clear()
    enable = w.UpdateWebhookEndpointRequest(endpoint_id=made.endpoint_id, enabled=True)
    assert person.webhooks.UpdateWebhookEndpoint(enable).endpoint.enabled
    send(person, made)
    there.wait("/gone", 2)


async def test_an_endpoint_is_deleted_while_something_is_told(
    platform: Platform, person: Account, there: Receiver
) -> None:
    where, _ = endpoint(person, there.url("/"))
    waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
    deleting = await asyncpg.connect(platform.postgres_url())
    try:
        async with deleting.transaction():
            await deleting.execute("DELETE FROM notification.webhook_endpoints WHERE id = $1", where.endpoint_id)
            sent = asyncio.create_task(asyncio.to_thread(fails, send, person, where))
            await asyncio.to_thread(until, lambda: platform.value(waits))
    finally:
        await deleting.close()
    assert (await sent).reason == "WEBHOOK_ENDPOINT_NOT_FOUND"
    assert not there.received


def test_endpoints_are_changed_by_who_saw_them_last(person: Account, there: Receiver) -> None:
    made, _ = endpoint(person, there.url("/a"), "api_key.created")
    change = w.UpdateWebhookEndpointRequest(endpoint_id=made.endpoint_id, description="x", etag=made.etag)
    changed = person.webhooks.UpdateWebhookEndpoint(change).endpoint
    assert (changed.description, changed.url, list(changed.event_types)) == ("x", made.url, ["api_key.created"])
    assert fails(person.webhooks.UpdateWebhookEndpoint, change).reason == "ETAG_MISMATCH"
    all_ = w.UpdateWebhookEndpointRequest(endpoint_id=made.endpoint_id, all_event_types=True, enabled=False)
    changed = person.webhooks.UpdateWebhookEndpoint(all_).endpoint
    assert (list(changed.event_types), changed.disabled_reason) == ([], "by_hand")
    test = w.SendTestEventRequest(endpoint_id=made.endpoint_id)
    assert fails(person.webhooks.SendTestEvent, test).reason == "WEBHOOK_ENDPOINT_DISABLED"
    listed = person.webhooks.ListWebhookEndpoints(w.ListWebhookEndpointsRequest()).endpoints
    assert [e.endpoint_id for e in listed] == [made.endpoint_id]
    person.webhooks.DeleteWebhookEndpoint(w.DeleteWebhookEndpointRequest(endpoint_id=made.endpoint_id))
    gone = w.GetWebhookEndpointRequest(endpoint_id=made.endpoint_id)
    assert fails(person.webhooks.GetWebhookEndpoint, gone).reason == "WEBHOOK_ENDPOINT_NOT_FOUND"


def test_who_may_not_see_payments_hears_of_none(platform: Platform, there: Receiver) -> None:
    owner = platform.organisation(platform.sign_up())
    developer = platform.join(owner, platform.sign_up(), "developer")
    url = there.url()
    every = w.CreateWebhookEndpointRequest(url=url)
    assert fails(developer.webhooks.CreateWebhookEndpoint, every).reason == "SCOPE_MISSING"
    payments = w.CreateWebhookEndpointRequest(url=url, event_types=["payment.succeeded"])
    assert fails(developer.webhooks.CreateWebhookEndpoint, payments).reason == "SCOPE_MISSING"
    theirs, _ = endpoint(owner, url)
    elsewhere = w.UpdateWebhookEndpointRequest(endpoint_id=theirs.endpoint_id, url=there.url("/elsewhere"))
    assert fails(developer.webhooks.UpdateWebhookEndpoint, elsewhere).reason == "SCOPE_MISSING"
    request = w.SendTestEventRequest(endpoint_id=theirs.endpoint_id, event_type="payment.succeeded")
    sent = owner.webhooks.SendTestEvent(request).delivery
    look = w.GetWebhookDeliveryRequest(delivery_id=sent.delivery_id)
    assert fails(developer.webhooks.GetWebhookDelivery, look).reason == "SCOPE_MISSING"
    assert '"payment.succeeded"' in owner.webhooks.GetWebhookDelivery(look).delivery.body
    unknown = w.CreateWebhookEndpointRequest(url=url, event_types=["nothing.happened"])
    assert fails(owner.webhooks.CreateWebhookEndpoint, unknown).violations[0].field == "event_types"


def test_events_are_told_to_who_listens(person: Account) -> None:
    heard = person.webhooks.StreamEvents(w.StreamEventsRequest(event_types=["api_key.created"]), timeout=60)
    assert not next(heard).HasField("event")
    key_id = happen(person)
    event = next(heard).event
    assert (event.event_type, json.loads(event.body)["data"]["keyId"]) == ("api_key.created", key_id)
    heard.cancel()


def test_secrets_lie_under_keys_of_their_organisation(platform: Platform, person: Account, there: Receiver) -> None:
    """The installation's key is replaced and gone, and they sign as before; the organisation's is gone, and nothing
    does."""
    made, secret = endpoint(person, there.url())
    stored = platform.value(f"SELECT sealed_secret FROM notification.webhook_endpoints WHERE id = '{made.endpoint_id}'")
    assert base64.b64decode(secret.removeprefix("whsec_")) not in stored
    for command in ("rotate", "retire"):
        done = platform.command("secrets", command)
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Removed: ")
    send(person, made)
    assert there.wait("/")[0].verified(secret)
    assert platform.command("secrets", "shred", person.profile.org_id, "--yes").stdout.startswith("1 keys")
    sent = send(person, made).delivery_id
    until(lambda: delivery(person, sent).state == FAILED)
    assert "cannot be read any more" in delivery(person, sent).error
    rotate = w.RotateWebhookSecretRequest(endpoint_id=made.endpoint_id, overlap=Duration())
    fresh = person.webhooks.RotateWebhookSecret(rotate).secret
    send(person, made)
    assert there.wait("/", 2)[1].verified(fresh)


def test_changes_of_endpoints_are_audited_without_secrets(person: Account, there: Receiver) -> None:
    made, secret = endpoint(person, there.url())
    rotated = person.webhooks.RotateWebhookSecret(w.RotateWebhookSecretRequest(endpoint_id=made.endpoint_id)).secret
    person.webhooks.DeleteWebhookEndpoint(w.DeleteWebhookEndpointRequest(endpoint_id=made.endpoint_id))
    wanted = {"CreateWebhookEndpoint", "RotateWebhookSecret", "DeleteWebhookEndpoint"}
    request = audit_pb2.ListAuditEntriesRequest(filter=audit_pb2.AuditFilter(resource_id=made.endpoint_id))
    until(lambda: len(person.audit.ListAuditEntries(request).entries) == len(wanted))
    entries = person.audit.ListAuditEntries(request).entries
    assert {one.action.rpartition("/")[2] for one in entries} == wanted
    assert not any(text in str(entries) for text in (secret, rotated))


def test_death_between_claim_and_result_loses_nothing(own_platform: Callable[..., Platform], there: Receiver) -> None:
    """Once before it is sent, once after; each time it comes again under its id."""
    platform = own_platform(env=SETTINGS | {"MERCAT_FAILPOINTS": "webhook.claimed=1,webhook.sent=2"})
    person = platform.session(platform.sign_up())
    made, secret = endpoint(person, there.url(), "api_key.created")
    control = platform.pids()["control"]
    for name in ("claimed", "sent"):
        happen(person, name)
        until(lambda: (platform.home / "run" / f"failpoint.webhook.{name}").exists(), 60)  # noqa: B023
        platform.until_ready("control", control)
        control = platform.pids()["control"]
    until(lambda: [d.state for d in deliveries(person, made)] == [SUCCEEDED] * 2, 90)
    ids = {d.event_id for d in deliveries(person, made)}
    assert {one.id for one in there.received} == ids
    assert len(there.received) >= 3  # one of them was sent, and its result lost
    assert all(one.verified(secret) for one in there.received)
