"""The control process dies at each step of a month's end and of a payout: it goes on, and nothing happens twice."""

import time
from collections.abc import Callable
from typing import TypeVar

import grpc
from mercat.billing.v1 import invoices_pb2, payouts_pb2, plans_pb2

from tests import graphs
from tests.integration.billing.test_receipts import call
from tests.integration.payments.cards import attach
from tests.platform import USD, Account, Platform

T = TypeVar("T")
POINTS = [
    "subscriptions.advanced", "invoices.folded", "invoices.finalised", "invoices.collecting", "payments.recorded",
    "payouts.begun", "payouts.reported", "payouts.transferred",
]  # fmt: skip


def until(what: Callable[[], T | None], seconds: float = 180) -> T:
    """Waits for what is there when the process is back."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := what():
                return found
        except grpc.RpcError as e:
            if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
                raise
        assert time.monotonic() < deadline
        time.sleep(0.1)


def invoices(person: Account, count: int) -> list[invoices_pb2.Invoice] | None:
    listed = person.invoices.ListInvoices(invoices_pb2.ListInvoicesRequest()).invoices
    good = len(listed) == count and all(i.status == invoices_pb2.Invoice.STATUS_PAID for i in listed)
    return list(listed) if good else None


def paid(publisher: Account) -> list[payouts_pb2.Payout] | None:
    listed = publisher.payouts.ListPayouts(payouts_pb2.ListPayoutsRequest()).payouts
    good = listed and all(p.status == payouts_pb2.Payout.STATUS_PAID for p in listed)
    return list(listed) if good else None


def advance(platform: Platform, by: str) -> None:
    until(lambda: platform.command("clock", "advance", by).returncode == 0)
    time.sleep(5)


def missed(platform: Platform) -> list[str]:
    """Where nothing has died. A death elsewhere in the same moment may have come between a step and its point, so that
    it is passed in the next month only."""
    points = [platform.home / "run" / f"failpoint.{point}" for point in POINTS]
    deadline = time.monotonic() + 15
    while not all(p.exists() for p in points) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [p.name for p in points if not p.exists()]


def test_a_month_and_a_payout_survive_a_death_at_every_step(own_platform: Callable[..., Platform]) -> None:
    platform = own_platform(
        env={
            "MERCAT_FAILPOINTS": ",".join(f"{point}=1" for point in POINTS), "MERCAT_TEST_CLOCK": "true",
            "MERCAT_PAYMENT_CLAIM_SECONDS": "1", "MERCAT_PAYOUT_MINIMUM": "1",
        }
    )  # fmt: skip
    publisher, person = platform.publisher(), platform.sign_up(credit=10 * USD)
    model = platform.publish(publisher, graphs.tiny(), price={"requests": USD * 1_000_000})
    attach(person)
    request = payouts_pb2.ConnectPayoutAccountRequest(schedule=payouts_pb2.PAYOUT_SCHEDULE_WEEKLY)
    publisher.payouts.ConnectPayoutAccount(request)
    person.plans.ChangePlan(plans_pb2.ChangePlanRequest(plan_id="pro"))
    for _ in range(3):
        call(person, model)
    advance(platform, "14d")
    advance(platform, "20d")
    found = until(lambda: invoices(person, 2))
    payouts = until(lambda: paid(publisher))
    assert [p.amount_nanos for p in payouts] == [24 * USD // 10]
    assert (found[0].due_nanos, found[0].prepaid_nanos) == (20 * USD, 3 * USD)
    for months in range(3, 6):
        if not missed(platform):
            break
        advance(platform, "31d")
        found = until(lambda months=months: invoices(person, months))  # type: ignore[misc]
    assert not missed(platform)
    assert 0 <= person.balance() - 7 * USD < USD // 100  # what is left of a cent that the card was charged
    checked = until(lambda: platform.admin().check_ledger())
    assert checked.clean, checked.discrepancies
    assert checked.balances_nanos["subscription_revenue"] == sum(i.due_nanos for i in found)
    assert checked.balances_nanos.get("payout_clearing", 0) == 0
