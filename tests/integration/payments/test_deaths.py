"""The control process dies at each step of a payment: it goes on, and the card is charged once."""

import asyncio
from collections.abc import Callable

import asyncpg
import psutil
import pytest
from mercat.billing.v1 import payments_pb2

from tests.integration.payments.cards import attach, settled
from tests.platform import USD, Platform

POINTS = ["payments.opened", "payments.charged", "payments.recorded"]


@pytest.mark.parametrize("card", ["pm_card_visa", "pm_card_chargeDeclined"])
async def test_a_payment_survives_a_death_at_every_step(own_platform: Callable[..., Platform], card: str) -> None:
    points = ",".join(f"{point}=1" for point in POINTS)
    platform = own_platform(env={"MERCAT_FAILPOINTS": points, "MERCAT_PAYMENT_CLAIM_SECONDS": "1"})
    person = platform.sign_up()
    attach(person, card)
    made = person.payments.CreatePayment(payments_pb2.CreatePaymentRequest(amount_nanos=5 * USD)).payment
    payment = settled(person, made.payment_id)
    good = card == "pm_card_visa"
    assert payment.status == (payments_pb2.Payment.STATUS_SUCCEEDED if good else payments_pb2.Payment.STATUS_FAILED)
    assert all((platform.home / "run" / f"failpoint.{point}").exists() for point in POINTS), "nothing was killed"
    assert person.balance() == (5 * USD if good else 0)
    while "control" not in platform.pids():
        await asyncio.sleep(0.1)
    url = psutil.Process(platform.pids()["control"]).environ()["MERCAT_POSTGRES_URL"]
    connection = await asyncpg.connect(url, server_settings={"search_path": "billing"})
    try:
        rows = await connection.fetch("SELECT status, cents FROM sandbox_objects WHERE kind = 'payment_intent'")
    finally:
        await connection.close()
    assert [tuple(row) for row in rows] == [("succeeded" if good else "failed", 500)]
    assert platform.admin().check_ledger().clean
