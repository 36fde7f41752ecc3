"""What a model reference means now: the version, its price, its signature, and the loaded model.

Snapshots come from registry and billing, are forgotten when an event says so, and are refreshed every few seconds
beside the calls that use them; only the first call to a model waits."""

import asyncio
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypedDict

from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc, visibility_pb2
from nats.aio.msg import Msg

from services.common import money, pricing
from services.common.clock import Clock
from services.common.errors import FailedPrecondition, MercatError, ModelNotFound, NotFound, PermissionDenied
from services.common.events import Events, listen
from services.common.pricing import Price, Rated
from services.common.rpc.channels import InternalChannel
from services.common.tensors import Signature
from services.inference import endings
from services.inference.breaker import Breaker
from services.inference.engines import EngineUnavailable
from services.inference.measured import MEASURED, SPECIAL
from services.inference.residency import Residency, Resident
from services.inference.telemetry import Figures

log = logging.getLogger(__name__)
_REFRESH = 5.0  # seconds after which a snapshot is fetched anew beside the calls that use it
_STALE = 60.0  # seconds for which one is used while registry or billing cannot be asked
_MOST = 100_000
_DEFAULT_TIMEOUT = 30.0  # seconds
_CACHED = 3600.0  # seconds that an answer is kept where the model does not say
_FREE = Price()
_NONE: Mapping[str, int] = {}


class AccessRequired(PermissionDenied, reason="ACCESS_REQUIRED"):
    """The model is gated and the caller's organisation has no access; the metadata names the command that asks."""


class _Priced(TypedDict):
    """What of a deployment is its price's."""

    price_id: str
    components: tuple[tuple[str, int], ...]
    currency: str
    price: Price
    counted: tuple[str, ...]
    price_since: float
    upcoming: Sequence[billing_pb2.Price]
    until: float
    extra: tuple[str, ...]
    measured: bool


def _priced(price: billing_pb2.Price, upcoming: Sequence[billing_pb2.Price], now: float, wall: datetime) -> _Priced:
    """`now` (monotonic seconds) and `wall` are the same moment."""
    read = pricing.read(price)
    until = math.inf
    if upcoming:
        until = now + (upcoming[0].effective_at.ToDatetime(UTC) - wall).total_seconds()
    return {
        "price_id": price.price_id, "components": read.flat or (), "currency": price.currency or "USD", "price": read,
        "counted": read.counted, "price_since": price.effective_at.ToNanoseconds() / 1e9, "upcoming": upcoming,
        "until": until, "extra": (extra := tuple(c.meter for c in read.components if c.meter in SPECIAL)),
        "measured": not MEASURED.isdisjoint(extra),
    }  # fmt: skip


@dataclass(slots=True, eq=False)
class Deployment:
    """A callable version and its price, as they were at `at` (monotonic seconds). `components`: (meter, nanos per
    million) of a price that is nothing but that. `counted`: the meters whose cost depends on what was used before.
    `price_since` is in seconds since 1970; from `until` on (monotonic seconds) the first of `upcoming` is the price.
    `discounts`: millionths, by organisation. `extra`: the meters of the price that are counted for it alone;
    `measured`: some of them are known only when a call has run. `retires`: from when on calls are refused (monotonic
    seconds); `notices`: what callers are told until then."""

    at: float
    version_id: str
    version: str
    proto: registry_pb2.Deployment
    signature: Signature
    price_id: str
    components: tuple[tuple[str, int], ...]
    currency: str
    max_rows: int
    timeout: float
    figures: Figures
    breaker: Breaker
    fallback: str  # version; empty: none
    cache_ttl: float  # seconds; 0: answers are not cached
    hit_price_percent: int
    decodes: bool = False  # goes on with texts and takes no tensors
    resident: Resident | None = None
    price: Price = _FREE
    counted: tuple[str, ...] = ()
    price_since: float = 0.0
    upcoming: Sequence[billing_pb2.Price] = ()
    until: float = math.inf
    discounts: Mapping[str, int] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    measured: bool = False
    retires: float = math.inf
    notices: endings.Notices = ()
    private: bool = False  # to `proto.org_id`
    granted: frozenset[str] | None = None  # who may call it beside `proto.org_id`; None: everybody

    def admit(self, reference: str, caller: auth_pb2.Principal | None) -> None:
        """Whether the caller, as what `reference` was asked for, may know of it; None is the platform itself. Raises
        ModelNotFound as for a model that does not exist."""
        if self.private and caller is not None and caller.org_id != self.proto.org_id:
            raise _none(reference)

    def check_access(self, caller: auth_pb2.Principal) -> None:
        """Of a gated model, for each call. Raises AccessRequired."""
        if self.granted is not None and caller.org_id not in self.granted and caller.org_id != self.proto.org_id:
            model = self.proto.model
            raise AccessRequired(
                f"calls of {model} need access: ask for it with `mercat access request {model}`; how that stands shows"
                f" `mercat access show {model}`",
                metadata={"model": model, "command": f"mercat access request {model}"},
            )

    def rate(
        self, units: Iterable[tuple[str, int]], org_id: str, positions: Mapping[str, int] = _NONE,
        share_ppm: int | None = None,
    ) -> tuple[int, Rated | None]:  # fmt: skip
        """What units cost an organisation, nanos, and what that depends on beside them. Raises OverflowError."""
        discount = self.discounts.get(org_id, 0)
        if not (discount or positions or share_ppm is not None):
            if self.components:
                return money.cost(self.components, dict(units)), None
            return pricing.cost(self.price, dict(units)), None
        rated = Rated(positions, discount, share_ppm)
        if share_ppm == 0:
            return 0, rated
        return pricing.cost(self.price, dict(units), rated), rated

    @property
    def ready(self) -> bool:
        return self.resident is not None and not self.resident.gone


def _none(reference: str) -> ModelNotFound:
    return ModelNotFound.to_call(re.split("[@:]", reference, maxsplit=1)[0])


class Deployments:
    """Snapshots by reference."""

    def __init__(self, channel: InternalChannel, residency: Residency, clock: Clock) -> None:
        self._registry = registry_pb2_grpc.DeploymentServiceStub(channel)
        self._billing = billing_pb2_grpc.LeaseServiceStub(channel)
        self._residency = residency
        self._clock = clock
        self._by_reference: OrderedDict[str, Deployment] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Deployment]] = {}

    async def listen(self, events: Events) -> None:
        """Forgets what a change event names; JetStream's publications are heard like any other message."""

        async def changed(message: Msg) -> None:
            priced = message.subject.endswith("PriceChanged")
            kind = event_pb2.PriceChanged if priced else event_pb2.ModelChanged
            model = kind.FromString(message.data).model
            for reference, d in list(self._by_reference.items()):
                if d.proto.model == model:
                    if priced or not d.ready:
                        del self._by_reference[reference]
                    else:
                        self._fly(reference)  # calls go on while what comes next is made ready

        async def admitted(message: Msg) -> None:
            model = event_pb2.ModelAccessChanged.FromString(message.data).model_id
            for reference, d in list(self._by_reference.items()):
                if d.proto.model_id == model:
                    self._fly(reference)

        async def discounted(message: Msg) -> None:
            org_id = event_pb2.DiscountChanged.FromString(message.data).publisher_org_id
            for reference, d in list(self._by_reference.items()):
                if d.proto.org_id == org_id:
                    del self._by_reference[reference]

        async def moved(message: Msg) -> None:
            model = event_pb2.ModelMoved.FromString(message.data).model_id
            for reference, d in list(self._by_reference.items()):
                if d.proto.model_id == model:
                    self._fly(reference)  # calls go on; from the answer on they earn for the new owner

        await listen(events, "mercat.event.DiscountChanged", discounted)
        await listen(events, "mercat.event.ModelMoved", moved)
        await listen(events, "mercat.event.ModelChanged", changed)
        await listen(events, "mercat.event.ModelAccessChanged", admitted)
        await listen(events, "mercat.event.PriceChanged", changed)

    def cached(self, reference: str, caller: auth_pb2.Principal | None) -> Deployment | None:
        """The snapshot when it is in memory; the fast path, which never waits. Raises VersionRetired, and
        what `Deployment.admit` does."""
        d = self._by_reference.get(reference)
        if d is None:
            return None
        now = time.monotonic()
        if now >= d.until:
            d = self._by_reference[reference] = self._repriced(d, now)
        age = now - d.at
        if age > _REFRESH:
            if age > _STALE:
                return None
            self._fly(reference)
        if d.private:
            d.admit(reference, caller)
        if now >= d.retires:
            raise endings.refusal(d.proto)
        return d

    def _repriced(self, d: Deployment, now: float) -> Deployment:
        """At the price whose time has come; calls under way keep theirs."""
        wall = self._clock.now()
        while now >= d.until:
            price, *upcoming = d.upcoming
            d = replace(d, **_priced(price, upcoming, now, wall))
        return d

    async def get(self, reference: str, caller: auth_pb2.Principal | None) -> Deployment:
        """Raises ModelNotFound and the like, also as `Deployment.admit`; VersionRetired; Unavailable when registry or
        billing cannot be asked."""
        if (d := self.cached(reference, caller)) is not None:
            return d
        try:
            d = await asyncio.shield(self._fly(reference))
        except MercatError as e:  # of a private model, about what is wrong with it
            if caller is None or e.metadata.get("private_to", caller.org_id) == caller.org_id:
                raise
            raise _none(reference) from None
        d.admit(reference, caller)
        if time.monotonic() >= d.retires:
            raise endings.refusal(d.proto)
        return d

    async def spare(self, d: Deployment, caller: auth_pb2.Principal | None) -> Deployment:
        """The version that stands in for one that keeps failing. Raises EngineUnavailable when nobody should be given
        that either, and as `get`."""
        reference = f"{d.proto.model}@{d.fallback}"
        try:
            found = await self.get(reference, caller)
        except endings.VersionRetired as e:
            raise EngineUnavailable(f"{d.proto.model}@{d.version} keeps failing, and {e.message}") from None
        if found.proto.HasField("yank"):
            raise EngineUnavailable(f"{d.proto.model}@{d.version} keeps failing, and {reference} was yanked")
        return found

    def _fly(self, reference: str) -> "asyncio.Task[Deployment]":
        task = self._flights.get(reference)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(reference))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())  # a refresh nobody awaits may fail
            self._flights[reference] = task
        return task

    async def _fetch(self, reference: str) -> Deployment:
        try:
            answer = await self._registry.ResolveDeployment(
                registry_pb2.ResolveDeploymentRequest(reference=reference), timeout=5
            )
            proto: registry_pb2.Deployment = answer.deployment
            priced = await self._billing.ResolvePrice(
                billing_pb2.ResolvePriceRequest(model_id=proto.model_id, publisher_org_id=proto.org_id), timeout=5
            )
        except (NotFound, FailedPrecondition):  # it is gone, or was taken out of service
            self._by_reference.pop(reference, None)
            raise
        finally:
            self._flights.pop(reference, None)
        known = self._by_reference.get(reference)
        same = known if known is not None and known.version_id == proto.version_id else None
        cache = proto.settings.response_cache
        now, wall = time.monotonic(), self._clock.now()
        d = Deployment(
            now, proto.version_id, proto.version, proto,
            same.signature if same else Signature(proto.signature),
            max_rows=proto.settings.max_batch_size,
            timeout=(proto.settings.timeout_ms or _DEFAULT_TIMEOUT * 1000) / 1000,
            figures=same.figures if same else Figures(proto.model, proto.version),
            breaker=same.breaker if same else Breaker(),
            fallback=proto.settings.fallback_version,
            cache_ttl=(cache.ttl_seconds or _CACHED) if proto.settings.HasField("response_cache") else 0,
            hit_price_percent=cache.hit_price_percent,
            decodes=proto.text.kind == registry_pb2.TEXT_KIND_DECODER,
            resident=self._residency.find(proto.version_id),
            private=proto.visibility == visibility_pb2.VISIBILITY_PRIVATE,
            granted=frozenset(proto.granted_org_ids) if proto.visibility == visibility_pb2.VISIBILITY_GATED else None,
            discounts=dict(priced.discounts_ppm),
            **_priced(priced.price, list(priced.upcoming), now, wall),
            retires=endings.retires(proto, now, wall),
            notices=endings.notices(proto),
        )  # fmt: skip
        if known is not None and same is None and known.ready and d.resident is None and now < d.retires:
            # The version that answers goes on until the one that takes its place is ready, for whom it is for now.
            known.private, known.granted = d.private, d.granted
            try:
                await self.resident(d)
            except MercatError as e:
                log.warning(
                    "%s@%s goes on: %s could not be loaded: %s", proto.model_id, known.version, proto.version, e
                )
                known.at = time.monotonic()
                return known
        self._by_reference[reference] = d
        if len(self._by_reference) > _MOST:
            self._by_reference.popitem(last=False)
        return d

    async def resident(self, d: Deployment) -> Resident:
        """The loaded model, loading it first when it is not. Raises EngineFailed, EngineUnavailable."""
        d.resident = await self._residency.get(d.proto, d.figures)
        return d.resident

    async def close(self) -> None:
        await self._residency.close()
