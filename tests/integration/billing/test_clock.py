"""Months pass on a running platform: everything tells the new time, and calls go on over the move."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from mercat.usage.v1 import usage_pb2

from tests import graphs
from tests.integration.billing.test_receipts import PRICE, call
from tests.platform import USD, Account, Platform


def when(person: Account, request_id: str) -> datetime:
    record = person.usage.GetUsageRecord(usage_pb2.GetUsageRecordRequest(request_id=request_id)).record
    return record.timestamp.ToDatetime(UTC)


def test_calls_go_on_while_months_pass(own_platform: Callable[..., Platform]) -> None:
    platform = own_platform(env={"MERCAT_TEST_CLOCK": "true"})
    model = platform.publish(platform.publisher(), graphs.tiny(), price={"requests": PRICE * 1_000_000})
    person = platform.sign_up(credit=USD)
    times = [when(person, call(person, model))]
    for _ in range(2):
        moved = platform.command("clock", "advance", "31d")
        assert moved.returncode == 0, moved.stderr
        times.append(when(person, call(person, model)))
    for earlier, later in itertools.pairwise(times):
        assert timedelta(0) <= later - earlier - timedelta(days=31) < timedelta(hours=1)
    assert platform.command("clock", "set", "2020-01-01").returncode == 2
    checked = platform.admin().check_ledger()
    assert checked.clean, checked.discrepancies
    assert checked.settled_through.ToDatetime(UTC) >= times[-1]
    assert person.balance() == USD - 3 * PRICE


def test_a_platform_without_a_test_clock_refuses(platform: Platform) -> None:
    refused = platform.command("clock", "advance", "1d")
    assert refused.returncode == 1
    assert "MERCAT_TEST_CLOCK" in refused.stderr
