"""The money and the record of a call whose cost is known only at its end: what it may cost is held first, what it did
cost is spent, and the rest is free again.

Where a price depends on what was used of the month, the call's position is taken at its end; what is held is the cost
at the position that is expected. What concurrency makes it dearer by is held at the end, and if that is not to be had
the call is neither answered nor charged."""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from services.common.errors import InsufficientCredit, InvalidArgument
from services.common.pricing import Rated
from services.common.rpc.context import Call
from services.inference.deployments import Deployment
from services.inference.metering import Meter
from services.inference.positions import Key, Positions, key_of
from services.inference.records import Records
from services.inference.wallets import Lease, Wallets, payer_of

Units = tuple[tuple[str, int], ...]
_CACHED = "cached_input_tokens"


class CostTooLarge(InvalidArgument, reason="COST_TOO_LARGE"):
    """The call would cost more than can be charged."""


def too_large() -> CostTooLarge:
    return CostTooLarge("a call of this size costs more than can be charged; make it smaller")


def units_of_text(deployment: Deployment, input_tokens: int, cached: int, output_tokens: int) -> Units:
    """What a text call counts as. Cached tokens are a meter of their own where the price has one."""
    apart = cached if any(c.meter == _CACHED for c in deployment.price.components) else 0
    found: Units = (("requests", 1), ("input_tokens", input_tokens - apart), ("output_tokens", output_tokens))
    return (*found, (_CACHED, apart)) if apart else found


class Charges:
    """Begins charges, and ends what is left of them."""

    def __init__(self, wallets: Wallets, meter: Meter, records: Records, positions: Positions) -> None:
        self.wallets, self.meter, self.records, self.positions = wallets, meter, records, positions
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, call: Call, deployment: Deployment, began: float) -> "Charge":
        """Of one call, which began at `began` (`time.perf_counter`)."""
        return Charge(self, call, deployment, began)

    def go_on(self, work: "Coroutine[Any, Any, None]") -> None:
        """Whatever becomes of the caller."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def flush(self) -> None:
        """Ends when every call that ran is with the meter."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))


class Charge:
    """Of one call. `share_ppm` of its methods: what an answer from the cache costs of the price, millionths."""

    def __init__(self, charges: Charges, call: Call, deployment: Deployment, began: float) -> None:
        self._charges, self._call, self._deployment, self._began = charges, call, deployment, began
        self._wallets = charges.wallets
        self._free = call.principal.test
        self._lease: Lease | None = None
        self._held = 0
        self._key: Key | None = None
        self._expected: dict[str, int] = {}
        self._ended = False

    async def hold(self, *most: Units, share_ppm: int | None = None) -> None:
        """Holds what the dearest of these would cost. Raises InsufficientCredit, BudgetExceeded,
        CostTooLarge, Unavailable."""
        d = self._deployment
        positions: Mapping[str, int] = {}
        if d.counted and not self._free:
            units = {meter: max(dict(u).get(meter, 0) for u in most) for meter in d.counted}
            key = key_of(self._call.principal.org_id, d.proto.model_id, self._call.arrived_ms)
            positions = await self._charges.positions.expect(key, units, d.price_since)
            self._key, self._expected = key, units
        try:
            self._held = max(self._rate(units, positions, share_ppm)[0] for units in most)
            if self._held:
                await self._take(self._held)
        except BaseException:
            self._held = 0
            self._forget()
            raise

    def check(self) -> None:
        """Raises Unavailable when the money is no longer this call's."""
        if self._lease is not None:
            self._wallets.check(self._lease)

    def record(self, units: Units, share_ppm: int | None = None) -> "asyncio.Future[int]":
        """Records the call, once; the future gets its cost, nanos, when the record is stored. It is published whether
        somebody waits for that or not. Raises Unavailable as `check`: then nothing is recorded. The future may also get
        InsufficientCredit or Unavailable, where a position was needed: then nothing is recorded either."""
        self.check()
        assert not self._ended
        self._ended = True
        latency = time.perf_counter() - self._began
        recorded: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        recorded.add_done_callback(lambda future: future.cancelled() or future.exception())  # nobody may be waiting
        if self._key is None:
            self._record(units, *self._rate(units, {}, share_ppm), latency, recorded)
        else:
            self._charges.go_on(self._take_position(self._key, units, share_ppm, latency, recorded))
        return recorded

    def release(self) -> None:
        """Ends a call that costs nothing; does nothing when it has ended."""
        if not self._ended:
            self._ended = True
            self._forget()
            self._settle(0)

    def _rate(self, units: Units, positions: Mapping[str, int], share_ppm: int | None) -> tuple[int, Rated | None]:
        """Nanos, and what they depend on; nothing with a test key."""
        if self._free:
            return 0, None
        try:
            return self._deployment.rate(units, self._call.principal.org_id, positions, share_ppm)
        except OverflowError:
            raise too_large() from None

    async def _take(self, cost: int) -> None:
        payer = payer_of(self._call.principal, self._deployment.proto.model_id)
        try:
            self._lease = self._wallets.hold(payer, cost) or await self._wallets.acquire(payer, cost)
        except InsufficientCredit as e:
            raise self._beyond(e) from None
        self._held = cost

    def _beyond(self, refusal: InsufficientCredit) -> InsufficientCredit:
        """Of a call that what is free of the month does not cover: also when it begins anew."""
        if self._key is None or not (free := self._deployment.price.allowances):
            return refusal
        resets = self._key.span()[1].strftime("%Y-%m-%dT%H:%M:%SZ")
        units = ", ".join(f"{c.free_units:,} {c.meter}" for c in free)
        return InsufficientCredit(
            f"{self._deployment.proto.model} is free for {units} a month, which do not cover this call; they begin anew"
            f" at {resets}. Until then: {refusal.message}",
            metadata={**refusal.metadata, "allowance_resets_at": resets},
        )  # fmt: skip

    async def _take_position(
        self, key: Key, units: Units, share_ppm: int | None, latency: float, recorded: "asyncio.Future[int]"
    ) -> None:
        counted = {meter: count for meter, count in units if meter in self._expected}
        wanted = dict.fromkeys(self._expected, 0) | counted
        again = (self._call.request_id, self._call.repeatable) if self._call.repeatable else None
        expected, self._expected = self._expected, {}
        try:
            positions = await self._charges.positions.take(key, wanted, self._deployment.price_since, again, expected)
            cost, rated = self._rate(units, positions, share_ppm)
            if cost > self._held:
                self._settle(0)
                await self._take(cost)
            self.check()
            self._record(units, cost, rated, latency, recorded)
        except Exception as e:
            self._settle(0)
            if not recorded.done():
                recorded.set_exception(e)
        finally:
            self._forget()

    def _record(
        self, units: Units, cost: int, rated: Rated | None, latency: float, recorded: "asyncio.Future[int]"
    ) -> None:
        lease_id = self._lease.lease_id if self._lease is not None else ""
        charges = self._charges
        record = charges.records.make(
            self._call, self._deployment, units, cost, lease_id if cost else "", int(latency * 1e6), rated
        )
        self._settle(cost)
        self._deployment.figures.total.observe(latency)
        charges.meter.expect()
        charges.meter.add(record, recorded, cost)

    def _forget(self) -> None:
        if self._key is not None:
            self._charges.positions.forget(self._key, self._expected)
            self._key = None

    def _settle(self, spent: int) -> None:
        if self._lease is not None:
            self._wallets.settle(self._lease, self._held, spent)
            self._lease, self._held = None, 0
