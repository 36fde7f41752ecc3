"""The money and the record of a call whose cost is known only at its end: the most that it can cost is held first, what
it did cost is spent, and the rest is free again."""

import asyncio
import time
from typing import Any

from services.common import money
from services.common.rpc.context import Call
from services.inference.deployments import Deployment
from services.inference.metering import Meter
from services.inference.records import Records
from services.inference.wallets import Lease, Wallets, payer_of

Units = tuple[tuple[str, int], ...]
_CACHED = "cached_input_tokens"


def units_of_text(deployment: Deployment, input_tokens: int, cached: int, output_tokens: int) -> Units:
    """What a text call counts as. Cached tokens are a meter of their own where the price has one."""
    apart = cached if any(meter == _CACHED for meter, _ in deployment.components) else 0
    found: Units = (("requests", 1), ("input_tokens", input_tokens - apart), ("output_tokens", output_tokens))
    return (*found, (_CACHED, apart)) if apart else found


class Charge:
    """Of one call, which began at `began` (`time.perf_counter`)."""

    def __init__(
        self, wallets: Wallets, meter: Meter, records: Records, call: Call, deployment: Deployment, began: float
    ) -> None:
        self._wallets, self._meter, self._records = wallets, meter, records
        self._call, self._deployment, self._began = call, deployment, began
        self._lease: Lease | None = None
        self._held = 0
        self._ended = False

    def cost(self, units: Units) -> int:
        """Nanos; nothing with a test key."""
        d = self._deployment
        return money.cost(d.components, dict(units)) if d.components and not self._call.principal.test else 0

    async def hold(self, *most: Units) -> None:
        """Holds what the dearest of these would cost. Raises InsufficientCredit, BudgetExceeded, Unavailable."""
        self._held = max(self.cost(units) for units in most)
        if self._held:
            payer = payer_of(self._call.principal, self._deployment.proto.model_id)
            self._lease = self._wallets.hold(payer, self._held) or await self._wallets.acquire(payer, self._held)

    def check(self) -> None:
        """Raises Unavailable when the money is no longer this call's."""
        if self._lease is not None:
            self._wallets.check(self._lease)

    def record(self, units: Units) -> "tuple[int, asyncio.Future[Any]]":
        """Records the call, once; answers its cost, nanos, and what is done when the record is stored. It is published
        whether somebody waits for that or not. Raises Unavailable as `check`: then nothing is recorded."""
        self.check()
        cost = self.cost(units)
        latency = time.perf_counter() - self._began
        lease_id = self._lease.lease_id if self._lease is not None else ""
        record = self._records.make(self._call, self._deployment, units, cost, lease_id, int(latency * 1e6))
        self._settle(cost)
        self._deployment.figures.total.observe(latency)
        stored: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        stored.add_done_callback(lambda future: future.cancelled() or future.exception())  # nobody may be waiting
        self._meter.expect()
        self._meter.add(record, stored, None)
        return cost, stored

    def release(self) -> None:
        """Ends a call that costs nothing; does nothing when it has ended."""
        if not self._ended:
            self._settle(0)

    def _settle(self, spent: int) -> None:
        assert not self._ended
        self._ended = True
        if self._lease is not None:
            self._wallets.settle(self._lease, self._held, spent)
