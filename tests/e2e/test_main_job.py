"""The main job's books: after a thousand calls there are a thousand usage rows, and every nano is where it belongs."""

import asyncio
from collections.abc import Callable

from mercat.usage.v1 import usage_pb2

from tests import graphs
from tests.platform import USD, Platform
from tests.robustness.oracle import judge
from tests.robustness.traffic import Caller

CALLS = 1_000
PRICE = 1_500_001  # nanos; its platform share is not whole
FEE = 300_000  # 20 % of it, half-even


async def test_a_thousand_calls(own_platform: Callable[..., Platform]) -> None:
    platform = own_platform(workers=2)
    publisher, consumer = platform.publisher(), platform.sign_up(credit=10 * USD)
    model = platform.publish(publisher, graphs.tiny(), batch=64, price={"requests": PRICE * 1_000_000})
    caller = Caller(platform.grpc, consumer.api_key, model)
    seen = await caller.many(CALLS, in_flight=16)
    assert len(seen.ok) == CALLS
    assert seen.costs == {PRICE: CALLS}
    await asyncio.to_thread(judge, platform, consumer, seen, credit=10 * USD, price=PRICE)

    summary = consumer.usage.SummarizeUsage(usage_pb2.SummarizeUsageRequest())
    assert (summary.calls, summary.cost_nanos) == (CALLS, CALLS * PRICE)
    view = usage_pb2.SummarizeUsageRequest(view=usage_pb2.USAGE_VIEW_PUBLISHER)
    assert publisher.usage.SummarizeUsage(view).calls == CALLS
    assert consumer.balance() == 10 * USD - CALLS * PRICE
    assert publisher.earned() == CALLS * (PRICE - FEE)
    checked = platform.admin().check_ledger()
    assert checked.clean
    assert dict(checked.balances_nanos) == {
        "customer_wallet": 10 * USD - CALLS * PRICE, "publisher_payable": CALLS * (PRICE - FEE),
        "platform_fee": CALLS * FEE, "sandbox_clearing": -10 * USD,
    }  # fmt: skip
