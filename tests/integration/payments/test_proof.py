"""The proof of a month beside Stripe: what both know is compared, what only one knows is named."""

from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
from mercat.billing.v1 import payments_pb2, proof_pb2

from tests.expect import until
from tests.integration.payments.cards import attach
from tests.integration.payments.conftest import settings
from tests.integration.payments.test_stripe import intent_of, pay
from tests.platform import USD, Account, Platform
from tests.stripe_server import serving


def prove(admin: Account) -> proof_pb2.Proof:
    *_, last = admin.proof.ProveLedger(proof_pb2.ProveLedgerRequest(), timeout=120)
    proof: proof_pb2.Proof = last.proof
    return proof


def named(proof: proof_pb2.Proof) -> set[tuple[str, str, str]]:
    return {(d.section, d.code, d.subject) for d in proof.discrepancies}


async def test_stripe_and_the_books_are_compared_by_each_name(
    tmp_path: Path, own_platform: Callable[..., Platform]
) -> None:
    with serving(tmp_path) as stripe:
        platform = own_platform(env=settings(stripe) | {"MERCAT_STRIPE_REPLAY_SECONDS": "1"})
        stripe.webhooks(f"{platform.rest}/v1/stripe/webhooks")
        person, admin = platform.sign_up(), platform.admin()
        attach(person)
        paid, other = pay(person, 25 * USD), pay(person, 10 * USD)
        admin.payments.RefundPayment(
            payments_pb2.RefundPaymentRequest(payment_id=other.payment_id, amount_nanos=3 * USD)
        )
        lost = stripe.dispute(intent_of(stripe, paid)["id"], 500)
        until(lambda: person.balance() == 27 * USD, 60)
        until(lambda: admin.check_ledger().balances_nanos["refunds"] == 0)
        proof = prove(admin)
        assert proof.clean, proof
        got = {c.name: (c.rows, c.nanos) for s in proof.sections for c in s.counts}
        assert got["payments"] == got["payments at stripe"] == (2, 35 * USD)
        assert got["refunds"] == got["refunds at stripe"] == (1, 3 * USD)
        assert got["disputes at stripe"] == (1, 5 * USD)
        assert got["disputes"] == (0, 0), "its end is not decided"
        stripe.close_dispute(lost, "lost")
        until(lambda: admin.check_ledger().balances_nanos["disputes"] == 0)
        assert prove(admin).clean

        # What was charged and transferred past the books; and what was begun, and has moved nothing.
        card = {key: intent_of(stripe, paid)[key] for key in ("customer", "payment_method")}
        strange = stripe.post("/v1/payment_intents", amount=700, currency="usd", **card)["id"]
        assert prove(admin).clean
        stripe.post(f"/v1/payment_intents/{strange}/confirm")
        account = stripe.post("/v1/accounts", type="express")["id"]
        stripe.onboard(account)
        transfer = stripe.post(
            "/v1/transfers", amount=900, currency="usd", destination=account, transfer_group="po_none"
        )["id"]
        only = {("payments", "PROVIDER_ONLY", strange), ("payouts", "PROVIDER_ONLY", transfer)}
        assert named(prove(admin)) == only

        url = psutil.Process(platform.pids()["control"]).environ()["MERCAT_POSTGRES_URL"]
        connection = await asyncpg.connect(url, server_settings={"search_path": "billing"})
        try:
            change = "UPDATE payments SET provider_ref = $2 WHERE id = $1"
            await connection.execute(change, paid.payment_id, "pi_none")
            missing = named(prove(admin))
            await connection.execute(change, paid.payment_id, intent_of(stripe, paid)["id"])
            change = "UPDATE payments SET amount = amount + $2 WHERE id = $1"
            await connection.execute(change, paid.payment_id, USD)
            differs = named(prove(admin))
            await connection.execute(change, paid.payment_id, -USD)
        finally:
            await connection.close()
        assert ("payments", "PROVIDER_MISSING", paid.payment_id) in missing
        assert ("payments", "PROVIDER_ONLY", intent_of(stripe, paid)["id"]) in missing
        assert ("payments", "PROVIDER_DIFFERS", paid.payment_id) in differs
        assert named(prove(admin)) == only
    proof = prove(admin)
    assert not proof.clean
    assert not proof.discrepancies
    assert "stripe" in proof.unproven[0], "it cannot be asked any more"
