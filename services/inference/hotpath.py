"""One inference call, in order: what → may they → seen before → run → count → reply. Who calls was settled by the
pipeline.

Everything a call needs is already in the process; the network is asked only on a miss, and once for the record. A call
waits once: its ticket goes through the batcher, the engine and the meter, and comes back with the outputs."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.common import failpoints, key_rules, money
from services.common.clock import Clock
from services.common.errors import DataLoss, DeadlineExceeded, EngineFailed, InvalidArgument
from services.common.limits import Limiter
from services.common.pricing import Rated
from services.common.rpc import tracing
from services.common.rpc.context import Call
from services.common.tensors import Array, Signature
from services.inference import allowance, measured
from services.inference.cache import ResponseCache, key_of
from services.inference.charge import Charges, Units, too_large
from services.inference.deployments import Deployment, Deployments
from services.inference.engines import EngineUnavailable
from services.inference.load import KEY, LoadReports
from services.inference.metering import Meter
from services.inference.positions import Positions
from services.inference.records import Records
from services.inference.residency import Resident
from services.inference.slots import Held, Slots
from services.inference.tickets import Ticket
from services.inference.wallets import Lease, Wallets, payer_of

Inputs = dict[str, Array]


class TextOnly(InvalidArgument, reason="TEXT_MODEL"):
    """The model is called with texts, not with tensors."""


@dataclass(slots=True)
class Priced:
    """What a call counts as, by meter, and costs, nanos; with a price that depends on what was used before or is
    measured, nothing yet. `rated`: what the cost depends on beside price and units."""

    rows: int
    units: Units
    cost: int
    rated: Rated | None = None


@dataclass(slots=True)
class Result:
    """What a call gave: the version that ran, its outputs, its cost in nanos, and how long it waited for the model."""

    deployment: Deployment
    outputs: Mapping[str, Array]
    cost: int
    cached: bool = False
    cold_start_ms: int = 0


class HotPath:
    """Runs calls. Stateless but for what its parts remember."""

    def __init__(
        self, deployments: Deployments, wallets: Wallets, meter: Meter, limiter: Limiter, slots: Slots,
        cache: ResponseCache, clock: Clock, region: str, positions: Positions, reports: LoadReports | None = None,
    ) -> None:  # fmt: skip
        self.deployments = deployments
        self.wallets = wallets
        self.meter = meter
        self.records = Records(region)
        self.positions = positions
        self.charges = Charges(wallets, meter, self.records, positions)
        self._limiter = limiter
        self._slots = slots
        self._clock = clock
        self._cache = cache
        self._reports = reports

    async def run(
        self, call: Call, reference: str, read: Callable[[Signature], Inputs],
        wanted: Callable[[Signature], list[str]], *, level: int = 0, fresh: bool = False,
    ) -> Result:  # fmt: skip
        """Runs a model once for the caller and records it.

        Args:
            call: the call under way; gets the reply's trailers.
            reference: `publisher/name`, with `@version` or `:alias`.
            read: makes the inputs from the request, checked against the signature.
            wanted: the names of the outputs asked for.
            level: the call's priority class, 1 first; 0: the model's default.
            fresh: the answer must not come from the response cache.

        Raises:
            ModelNotFound, VersionRetired, AccessRequired, ModelDenied, BadTensor, RateLimited, QuotaExceeded,
            ConcurrencyLimited, BudgetExceeded, InsufficientCredit, QueueFull, DeadlineExceeded, ModelRefused,
            EngineFailed, Unavailable: none is charged.
        """
        began = time.perf_counter()
        caller, deployments = call.principal, self.deployments
        deployment = deployments.cached(reference, caller) or await deployments.get(reference, caller)
        if deployment.decodes:
            raise TextOnly(f"{reference} goes on with texts: call Generate or Chat instead")
        slots = await self.enter(call, deployment)
        try:
            return await self._run_or_fall_back(call, deployment, reference, read, wanted, level, fresh, began)
        finally:
            self.leave(slots)

    async def enter(self, call: Call, deployment: Deployment) -> list[Held]:
        """Takes what the limits allow a call, which ends with `leave`. Raises AccessRequired, ModelDenied,
        RateLimited, QuotaExceeded, ConcurrencyLimited."""
        caller = call.principal
        if deployment.granted is not None:
            deployment.check_access(caller)
        if caller.HasField("rules"):
            key_rules.check_model(caller.rules, deployment.proto.model, deployment.proto.former_models)
        limited = allowance.limits(caller, deployment.proto)
        slots = await self._slots.enter(allowance.slots(limited))
        try:
            key = (caller.key_id or caller.user_id, deployment.proto.model_id)
            told = self._limiter.take_now(key)
            if told is None and (asked := allowance.buckets(limited, self._clock.now())):
                told = await self._limiter.take(key, asked)
        except BaseException:
            self._slots.leave(slots)
            raise
        call.trailers += told or ()
        if deployment.notices:
            call.trailers += deployment.notices
        return slots

    def leave(self, slots: list[Held]) -> None:
        """Ends what `enter` began."""
        self._slots.leave(slots)

    async def _run_or_fall_back(
        self, call: Call, deployment: Deployment, reference: str, read: Callable[[Signature], Inputs],
        wanted: Callable[[Signature], list[str]], level: int, fresh: bool, began: float,
    ) -> Result:  # fmt: skip
        """The version's answer, or that of the version that stands in for it."""
        self.meter.check()
        failpoints.passing("inference.before_reserve")
        # A version that was named exactly is never replaced by another.
        spare = deployment.fallback if "@" not in reference else ""
        now = asyncio.get_running_loop().time()
        if not deployment.breaker.allows(now):
            if not spare:
                raise EngineUnavailable(
                    f"{reference} keeps failing and is left alone for a while",
                    retry_after=deployment.breaker.until - now,
                )
        else:
            try:
                answer = await self._run(call, deployment, read, wanted, level, fresh, began)
                deployment.breaker.succeeded()
                return answer
            except (EngineFailed, EngineUnavailable, DataLoss):
                deployment.breaker.failed(asyncio.get_running_loop().time())
                if not spare:
                    raise
        deployment = await self.deployments.spare(deployment, call.principal)
        return await self._run(call, deployment, read, wanted, level, fresh, began)

    async def _run(
        self, call: Call, deployment: Deployment, read: Callable[[Signature], Inputs],
        wanted: Callable[[Signature], list[str]], level: int, fresh: bool, began: float,
    ) -> Result:  # fmt: skip
        signature = deployment.signature
        inputs = read(signature)
        outputs = wanted(signature)
        priced = self.price(call, deployment, inputs)
        if deployment.cache_ttl and not (fresh or call.fresh):
            return await self._cached(call, deployment, inputs, outputs, priced, level, began)
        result = await self._count(call, deployment, inputs, outputs, priced, level, began)
        if deployment.cache_ttl:
            call.trailers.append(("mercat-cache", "bypass"))
        return result

    async def _cached(
        self, call: Call, deployment: Deployment, inputs: Inputs, outputs: list[str], priced: Priced, level: int,
        began: float,
    ) -> Result:  # fmt: skip
        key = key_of(deployment.version_id, deployment.proto.digest, inputs, outputs)
        cached = self._cache.get(key)
        if cached is None:
            cached = await self._cache.find(key)
        if cached is not None:
            deployment.figures.hits.value += 1
            priced = self._hit(call, deployment, priced)
            result = await self._count(call, deployment, inputs, outputs, priced, level, began, cached)
            call.trailers.append(("mercat-cache", "hit"))
            result.cached = True
            return result
        deployment.figures.misses.value += 1
        answer: Mapping[str, Array] | None = None
        try:
            result = await self._count(call, deployment, inputs, outputs, priced, level, began)
            answer = result.outputs
        finally:
            self._cache.settle(key, answer, deployment.cache_ttl)
        call.trailers.append(("mercat-cache", "miss"))
        return result

    async def _count(
        self, call: Call, deployment: Deployment, inputs: Inputs, outputs: list[str], priced: Priced, level: int,
        began: float, cached: Mapping[str, Array] | None = None,
    ) -> Result:  # fmt: skip
        """Reserves the money, runs the model unless the answer is cached, records the call, and settles."""
        at_end = deployment.counted or deployment.measured
        if at_end and not call.principal.test and not (priced.rated and priced.rated.share_ppm == 0):
            return await self._count_at_end(call, deployment, inputs, outputs, priced, level, began, cached)
        cost = 0 if call.principal.test else priced.cost
        lease: Lease | None = None
        if cost:
            payer = payer_of(call.principal, deployment.proto.model_id)
            lease = self.wallets.hold(payer, cost) or await self.wallets.acquire(payer, cost)
        deadline = _deadline(call, deployment)
        ticket = _Counted(self, call, deployment, inputs, priced, outputs, cost, lease, deadline, level, began)
        cold_start_ms = 0
        self.meter.expect()
        try:
            if cached is not None:
                ticket.ran(cached)
                answer = await ticket.future
            else:
                resident = deployment.resident
                if resident is None or resident.gone:
                    resident, cold_start_ms = await self.resident(call, deployment, deadline)
                answer = await resident.submit(ticket)
        finally:
            if not ticket.counted:
                self.meter.forget()
            if lease is not None:
                self.wallets.settle(lease, cost, cost if ticket.counted else 0)
        if call.span is not None and cached is None:
            stages = (("queue", ticket.since), ("engine", ticket.started), ("meter", ticket.ended))
            tracing.stages(call.span, *stages, **{"mercat.model": deployment.proto.model, "mercat.rows": priced.rows})
        return self._result(call, deployment, answer, cost, cold_start_ms)

    async def _count_at_end(
        self, call: Call, deployment: Deployment, inputs: Inputs, outputs: list[str], priced: Priced, level: int,
        began: float, cached: Mapping[str, Array] | None = None,
    ) -> Result:  # fmt: skip
        """Like `_count`, where the cost depends on what was used before, or on what is measured."""
        charge = self.charges.begin(call, deployment, began)
        share_ppm = priced.rated.share_ppm if priced.rated is not None else None
        deadline, seconds = _deadline(call, deployment), 0.0
        limits = self.most(deployment, inputs, priced.rows, outputs, deadline) if deployment.measured else ()
        await charge.hold((*priced.units, *limits), share_ppm=share_ppm)
        cold_start_ms = 0
        stages: tuple[tuple[str, float], ...] = ()
        try:
            if cached is None:
                resident = deployment.resident
                if resident is None or resident.gone:
                    resident, cold_start_ms = await self.resident(call, deployment, deadline)
                ticket = Ticket(inputs, priced.rows, outputs, deadline, level)
                cached = await resident.submit(ticket)
                failpoints.passing("inference.after_engine")
                seconds = ticket.seconds
                stages = (("queue", ticket.since), ("engine", ticket.started), ("meter", time.perf_counter()))
            units = (*priced.units, *measured.ran(limits, cached, seconds)) if limits else priced.units
            recorded = charge.record(units, share_ppm)
        finally:
            charge.release()
        cost = await recorded
        if call.span is not None and stages:
            tracing.stages(call.span, *stages, **{"mercat.model": deployment.proto.model, "mercat.rows": priced.rows})
        return self._result(call, deployment, cached, cost, cold_start_ms)

    def _result(
        self, call: Call, deployment: Deployment, answer: Mapping[str, Array], cost: int, cold_start_ms: int
    ) -> Result:
        """What the call gave, with its trailers."""
        if self._reports is not None and (report := self._reports.take()):
            call.trailers.append((KEY, report))
        call.trailers += (("mercat-cost-nanos", str(cost)), ("mercat-model-version", deployment.version))
        return Result(deployment, answer, cost, cold_start_ms=cold_start_ms)

    def price(self, call: Call, deployment: Deployment, inputs: Inputs) -> Priced:
        """Counts a call's units and prices them. Raises BadTensor when there are more rows than the model takes,
        CostTooLarge."""
        rows = deployment.signature.rows(inputs)
        if deployment.max_rows and rows > deployment.max_rows:
            deployment.signature.refuse_rows(rows, deployment.max_rows)
        size = 0
        for a in inputs.values():
            size += a.nbytes
        units: Units = (("requests", 1), ("rows", rows), ("input_bytes", size))
        if deployment.extra:
            units += measured.declared(deployment.extra, deployment.signature, rows)
        try:
            if deployment.measured:
                return Priced(rows, units, 0)
            if deployment.components and not deployment.discounts:
                return Priced(rows, units, money.cost(deployment.components, dict(units)))
            if deployment.counted or not deployment.price_id:
                return Priced(rows, units, 0)
            return Priced(rows, units, *deployment.rate(units, call.principal.org_id))
        except OverflowError:
            raise too_large() from None

    def most(self, deployment: Deployment, inputs: Inputs, rows: int, outputs: list[str], deadline: float) -> Units:
        """The most that can be measured of a call."""
        seconds = deadline - asyncio.get_running_loop().time()
        batched = rows if deployment.max_rows else 0
        return measured.most(deployment.extra, deployment.signature, inputs, batched, outputs, seconds)

    def _hit(self, call: Call, deployment: Deployment, priced: Priced) -> Priced:
        """What the answer costs that comes from the cache."""
        units = (*priced.units, ("cache_hits", 1))
        share_ppm = deployment.hit_price_percent * 10_000
        if (deployment.counted or deployment.measured) and share_ppm:
            return Priced(priced.rows, units, 0, Rated(share_ppm=share_ppm))
        # One that costs nothing takes no position.
        return Priced(priced.rows, units, *deployment.rate(units, call.principal.org_id, share_ppm=share_ppm))

    async def resident(self, call: Call, deployment: Deployment, deadline: float) -> tuple[Resident, int]:
        """The loaded model, and the milliseconds that it took. Raises DeadlineExceeded, EngineFailed,
        EngineUnavailable."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout_at(deadline):
                resident = await self.deployments.resident(deployment)
        except TimeoutError:
            raise DeadlineExceeded("the model was not loaded before the deadline; try again soon") from None
        finally:
            took = round((time.perf_counter() - began) * 1000)
            call.trailers.append(("mercat-cold-start-ms", str(took)))
        return resident, took


def _deadline(call: Call, deployment: Deployment) -> float:
    latest = asyncio.get_running_loop().time() + deployment.timeout
    return latest if call.deadline is None else min(latest, call.deadline)


class _Counted(Ticket):
    """A call that is recorded once it ran; its future gets the outputs when the record is stored."""

    __slots__ = ("_began", "_call", "_cost", "_deployment", "_lease", "_path", "_rated", "_units", "counted", "ended")

    def __init__(
        self, path: HotPath, call: Call, deployment: Deployment, inputs: Inputs, priced: Priced, outputs: list[str],
        cost: int, lease: Lease | None, deadline: float, level: int, began: float,
    ) -> None:  # fmt: skip
        super().__init__(inputs, priced.rows, outputs, deadline, level)
        self._path, self._call, self._deployment = path, call, deployment
        self._units, self._cost, self._lease, self._began = priced.units, cost, lease, began
        self._rated = priced.rated
        self.ended = began  # when the engine had run
        self.counted = False  # from then on the record is published, whatever becomes of the caller

    def ran(self, outputs: Mapping[str, Array]) -> None:
        failpoints.passing("inference.after_engine")
        lease, path = self._lease, self._path
        if lease is not None:
            path.wallets.check(lease)
        self.ended = time.perf_counter()
        latency = self.ended - self._began
        record = path.records.make(
            self._call, self._deployment, self._units, self._cost, lease.lease_id if lease else "", int(latency * 1e6),
            self._rated,
        )  # fmt: skip
        self.counted = True
        self._deployment.figures.total.observe(latency)
        path.meter.add(record, self.future, outputs)
