"""Payments with Stripe: a stateful server of it on one side, the whole platform on the other."""

import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex
from typing import Any

import grpc
import httpx
import pytest
from mercat.billing.v1 import payments_pb2

from services.common.errors import from_rpc_error
from tests.expect import until
from tests.integration.payments.cards import attach, settled
from tests.integration.payments.conftest import Shop, settings
from tests.platform import USD, Account, Platform
from tests.sizes import Size
from tests.stripe_server import SECRET, Stripe, serving

Payment, Refund = payments_pb2.Payment, payments_pb2.Refund


def pay(person: Account, nanos: int) -> payments_pb2.Payment:
    made = person.payments.CreatePayment(payments_pb2.CreatePaymentRequest(amount_nanos=nanos)).payment
    return settled(person, made.payment_id)


def every(stripe: Stripe, path: str) -> list[Any]:
    """All pages of a list."""
    found: list[Any] = []
    while True:
        page = stripe.get(path, limit=100, **({"starting_after": found[-1]["id"]} if found else {}))
        found += page["data"]
        if not page["has_more"]:
            return found


def intent_of(stripe: Stripe, payment: payments_pb2.Payment) -> Any:
    """The only one of this payment."""
    (found,) = [
        pi for pi in every(stripe, "/v1/payment_intents")
        if pi["metadata"].get("payment_id") == payment.payment_id
    ]  # fmt: skip
    return found


def test_a_card_is_charged_once_and_the_books_agree(shop: Shop) -> None:
    person = shop.platform.sign_up()
    attach(person)
    paid = pay(person, 25 * USD)
    assert (paid.status, paid.provider) == (Payment.STATUS_SUCCEEDED, "stripe")
    assert person.balance() == 25 * USD
    intent = intent_of(shop.stripe, paid)
    assert (intent["amount"], intent["currency"], intent["status"]) == (2500, "usd", "succeeded")
    checked = shop.platform.admin().check_ledger()
    assert checked.clean, checked.discrepancies
    assert checked.balances_nanos["stripe_clearing"] <= -25 * USD


def test_a_refused_payment_can_never_succeed_later(shop: Shop) -> None:
    person = shop.platform.sign_up()
    attach(person, "pm_card_chargeCustomerFail")
    paid = pay(person, 25 * USD)
    assert (paid.status, paid.failure_code) == (Payment.STATUS_FAILED, "card_declined")
    assert intent_of(shop.stripe, paid)["status"] == "canceled"
    assert person.balance() == 0


def test_its_owner_proves_who_they_are_and_a_webhook_tells(shop: Shop) -> None:
    person = shop.platform.sign_up()
    attach(person, shop.stripe.card("4000002500003155"))
    paid = pay(person, 5 * USD)
    assert paid.status == Payment.STATUS_REQUIRES_ACTION
    shop.stripe.authenticate(intent_of(shop.stripe, paid)["id"], paid.client_secret)
    until(lambda: person.balance() == 5 * USD)  # sooner than the minute after which Mercat asks by itself
    got = person.payments.GetPayment(payments_pb2.GetPaymentRequest(payment_id=paid.payment_id)).payment
    assert (got.status, got.client_secret) == (Payment.STATUS_SUCCEEDED, "")


def test_a_card_that_stripe_refuses_is_not_kept(shop: Shop) -> None:
    person = shop.platform.sign_up()
    with pytest.raises(grpc.RpcError) as caught:
        attach(person, "pm_card_visa_chargeDeclined")
    error = from_rpc_error(caught.value)
    assert (error.reason, error.metadata["code"]) == ("CARD_REFUSED", "card_declined")


def test_a_set_up_card_is_nobody_elses(shop: Shop) -> None:
    owner, other = shop.platform.sign_up(), shop.platform.sign_up()
    setup = owner.payments.CreateSetupIntent(payments_pb2.CreateSetupIntentRequest())
    assert setup.client_secret.startswith(setup.setup_intent_id)
    card = shop.stripe.card("4242424242424242")
    attach(owner, card)
    with pytest.raises(grpc.RpcError) as caught:
        attach(other, card)
    assert from_rpc_error(caught.value).reason == "CARD_REFUSED"


def told(shop: Shop, kind: str, about: Any) -> None:
    """An event that localstripe does not send."""
    event = {"id": f"evt_{token_hex(8)}", "type": kind, "created": int(time.time()), "data": {"object": about}}
    body, headers = signed(event)
    answer = httpx.post(f"{shop.platform.rest}/v1/stripe/webhooks", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {})


def test_a_card_is_kept_although_its_owners_browser_never_came_back(shop: Shop) -> None:
    person = shop.platform.sign_up()
    setup = person.payments.CreateSetupIntent(payments_pb2.CreateSetupIntentRequest())
    confirmed = shop.stripe.post(
        f"/v1/setup_intents/{setup.setup_intent_id}/confirm", payment_method=shop.stripe.card("4242424242424242")
    )
    for _ in range(3):
        told(shop, "setup_intent.succeeded", confirmed)

    def cards() -> list[str]:
        listed = person.payments.ListPaymentMethods(payments_pb2.ListPaymentMethodsRequest())
        return [m.last4 for m in listed.payment_methods]

    until(lambda: cards() == ["4242"])
    assert pay(person, USD).status == Payment.STATUS_SUCCEEDED
    told(shop, "payment_method.detached", {"id": confirmed["payment_method"], "object": "payment_method"})
    until(lambda: cards() == [])


def refund(shop: Shop, payment: payments_pb2.Payment, nanos: int = 0) -> payments_pb2.Refund:
    request = payments_pb2.RefundPaymentRequest(payment_id=payment.payment_id, amount_nanos=nanos)
    return shop.platform.admin().payments.RefundPayment(request).refund


def test_refunds_go_back_to_the_card_until_nothing_is_left(shop: Shop) -> None:
    person = shop.platform.sign_up()
    attach(person)
    paid = pay(person, 25 * USD)
    assert refund(shop, paid, 10 * USD).taken_nanos == 10 * USD
    assert person.balance() == 15 * USD, "at once, so that it cannot be spent meanwhile"
    intent = intent_of(shop.stripe, paid)["id"]

    def refunded() -> list[int]:
        return [r["amount"] for r in shop.stripe.get("/v1/refunds", payment_intent=intent)["data"]]

    until(lambda: refunded() == [1000])
    refund(shop, paid)
    until(lambda: sorted(refunded()) == [1000, 1500])
    with pytest.raises(grpc.RpcError) as caught:
        refund(shop, paid, USD)
    assert from_rpc_error(caught.value).reason == "NOT_REFUNDABLE"
    time.sleep(2)  # for the webhooks of the refunds, which must change nothing
    assert sorted(refunded()) == [1000, 1500]
    assert person.balance() == 0
    assert shop.platform.admin().check_ledger().clean


def events_about(stripe: Stripe, ref: str) -> list[Any]:
    return [e for e in every(stripe, "/v1/events") if e["data"]["object"]["id"] == ref]


def signed(event: Any, *, at: float | None = None, secret: str = SECRET) -> tuple[bytes, dict[str, str]]:
    """An event as Stripe sends it."""
    body, moment = json.dumps(event).encode(), int(time.time() if at is None else at)
    mac = hmac.new(secret.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
    return body, {"content-type": "application/json; charset=utf-8", "stripe-signature": f"t={moment},v1={mac}"}


@pytest.mark.case
def test_events_a_hundred_times_in_any_order_have_one_effect(shop: Shop, size: Size, seed: random.Random) -> None:
    """Case 11: and those beside them that are forged or too old have none."""
    person = shop.platform.sign_up()
    attach(person)
    payments, events = [], []
    for _ in range(max(1, size.calls // 500)):
        payments.append(paid := pay(person, 20 * USD))
        intent = intent_of(shop.stripe, paid)["id"]
        won, lost = shop.stripe.dispute(intent, 800), shop.stripe.dispute(intent, 500)
        shop.stripe.close_dispute(won, "won")
        shop.stripe.close_dispute(lost, "lost")
        events += [e for ref in (won, lost, intent) for e in events_about(shop.stripe, ref)]
    assert len(events) == 5 * len(payments)
    deliveries = [(event, SECRET, 0.0, 200) for event in events * 100]
    for event in seed.choices(events, k=len(deliveries) // 10):
        about = event["data"]["object"]
        false = {**event, "id": f"evt_{token_hex(8)}", "data": {"object": {**about, "id": f"{about['id']}x"}}}
        deliveries += [(false, "whsec_other", 0.0, 400), (false, SECRET, 301.0, 400)]
    seed.shuffle(deliveries)
    url = f"{shop.platform.rest}/v1/stripe/webhooks"
    with httpx.Client(timeout=30) as http, ThreadPoolExecutor(16) as pool:

        def deliver(event: Any, secret: str, age: float, status: int) -> bool:
            body, headers = signed(event, at=time.time() - age, secret=secret)
            return http.post(url, content=body, headers=headers).status_code == status

        assert all(list(pool.map(lambda d: deliver(*d), deliveries)))
    print(f"\noracle L: {len(deliveries)} events of {len(payments)} payments")
    left = 15 * USD * len(payments)
    until(lambda: person.balance() == left)
    time.sleep(2)
    assert person.balance() == left
    for paid in payments:
        got = person.payments.GetPayment(payments_pb2.GetPaymentRequest(payment_id=paid.payment_id)).payment
        assert got.reversed_nanos == 5 * USD
    checked = shop.platform.admin().check_ledger()
    assert checked.clean, checked.discrepancies


def test_a_dispute_of_spent_money_is_the_platforms_loss(shop: Shop) -> None:
    person = shop.platform.sign_up()
    attach(person)
    paid = pay(person, 10 * USD)
    refund(shop, paid, 7 * USD)  # as if it were spent
    before = shop.platform.admin().check_ledger().balances_nanos["platform_loss"]
    shop.stripe.dispute(intent_of(shop.stripe, paid)["id"], 1000)
    until(lambda: person.balance() == 0)
    checked = shop.platform.admin().check_ledger()
    assert checked.clean, checked.discrepancies
    assert checked.balances_nanos["platform_loss"] == before - 7 * USD


def refused(platform: Platform, body: bytes, headers: dict[str, str]) -> str:
    answer = httpx.post(f"{platform.rest}/v1/stripe/webhooks", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"]["details"][0]["reason"])


@pytest.mark.case
def test_forged_and_old_events_are_refused(shop: Shop, platform: Platform) -> None:
    event = {"id": "evt_forged", "type": "refund.created", "created": 1, "data": {"object": {"id": "re_1"}}}
    body, headers = signed(event)
    assert refused(shop.platform, body + b" ", headers) == "SIGNATURE_INVALID"
    assert refused(shop.platform, *signed(event, secret="whsec_other")) == "SIGNATURE_INVALID"
    assert refused(shop.platform, *signed(event, at=time.time() - 301)) == "SIGNATURE_INVALID"
    assert refused(shop.platform, *signed(event, at=time.time() + 400)) == "SIGNATURE_INVALID"
    assert refused(shop.platform, body, {}) == "SIGNATURE_INVALID"
    assert refused(shop.platform, *signed({"id": 1})) == "MALFORMED_REQUEST"
    assert refused(platform, body, headers) == "STRIPE_NOT_CONFIGURED"


def test_events_come_without_envoy_too(shop: Shop) -> None:
    event = {"id": "evt_shim", "type": "balance.available", "created": 1, "data": {"object": {"object": "balance"}}}
    body, headers = signed(event)
    url = f"http://{shop.platform.addresses()['gateway']}/v1/stripe/webhooks"
    assert httpx.post(url, content=body, headers=headers).status_code == 200
    assert httpx.post(url, content=body + b" ", headers=headers).status_code == 400


def test_whatever_stripe_answers_nobody_is_charged_or_refunded_twice(
    tmp_path: Path, own_platform: Callable[..., Platform], seed_number: int
) -> None:
    """Requests that fail before or after their effect, and a control process that is killed meanwhile."""
    with serving(tmp_path) as stripe:
        platform = own_platform(env=settings(stripe) | {"MERCAT_PAYMENT_CLAIM_SECONDS": "3"})
        person, admin = platform.sign_up(), platform.admin()
        good = attach(person)
        bad = attach(person, "pm_card_chargeCustomerFail")
        stripe.faulty(0.2, seed_number)
        made = []
        for n in range(12):
            request = payments_pb2.CreatePaymentRequest(
                amount_nanos=(n + 1) * USD, payment_method_id=bad if n % 6 == 5 else good
            )
            made.append(person.payments.CreatePayment(request).payment.payment_id)
        platform.kill("control")
        ended = [settled(person, payment_id, 120) for payment_id in made]
        succeeded = [p for p in ended if p.status == Payment.STATUS_SUCCEEDED]
        assert [n for n, p in enumerate(ended) if p.status != Payment.STATUS_SUCCEEDED] == [5, 11]
        for payment in succeeded[:4]:
            request = payments_pb2.RefundPaymentRequest(payment_id=payment.payment_id, amount_nanos=USD // 2)
            admin.payments.RefundPayment(request)
        until(lambda: admin.check_ledger().balances_nanos.get("refunds", 1) == 0, 120)
        stripe.faulty(0)
        intents = stripe.get("/v1/payment_intents", limit=100)["data"]
        charged = sorted(pi["amount"] for pi in intents if pi["status"] == "succeeded")
        assert charged == sorted(p.amount_nanos // 10_000_000 for p in succeeded)
        assert [r["amount"] for r in stripe.get("/v1/refunds", limit=100)["data"]] == [50] * 4
        assert person.balance() == sum(p.amount_nanos for p in succeeded) - 2 * USD
        checked = admin.check_ledger()
        assert checked.clean, checked.discrepancies


def test_what_no_webhook_brought_is_listed_after_an_outage(
    tmp_path: Path, own_platform: Callable[..., Platform]
) -> None:
    with serving(tmp_path) as stripe:
        platform = own_platform(env=settings(stripe) | {"MERCAT_STRIPE_SECRET_KEY": "sk_live_mercat"})
        person = platform.sign_up()
        with pytest.raises(grpc.RpcError) as caught:
            person.top_up(USD)
        assert from_rpc_error(caught.value).reason == "NO_SANDBOX_CREDIT", "real money is paid here"
        attach(person)
        paid = pay(person, 10 * USD)
        intent = intent_of(stripe, paid)["id"]
        platform.stop()
        stripe.post("/v1/refunds", payment_intent=intent, amount=300)  # on Stripe's own pages
        platform.start()
        until(lambda: person.balance() == 7 * USD)
        checked = platform.admin().check_ledger()
        assert checked.clean, checked.discrepancies
