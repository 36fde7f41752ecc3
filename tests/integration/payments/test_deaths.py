"""The control process dies at each step of a payment: it goes on, and the card is charged once."""

import asyncio
from collections.abc import Callable

import asyncpg
import grpc
import psutil
from mercat.billing.v1 import payments_pb2

from tests.integration.payments.cards import attach, settled
from tests.platform import USD, Platform

POINTS = ["payments.opened", "payments.charged", "payments.recorded"]


async def test_a_payment_survives_a_death_at_every_step(own_platform: Callable[..., Platform]) -> None:
    points = ",".join(f"{point}=1" for point in POINTS)
    platform = own_platform(env={"MERCAT_FAILPOINTS": points, "MERCAT_PAYMENT_CLAIM_SECONDS": "1"})
    person = platform.sign_up()
    attach(person)
    made = person.payments.CreatePayment(payments_pb2.CreatePaymentRequest(amount_nanos=5 * USD)).payment
    payment = settled(person, made.payment_id)
    assert payment.status == payments_pb2.Payment.STATUS_SUCCEEDED
    assert all((platform.home / "run" / f"failpoint.{point}").exists() for point in POINTS), "nothing was killed"
    assert person.balance() == 5 * USD
    rows = await sandbox(platform, "payment_intent")
    assert rows == [("succeeded", 500)]
    assert platform.admin().check_ledger().clean


async def test_a_refund_survives_its_process(own_platform: Callable[..., Platform]) -> None:
    platform = own_platform(env={"MERCAT_FAILPOINTS": "payments.refunded=1", "MERCAT_PAYMENT_CLAIM_SECONDS": "1"})
    person = platform.sign_up()
    attach(person)
    made = person.payments.CreatePayment(payments_pb2.CreatePaymentRequest(amount_nanos=5 * USD)).payment
    assert settled(person, made.payment_id).status == payments_pb2.Payment.STATUS_SUCCEEDED
    request = payments_pb2.RefundPaymentRequest(payment_id=made.payment_id, amount_nanos=2 * USD)
    platform.admin().payments.RefundPayment(request)
    while not (platform.home / "run" / "failpoint.payments.refunded").exists():
        await asyncio.sleep(0.1)
    while True:
        try:
            checked = platform.admin().check_ledger()
            if checked.balances_nanos.get("refunds", 1) == 0:
                break
        except grpc.RpcError:
            pass
        await asyncio.sleep(0.2)
    assert checked.clean, checked.discrepancies
    assert checked.balances_nanos["sandbox_clearing"] == -3 * USD
    assert await sandbox(platform, "refund") == [("succeeded", 200)]
    assert person.balance() == 3 * USD


async def sandbox(platform: Platform, kind: str) -> list[tuple[str, int]]:
    """Status and cents of what the sandbox's provider has of a kind."""
    while "control" not in platform.pids():
        await asyncio.sleep(0.1)
    url = psutil.Process(platform.pids()["control"]).environ()["MERCAT_POSTGRES_URL"]
    connection = await asyncpg.connect(url, server_settings={"search_path": "billing"})
    try:
        rows = await connection.fetch("SELECT status, cents FROM sandbox_objects WHERE kind = $1", kind)
    finally:
        await connection.close()
    return [(row["status"], row["cents"]) for row in rows]
